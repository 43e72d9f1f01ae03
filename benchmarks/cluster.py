"""What several machines cost and keep exact: PostgreSQL with a synchronous standby, on this machine.

`python -m benchmarks.cluster [--seconds 5] [--connections 16] [--refresh-rounds 20]`. Starts both servers in temporary
folders, with fsync, and three nodes' connections in this process, which shares the processors with them: the figures
are upper bounds. The last column says what must hold; exit 1 when a count is wrong. Times alone never fail it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC
from functools import partial
from typing import NamedTuple

from pool_server.accounts.credentials.sealing import SealKeys
from pool_server.cluster.credentials.sealed_rows import DatabaseCredentials
from pool_server.cluster.database_leases import DatabaseLeases
from pool_server.cluster.people.database_people import DatabasePeople
from pool_server.cluster.people.door import DatabaseDoor
from pool_server.core.settings import COUNTED_LIMITS
from pool_server.storage.postgres import admission_calls
from pool_server.storage.postgres.admission_calls import AdmissionVerdict, Ended
from pool_server.storage.postgres.connection import Connection, DatabasePool, connected, pooled
from pool_server.storage.postgres.ledger_calls import ShippedRecord, ship
from pool_server.storage.postgres.migrations import APP, migrate
from pool_server.storage.postgres.url import DatabaseUrl, parse
from pool_server.users.limits.periods import bounds
from pool_server.users.models import Key, Ticket, User
from pool_server.users.ports import Arrival, PeopleNews, Person, Trail
from tests import postgres

NODES = 3
NAMES = [limit.name for limit in COUNTED_LIMITS]
WIDE: list[int | None] = [10**15] * len(NAMES)  # all nine limits, none in the way


class Found(NamedTuple):
    """One line of the answer; `right` None where nothing but a time was measured."""

    what: str
    figure: str
    goal: str
    right: bool | None = None


class Node:
    """A node's connections and its number in the database."""

    def __init__(self, pool: DatabasePool, ident: int) -> None:
        self.pool = pool
        self.id = ident
        self.settled = 0
        self._turn = asyncio.Lock()

    async def admit(
        self, c: Connection, user: str, limits: list[int | None] | None, tokens: int = 1000
    ) -> AdmissionVerdict:
        return await admission_calls.admit(c, self.id, (user, ""), 10**9, (tokens, 20_000_000), limits, None, marks())

    async def settle(self, c: Connection, user: str, got: AdmissionVerdict, tokens: int) -> None:
        async with self._turn:  # a node's ends have an order
            ended = Ended(user, "", True, got.tokens, got.cost, 0, 0, tokens, 0, 0)
            await admission_calls.settle(c, self.id, (self.settled, self.settled + 1), [ended], marks())
            self.settled += 1


def marks() -> list[int]:
    now = bounds(time.time(), UTC)
    return [now.day, now.week, now.month, now.day_end, now.week_end, now.month_end]


def limits(**some: int) -> list[int | None]:
    return [some.get(name) for name in NAMES]


def percentile(times: list[float], part: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * part))] * 1000


async def new_node(pool: DatabasePool, name: str) -> Node:
    return Node(pool, await pool.value("select id from pool.node_start_1($1, 'benchmark', '{}')", name))


async def admissions(nodes: list[Node], users: int, seconds: float, connections: int) -> Found:
    """Check 6: as many as the connections can ask for."""
    times: list[float] = []
    until = time.perf_counter() + seconds

    async def client(number: int) -> None:
        node = nodes[number % NODES]
        async with node.pool.connection() as c:
            turn = number
            while time.perf_counter() < until:
                turn += 7
                began = time.perf_counter()
                got = await node.admit(c, f"wide{turn % users}", WIDE)
                times.append(time.perf_counter() - began)
                assert got.word == "ok", got

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(connections)))
    rate = len(times) / (time.perf_counter() - began)
    goal = "≥ 4,000/s" if users > 1 else "≥ 2,500/s"
    told = f"{rate:,.0f}/s, p50 {percentile(times, 0.5):.2f} ms, p99 {percentile(times, 0.99):.2f} ms"
    return Found(f"admissions of {users:,} user{'s' if users > 1 else ''}, nine limits", told, goal)


