"""How much room each provider has: the accounts' sums in words and bars. Pure but for the two reads at the top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pool_server.accounts.describe import PooledWindow, ProviderStatus, QuotaWindowRow
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


def gauge(window: PooledWindow | QuotaWindowRow, now: float) -> Gauge:
    """A quota window of an account, or of all of a provider's together."""
    scope = window.scope if isinstance(window, QuotaWindowRow) else ""
    bare = extra_credits(window.used_percent) if window.window == "credits" else ""
    even = pace(window.seconds, window.resets_at, now)
    name = labels.window(window.window, scope)
    return Gauge(name, window.used_percent, even, window.resets_at, bare, window.window)


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
    now = ctx.clock()
    return [provider_row(row, now) for row in ctx.accounts.summary() if row.total]


def provider_row(row: ProviderStatus, now: float) -> ProviderRow:
    """One row of `Accounts.summary()` as a page shows it. What somebody turned off is no trouble."""
    provider, ready, total = row.provider, row.ready, row.total
    turned_off = sum(row.accounts.get(state, 0) for state in (AccountState.DISABLED, AccountState.DRAINING))
    return ProviderRow(
        provider,
        labels.PROVIDERS[provider],
        ready,
        total,
        "good" if ready and ready >= total - turned_off else "warn" if ready else "bad",
        state_words(row.accounts, ready, total, row.next_return, now),
        tuple(gauge(window, now) for window in row.windows),
        row.next_return,
        row.in_flight,
    )


def state_words(
    states: Mapping[AccountState, int], ready: int, total: int, next_return: float | None, now: float
) -> str:
    """ "2 of 3 accounts ready, 1 needs sign-in", and when room comes back if there is none."""
    others = [
        f"{count} {labels.OF_SEVERAL[state]}"
        for state, count in states.items()
        if count and state != AccountState.READY
    ]
    if ready == total:
        head = ngettext("{n} account ready", "{n} accounts ready", total)
    else:
        head = ngettext("{ready} of {n} account ready", "{ready} of {n} accounts ready", total, ready=ready)
    words = format.listed([head, *others])
    if not ready and next_return:
        words += _("; back {next_return}", next_return=format.within(next_return, now))
    return words
