"""Nodes, leases with terms and the feed's numbers, on a real server."""

from __future__ import annotations

import asyncio

import pytest

from pool_server.storage.errors import StoreRefusedError
from pool_server.storage.postgres.connection import Connection, connected
from pool_server.storage.postgres.migrations import OWNER
from tests.cluster.conftest import Database


def test_one_holds_a_lease_and_the_next_has_a_higher_term(database: Database) -> None:
    async def walk(c: Connection) -> None:
        async def take(holder: int, seconds: float) -> tuple[int | None, bool | None]:
            row = await c.row("select * from pool.lease_take_1('poll', $1, $2)", holder, seconds)
            assert row is not None
            return row["term"], row["abandoned"]

        assert await take(1, 60.0) == (1, False)
        assert (await take(2, 60.0))[0] is None
        assert await c.value("select pool.lease_renew_1('poll', 1, 0.0)")  # runs out at once
        assert await take(2, 60.0) == (2, True)
        assert not await c.value("select pool.lease_renew_1('poll', 1, 60)")  # the first is fenced
        await c.value("select pool.lease_give_1('poll', 1)")  # … and cannot give what is not its own
        assert (await take(1, 60.0))[0] is None
        await c.value("select pool.lease_give_1('poll', 2)")
        assert not await c.value("select pool.lease_renew_1('poll', 2, 60)")
        assert await take(1, 60.0) == (3, False)

    database.run(walk)


def test_of_many_who_take_at_once_one_gets_it(database: Database) -> None:
    async def race(_: Connection) -> list[int | None]:
        async def one(holder: int) -> int | None:
            async with connected(database.place()) as c:
                row = await c.row("select * from pool.lease_take_1('refresh:a', $1, 60)", holder)
                assert row is not None
                term: int | None = row["term"]
                return term

        return await asyncio.gather(*(one(holder) for holder in range(12)))

    assert sorted(term for term in database.run(race) if term is not None) == [1]


def test_a_writer_with_an_old_term_is_refused(database: Database) -> None:
    async def walk(c: Connection) -> None:
        await c.script("set search_path = pool")  # as functions that call it have it
        await c.row("select * from pool.lease_take_1('fold', 1, 0)")
        await c.value("select pool.lease_fence('fold', 1)")
        await c.row("select * from pool.lease_take_1('fold', 2, 60)")
        with pytest.raises(StoreRefusedError) as refused:
            await c.value("select pool.lease_fence('fold', 1)")
        assert refused.value.state == "PL001"

    database.run(walk, OWNER)


def test_a_name_has_one_life(database: Database) -> None:
    async def walk(c: Connection) -> None:
        async def start(name: str) -> tuple[int, bool]:
            row = await c.row("select * from pool.node_start_1($1, '1.0', '{}')", name)
            assert row is not None
            return row["id"], row["displaced"]

        first, displaced = await start("a/0")
        assert not displaced
        second, displaced = await start("a/0")
        assert second != first and displaced  # heard of a moment ago: two machines may have one name
        other, displaced = await start("b/0")
        assert not displaced
        await c.value("select pool.node_end_1($1)", second)
        assert not (await start("a/0"))[1]
        rows = await c.rows("select id, dead from pool.node order by id")
        assert [row["dead"] for row in rows] == ["succeeded", "goodbye", None, None]
        assert rows[2]["id"] == other

    database.run(walk)


def test_numbers_of_changes_commit_in_order(database: Database) -> None:
    """Whoever has seen n has seen all up to n, also while others are in the midst of theirs."""

    async def race(_: Connection) -> None:
        async with connected(database.place(OWNER)) as first, connected(database.place(OWNER)) as second:
            for one in (first, second):
                await one.script("set search_path = pool")
            async with first.transaction():
                assert await first.value("select pool.feed_raise('people')") == 1
                later = asyncio.create_task(second.value("select pool.feed_raise('people')"))
                row = await first.row("select pid from pg_stat_activity where wait_event_type = 'Lock'")
                while row is None:
                    row = await first.row("select pid from pg_stat_activity where wait_event_type = 'Lock'")
                assert not later.done()
            assert await later == 2

    database.run(race, OWNER)