async def token_limit(nodes: list[Node]) -> Found:
    """Check 4: one user on 48 connections until the limit stops them all."""
    most, estimate, real = 500_000, 1_000, 700
    other = 0

    async def client(node: Node) -> None:
        nonlocal other
        while True:
            async with node.pool.connection() as c:
                got = await node.admit(c, "limited", limits(tokens_day=most), estimate)
                if got.word == "ok":
                    await node.settle(c, "limited", got, real)
                    continue
                other += got.stop != NAMES.index("tokens_day")
                used = await c.value("select day_tok from pool.use where usr = 'limited'")
                if used > most - estimate:
                    return

    await asyncio.gather(*(client(nodes[n % NODES]) for n in range(48)))
    used = await nodes[0].pool.value("select day_tok from pool.use where usr = 'limited'")
    right = used <= most + estimate and not other
    return Found("tokens a day of one user, 48 connections", f"{used:,} of {most:,}", f"≤ {most + estimate:,}", right)


async def rates(nodes: list[Node]) -> Found:
    """Check 5: a thousand tries within far less than a minute."""
    running = most = admitted = 0
    began = time.perf_counter()

    async def client(node: Node) -> None:
        nonlocal running, most, admitted
        for _ in range(50):
            async with node.pool.connection() as c:
                got = await node.admit(c, "quick", limits(requests_per_minute=60, concurrent=5))
                if got.word == "ok":
                    running, admitted = running + 1, admitted + 1
                    most = max(most, running)
                    await asyncio.sleep(0.001)
                    running -= 1
                    await node.settle(c, "quick", got, 1)

    await asyncio.gather(*(client(nodes[n % NODES]) for n in range(20)))
    took = time.perf_counter() - began
    allowed = 60 * (1 + int(took // 61))
    return Found(
        "60 a minute and 5 at once, 1,000 tries",
        f"{admitted} in {took:.1f} s, {most} at once",
        "60 in a minute, ≤ 5 at once",
        admitted <= allowed and most <= 5,
    )  # fmt: skip


async def refreshes(pools: list[DatabasePool], rounds: int) -> Found:
    """Check 13: fifty accounts that run out together, refreshed by three nodes; none tolerates its token twice."""
    accounts = [f"claude:{n}" for n in range(50)]
    used: Counter[bytes] = Counter()
    keys = SealKeys({"k1": b"k" * 32})
    nodes = [(DatabaseCredentials(pool, keys), DatabaseLeases(pool, partial(int, n))) for n, pool in enumerate(pools)]

    async def refresh(book: DatabaseCredentials, leases: DatabaseLeases, account: str, version: int) -> None:
        while (there := await book.get(account)) is not None and there.version == version:
            term = await leases.take(f"refresh:{account}", 90.0)
            if term is None:
                await asyncio.sleep(0.005)
                continue
            there = await book.get(account)
            if there is not None and there.version == version and leases.held(term):
                used[there.secret] += 1
                await book.put(account, "claude", version, f"{account} v{version + 1}".encode())
            await leases.give(term)

    for account in accounts:
        await nodes[0][0].put(account, "claude", 0, f"{account} v1".encode())
    began = time.perf_counter()
    for version in range(1, rounds + 1):
        await asyncio.gather(*(refresh(*node, account, version) for node in nodes for account in accounts))
    took = time.perf_counter() - began
    doubles = sum(count - 1 for count in used.values())
    told = f"{len(used):,} refreshes, {doubles} doubles, {took / len(used) * 1000:.1f} ms each"
    return Found(f"50 accounts, {rounds} rounds, 3 nodes", told, "no doubles", not doubles and len(used) == 50 * rounds)


async def once(pools: list[DatabasePool]) -> Found:
    """Check 17: thirty at once."""
    doors = [DatabaseDoor(pool) for pool in pools] * 10
    await doors[0].ticket_make(b"t" * 32, Ticket("u", time.time() + 60))
    taken = [ticket for ticket in await asyncio.gather(*(door.ticket_take(b"t" * 32) for door in doors)) if ticket]
    return Found("one ticket, 30 tries on three nodes", f"{len(taken)} used", "1", len(taken) == 1)


async def revocation(pools: list[DatabasePool], nodes: list[Node]) -> Found:
    """Check 7, its first half: the next admission on another node after a key was revoked."""
    upto = [0] * NODES

    def people_of(n: int) -> DatabasePeople:
        async def take(news: PeopleNews) -> None:
            upto[n] = news.upto

        return DatabasePeople(pools[n], take, lambda: upto[n])

    people = [people_of(n) for n in range(NODES)]
    let_in = 0
    times = []
    for turn in range(50):
        user = f"u{turn}"
        await people[0].create(
            Person(User(user, f"name {turn}", 1.0), [Key(f"k{turn}", user, "a", 1.0)]), Trail([]), Arrival()
        )
        began = time.perf_counter()
        await people[0].change(user, _revoked)
        times.append(time.perf_counter() - began)
        for node in nodes[1:]:
            async with node.pool.connection() as c:
                got = await admission_calls.admit(
                    c, node.id, (user, f"k{turn}"), upto[0] - 1, (1, 0), None, None, marks()
                )  # fmt: skip
                let_in += got.word not in ("stale", "gone")
    told = f"{let_in} of {50 * (NODES - 1)} let in; the change p50 {percentile(times, 0.5):.1f} ms"
    return Found("a revoked key, next request elsewhere", told, "none", not let_in)


def _revoked(person: Person) -> Trail:
    person.keys.clear()
    return Trail([])


async def shipping(pool: DatabasePool, size: int) -> Found:
    """Batches of records, each committed on the standby."""
    node, shipped, times = await new_node(pool, f"ship{size}"), 0, []
    now = time.time()
    for batch in range(20):
        records = [
            ShippedRecord(
                now + i / 1e6, f"{size}-{batch}-{i}", f"u{i % 50}", "", "a", "m", "ok", 200, 100, 1000, b"x" * 315
            )
            for i in range(size)
        ]
        began = time.perf_counter()
        async with pool.connection() as c:
            assert len(await ship(c, node.id, (shipped, shipped + size), records)) == size
        times.append(time.perf_counter() - began)
        shipped += size
    middle = percentile(times, 0.5)
    return Found(
        f"records shipped in batches of {size}", f"{middle:.1f} ms a batch, {middle / size * 1000:.0f} µs a record", ""
    )


async def measure(place: DatabaseUrl, owner: DatabaseUrl, given: argparse.Namespace) -> list[Found]:
    async with connected(owner) as connection:
        await migrate(connection)
    per_node = max(16, given.connections // NODES + 1)
    async with pooled(place, per_node) as a, pooled(place, per_node) as b, pooled(place, per_node) as c:
        pools = [a, b, c]
        nodes = [await new_node(pool, f"node{n}") for n, pool in enumerate(pools)]
        steps: list[Callable[[], Awaitable[Found]]] = [
            lambda: admissions(nodes, 1000, given.seconds, given.connections),
            lambda: admissions(nodes, 1, given.seconds, given.connections),
            lambda: token_limit(nodes),
            lambda: rates(nodes),
            lambda: revocation(pools, nodes),
            lambda: refreshes(pools, given.refresh_rounds),
            lambda: once(pools),
            lambda: shipping(a, 25),
            lambda: shipping(a, 500),
        ]
        return [await step() for step in steps]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--refresh-rounds", type=int, default=20)
    given = parser.parse_args()
    programs = postgres.binaries()
    if programs is None:
        sys.exit("there is no PostgreSQL server here (Debian: apt install postgresql)")
    with postgres.primary(programs, fsync=True) as server, postgres.standby(server):
        server.sql("create database pool")
        place = parse(server.url("pool", APP), {})
        found = asyncio.run(measure(place, parse(server.url("pool"), {}), given))
    for one in found:
        sign = {None: " ", True: "✓", False: "✗"}[one.right]
        print(f"{sign} {one.what:<44}{one.figure:<62}{one.goal}")
    return int(any(one.right is False for one in found))


if __name__ == "__main__":
    sys.exit(main())
