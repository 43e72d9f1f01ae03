from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pool_server.storage import Store
from tests.cluster.conftest import Database, database, server, template

from .desk import Desk, open_state
from .site import Site

POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.slow)
__all__ = ["database", "server", "template"]  # where there is a PostgreSQL


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module with `BOTH_STORES` is run over each store that people and the door can be kept in."""
    if "kept" in metafunc.fixturenames and getattr(metafunc.module, "BOTH_STORES", False):
        metafunc.parametrize("kept", ["embedded", POSTGRESQL], indirect=True)


@pytest.fixture
def kept(request: pytest.FixtureRequest) -> Database | None:
    """Where people and the door are kept: None = in the site's own folder."""
    return request.getfixturevalue("database") if getattr(request, "param", "embedded") == "postgresql" else None


@pytest.fixture
def open_site(tmp_path: Path, kept: Database | None) -> Iterator[Callable[..., Site]]:
    """Makes the test's site with the settings it wants; closed at the end."""
    made: list[Site] = []

    def make(**settings: Any) -> Site:
        made.append(Site(tmp_path, kept, **settings))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture
def site(open_site: Callable[..., Site]) -> Site:
    return open_site()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_state(tmp_path)
    yield store
    store.close()


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)
