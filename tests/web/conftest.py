from __future__ import annotations

from collections.abc import Iterator

import pytest

from pool_server.config import Settings
from pool_server.web import WebContext
from tests.web.fakes import FakeAccounts, FakeLedger, FakeUsers, reload_report
from tests.web.site import Site

NOW = 1_790_000_000.0


def build(settings: Settings) -> WebContext:
    return WebContext(
        settings=settings,
        accounts=FakeAccounts(NOW),  # type: ignore[arg-type]
        users=FakeUsers(),  # type: ignore[arg-type]
        ledger=FakeLedger(),  # type: ignore[arg-type]
        version="0.0.test",
        started_at=NOW - 100,
        reload=reload_report,
        clock=lambda: NOW,
    )


@pytest.fixture
def local() -> Iterator[Site]:
    """A pool in local mode."""
    with Site(lambda: build(Settings())) as site:
        yield site
