"""What no strategy can pass: the most work the accounts could do for a scenario's demand."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any, NamedTuple

from pool_server.simulation.scenario import HOUR, WEEK, Event, EventKind, Scenario, scope_of
from pool_server.simulation.world import FIVE_HOURS, Truth, World

TURNS = 5  # of a week in a simulated month
SPANS = (
    1,
    2,
    3,
    4,
    5,
    8,
    16,
    33,
)  # lengths, in short windows, of the intervals in which a floating window's use is bounded
Demand = list[tuple[float, float, str, str]]  # (time, units, scope, user), in order of time


class _Use(NamedTuple):
    """One column of the programme: units of a bucket's demand that an account serves."""

    bucket: int
    scope: str
    owner: str
    column: int


def demand(scenario: Scenario) -> Demand:
    """Every request that begins in the simulated time, as if each were answered at once."""
    found = []
    for talk in scenario.talks:
        at, scope = talk.at, scope_of(talk.model)
        for pause, length, units in talk.turns:
            at += pause
            found.append((at, units, scope, talk.user))
            at += length
    return sorted(row for row in found if row[0] < scenario.end)


def reachable(scenario: Scenario) -> float:
    """Units that could be used of the weeks ending in the simulated time, by one who knows all the demand.

    Every unit of demand goes to the open week that ends soonest and has room, also in its five hours; requests are
    divisible and belong to no conversation. For windows of one length alone this greedy order is optimal
    (Glover's rule for convex matching); the five hours make it a close reference rather than a proven bound.
    """
    world = World(scenario)
    order: list[str] = []
    until = scenario.start
    events = list(reversed(scenario.events))
    for at, units, scope, _ in demand(scenario):
        while events and scenario.start + events[-1].at <= at:
            event = events.pop()
            world.happen(event, scenario.start + event.at)
            until = at
        if at >= until:
            ends = {name: _week_ends(world, name, at, scenario.end) for name in world.seats}
            order = sorted(ends, key=lambda name: ends[name])
            until = min(ends.values())
        left = units
        for account in order:
            if left <= 0:
                break
            if world.left(account, scope, at) <= 0 or not world.reachable(account, at):
                continue
            free = min(w.capacity - w.used for w in world.windows[account] if not w.scope or w.scope == scope)
            part = min(left, free)
            world.serve(account, scope, part, at)
            left -= part
    world.finish()
    return sum(c.used - c.before for c in world.closed)


def _week_ends(world: World, account: str, at: float, otherwise: float) -> float:
    ends = [w.resets_at for w in world.roll(account, at) if w.seconds == WEEK and w.resets_at is not None]
    return min(ends, default=otherwise)


