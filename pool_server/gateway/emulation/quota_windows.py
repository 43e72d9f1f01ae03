"""How much headroom a friend has: the tighter of the own limits and what the pool has left."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from pool_server.accounts import Accounts
from pool_server.accounts.describe import PooledWindow
from pool_server.core.enums import Provider
from pool_server.users import LimitStanding

_GAUGE_S = 5.0
FIVE_HOURS, DAY, WEEK, MONTH = 18_000, 86_400, 604_800, 2_592_000

# Which limit of a user counts in which window.
_OWN: tuple[tuple[str, int], ...] = (
    ("tokens_5h", FIVE_HOURS),
    ("tokens_day", DAY),
    ("tokens_week", WEEK),
    ("tokens_month", MONTH),
    ("cost_day", DAY),
    ("cost_week", WEEK),
    ("cost_month", MONTH),
)


class QuotaWindow(msgspec.Struct, frozen=True):
    """One window: its length, percent used (may pass 100), unix seconds of its end (None = not known)."""

    seconds: int
    used_percent: float
    resets_at: float | None


def pooled(windows: Iterable[PooledWindow]) -> list[QuotaWindow]:
    """A provider's windows of all accounts together, from `Accounts.glance()`."""
    return [
        QuotaWindow(int(window.seconds), window.used_percent, window.resets_at)
        for window in windows
        if window.seconds and window.used_percent is not None
    ]


def own(held_to: Iterable[LimitStanding]) -> list[QuotaWindow]:
    """The limits a caller is held to as windows."""
    return [
        QuotaWindow(seconds, 100.0 * one.used[name] / most if most > 0 else 100.0, one.frees[name])
        for one in held_to
        for name, seconds in _OWN
        if (most := getattr(one.limits, name)) is not None
    ]


def two_slots(windows: Iterable[QuotaWindow]) -> list[QuotaWindow]:
    """The two windows that are used most, the shorter one first: all that Codex has room for on its screens."""
    return sorted(sorted(windows, key=lambda window: -window.used_percent)[:2], key=lambda window: window.seconds)


def tightest(windows: Iterable[QuotaWindow]) -> list[QuotaWindow]:
    """For each length of window the one that is used most, in order of length."""
    best: dict[int, QuotaWindow] = {}
    for window in windows:
        if window.seconds not in best or window.used_percent > best[window.seconds].used_percent:
            best[window.seconds] = window
    return [best[seconds] for seconds in sorted(best)]


class HeadroomGauge:
    """How much quota a provider has left, in percent; read anew every few seconds, not on every request."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._known: dict[Provider, tuple[float, float | None]] = {}

    def percent(self, provider: Provider) -> float | None:
        """0 to 100, None while the provider has not said."""
        now = time.monotonic()
        due, percent = self._known.get(provider, (0.0, None))
        if now >= due:
            percent, _ = self._accounts.glance(provider)
            self._known[provider] = (now + _GAUGE_S, percent)
        return percent
