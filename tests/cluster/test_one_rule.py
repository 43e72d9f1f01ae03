"""One rule, two homes: `counters.py` and the database's functions are given the same histories of admissions, reports,
ends, clocks and deaths, and say the same, to the token, the nano-dollar and the second."""

from __future__ import annotations

import asyncio
import copy
import itertools
from datetime import UTC
from typing import Any, NamedTuple

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pool_server.core.settings import COUNTED_LIMITS, Limits
from pool_server.storage.postgres import admission_calls as admission
from pool_server.storage.postgres.admission_calls import Ended, HoldGrowth
from pool_server.storage.postgres.connection import Connection, connected
from pool_server.storage.postgres.migrations import OWNER
from pool_server.users.limits import counters
from pool_server.users.limits.counters import Hold, Stop, Use
from pool_server.users.limits.periods import Bounds, bounds
from tests.cluster.conftest import Database

MONDAY = 1_793_577_600.0  # a Monday at midnight, UTC, the 2nd of a month
DENIALS = [limit.denial for limit in COUNTED_LIMITS]
NAMES = [limit.name for limit in COUNTED_LIMITS]
NODES = 3
numbers = itertools.count(1)

amounts = st.integers(0, 60) | st.integers(0, 60_000)
# One alone in most histories, so that each is often the one that frees last; small ones, which stop early.
limits_of = st.one_of(
    *(st.fixed_dictionaries({name: st.integers(0, 3)}) for name in NAMES[:2]),
    *(st.fixed_dictionaries({name: st.integers(0, 40) | st.integers(0, 60_000)}) for name in NAMES[2:]),
    st.dictionaries(st.sampled_from(NAMES), st.integers(0, 12) | st.integers(0, 200_000), max_size=9),
)
nodes = st.integers(0, NODES - 1)
which = st.sampled_from(["own", "own", "none"])  # the limits of the history, or none
steps = st.one_of(
    st.tuples(st.just("admit"), nodes, st.booleans(), amounts, amounts, which),
    st.tuples(st.just("admit"), nodes, st.booleans(), amounts, amounts, which),
    st.tuples(st.just("admit"), nodes, st.booleans(), amounts, amounts, limits_of),
    st.tuples(st.just("progress"), st.integers(0, 50), amounts, amounts),
    st.tuples(st.just("end"), st.lists(st.tuples(st.integers(0, 50), amounts, amounts), min_size=1, max_size=4)),
    st.tuples(st.just("pass"), st.sampled_from([0.25, 0.999, 1.0, 59.5, 60.5, 61.0, 299.0, 301.5, 18_000.0, 18_300.0])),
    st.tuples(st.just("pass"), st.floats(0, 70) | st.floats(0, 20_000) | st.floats(0, 3_000_000)),
    st.tuples(st.just("back"), st.sampled_from([0.5, 2.0, 61.0, 300.0, 20_000.0, 90_000.0]) | st.floats(0, 100_000)),
    st.tuples(st.just("die"), nodes),
)
# A dead node whose last request had ended held nothing: the counters it had used stay as they are.
NOTHING_HELD = (
    {"requests_per_minute": 3}, {"requests_per_minute": 3},
    [("admit", 2, True, 0, 0, "own"), ("end", [(0, 0, 0)]), ("pass", 299.0), ("die", 2), ("back", 300.0)],
)  # fmt: skip
histories = st.tuples(limits_of, limits_of, st.lists(steps, min_size=6, max_size=60))


class Running(NamedTuple):
    """A request under way, with the owners that hold it."""

    node: int
    owners: list[tuple[str, str]]
    base: int
    hold: Hold


