"""What a node remembers of what it holds, against a database that counts, dies, forgets and is told again."""

from __future__ import annotations

import asyncio
from datetime import UTC
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool_server.cluster.node_reservations import NodeReservations, marks_sent, rows_of
from pool_server.storage.postgres import admission_calls as calls
from pool_server.storage.postgres.connection import Connection, connected
from pool_server.storage.postgres.migrations import OWNER
from pool_server.users.limits.pending import Reservation
from pool_server.users.limits.periods import bounds
from tests.cluster.conftest import Database

NOW = 1_793_577_600.0 + 40_000
MARKS = marks_sent(bounds(NOW, UTC))
amounts = st.integers(0, 9_000)
steps = st.one_of(
    st.tuples(st.just("take"), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("take"), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("report"), st.integers(0, 9), amounts),
    st.tuples(st.just("end"), st.integers(0, 9), amounts),
    st.tuples(st.just("tell"), st.sampled_from(["all", "answer lost", "nothing"])),
    st.tuples(st.just("beat"), st.sampled_from(["all", "answer lost", "nothing"])),
    st.tuples(st.just("die")),
)


class Life:
    """A node, and what its requests have really used."""

    def __init__(self, connection: Connection, ident: int) -> None:
        self.connection, self.node, self.ident = connection, 0, ident
        self.held = NodeReservations(lambda: 0.0)
        self.running: list[Reservation] = []
        self.used: dict[str, int] = {}

    def user(self, number: int) -> str:
        return f"h{self.ident}u{number}"

    async def register(self) -> None:
        row = await self.connection.row("select * from pool.node_start_1($1, '1', '{}')", f"held {self.ident}")
        assert row is not None
        self.node = row["id"]

    async def take(self, number: int, limited: bool) -> None:
        user = self.user(number)
        made = Reservation(user, "claude", base=4_000, key=f"{user}\0k", limited=limited)
        wide = [10**12] * 9
        found = await calls.admit(
            self.connection, self.node, (user, "k"), 0, (4_000, 10), wide, wide if limited else None, MARKS, NOW
        )
        assert found.word == "ok"
        made.tokens, made.cost = found.tokens, found.cost / calls.NANO
        self.held.take(made, found.tokens, found.cost)
        self.running.append(made)

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
            self.used[owner] = self.used.get(owner, 0) + tokens

    async def tell(self, how: str) -> None:
        batch = self.held.batch()
        if not batch:
            return
        span = self.held.settled, self.held.settled + len(batch)
        if how != "nothing":
            await calls.settle(self.connection, self.node, span, rows_of(batch), MARKS, NOW)
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
            while not await self.connection.value("select pool.bury_2($1, $2, $3, 1)", dead, MARKS, NOW):
                pass
        else:
            self.held.go_back_to(row["settled"])
        await calls.hold_sync(self.connection, self.node, self.held.totals())

    async def check(self) -> None:
        while self.running:
            await self.end(0, 5)
        while self.held.batch():
            await self.tell("all")
        for owner, tokens in self.used.items():
            user, _, key = owner.partition("\0")
            row = await self.connection.row("select * from pool.use where usr = $1 and jti = $2", user, key)
            assert row is not None
            assert (row["day_tok"], row["held_n"], row["held_tok"]) == (tokens, 0, 0)


def test_whatever_was_lost_on_the_way_each_token_is_counted_once(database: Database) -> None:
    numbers = iter(range(10**6))

    async def walk(history: list[Any]) -> None:
        async with connected(database.place(OWNER)) as connection:
            life = Life(connection, next(numbers))
            await life.register()
            for word, *rest in history:
                await getattr(life, word)(*rest)
            await life.check()

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(steps, min_size=4, max_size=40))
    def histories(history: list[Any]) -> None:
        asyncio.run(walk(history))

    histories()


def test_what_a_primary_forgot_is_told_again() -> None:
    held = NodeReservations(lambda: 0.0)
    made = [Reservation("u", "claude") for _ in range(3)]
    for one in made:
        held.take(one, 100, 5)
        held.end(one, 70, 3)
        assert len(held.batch()) == 1
        held.told((held.settled, held.settled + 1))
    held.go_back_to(1)
    assert [row.tokens for row in rows_of(held.batch())] == [70, 70]
    assert held.ending("u")
    assert held.totals()[0].requests == 2
