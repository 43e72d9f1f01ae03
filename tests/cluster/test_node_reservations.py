"""What a node remembers of what it holds, against a database that counts, dies, forgets and is told again."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from datetime import UTC
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool_server.cluster.node_reservations import DATABASE_LIMITS, NodeReservations, marks_sent, rows_of
from pool_server.core.settings import COUNTED_LIMITS
from pool_server.storage.postgres import admission_calls as calls
from pool_server.storage.postgres.connection import Connection, connected
from pool_server.storage.postgres.migrations import OWNER
from pool_server.users.limits.pending import Reservation
from pool_server.users.limits.periods import bounds
from tests.cluster.conftest import Database

NOW = 1_793_577_600.0 + 40_000
MARKS = marks_sent(bounds(NOW, UTC))
amounts = st.integers(0, 9_000)
of_a_node = st.one_of(
    st.tuples(st.just("take"), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("take"), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("report"), st.integers(0, 9), amounts),
    st.tuples(st.just("end"), st.integers(0, 9), amounts),
    st.tuples(st.just("tell"), st.sampled_from(["all", "answer lost", "nothing"])),
    st.tuples(st.just("beat"), st.sampled_from(["all", "answer lost", "nothing"])),
    st.tuples(st.just("die")),
)
steps = st.tuples(st.integers(0, 1), of_a_node | of_a_node | st.sampled_from([("wait",), ("flush",), ("crash",)]))


class Server:
    """The database's memory: `crash` forgets what came after the last `flush`, as a primary that dies forgets what was
    committed asynchronously. Time is its own."""

    def __init__(self, connection: Connection, ident: int) -> None:
        self.connection, self.ident = connection, ident
        self.now = self.flushed = NOW
        self.used: Counter[str] = Counter()
        self.let_in: dict[str, Counter[int]] = defaultdict(Counter)  # owner → second → requests

    async def start(self) -> None:
        of_users = f"where usr like 'h{self.ident}u%'"
        self._tables = {"use": of_users, "hold": of_users, "node": f"where name like 'held {self.ident}.%'"}
        for table, which in self._tables.items():
            await self.connection.script(f"create temp table kept_{table} as select * from pool.{table} {which}")

    async def wait(self) -> None:
        self.now += 0.7
        if self.now - self.flushed > 3:
            await self.flush()

    async def flush(self) -> None:
        self.flushed = self.now
        for table, which in self._tables.items():
            await self.connection.script(f"truncate kept_{table}")
            await self.connection.script(f"insert into kept_{table} select * from pool.{table} {which}")

    async def crash(self) -> None:
        for table in ("use", "hold"):
            await self.connection.script(f"delete from pool.{table} {self._tables[table]}")
            await self.connection.script(f"insert into pool.{table} select * from kept_{table}")
        await self.connection.script(
            "update pool.node n set settled = k.settled from kept_node k where k.id = n.id and n.dead is null"
        )


class Life:
    """A node, and what its requests have really used."""

    def __init__(self, server: Server, number: int) -> None:
        self.server, self.connection, self.number = server, server.connection, number
        self.node, self.used = 0, server.used
        self.held = NodeReservations(lambda: 0.0)
        self.running: list[Reservation] = []

    def user(self, number: int) -> str:
        return f"h{self.server.ident}u{number}"

    async def register(self) -> None:
        name = f"held {self.server.ident}.{self.number}"
        row = await self.connection.row("select * from pool.node_start_1($1, '1', '{}')", name)
        assert row is not None
        self.node = row["id"]

    async def take(self, number: int, limited: bool) -> None:
        user = self.user(number)
        made = Reservation(user, "claude", base=4_000, key=f"{user}\0k", limited=limited)
        wide = [10**12] * 9
        found = await calls.admit(
            self.connection,
            self.node,
            (user, "k"),
            0,
            (4_000, 10),
            wide,
            wide if limited else None,
            MARKS,
            self.server.now,
        )
        assert found.word == "ok"
        made.tokens, made.cost = found.tokens, found.cost / calls.NANO
        self.held.take(made, found.tokens, found.cost, found.made)
        self.running.append(made)
        for owner in made.owners:
            self.server.let_in[owner][int(self.server.now)] += 1

    async def report(self, which: int, tokens: int) -> None:
        if self.running:
            self.held.report(self.running[which % len(self.running)], tokens, 0)

    async def end(self, which: int, tokens: int) -> None:
        if not self.running:
            return
        made = self.running.pop(which % len(self.running))
        tokens = max(tokens, self.held.seen(made).tokens)  # a stream does not take back what it said
        self.held.end(made, tokens, 0)
        for owner in made.owners:
            self.used[owner] += tokens

    async def tell(self, how: str) -> None:
        batch = self.held.batch()
        if not batch:
            return
        span = self.held.settled, self.held.settled + len(batch)
        if how != "nothing":
            await calls.settle(self.connection, self.node, span, rows_of(batch), MARKS, self.server.now)
        if how == "all":
            self.held.told(span)
        else:
            await self.make_sure()

    async def beat(self, how: str) -> None:
        grown = self.held.take_grown()
        rows = [row for one, reported in grown for row in one.growth(reported)]
        if how != "nothing":
            assert await calls.beat(self.connection, self.node, rows)
        if how == "all":
            for one, reported in grown:
                one.grew(reported)
        else:
            await self.make_sure()

    async def die(self) -> None:
        await self.connection.script(f"update pool.node set dead = 'silent' where id = {self.node}")
        await self.make_sure()

    async def make_sure(self) -> None:
        row = await self.connection.row("select settled, dead from pool.node where id = $1", self.node)
        assert row is not None
        if row["dead"] is not None:
            self.held.begin_anew(row["settled"])
            dead = self.node
            await self.register()
            now = self.server.now
            while not await self.connection.value("select pool.bury_2($1, $2, $3, 1)", dead, MARKS, now):
                pass
            await self.server.flush()  # that was committed synchronously
        else:
            self.held.go_back_to(row["settled"])
        await calls.hold_sync(self.connection, self.node, self.held.totals(), self.held.made(), self.server.now)

    async def end_all(self) -> None:
        while self.running:
            await self.end(0, 5)
        while self.held.batch():
            await self.tell("all")


async def check(server: Server) -> None:
    for owner, tokens in server.used.items():
        user, _, key = owner.partition("\0")
        row = await server.connection.row("select * from pool.use where usr = $1 and jti = $2", user, key)
        assert row is not None
        assert (row["day_tok"], row["held_n"], row["held_tok"]) == (tokens, 0, 0)
        assert {row["sec"] - i: n for i, n in enumerate(row["ring"]) if n} == server.let_in[owner]


def test_whatever_was_lost_on_the_way_each_request_and_token_is_counted_once(database: Database) -> None:
    numbers = iter(range(10**6))

    async def walk(history: list[Any]) -> None:
        async with connected(database.place(OWNER)) as connection:
            server = Server(connection, next(numbers))
            await server.start()
            nodes = [Life(server, number) for number in range(2)]
            for node in nodes:
                await node.register()
            await server.flush()
            for number, (word, *rest) in history:
                await getattr(nodes[number] if hasattr(Life, word) else server, word)(*rest)
                if word == "crash":
                    for node in nodes:
                        await node.make_sure()
            for node in nodes:
                await node.end_all()
            await check(server)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(steps, min_size=4, max_size=40))
    def histories(history: list[Any]) -> None:
        asyncio.run(walk(history))

    histories()


def test_what_a_primary_forgot_is_told_again() -> None:
    held = NodeReservations(lambda: 0.0)
    made = [Reservation("u", "claude") for _ in range(3)]
    for one in made:
        held.take(one, 100, 5, 0)
        held.end(one, 70, 3)
        assert len(held.batch()) == 1
        held.told((held.settled, held.settled + 1))
    held.go_back_to(1)
    assert [row.tokens for row in rows_of(held.batch())] == [70, 70]
    assert held.ending("u")
    assert held.totals()[0].requests == 2


def test_the_database_counts_every_limit() -> None:
    uncounted = {limit.name for limit in COUNTED_LIMITS} - {limit.name for limit in DATABASE_LIMITS}
    assert not uncounted, "the functions of the database need a migration, and DATABASE_LIMITS its place in them"
