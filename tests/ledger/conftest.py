"""The ledger's tests over each store there is: a test that asks for `each_store` runs over the embedded store, and over
PostgreSQL where there is a server program.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.conftest import emptied, server, template
from tests.ledger import ledger_kit

__all__ = ["emptied", "server", "template"]


@pytest.fixture(scope="module", params=["embedded", pytest.param("postgresql", marks=pytest.mark.slow)])
def each_store(request: pytest.FixtureRequest) -> Iterator[str]:
    kind: str = request.param
    if kind == "postgresql":
        ledger_kit.DATABASES.append(request.getfixturevalue("emptied"))
    try:
        yield kind
    finally:
        ledger_kit.DATABASES.clear()


@pytest.fixture(autouse=True)
def embedded_unless_asked(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that does not ask for `each_store` has the embedded one, also between two that do."""
    held = list(ledger_kit.DATABASES)
    if "each_store" not in request.fixturenames:
        ledger_kit.DATABASES.clear()
    yield
    if "each_store" not in request.fixturenames:
        ledger_kit.DATABASES.extend(held)
