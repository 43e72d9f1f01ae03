"""What several machines know of one account: learnt at once where it happened, the same everywhere a moment later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import msgspec
import pytest

from pool_server.accounts.health import state
from pool_server.accounts.health.state import AccountHealth, Cooldown
from pool_server.accounts.ports import StateChange
from pool_server.accounts.selection.account import Account
from pool_server.cluster.live import MOST_WAITING, DatabaseLiveBook
from pool_server.core.enums import AccountState, FaultKind
from pool_server.storage.postgres.connection import DatabasePool
from tests.accounts.kit import NOW, entry, quota
from tests.accounts.kit import blame as blamed
from tests.cluster.conftest import Database


class Node:
    """One process of the cluster with one account, as the registry follows it."""

    def __init__(self, pool: DatabasePool, ident: int) -> None:
        self.pool, self.id = pool, ident
        self.book = DatabaseLiveBook(self)
        self.account: Account = entry("a")

    def change(self, n: float = 1.0) -> bool:
        def change(health: AccountHealth) -> bool:
            health.trouble += n
            return n > 0

        return self.book.update(self.account, change)

    async def follow(self) -> list[tuple[StateChange, str]]:
        await self.book.follow()
        news = self.book.news() or []
        if (StateChange.HEALTH, self.account.id) in news:
            assert self.book.load(self.account)
        return news


async def node(pool: DatabasePool, name: str, *, running: bool = False) -> Node:
    made = Node(pool, await pool.value("select id from pool.node_start_1($1, 'test', '{}')", name))
    if running:
        await made.book.start()
    return made


@asynccontextmanager
async def nodes(database: Database, number: int, *, running: bool = False) -> AsyncIterator[list[Node]]:
    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(database.pool()) for _ in range(number)]
        made = [await node(pool, f"n{i}", running=running) for i, pool in enumerate(pools)]
        yield made
        for one in made:
            await one.book.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.005)


def test_changes_of_three_nodes_are_all_made(database: Database) -> None:
    async def walk() -> None:
        async with nodes(database, 3, running=True) as all_nodes:

            async def busy(one: Node) -> None:
                for turn in range(200):
                    assert one.change()
                    if turn % 7 == 0:
                        await one.book.flush()
                    if turn % 5 == 0:
                        await one.follow()

            await asyncio.gather(*(busy(one) for one in all_nodes))
            for one in all_nodes:
                await one.book.flush()
            for one in all_nodes:
                await one.follow()
            assert [one.account.health.trouble for one in all_nodes] == [600.0] * 3
            late = await node(all_nodes[0].pool, "late", running=True)
            assert late.book.load(late.account) and late.account.health.trouble == 600.0
            await late.book.close()

    asyncio.run(walk())


def test_it_counts_here_before_anybody_is_asked(database: Database) -> None:
    async def walk() -> None:
        async with nodes(database, 2) as (one, two):
            assert not two.book.load(two.account), "nobody has learnt anything yet"
            assert one.change() and one.account.health.trouble == 1.0 and not one.change(0.0)
            assert await two.follow() == []
            await one.book.flush()
            assert await two.follow() == [(StateChange.HEALTH, "claude:a")] and await two.follow() == []
            assert await one.follow() == [], "its own change is no news"
            assert two.account.health.trouble == 1.0
            two.change()
            one.change()  # on what it knows; made again on the other's
            await two.book.flush()
            await one.book.flush()
            await one.follow()
            assert one.account.health.trouble == 3.0

    asyncio.run(walk())


def refused(health: AccountHealth) -> bool:
    blamed(health, quota())
    return True


def test_a_refusal_goes_at_once_and_an_observation_with_the_next_round(database: Database) -> None:
    async def walk() -> None:
        async with nodes(database, 2) as (one, two):
            one.change()
            assert not one.book.hurried
            one.book.update(one.account, refused)
            assert one.book.hurried
            await one.book.flush()
            await two.follow()
            assert two.account.state is AccountState.EXHAUSTED

    asyncio.run(walk())


def test_of_nodes_that_probe_at_once_one_does(database: Database) -> None:
    async def walk(scope: str) -> None:
        async with nodes(database, 3, running=True) as all_nodes:
            first = all_nodes[0]

            def cool(health: AccountHealth) -> bool:
                health.cooldowns[scope] = Cooldown(FaultKind.QUOTA, NOW - 4000, NOW + 9000)
                if not scope:
                    health.state = AccountState.EXHAUSTED
                return True

            first.book.update(first.account, cool)
            await first.book.flush()
            for one in all_nodes:
                await one.follow()
            probe = partial(state.probe_begun, scope=scope, now=NOW)
            for turn in range(5):
                won = await asyncio.gather(*(one.book.agreed(one.account, probe) for one in all_nodes))
                assert won.count(True) == 1, (scope, turn)
                await asyncio.gather(*(one.follow() for one in all_nodes))
                assert all(one.account.health.cooldowns[scope].probing for one in all_nodes)
                first.book.update(first.account, partial(state.probe_lost, scope=scope, now=NOW))
                await first.book.flush()
                await asyncio.gather(*(one.follow() for one in all_nodes))

    for scope in ("", "messages opus"):
        asyncio.run(walk(scope))
        database.sql("delete from pool.account_live")


def test_what_was_learnt_while_the_database_was_away_is_sent_when_it_is_back(database: Database) -> None:
    async def walk() -> None:
        async with nodes(database, 2, running=True) as (one, two):
            one.change()
            await one.book.flush()
            database.sql("alter function pool.live_put_1 rename to live_put_gone")
            for _ in range(3 * MOST_WAITING):
                assert one.change()
            assert await one.book.agreed(one.account, lambda health: True), "nobody can be asked: it goes by itself"
            assert one.account.health.trouble == 1 + 3 * MOST_WAITING and one.book.waiting <= MOST_WAITING + 1
            database.sql("alter function pool.live_put_gone rename to live_put_1")
            await until(lambda: not one.book.waiting)
            await two.follow()
            assert two.account.health.trouble == 1 + 3 * MOST_WAITING

    asyncio.run(walk())


@pytest.mark.parametrize("newer", [{"state": "hibernating"}, {"rests": 7}])
def test_a_newer_programs_record_is_left_as_it_is(database: Database, newer: dict[str, object]) -> None:
    async def walk() -> None:
        async with nodes(database, 2) as (one, two):
            one.change()
            await one.book.flush()
            await two.follow()
            body = msgspec.msgpack.encode(
                msgspec.msgpack.decode(msgspec.msgpack.encode(one.account.health)) | newer | {"mood": 1}
            )
            await one.pool.rows("select * from pool.live_put_1($1, $2, $3)", ["claude:a"], [1], [body])
            two.change()
            await two.book.flush()
            await two.book.flush()
            kept = bytes.fromhex(database.sql("select encode(body, 'hex') from pool.account_live"))
            assert kept == body and two.account.health.trouble == 2.0, "what is learnt counts here"

    asyncio.run(walk())


def test_fields_that_only_a_newer_program_knows_are_kept(database: Database) -> None:
    async def walk() -> None:
        async with nodes(database, 2) as (one, two):
            one.change()
            await one.book.flush()
            body = msgspec.msgpack.encode(
                msgspec.msgpack.decode(msgspec.msgpack.encode(one.account.health)) | {"mood": ["fine"]}
            )
            await one.pool.rows("select * from pool.live_put_1($1, $2, $3)", ["claude:a"], [1], [body])
            two.change()
            await two.book.flush()
            kept = bytes.fromhex(database.sql("select encode(body, 'hex') from pool.account_live"))
            there = msgspec.msgpack.decode(kept)
            assert there["mood"] == ["fine"] and there["trouble"] == 2.0

    asyncio.run(walk())


def test_notes_the_lock_and_traded_tokens_are_known_everywhere(database: Database) -> None:
    async def walk() -> None:
        async with nodes(database, 2) as (one, two):
            assert two.book.locked() is None
            one.book.lock("claude:a")
            one.book.notes.put("back_off", b"poll:claude:a", b"until then")
            one.book.notes.put("back_off", b"poll:claude:b", b"gone soon")
            one.book.notes.delete("back_off", b"poll:claude:b")
            spent = msgspec.structs.replace(one.account.credential, refresh_token="rt-1")
            one.book.note_spent("claude:a", spent, NOW)
            assert one.book.spent_by(spent) == "claude:a" and one.book.locked() == "claude:a"
            await one.book.flush()
            assert await two.follow() == [(StateChange.LOCK, "")] and two.book.locked() == "claude:a"
            assert two.book.notes.get("back_off", b"poll:claude:a") == b"until then"
            assert two.book.notes.get("back_off", b"poll:claude:b") is None
            assert two.book.spent_by(spent) == ""
            await two.book.look_up_spent([spent, two.account.credential])
            assert two.book.spent_by(spent) == "claude:a"
            two.book.lock("")
            await two.book.flush()
            assert await one.follow() == [(StateChange.LOCK, "")] and one.book.locked() == ""

    asyncio.run(walk())


def test_what_is_under_way_elsewhere_is_heard_and_forgotten_with_its_node(database: Database) -> None:
    async def walk() -> None:
        async with nodes(database, 3, running=True) as (one, two, three):
            one.book.publish({"claude:a": 2, "claude:b": 1})
            two.book.publish({"claude:a": 3})
            await until(lambda: three.book.elsewhere() == {"claude:a": 5, "claude:b": 1})
            await until(lambda: one.book.elsewhere() == {"claude:a": 3})
            one.book.publish({})
            await until(lambda: three.book.elsewhere() == {"claude:a": 3})
            await three.pool.value("select pool.node_end_1($1)", two.id)
            await until(lambda: three.book.elsewhere() == {})
            three.book.sweep(time.time())
            await until(lambda: database.sql("select count(*) from pool.account_flight") == "0")

    asyncio.run(walk())
