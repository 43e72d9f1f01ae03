"""The providers of a simulation: what is really left in each account, what they answer, and what they tell."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from pool_server.core.enums import FaultKind, Source
from pool_server.core.models import OF_ACCOUNT, FamilyScope, Fault, WindowObservation
from pool_server.simulation.scenario import HOUR, OPUS, WEEK, Event, EventKind, Scenario, Seat

FIVE_HOURS = 5 * HOUR
NEVER = float("inf")
FULL = 100.0


class Truth:
    """One window as it really is. A `floating` one begins with the first use, the others follow the calendar; a
    `told` one is named in answers."""

    __slots__ = ("capacity", "floating", "name", "resets_at", "scope", "seconds", "told", "used")

    def __init__(
        self, name: str, seconds: float, capacity: float, *, scope: str = "", used: float = 0.0,
        resets_at: float | None = None, told: bool = True,
    ) -> None:  # fmt: skip
        self.name = name
        self.seconds = seconds
        self.scope = scope
        self.capacity = capacity
        self.used = used
        self.resets_at = resets_at
        self.floating = resets_at is None
        self.told = told

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

    def left(self) -> float:
        """Percent left."""
        return FULL * (1 - self.used / self.capacity)


class Closed(NamedTuple):
    """A weekly window that ended in the simulated time."""

    used: float
    lost: float
    before: float


class World:
    """All accounts' true windows, and what befalls them. Time is the providers', whatever the pool's clock says."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.seats = {seat.name: seat for seat in scenario.seats}
        self.windows = {seat.name: _windows(seat, scenario.start) for seat in scenario.seats}
        self.served: dict[str, float] = dict.fromkeys(self.seats, 0.0)
        self.closed: list[Closed] = []
        self.ends = {
            seat.name: NEVER if seat.lost_after is None else scenario.start + seat.lost_after for seat in scenario.seats
        }
        self.silent: dict[str, float] = {}  # host → until when it answers nothing
        self.failing: dict[str, float] = {}  # host → until when it answers 503
        self._before = {seat.name: seat.used_before * seat.plan.week for seat in scenario.seats}
        self._random = random.Random(f"sight {scenario.seed}")

    def happen(self, event: Event, now: float) -> None:
        """One event of the scenario; those of the pool itself (a clock's step) change nothing here."""
        concerned = [s.name for s in self.seats.values() if event.target in ("", s.name, s.host)]
        if event.kind is EventKind.HANG or event.kind is EventKind.OUTAGE:
            table = self.silent if event.kind is EventKind.HANG else self.failing
            table.update(dict.fromkeys((self.seats[name].host for name in concerned), now + event.amount * HOUR))
        for name in concerned:
            if event.kind is EventKind.WITHDRAW:
                self.ends[name] = min(self.ends[name], now)
            elif event.kind is EventKind.SHRINK:
                for window in self.roll(name, now):
                    window.capacity *= event.amount
            elif event.kind is EventKind.EARLY_RESET:
                self._begin_anew(name, now)

    def _begin_anew(self, account: str, now: float) -> None:
        for window in self.roll(account, now):
            window.used = 0.0
            window.resets_at = None if window.floating else now + window.seconds
        self._before[account] = 0.0

    def alive(self, account: str, now: float) -> bool:
        return now < self.ends[account]

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
        return scope != OPUS or self.seats[account].plan.opus != 0

    def reachable(self, account: str, now: float) -> bool:
        """Does the account's host answer requests?"""
        host = self.seats[account].host
        return now >= self.silent.get(host, 0.0) and now >= self.failing.get(host, 0.0)

    def left(self, account: str, scope: str, now: float) -> float:
        """Percent really left for a model of this scope; 0 for an account that cannot serve it at all."""
        if not self.alive(account, now) or not self.fits(account, scope):
            return 0.0
        return min(w.left() for w in self.roll(account, now) if not w.scope or w.scope == scope)

    def left_for(self, user: str, account: str, scope: str, now: float) -> float:
        """Percent left that this user may use now: 0 while the host does not answer, nothing of another's reserve."""
        if not self.reachable(account, now):
            return 0.0
        seat = self.seats[account]
        kept = FULL * seat.reserve if seat.owner and seat.owner != user else 0.0
        return self.left(account, scope, now) - kept

    def ask(self, account: str, scope: str, now: float) -> Fault | None:
        """The provider's answer to a request: None = it is served."""
        if not self.alive(account, now):
            return Fault(FaultKind.AUTH, OF_ACCOUNT, status=401)
        host = self.seats[account].host
        if now < self.silent.get(host, 0.0):
            return Fault(FaultKind.NETWORK, OF_ACCOUNT)
        if now < self.failing.get(host, 0.0):
            return Fault(FaultKind.TRANSIENT, OF_ACCOUNT, status=503)
        full = [w for w in self.roll(account, now) if w.used >= w.capacity and (not w.scope or w.scope == scope)]
        if not full:
            return None
        if not full[0].told:
            return Fault(FaultKind.PAYMENT, OF_ACCOUNT, status=402)
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
        """What an answer says: whole percents, the large model's window only on its own requests, and now and then
        nothing or a wrong reset, as the scenario's sight has it. An error says what is so."""
        sight = self.scenario.sight
        if source is not Source.ERROR and sight.gaps and self._random.random() < sight.gaps:
            return []
        off = 0.0
        if source is not Source.ERROR and sight.wrong_resets and self._random.random() < sight.wrong_resets:
            off = self._random.uniform(-3, 3) * HOUR
        return list(self._told(account, scope, now, source, off))

    def _told(self, account: str, scope: str, now: float, source: Source, off: float) -> Iterator[WindowObservation]:
        step = 1.0 if source is Source.ERROR else self.scenario.sight.step
        for w in self.windows[account]:
            if w.told and (not w.scope or w.scope == scope):
                percent = FULL * w.used / w.capacity
                shown = step * (percent // step) if step else percent
                resets_at = None if w.resets_at is None else w.resets_at + off
                yield WindowObservation(w.name, int(w.seconds), shown, resets_at, source, now, w.scope)

    def finish(self) -> None:
        """Close every week that ends with the simulated time."""
        for account in self.windows:
            if self.alive(account, self.scenario.end):
                self.roll(account, self.scenario.end)


def _windows(seat: Seat, start: float) -> list[Truth]:
    plan = seat.plan
    if plan.budget is not None:
        return [Truth("budget", NEVER, plan.budget, resets_at=NEVER, told=False)]
    resets_at = start + seat.resets_after
    windows = [
        Truth("5h", FIVE_HOURS, plan.five_hours),
        Truth("7d", WEEK, plan.week, used=seat.used_before * plan.week, resets_at=resets_at),
    ]
    if plan.opus:
        used = seat.used_before * plan.opus * 0.5
        windows.append(Truth("7d", WEEK, plan.opus, scope=OPUS, used=used, resets_at=resets_at))
    return windows
