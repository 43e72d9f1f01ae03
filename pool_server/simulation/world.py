"""The providers of a simulation: what is really left in each account, and what they answer."""

from __future__ import annotations

from typing import NamedTuple

from pool_server.core.enums import FaultKind, Source
from pool_server.core.models import OF_ACCOUNT, FamilyScope, Fault, WindowObservation
from pool_server.simulation.scenario import HOUR, OPUS, WEEK, Scenario, Seat

FIVE_HOURS = 5 * HOUR


class Truth:
    """One window as it really is. A `floating` one begins with the first use, the others follow the calendar."""

    __slots__ = ("capacity", "floating", "name", "resets_at", "scope", "seconds", "used")

    def __init__(
        self, name: str, seconds: float, capacity: float, *, scope: str = "", used: float = 0.0,
        resets_at: float | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.seconds = seconds
        self.scope = scope
        self.capacity = capacity
        self.used = used
        self.resets_at = resets_at
        self.floating = resets_at is None

    def roll(self, now: float) -> float | None:
        """Begin anew when the reset has passed; returns the units that were lost by it, None when none passed."""
        if self.resets_at is None or now < self.resets_at:
            return None
        lost = max(0.0, self.capacity - self.used)
        self.used = 0.0
        if self.floating:
            self.resets_at = None
        else:
            self.resets_at += self.seconds * ((now - self.resets_at) // self.seconds + 1)
        return lost

    def spend(self, units: float, now: float) -> None:
        if self.resets_at is None:
            self.resets_at = now + self.seconds
        self.used += units

    def room(self) -> float:
        """Percent left."""
        return 100.0 * (1 - self.used / self.capacity)


class Closed(NamedTuple):
    """A weekly window that ended in the simulated time."""

    used: float
    lost: float
    before: float


class World:
    """All accounts' true windows."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.seats = {seat.name: seat for seat in scenario.seats}
        self.windows = {seat.name: _windows(seat, scenario.start) for seat in scenario.seats}
        self.served: dict[str, float] = dict.fromkeys(self.seats, 0.0)
        self.closed: list[Closed] = []
        self._before = {seat.name: seat.used_before * seat.plan.week for seat in scenario.seats}

    def alive(self, account: str, now: float) -> bool:
        lost = self.seats[account].lost_after
        return lost is None or now < self.scenario.start + lost

    def roll(self, account: str, now: float) -> list[Truth]:
        """The account's windows, begun anew where their time has come."""
        windows = self.windows[account]
        for w in windows:
            if w.resets_at is not None and now >= w.resets_at:
                used = w.used
                lost = w.roll(now)
                if lost is not None and w.seconds == WEEK and not w.scope and self.alive(account, now):
                    self.closed.append(Closed(used, lost, self._before.pop(account, 0.0)))
        return windows

    def fits(self, account: str, scope: str) -> bool:
        return scope != OPUS or self.seats[account].plan.opus > 0

    def room(self, account: str, scope: str, now: float) -> float:
        """Percent really left for a model of this scope; 0 for an account that cannot serve it at all."""
        if not self.alive(account, now) or not self.fits(account, scope):
            return 0.0
        return min(w.room() for w in self.roll(account, now) if not w.scope or w.scope == scope)

    def ask(self, account: str, scope: str, now: float) -> Fault | None:
        """The provider's answer to a request: None = it is served."""
        if not self.alive(account, now):
            return Fault(FaultKind.AUTH, OF_ACCOUNT, status=401)
        full = [w for w in self.roll(account, now) if w.used >= w.capacity and (not w.scope or w.scope == scope)]
        if not full:
            return None
        retry_at = max(w.resets_at or now + w.seconds for w in full)
        wide = any(not w.scope for w in full)
        seen = tuple(self.observations(account, scope, now, Source.ERROR))
        return Fault(FaultKind.QUOTA, OF_ACCOUNT if wide else FamilyScope(scope), retry_at, status=429, windows=seen)

    def serve(self, account: str, scope: str, units: float, now: float) -> None:
        """A request ended; its cost is known now."""
        for w in self.roll(account, now):
            if not w.scope or w.scope == scope:
                w.spend(units, now)
        self.served[account] += units

    def observations(self, account: str, scope: str, now: float, source: Source) -> list[WindowObservation]:
        """What the answer's headers say: whole percents, and the large model's window only on its own requests."""
        return [
            WindowObservation(
                w.name, int(w.seconds), float(int(100 * w.used / w.capacity)), w.resets_at, source, now, w.scope
            )
            for w in self.windows[account]
            if not w.scope or w.scope == scope
        ]

    def finish(self) -> None:
        """Close every week that ends with the simulated time."""
        end = self.scenario.start + self.scenario.length
        for account in self.windows:
            if self.alive(account, end):
                self.roll(account, end)


def _windows(seat: Seat, start: float) -> list[Truth]:
    plan = seat.plan
    resets_at = start + seat.resets_after
    windows = [
        Truth("5h", FIVE_HOURS, plan.five_hours),
        Truth("7d", WEEK, plan.week, used=seat.used_before * plan.week, resets_at=resets_at),
    ]
    if plan.opus:
        used = seat.used_before * plan.opus * 0.5
        windows.append(Truth("7d", WEEK, plan.opus, scope=OPUS, used=used, resets_at=resets_at))
    return windows


def reachable(scenario: Scenario) -> float:
    """Units that could be used of the weeks ending in the simulated time, by one who knows all the demand.

    Every unit of demand goes to the open week that ends soonest and has room, also in its five hours; requests are
    divisible and belong to no conversation. For windows of one length alone this greedy order is optimal
    (Glover's rule for convex matching); the five hours make it a close reference rather than a proven bound.
    """
    world = World(scenario)
    end = scenario.start + scenario.length
    order: list[str] = []
    until = scenario.start
    for at, units, scope in _demand(scenario):
        if at >= until:
            ends = {name: world.roll(name, at)[1].resets_at or end for name in world.seats}
            order = sorted(ends, key=lambda name: ends[name])
            until = ends[order[0]]
        left = units
        for account in order:
            if left <= 0:
                break
            if world.room(account, scope, at) <= 0:
                continue
            free = min(w.capacity - w.used for w in world.windows[account] if not w.scope or w.scope == scope)
            part = min(left, free)
            world.serve(account, scope, part, at)
            left -= part
    world.finish()
    return sum(c.used - c.before for c in world.closed)


def _demand(scenario: Scenario) -> list[tuple[float, float, str]]:
    """Every request as (time, units, scope), in order of time."""
    found = []
    for talk in scenario.talks:
        at = talk.at
        for pause, length, units in talk.turns:
            at += pause
            found.append((at, units, scope_of(talk.model)))
            at += length
    end = scenario.start + scenario.length
    return sorted(row for row in found if row[0] < end)


def scope_of(model: str) -> str:
    """The window family a simulated model belongs to."""
    return OPUS if OPUS in model else ""
