"""Nodes that reach the database through pgbouncer in transaction mode, on fewer connections than they ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.models import Usage
from pool_server.storage.postgres.connection import DatabasePool
from pool_server.storage.postgres.migrations import APP
from pool_server.storage.postgres.url import parse
from tests import postgres
from tests.cluster.conftest import Database
from tests.cluster.nodes import ADMIN, OPERATOR, Node, several
from tests.fakes import FakeProviders, account, plays

pytestmark = pytest.mark.skipif(postgres.pgbouncer() is None, reason="there is no pgbouncer here (Debian: pgbouncer)")
CONNECTIONS = 5


class Behind:
    """A database as it is reached through a pooler."""

    def __init__(self, url: str) -> None:
        self._url = url

    def url(self, role: str = APP) -> str:
        return self._url


@pytest.fixture
def pooled(database: Database) -> Iterator[str]:
    with postgres.pooler(database.server, database.name, APP, connections=CONNECTIONS) as url:
        yield url


@asynccontextmanager
async def nodes(pooled: str, folder: Path, **changes: Any) -> AsyncIterator[tuple[FakeProviders, list[Node]]]:
    async with FakeProviders([account("claude:one")]) as fakes:
        fakes.always("claude:one", plays.ok(Usage(input=100, output=23)))
        behind: Any = Behind(pooled)
        async with several(behind, fakes, folder, 3, **changes) as found:
            yield fakes, found


def test_statements_of_many_callers_meet_no_other_s(pooled: str) -> None:
    async def go() -> None:
        pool = DatabasePool(parse(pooled, {}), 4 * CONNECTIONS)
        try:

            async def one(number: int) -> None:
                for turn in range(30):
                    found = await pool.rows("select $1::int as a, $2::text as b from pool.feed_look_1()", number, "x")
                    assert all(row["a"] == number for row in found)
                    async with pool.connection() as connection, connection.transaction():
                        assert await connection.value("select pool.note_read_1($1)", f"n{turn}") is None

            await asyncio.gather(*(one(number) for number in range(4 * CONNECTIONS)))
        finally:
            pool.close()

    asyncio.run(go())


def test_a_connection_that_is_given_back_costs_no_question(database: Database) -> None:
    """The driver's own way is to reset what was set for a session; a request would wait for that, too."""

    async def go() -> None:
        async with database.pool(1) as pool:
            asked = "select application_name from pg_stat_activity where pid = pg_backend_pid()"
            assert await pool.value(asked) == "pool-server"
            last = "select query from pg_stat_activity where application_name = 'pool-server'"
            assert await asyncio.to_thread(database.sql, last) == asked

    asyncio.run(go())


def test_limits_are_exact_and_books_are_whole(pooled: str, database: Database, tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(pooled, tmp_path) as (fakes, (one, two, three)):
            asyncio.get_running_loop().set_default_executor(
                ThreadPoolExecutor(64)
            )  # callers must not keep nodes waiting
            limits = {"requests_per_minute": 20, "concurrent": None}
            made = await one.server.users.people.create_user("Ada", actor=OPERATOR, limits=limits)
            await asyncio.gather(*(node.server.users.follower.catch_up() for node in (two, three)))
            tries = [node.ask(made["key"]) for node in (one, two, three) for _ in range(16)]
            statuses = [status for status, _ in await asyncio.gather(*tries)]
            assert sorted(set(statuses)) == [200, 429] and statuses.count(200) == 20 == len(fakes.made())
            for node in (one, two, three):
                await node.server.ledger.fresh()
            told = "select count(*), sum(tok) from pool.record where outcome = 'ok'"
            assert database.sql(told) == f"20|{20 * 123}"

    asyncio.run(go())


def test_what_is_revoked_on_one_is_refused_on_another(pooled: str, tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(pooled, tmp_path) as (_, (one, two, three)):
            made = await one.call("POST", "/admin/pool-users", {"name": "Ada"}, ADMIN)
            secret, ident = made[1]["key"], made[1]["id"]
            assert (await two.ask(secret))[0] == 200
            assert (await three.call("PATCH", f"/admin/pool-users/{ident}", {"disabled": True}, ADMIN))[0] == 200
            assert {(await node.ask(secret))[0] for node in (one, two, three)} <= {401, 403}

    asyncio.run(go())