class Bound:
    """A linear programme: units of each hour's demand to accounts, within every window, divisible, all known before.

    It relaxes what is real (requests are whole, a five-hour window begins with its first use, figures are late), so
    that no strategy serves more. Needs scipy.
    """

    def __init__(self, scenario: Scenario, step: float = HOUR) -> None:
        self._scenario = scenario
        self._step = step
        self._world = World(scenario)
        self._columns: dict[tuple[int, str, str, str], int] = {}  # (bucket, scope, owner, account) → column
        self._by_account: dict[str, list[_Use]] = defaultdict(list)
        self._rows: list[tuple[list[int], float]] = []  # (columns, most units)

    def units(self) -> float:
        """The most units that can be served. Raises ModuleNotFoundError without scipy."""
        from scipy.optimize import linprog  # type: ignore[import-untyped]  # a tool of who develops strategies
        from scipy.sparse import coo_matrix  # type: ignore[import-untyped]

        self._demands()
        for account in self._by_account:
            self._windows(account)
        if not self._columns:
            return 0.0
        rows = [n for n, (columns, _) in enumerate(self._rows) for _ in columns]
        columns = [column for found, _ in self._rows for column in found]
        shape = (len(self._rows), len(self._columns))
        matrix = coo_matrix(([1.0] * len(rows), (rows, columns)), shape=shape)
        most = [limit for _, limit in self._rows]
        solved: Any = linprog([-1.0] * len(self._columns), matrix.tocsr(), most, bounds=(0, None), method="highs")
        return -float(solved.fun)

    def _demands(self) -> None:
        asked: dict[tuple[int, str, str], float] = defaultdict(float)
        owners = {seat.owner for seat in self._scenario.seats if seat.reserve}
        for at, units, scope, user in demand(self._scenario):
            asked[self._bucket(at), scope, user if user in owners else ""] += units
        for (bucket, scope, owner), units in asked.items():
            columns = [
                self._column(bucket, scope, owner, account)
                for account in self._world.seats
                if self._world.fits(account, scope) and self._open(account, bucket)
            ]
            self._rows.append((columns, units))

    def _bucket(self, at: float) -> int:
        return int((at - self._scenario.start) // self._step)

    def _open(self, account: str, bucket: int) -> bool:
        """Could the account serve at any moment of this bucket?"""
        begin = bucket * self._step
        if begin >= self._world.ends[account] - self._scenario.start:
            return False
        for event in self._concerning(account):
            if event.kind is EventKind.WITHDRAW and begin >= event.at:
                return False
            down = event.kind in (EventKind.HANG, EventKind.OUTAGE)
            if down and event.at <= begin and begin + self._step <= event.at + event.amount * HOUR:
                return False
        return True

    def _concerning(self, account: str) -> list[Event]:
        return [e for e in self._scenario.events if e.target in ("", account, self._world.seats[account].host)]

    def _column(self, bucket: int, scope: str, owner: str, account: str) -> int:
        column = self._columns.setdefault((bucket, scope, owner, account), len(self._columns))
        self._by_account[account].append(_Use(bucket, scope, owner, column))
        return column

    def _windows(self, account: str) -> None:
        seat, uses = self._world.seats[account], self._by_account[account]
        others = [use for use in uses if use.owner != seat.owner]
        for window in self._world.windows[account]:
            self._window(account, window, uses, 1.0)
            if seat.reserve:
                self._window(account, window, others, 1.0 - seat.reserve)

    def _window(self, account: str, window: Truth, uses: list[_Use], share: float) -> None:
        """Bound these uses by a share of one window, in each of its turns and after each change of its size."""
        mine = [use for use in uses if not window.scope or use.scope == window.scope]
        size = largest = share * window.capacity
        changes: list[tuple[float, float]] = []  # (seconds from the start, the size from then on)
        for event in self._concerning(account):
            if event.kind is EventKind.SHRINK:
                size *= event.amount
                largest = max(largest, size)
                changes.append((event.at, size))
        self._bound(account, window, mine, largest, share * window.used)
        for at, smaller in changes:
            self._bound(account, window, [use for use in mine if use.bucket * self._step >= at], smaller, 0.0)

    def _bound(self, account: str, window: Truth, uses: list[_Use], size: float, before: float) -> None:
        resets = [e.at for e in self._concerning(account) if e.kind is EventKind.EARLY_RESET]
        if window.floating:
            self._floating(uses, size, len(resets))
        else:
            first = (window.resets_at or math.inf) - self._scenario.start
            self._calendar(uses, size, before, _resets(first, resets))

    def _floating(self, uses: list[_Use], size: float, early: int) -> None:
        """In any interval of n window lengths at most n + 1 windows are open, and one for each early reset."""
        one = round(FIVE_HOURS / self._step)
        pieces: dict[int, list[int]] = defaultdict(list)
        for use in uses:
            pieces[use.bucket // one].append(use.column)
        last = max(pieces, default=-1)
        for span in SPANS:
            for begin in range(max(1, last - span + 2)):
                columns = [column for n in range(begin, begin + span) for column in pieces.get(n, ())]
                if columns:
                    self._rows.append((columns, (span + 1 + early) * size))

    def _calendar(self, uses: list[_Use], size: float, before: float, resets: list[float]) -> None:
        """A bucket that a reset cuts may belong to either turn and is not bounded."""
        turns: dict[int, list[int]] = defaultdict(list)
        for use in uses:
            begin = use.bucket * self._step
            turn = sum(begin >= reset for reset in resets)
            if turn == sum(begin + self._step > reset for reset in resets):
                turns[turn].append(use.column)
        for turn, columns in turns.items():
            self._rows.append((columns, max(0.0, size - (0.0 if turn else before))))


def _resets(first: float, early: list[float]) -> list[float]:
    """When a calendar week begins anew, in seconds from the start: an early reset begins a new count."""
    resets = [first + n * WEEK for n in range(TURNS)]
    for at in early:
        resets = [reset for reset in resets if reset < at] + [at + n * WEEK for n in range(TURNS)]
    return resets
