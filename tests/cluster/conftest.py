"""Databases of a real PostgreSQL, each test's own; skipped where there is no server program."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, TypeVar

import pytest

from pool_server.storage.postgres.connection import Connection, DatabasePool, connected, pooled
from pool_server.storage.postgres.migrations import APP, OWNER, migrate
from pool_server.storage.postgres.url import DatabaseUrl, parse
from tests import postgres

T = TypeVar("T")
_numbers = itertools.count(1)


class Database(NamedTuple):
    """A database, and how to reach it as each role."""

    server: postgres.Server
    name: str

    def url(self, role: str = APP) -> str:
        return self.server.url(self.name, role)

    def place(self, role: str = APP) -> DatabaseUrl:
        return parse(self.url(role), {})

    def sql(self, statement: str) -> str:
        return self.server.sql(statement, self.name)

    def pool(self, most: int = 4) -> AbstractAsyncContextManager[DatabasePool]:
        """Connections as a node has them."""
        return pooled(self.place(), most)

    def run(self, work: Callable[[Connection], Coroutine[Any, Any, T]], role: str = APP) -> T:
        """Runs a coroutine with one connection."""

        async def with_connection() -> T:
            async with connected(self.place(role)) as connection:
                return await work(connection)

        return asyncio.run(with_connection())


@pytest.fixture(autouse=True)
def sealing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key that every machine has."""
    monkeypatch.setenv("POOL_STORE_KEY", "k1:" + base64.b64encode(b"1" * 32).decode())


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    """One primary for all tests of this process."""
    programs = postgres.binaries()
    if programs is None:
        pytest.skip("there is no PostgreSQL server here (Debian: apt install postgresql)")
    with postgres.primary(programs) as started:
        started.sql(f"create role {OWNER} login createrole")
        yield started


@pytest.fixture
def empty(server: postgres.Server) -> Iterator[Database]:
    """A database with nothing in it, the owner's."""
    name = f"test{next(_numbers)}"
    server.sql(f"create database {name} owner {OWNER}")
    yield Database(server, name)
    server.sql(f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def template(server: postgres.Server) -> Database:
    """A migrated database that others are copied from."""
    server.sql(f"create database migrated owner {OWNER}")
    made = Database(server, "migrated")
    made.run(migrate, OWNER)
    return made


@pytest.fixture
def database(template: Database) -> Iterator[Database]:
    """A migrated database."""
    name = f"test{next(_numbers)}"
    template.server.sql(f"create database {name} template {template.name} owner {OWNER}")
    yield Database(template.server, name)
    template.server.sql(f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def emptied(template: Database) -> Database:
    """A migrated database for tests that empty it themselves."""
    template.server.sql(f"create database emptied template {template.name} owner {OWNER}")
    return Database(template.server, "emptied")


@pytest.fixture
def own() -> Iterator[Database]:
    """A migrated database on a server of its own, which may be stopped."""
    programs = postgres.binaries()
    if programs is None:
        pytest.skip("there is no PostgreSQL server here (Debian: apt install postgresql)")
    with postgres.primary(programs) as server:
        server.sql(f"create role {OWNER} login createrole")
        server.sql(f"create database pool owner {OWNER}")
        made = Database(server, "pool")
        made.run(migrate, OWNER)
        yield made
