"""The vendors of a replay: what is really left of each account's windows, as its history has them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from pool_server.core.enums import FaultKind, Provider, Source
from pool_server.core.models import OF_ACCOUNT, FamilyScope, Fault, WindowObservation
from pool_server.providers import provider_module
from pool_server.simulation.replay.holdings import DAY, Holding, WindowFacts
from pool_server.simulation.world import Truth

FULL = 100.0
LEAST = 0.2  # of what a percent is thought to be worth: a draw does not go below


class ReplayWindow(Truth):
    """A window of a replayed account. `lost` counts units left at its resets, of turns that were seen whole."""

    __slots__ = ("lost", "seen_from", "turn_from")

    def __init__(self, facts: WindowFacts, units: float) -> None:
        super().__init__(
            facts.name, facts.seconds, max(units * facts.highest, facts.most), scope=facts.scope,
            used=units * facts.used, resets_at=facts.resets_at,
        )  # fmt: skip
        self.floating = facts.seconds < DAY
        self.seen_from = facts.seen_from
        self.turn_from = 0.0
        self.lost = 0.0

    def advance(self, now: float) -> bool:
        """Begin anew as often as a reset has passed; True when one has."""
        if self.resets_at is None or now < self.resets_at:
            return False
        while self.resets_at is not None and now >= self.resets_at:
            at, left = self.resets_at, max(0.0, self.capacity - self.used)
            if self.turn_from >= self.seen_from and not self.floating:
                self.lost += left
            self.turn_from, self.used = at, 0.0
            self.resets_at = None if self.floating else at + self.seconds
        return True


class Vendors:
    """All replayed accounts' windows. With a `seed` other than 0 what a percent is worth is drawn within its doubt."""

    def __init__(self, holdings: Sequence[Holding], seed: int) -> None:
        self.windows: dict[str, list[ReplayWindow]] = {}
        self.since = {one.id: one.since for one in holdings}
        self.until = {one.id: one.until for one in holdings}
        self.outside: list[tuple[float, str, int, float]] = []  # (time, account, which window, units), latest first
        self._told: dict[str, tuple[float, ...]] = {}
        self._families: dict[tuple[str, str], tuple[str, ...]] = {}
        rng = random.Random(f"worth {seed}")
        for one in holdings:
            rows = self.windows[one.id] = []
            for facts in one.windows:
                if facts.worth is None:
                    continue
                units = facts.worth.units
                if seed:
                    units = max(LEAST * units, rng.gauss(units, facts.worth.spread))
                self.outside += [(at, one.id, len(rows), units * percent) for at, percent in facts.outside]
                rows.append(ReplayWindow(facts, units))
        self.outside.sort(reverse=True)

    def advance(self, now: float, tell: Callable[[str], None]) -> None:
        """What was used outside the pool by now; `tell` hears of whose figures changed."""
        outside = self.outside
        while outside and outside[-1][0] <= now:
            at, account, n, units = outside.pop()
            window = self.windows[account][n]
            window.advance(at)
            if not self.since[account] <= at < self.until[account]:
                continue
            window.spend(min(units, max(0.0, window.capacity - window.used)), at)
            tell(account)

    def scopes(self, account: str, model: str) -> tuple[str, ...]:
        key = account.partition(":")[0], model
        found = self._families.get(key)
        if found is None:
            found = self._families[key] = ("", provider_module(Provider(key[0])).model_family(model), model)
        return found

    def refuse(self, account: str, model: str, now: float) -> Fault | None:
        """The vendor's answer to a request that it does not serve; None = it does."""
        full = []
        scopes = self.scopes(account, model)
        for window in self.windows[account]:
            window.advance(now)
            if window.used >= window.capacity and window.scope in scopes:
                full.append(window)
        if not full:
            return None
        retry_at = max(window.resets_at or now + window.seconds for window in full)
        scope = OF_ACCOUNT if any(not window.scope for window in full) else FamilyScope(full[0].scope)
        seen = tuple(self.figures(account, now, Source.ERROR))
        return Fault(FaultKind.QUOTA, scope, retry_at, status=429, windows=seen)

    def left(self, account: str, model: str, now: float) -> float:
        """Percent left for the model; 100 where no window is known, 0 while the account is not there."""
        if not self.since[account] <= now < self.until[account]:
            return 0.0
        scopes = self.scopes(account, model)
        least = FULL
        for window in self.windows[account]:
            window.advance(now)
            if window.scope in scopes:
                least = min(least, window.left())
        return least

    def serve(self, account: str, model: str, units: float, now: float) -> None:
        """A request ended."""
        scopes = self.scopes(account, model)
        for window in self.windows[account]:
            window.advance(now)
            if window.scope in scopes:
                window.spend(units, now)

    def news(self, account: str, now: float) -> list[WindowObservation]:
        """The figures of an answer where they differ from the last ones."""
        windows = self.windows[account]
        told = tuple(
            FULL * w.used // w.capacity if w.resets_at is None or now < w.resets_at else -1.0 for w in windows
        ) + tuple(w.resets_at or 0.0 for w in windows)
        if self._told.get(account) == told:
            return []
        self._told[account] = told
        return self.figures(account, now, Source.HEADERS)

    def figures(self, account: str, now: float, source: Source) -> list[WindowObservation]:
        return [
            WindowObservation(w.name, int(w.seconds), FULL * w.used // w.capacity, w.resets_at, source, now, w.scope)
            for w in self.windows[account]
        ]

    def unused(self, to: float) -> float:
        """Units that were left at resets, of the longest window of each account."""
        lost = 0.0
        for account, windows in self.windows.items():
            whole = [w for w in windows if not w.scope and not w.floating]
            longest = max(whole, key=lambda w: w.seconds, default=None)
            if longest is not None:
                longest.advance(min(to, self.until[account]))
                lost += longest.lost
        return lost


def unused_in(holdings: Sequence[Holding]) -> float:
    """The same of what really happened."""
    lost = 0.0
    for one in holdings:
        whole = [w for w in one.windows if not w.scope and w.seconds >= DAY and w.worth is not None]
        longest = max(whole, key=lambda w: w.seconds, default=None)
        if longest is not None and longest.worth is not None:
            lost += longest.unused * longest.worth.units
    return lost
