"""The ledger's tests over each store there is: a test that asks for `each_store` runs over the embedded store, and over
PostgreSQL where there is a server program.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.conftest import emptied, server, template
from tests.ledger import ledger_kit

__all__ = ["emptied", "server", "template"]


@pytest.fixture(scope="module", params=["embedded", "postgresql"])
def each_store(request: pytest.FixtureRequest) -> Iterator[str]:
    kind: str = request.param
    if kind == "postgresql":
        ledger_kit.DATABASES.append(request.getfixturevalue("emptied"))
    try:
        yield kind
    finally:
        ledger_kit.DATABASES.clear()