class History:
    """Gives each step to both; raises AssertionError where they differ."""

    def __init__(self, connection: Connection, own: dict[str, Any], of_key: dict[str, Any]) -> None:
        self.own, self.of_key = own, of_key
        self.connection = connection
        self.number = next(numbers)
        self.user = f"u{self.number}"
        self.now = MONDAY + 12_345.25
        self.uses: dict[tuple[str, str], Use] = {}
        self.running: list[Running] = []
        self.nodes: list[int] = []
        self.settled: dict[int, int] = {}

    @property
    def marks(self) -> Bounds:
        return bounds(self.now, UTC)

    @property
    def marks_sent(self) -> list[int]:
        m = self.marks
        return [m.day, m.week, m.month, m.day_end, m.week_end, m.month_end]

    async def run(self, history: list[tuple[Any, ...]]) -> None:
        for number in range(NODES):
            self.nodes.append(await self.new_node(number))
        for word, *rest in history:
            await getattr(self, word if word != "pass" else "go_on")(*rest)
        await self.compare_counters()

    async def new_node(self, number: int) -> int:
        row = await self.connection.row("select * from pool.node_start_1($1, '1', '{}')", f"h{self.number}/{number}")
        assert row is not None
        self.settled[row["id"]] = 0
        node: int = row["id"]
        return node

    def use(self, owner: tuple[str, str]) -> Use:
        use = self.uses.setdefault(owner, Use())
        counters.advance(use, self.now, self.marks)
        return use

    async def admit(self, node: int, by_key: bool, tokens: int, cost: int, which: str | dict[str, Any]) -> None:
        limits = which if isinstance(which, dict) else self.own if which == "own" else {}
        key_limits = self.of_key if which == "own" else {}
        caps = [((self.user, ""), Limits(**limits))]
        if by_key and key_limits:
            caps.append(((self.user, "k"), Limits(**key_limits)))
        before = copy.deepcopy(self.uses)
        worst: tuple[Stop, bool] | None = None
        last = 0.0
        for owner, cap in caps:
            stop = counters.stopped(self.use(owner), cap, self.now, self.marks)
            frees = float("inf") if stop is None or stop.retry_at is None else stop.retry_at
            if stop is not None and frees > last:
                worst, last = (stop, bool(owner[1])), frees
        sent = [admission.bounded([getattr(cap, name) for name in NAMES]) for _, cap in caps]
        found = await admission.admit(
            self.connection, self.nodes[node], (self.user, "k" if by_key else ""), 0, (tokens, cost),
            sent[0], (sent[1] if len(sent) > 1 else None), self.marks_sent, self.now,
        )  # fmt: skip
        if worst is not None:
            self.uses = before  # the database writes nothing of a refusal
            stop, of_key = worst
            assert found.word == "stopped"
            assert (DENIALS[found.stop], found.of_key, found.retry_at) == (stop.denial, of_key, stop.retry_at)
            return
        ratio = self.use((self.user, "")).ratio
        hold = Hold(1, int(tokens * ratio), round(cost * ratio))
        assert (found.word, found.tokens, found.cost) == ("ok", hold.tokens, hold.cost)
        for owner, _ in caps:
            counters.hold(self.use(owner), str(self.nodes[node]), hold.tokens, hold.cost, self.now)
        self.running.append(Running(self.nodes[node], [owner for owner, _ in caps], tokens, hold))

    async def progress(self, which: int, tokens: int, cost: int) -> None:
        if not self.running:
            return
        one = self.running[which % len(self.running)]
        hold = one.hold
        more = Hold(0, max(0, tokens - hold.tokens), max(0, cost - hold.cost), tokens, cost)
        grown = [
            HoldGrowth(*owner, more.tokens, int(more.cost), more.seen_tokens, int(more.seen_cost))
            for owner in one.owners
        ]
        lives = one.node in self.nodes
        assert await admission.beat(self.connection, one.node, grown) == lives
        if lives:
            for owner in one.owners:
                counters.grow(self.uses[owner], str(one.node), more)
            counters._join(hold, more, 1)

    async def end(self, which: list[tuple[int, int, int]]) -> None:
        ended: dict[int, list[Ended]] = {}
        for number, tokens, cost in which:
            if not self.running:
                break
            one = self.running.pop(number % len(self.running))
            node = one.node if one.node in self.nodes else self.nodes[0]  # a dead one's ends are told by its next life
            for owner in one.owners:
                h = one.hold
                amounts = h.tokens, int(h.cost), h.seen_tokens, int(h.seen_cost), tokens, cost
                ended.setdefault(node, []).append(Ended(*owner, True, *amounts, one.base))
        for node, several in ended.items():
            for one_end in several:
                self.end_one(node, one_end)
            span = self.settled[node], self.settled[node] + len(several)
            for _ in range(2):  # said again, after an answer that was lost
                assert (
                    await admission.settle(self.connection, node, span, several, self.marks_sent, self.now) == span[1]
                )
            self.settled[node] = span[1]

    def end_one(self, node: int, ended: Ended) -> None:
        use = self.use((ended.user, ended.key))
        tokens, cost = ended.tokens, ended.cost
        held = Hold(1, ended.held_tokens, ended.held_cost, ended.seen_tokens, ended.seen_cost)
        if not counters.unhold(use, str(node), held):
            tokens, cost = max(0, tokens - ended.seen_tokens), max(0, cost - ended.seen_cost)
        counters.count(use, tokens, cost, self.now)
        if ended.tokens and ended.base:
            counters.learn(use, ended.base, ended.tokens)

    async def go_on(self, seconds: float) -> None:
        self.now += seconds

    async def back(self, seconds: float) -> None:
        self.now = max(1_000_000.0, self.now - seconds)

    async def die(self, number: int) -> None:
        node = self.nodes[number]
        self.nodes[number] = await self.new_node(number)  # under the same name: the one before it is succeeded
        await admission.bury_dead(self.connection, 3600.0, self.marks_sent, self.now, most=1)
        for owner in list(self.uses):
            if str(node) in self.uses[owner].by:
                counters.abandon(self.use(owner), str(node), self.now)

    async def compare_counters(self) -> None:
        for owner in self.uses:
            use = self.use(owner)
            row = await self.connection.row(
                "select * from pool.standing_1($1, $2, $3, $4)", *owner, self.marks_sent, self.now
            )
            assert row is not None
            held = use.held
            assert (row["held_n"], row["held_tok"], row["held_cost"]) == (held.requests, held.tokens, held.cost)
            periods = [row[f"{period}_{what}"] for what in ("tok", "cost") for period in ("day", "week", "month")]
            used = [sum(row["ring"] or []), row["held_n"], sum(row["r5"] or []), *periods]
            assert dict(zip(NAMES, used, strict=True)) == counters.used_now(use)
            assert row["ratio"] == use.ratio


