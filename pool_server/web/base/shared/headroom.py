"""How much room each provider has: the accounts' sums in words and bars. Pure but for the two reads at the top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pool_server.core.enums import AccountState, Provider
from pool_server.language import gettext as _
from pool_server.language import ngettext
from pool_server.texts import format, labels
from pool_server.web.base.context import WebContext


class Gauge(NamedTuple):
    """One bar: `used` and `pace` in percent, None = not known."""

    name: str
    used: float | None
    pace: float | None
    resets_at: float | None
    bare: str = ""  # what is said instead, without a bar
    short: str = ""  # the window's own name, as "5h"

    @property
    def words(self) -> str:
        return self.bare or _("{name}: {used} used", name=self.name, used=format.percent(self.used))


class ProviderRow(NamedTuple):
    """One provider on a page. `tone` is good, warn or bad; `words` says why."""

    provider: Provider
    label: str
    ready: int
    total: int
    tone: str
    words: str
    gauges: tuple[Gauge, ...]
    next_return: float | None
    in_flight: int


def pace(seconds: float, resets_at: float | None, now: float) -> float | None:
    """How much of a window an even use would have taken by now, in percent; None when that is not known."""
    if resets_at is None or seconds <= 0 or resets_at <= now:
        return None
    return max(0.0, min(100.0, 100 * (1 - (resets_at - now) / seconds)))


def gauge(window: dict[str, Any], now: float) -> Gauge:
    """A quota window as the accounts' room describes it."""
    name = labels.window(window["window"], window.get("scope", ""))
    resets_at = window.get("resets_at")
    used = window.get("used_percent")
    bare = extra_credits(used) if window["window"] == "credits" else ""
    return Gauge(name, used, pace(window.get("seconds") or 0, resets_at, now), resets_at, bare, window["window"])


def slim(gauges: Sequence[Gauge], most: int = 2) -> list[Gauge]:
    """One bar a length of window for a row that has room for two: of windows of models the fullest speaks for all,
    whose bars would have the same name."""
    fullest: dict[str, Gauge] = {}
    for one in gauges:
        there = fullest.get(one.short)
        if not one.bare and (there is None or (one.used or 0.0) > (there.used or 0.0)):
            fullest[one.short] = one
    return list(fullest.values())[:most]


def extra_credits(used: float | None) -> str:
    """Credits that nobody ever bought look "100 % used"; most providers only say whether there are any."""
    if used is None or 0 < used < 100:
        return ""
    return _("extra credits: none") if used else _("extra credits: available")


def provider_rows(ctx: WebContext) -> list[ProviderRow]:
    """Every provider that has an account, in the fixed order of the enum."""
    by_name = {row["provider"]: row for row in ctx.accounts.summary()}
    now = ctx.clock()
    return [provider_row(by_name[name], now) for name in Provider if by_name.get(name, {}).get("total")]


def provider_row(row: dict[str, Any], now: float) -> ProviderRow:
    """One row of `Accounts.summary()` as a page shows it."""
    provider = Provider(row["provider"])
    ready, total = row["ready"], row["total"]
    return ProviderRow(
        provider,
        labels.PROVIDERS[provider],
        ready,
        total,
        "good" if ready == total else "warn" if ready else "bad",
        state_words(row, now),
        tuple(gauge(window, now) for window in row.get("windows", ())),
        row.get("next_return"),
        row.get("in_flight", 0),
    )


def state_words(row: dict[str, Any], now: float) -> str:
    """ "2 of 3 accounts ready, 1 needs sign-in", and when room comes back if there is none."""
    ready, total = row["ready"], row["total"]
    others = [
        f"{count} {labels.OF_SEVERAL[AccountState(state)]}"
        for state, count in row["accounts"].items()
        if count and state != AccountState.READY
    ]
    if ready == total:
        head = ngettext("{n} account ready", "{n} accounts ready", total)
    else:
        head = ngettext("{ready} of {n} account ready", "{ready} of {n} accounts ready", total, ready=ready)
    words = ", ".join([head, *others])
    if not ready and row.get("next_return"):
        words += _("; back {next_return}", next_return=format.within(row["next_return"], now))
    return words
