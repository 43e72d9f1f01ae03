"""Admission by several nodes at once: exact limits, who is known, dead nodes, holds made good after a failover."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC
from typing import Any

import pytest

from pool_server.cluster.database_admission import AwayTerms, DatabaseAdmission
from pool_server.cluster.fair_shares import FairShares
from pool_server.cluster.node import ClusterNode
from pool_server.cluster.people.database_people import DatabasePeople
from pool_server.core.settings import COUNTED_LIMITS, FairShare, Limits, Settings
from pool_server.storage.errors import StoreRefusedError
from pool_server.storage.postgres import admission_calls as admission
from pool_server.storage.postgres.admission_calls import AdmissionVerdict, Ended, HeldTotals, HoldGrowth
from pool_server.storage.postgres.connection import Connection, DatabasePool
from pool_server.users.limits.periods import Calendar, bounds
from pool_server.users.limits.recent_use import Shares
from pool_server.users.models import Denied, Key, User
from pool_server.users.ports import Arrival, Person, Trail
from tests.cluster.conftest import Database

NAMES = [limit.name for limit in COUNTED_LIMITS]
NOW = 1_793_577_600.0 + 7_000.5
names = itertools.count(1)


def marks(now: float = NOW) -> list[int]:
    m = bounds(now, UTC)
    return [m.day, m.week, m.month, m.day_end, m.week_end, m.month_end]


def limits(**some: float) -> list[int | None] | None:
    return admission.bounded([some.get(name) for name in NAMES])


async def node_of(connection: Connection | DatabasePool, name: str = "") -> int:
    rows = await connection.rows("select id from pool.node_start_1($1, '1', '{}')", name or f"n{next(names)}")
    number: int = rows[0]["id"]
    return number


async def ask(connection: Connection, node: int, user: str = "u", **more: Any) -> AdmissionVerdict:
    given: dict[str, Any] = {
        "people": 0,
        "asked": (1000, 0),
        "limits": None,
        "key_limits": None,
        "marks": marks(),
        "at": NOW,
    } | more
    key = given.pop("key", "")
    return await admission.admit(connection, node, (user, key), **given)


def end(verdict: AdmissionVerdict, user: str = "u", tokens: int = 0) -> Ended:
    return Ended(user, "", True, verdict.tokens, verdict.cost, 0, 0, tokens, 0, 0)


async def counters_of(database: Database, user: str = "u") -> Sequence[Any]:
    async with database.pool(1) as pool:
        rows = await pool.rows("select * from pool.standing_1($1, '', $2, $3)", user, marks(), NOW)
    return [rows[0][name] for name in ("held_n", "held_tok", "day_tok")]


def test_one_user_s_tokens_over_three_nodes_never_pass_the_limit_by_more_than_one_request(database: Database) -> None:
    """Forty connections ask as quickly as they can; each request uses less than it reserved."""
    limit, estimate, real = 200_000, 1_000, 700
    refused: Counter[int] = Counter()

    async def client(pool: DatabasePool, node: int, seen: list[int]) -> None:
        while True:
            async with pool.connection() as c:
                got = await ask(c, node, asked=(estimate, 0), limits=limits(tokens_day=limit))
                if got.word == "stopped":
                    refused[got.stop] += 1
                    used = await c.value("select day_tok from pool.standing_1('u', '', $1, $2)", marks(), NOW)
                    if used >= limit - estimate:
                        return
                    continue
                seen[0] += 1
                seen[1] += 1
                await admission.settle(c, node, (seen[1] - 1, seen[1]), [end(got, tokens=real)], marks(), NOW)

    async def race() -> int:
        seen = [[0, 0] for _ in range(12)]
        async with database.pool(4) as a, database.pool(4) as b, database.pool(4) as c:
            pools = [a, b, c]
            nodes = [await node_of(pools[n % 3]) for n in range(12)]
            await asyncio.gather(*(client(pools[n % 3], nodes[n], seen[n]) for n in range(12)))
        return sum(one[0] for one in seen)

    admitted = asyncio.run(race())
    held, held_tokens, used = asyncio.run(counters_of(database))
    assert (held, held_tokens, used) == (0, 0, admitted * real)
    assert limit - estimate <= used <= limit + estimate
    assert set(refused) <= {NAMES.index("tokens_day")}


def test_requests_a_minute_and_at_once_are_exact_over_three_nodes(database: Database) -> None:
    """A thousand tries: sixty in the minute, never a sixth at once."""
    running = most = admitted = 0

    async def client(pool: DatabasePool, node: int, tries: int) -> None:
        nonlocal running, most, admitted
        settled = 0
        for _ in range(tries):
            async with pool.connection() as c:
                got = await ask(c, node, limits=limits(requests_per_minute=60, concurrent=5))
                if got.word == "ok":
                    running, admitted = running + 1, admitted + 1
                    most = max(most, running)
                    await asyncio.sleep(0)
                    running -= 1
                    await admission.settle(c, node, (settled, settled + 1), [end(got)], marks(), NOW)
                    settled += 1

    async def race() -> None:
        async with database.pool(4) as a, database.pool(4) as b, database.pool(4) as c:
            pools = [a, b, c]
            nodes = [await node_of(pools[n % 3]) for n in range(10)]
            await asyncio.gather(*(client(pools[n % 3], nodes[n], 100) for n in range(10)))

    asyncio.run(race())
    assert admitted == 60
    assert 1 <= most <= 5


def test_many_users_in_any_order_never_lock_each_other_out(database: Database) -> None:
    """The first prototype was in a deadlock within seconds."""
    users = [f"u{n}" for n in range(6)]

    async def work(pool: DatabasePool, node: int, turn: int) -> None:
        order = users[turn % 6 :] + users[: turn % 6] if turn % 2 else users[::-1]
        for step in range(8):
            async with pool.connection() as c:
                got = [await ask(c, node, user) for user in order]
                grown = [HoldGrowth(user, "", 5, 0, 5, 0) for user in order]
                assert await admission.beat(c, node, grown)
                ended = [
                    Ended(user, "", True, one.tokens + 5, 0, 5, 0, 10, 0, 1000)
                    for user, one in zip(order, got, strict=True)
                ]
                await admission.settle(c, node, (step, step + 1), ended, marks(), NOW)
                await admission.hold_sync(c, node, [])

    async def race() -> None:
        async with database.pool(4) as a, database.pool(4) as b:
            nodes = [await node_of(a) for _ in range(8)]
            await asyncio.gather(*(work((a, b)[n % 2], nodes[n], n) for n in range(8)))

    asyncio.run(race())
    for user in users:
        assert asyncio.run(counters_of(database, user)) == [0, 0, 8 * 8 * 10]


def test_who_is_gone_or_changed_is_known_at_once(database: Database) -> None:
    async def walk() -> None:
        async with database.pool() as pool, pool.connection() as c:
            upto = 0

            async def take(news: Any) -> None:
                nonlocal upto
                upto = news.upto

            node = await node_of(c)
            people = DatabasePeople(pool, take, lambda: upto)
            keys = [Key("k", "u", "a", 1.0), Key("short", "u", "b", 1.0, expires=NOW - 1)]
            await people.create(Person(User("u", "ann", 1.0), keys), Trail([]), Arrival())
            assert (await ask(c, node, key="k")).word == "stale"
            assert (await ask(c, node, key="k", people=upto)).word == "ok"
            assert (await ask(c, node, key="short", people=upto)).word == "gone"
            before = upto

            def revoke(person: Person) -> Trail:
                person.keys = [key for key in person.keys if key.id != "k"]
                return Trail([])

            await people.change("u", revoke)
            said = await ask(c, node, key="k", people=before)
            assert (said.word, said.people) == ("stale", upto)
            assert (await ask(c, node, key="k", people=upto)).word == "gone"

            def disable(person: Person) -> Trail:
                person.user.disabled = True
                return Trail([])

            await people.change("u", disable)
            assert (await ask(c, node, people=upto)).word == "gone"

    asyncio.run(walk())


def test_the_database_s_clock_decides(database: Database) -> None:
    """A node whose clock is a day behind is told the time, and counts nothing."""

    async def walk() -> None:
        async with database.pool() as pool, pool.connection() as c:
            node = await node_of(c)
            said = await ask(c, node, at=None)
            assert said.word == "clock"
            again = await ask(c, node, marks=marks(said.at), at=None)
            assert again.word == "ok"
            with pytest.raises(StoreRefusedError) as refused:
                await admission.settle(c, node, (0, 1), [end(again)], marks(), None)
            assert refused.value.state == "PL004"

    asyncio.run(walk())


def test_time_is_taken_when_it_is_one_s_turn(database: Database) -> None:
    """Who waits for another's turn is counted after it, not at the time when they came: the other's requests would be
    moved back there, and leave their minute early."""
    waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%{}%'"

    async def walk() -> None:
        async with database.pool(3) as pool, pool.connection() as first, pool.connection() as second:
            node, other = await node_of(first), await node_of(first)
            now = marks((await ask(first, node, at=None)).at)
            began = await ask(first, node, marks=now, at=None)
            for call in ("admit", "settle"):
                async with first.transaction():
                    await ask(first, node, marks=now, at=None)
                    late = asyncio.create_task(
                        ask(second, other, marks=now, at=None)
                        if call == "admit"
                        else admission.settle(second, node, (0, 1), [end(began)], now, None)
                    )
                    while database.sql(waits.format(call)) == "0":
                        await asyncio.sleep(0.01)
                    if call == "settle":  # the second in which it came is over
                        await first.value("select pg_sleep(1 - extract(epoch from clock_timestamp())::numeric % 1)")
                    turn = await ask(first, node, marks=now, at=None)
                said = await late
                sec = int(database.sql("select sec from pool.use where usr = 'u'"))
                assert sec >= int(turn.at)
                if isinstance(said, AdmissionVerdict):
                    assert said.at > turn.at and said.made > turn.made

    asyncio.run(walk())


def test_a_node_taken_for_dead_is_told_and_its_use_counted_once(database: Database) -> None:
    async def walk() -> None:
        async with database.pool() as pool, pool.connection() as c:
            node = await node_of(c, "a/0")
            got = await ask(c, node)
            assert await admission.beat(c, node, [HoldGrowth("u", "", 0, 0, 300, 0)])
            successor = await node_of(c, "a/0")
            assert await admission.bury_dead(c, 3600.0, marks(), NOW) == 1
            assert await counters_of(database) == [0, 0, 300]
            assert await admission.bury_dead(c, 3600.0, marks(), NOW) == 0
            assert (await ask(c, node)).word == "dead"
            assert not await admission.beat(c, node, [])
            with pytest.raises(StoreRefusedError) as refused:
                await admission.settle(c, node, (0, 1), [end(got)], marks(), NOW)
            assert refused.value.state == "PL002"
            late = Ended("u", "", True, got.tokens, 0, 300, 0, 450, 0, 1000)
            await admission.settle(c, successor, (0, 1), [late], marks(), NOW)  # by the life that ships its journal
            assert await counters_of(database) == [0, 0, 450]

    asyncio.run(walk())


def test_silence_is_death_only_after_its_time(database: Database) -> None:
    async def walk() -> None:
        async with database.pool() as pool, pool.connection() as c:
            node = await node_of(c)
            await ask(c, node)
            assert await admission.bury_dead(c, 120.0, marks(), NOW) == 0
            database.sql(f"update pool.node set beat = beat - interval '121 s' where id = {node}")
            assert await admission.bury_dead(c, 120.0, marks(), NOW) == 1
            assert await counters_of(database) == [0, 0, 0]

    asyncio.run(walk())


def test_what_a_failover_forgot_or_kept_too_much_is_made_good(database: Database) -> None:
    async def walk() -> None:
        async with database.pool() as pool, pool.connection() as c:
            one, two = await node_of(c), await node_of(c)
            for node, user in ((one, "u"), (one, "v"), (two, "u")):
                await ask(c, node, user)
            database.sql(f"delete from pool.hold where usr = 'u' and node = {one}")  # forgotten, and the sum with it
            database.sql("update pool.use set held_n = 1, held_tok = 1000 where usr = 'u'")
            await admission.hold_sync(
                c, one, [HeldTotals("u", "", 1, 1000, 0, 7, 0), HeldTotals("w", "", 2, 50, 0, 0, 0)]
            )
            assert await counters_of(database, "u") == [2, 2000, 0]
            assert await counters_of(database, "v") == [0, 0, 0]
            assert await counters_of(database, "w") == [2, 50, 0]

    asyncio.run(walk())


def test_a_hold_of_nothing_goes_when_nothing_of_it_can_be_forgotten(database: Database) -> None:
    async def walk() -> None:
        async with database.pool() as pool, pool.connection() as c:
            node = await node_of(c)
            old, new = await ask(c, node, "old"), await ask(c, node, "new", at=None, marks=marks(time.time()))
            await admission.settle(c, node, (0, 2), [end(old, "old"), end(new, "new")], marks(), NOW)
            await ask(c, node, "busy")
            assert await admission.forget_holds(c, 60.0) == 1
            rows = await c.rows("select usr from pool.hold order by usr")
            assert [row["usr"] for row in rows] == ["busy", "new"]

    asyncio.run(walk())


def test_ends_out_of_order_are_refused(database: Database) -> None:
    async def walk() -> None:
        async with database.pool() as pool, pool.connection() as c:
            node = await node_of(c)
            got = await ask(c, node)
            with pytest.raises(StoreRefusedError) as refused:
                await admission.settle(c, node, (5, 6), [end(got)], marks(), NOW)
            assert refused.value.state == "PL003"
            assert await counters_of(database) == [1, 1000, 0]

    asyncio.run(walk())


def test_a_limit_of_any_size_is_taken() -> None:
    assert limits() is None
    huge = limits(tokens_day=10**30, cost_day=0.25)
    assert huge is not None and max(one for one in huge if one is not None) < 2**63
    assert huge[NAMES.index("cost_day")] == 1  # a part of a nano-dollar is spent by the first
    assert admission.nano(0.02) == 20_000_000


@pytest.mark.parametrize("wrong_s", [300.0, 0.0, -300.0])
def test_a_machine_of_another_time_tells_how_long_a_limit_really_lasts(database: Database, wrong_s: float) -> None:
    def clock() -> float:
        return time.time() + wrong_s

    async def walk() -> None:
        node = ClusterNode(database.place(), "m0")
        await node.start()
        nothing: Any = None  # no share is looked at
        fair = FairShares(Shares(nothing, FairShare(), lambda _: 1.0), clock)
        terms = AwayTerms.of(Settings())
        port = DatabaseAdmission(node, Calendar(UTC), clock, known=lambda: 10**9, fair=fair, terms=terms)
        await port.start()
        try:
            for _ in range(2):
                got = await port.reserve_soon("u", "claude", Limits(requests_per_minute=1), 5, None)
            assert isinstance(got, Denied) and got.retry_at is not None
            assert 0 < got.retry_at - clock() <= 62
        finally:
            await port.finish()
            await node.close()

    asyncio.run(walk())