@settings(max_examples=settings().max_examples * 3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories)
@example(NOTHING_HELD)
def test_both_homes_say_the_same(database: Database, history: tuple[dict[str, Any], dict[str, Any], list[Any]]) -> None:
    own, of_key, steps = history

    async def run() -> None:
        async with connected(database.place()) as connection:
            await History(connection, own, of_key).run(steps)

    asyncio.run(run())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counted=st.lists(st.tuples(st.integers(0, 70), st.integers(1, 9)), max_size=12),
    moved=st.lists(st.integers(-70, 70) | st.integers(-4, 4), min_size=1, max_size=4),
)
def test_seconds_that_were_counted_move_alike(
    database: Database, counted: list[tuple[int, int]], moved: list[int]
) -> None:
    """The ring of the database against the list of pairs, also where a clock goes back a little."""
    start, now = 1_000_000, 1_000_080
    use = Use(minute=sorted({start + at: n for at, n in counted}.items()))
    slots = [dict(use.minute).get(now - back, 0) for back in range(61)]

    async def run(connection: Connection) -> None:
        nonlocal slots, now
        await connection.script("set search_path = pool")
        for by in moved:
            counters.advance(use, now, bounds(now, UTC))
            had, now = now, now + by
            counters.advance(use, now, bounds(now, UTC))
            slots = await connection.value("select slots_moved($1::bigint[], $2, $3)", slots, had, now)
            assert [(now - back, n) for back, n in enumerate(slots) if n][::-1] == use.minute

    database.run(run, OWNER)
