"""The accounts of a recorded past: what they are, what their windows hold, and since when they were there."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import msgspec

from pool_server.accounts.credentials.files import Options
from pool_server.accounts.health import windows as win
from pool_server.core.enums import CredentialKind, Provider
from pool_server.ledger import Series, Sighting
from pool_server.providers import Credential, provider_module
from pool_server.simulation.replay.past import Past
from pool_server.simulation.replay.percent import Growth, Worth, began_anew, growth, pooled, worth

HOUR, DAY = 3600.0, 86400.0
FIRST_SEEN_S = DAY  # an account seen first later than this after the beginning was added then
HIGHEST = 1000.0  # percent

History = Callable[[Series], Sequence[Sighting]]
Present = Mapping[str, tuple[Credential, Options]]  # the accounts of the pool folder


class WindowFacts(msgspec.Struct, frozen=True):
    """One window of an account. `worth` of a percent (None: not known, so that it bounds nothing), `highest` percent it
    may reach, `used` percent at the beginning, `resets_at` the first reset (None: begins with the first use), `outside`
    (time, percent) of use that was not the pool's. Turns that began before `seen_from` are not compared."""

    name: str
    seconds: float
    scope: str
    worth: Worth | None
    highest: float = win.FULL
    used: float = 0.0
    resets_at: float | None = None
    outside: tuple[tuple[float, float], ...] = ()
    seen_from: float = 0.0
    unused: float = 0.0  # percent points lost at the resets that were seen
    most: float = 0.0  # units that one turn is known to have served


class Holding(msgspec.Struct, frozen=True):
    """One account. `paid`: by use. It was there from `since` to `until` (unix seconds)."""

    credential: Credential
    options: Options
    windows: tuple[WindowFacts, ...] = ()
    paid: bool = False
    since: float = 0.0
    until: float = math.inf

    @property
    def id(self) -> str:
        return self.credential.account

    @property
    def plan(self) -> str:
        return self.credential.tier or self.credential.plan


def holdings(
    past: Past, series: Sequence[Series], history: History, present: Present, frm: float, to: float
) -> list[Holding]:
    """The accounts that served in a past or are in the pool now. What a percent is worth is told by each account, and
    by those of its plan."""
    use = past.use()
    seen: dict[str, dict[Series, list[Sighting]]] = defaultdict(dict)
    for one in series:
        rows = _plausible(history(one))
        if rows and one.window != win.CREDITS and not 0 < rows[-1].seconds < win.SHORTEST_PACED:
            seen[one.account][one] = rows
    growths = {
        one: growth(rows, _use_of(one, use.get(account, ())))
        for account, found in seen.items() for one, rows in found.items()
    }  # fmt: skip
    known = {account: _identity(account, present) for account in sorted(past.accounts() | set(present) | set(seen))}
    usable = {account: pair for account, pair in known.items() if pair is not None}
    worths = _worths(growths, usable)
    found = []
    for account, (credential, options) in usable.items():
        windows = seen.get(account, {})
        facts = [_facts(one, windows[one], growths[one], worths.get(one), frm) for one in windows]
        times = [at for at, _, _ in use.get(account, ())] + [s.at for r in windows.values() for s in (r[0], r[-1])]
        if not times and account not in present:
            continue
        first, last = min(times, default=frm), max(times, default=to)
        since = frm if first <= frm + FIRST_SEEN_S or not times else first - HOUR
        until = math.inf if account in present and not options.disabled else last + 1.0
        paid = credential.kind is CredentialKind.API_KEY and not facts
        found.append(Holding(credential, options, tuple(facts), paid, since, until))
    return [one if one.windows or one.paid else _like_its_plan(one, found, frm) for one in found]


def fresh_windows(like: Holding, frm: float, share: float) -> tuple[WindowFacts, ...]:
    """The windows of an account like this one, of which nothing was used at the beginning; its long windows begin anew
    first after so much (share) of their length."""
    return tuple(
        msgspec.structs.replace(
            one, used=0.0, outside=(), unused=0.0, seen_from=math.inf,
            resets_at=None if one.resets_at is None else frm + share * one.seconds,
        )
        for one in like.windows
    )  # fmt: skip


def _like_its_plan(one: Holding, others: Sequence[Holding], frm: float) -> Holding:
    """A subscription whose windows nobody saw holds what another one of its plan does."""
    credential = one.credential
    for other in others:
        same = other.credential.provider is credential.provider and other.plan == one.plan
        if same and other.windows and not other.paid:
            return msgspec.structs.replace(one, windows=fresh_windows(other, frm, 0.5))
    return one


def _plausible(rows: Sequence[Sighting]) -> list[Sighting]:
    """Sightings in the order of time, without resets that lie in their past and figures that say nothing."""
    kept = []
    for one in sorted(rows, key=lambda s: s.at):
        if not math.isfinite(one.used_percent) or one.seconds <= 0:
            continue
        past_reset = one.resets_at is not None and one.resets_at <= one.at
        percent = min(HIGHEST, max(0.0, one.used_percent))
        resets_at = None if past_reset else one.resets_at
        kept.append(msgspec.structs.replace(one, used_percent=0.0 if past_reset else percent, resets_at=resets_at))
    return kept


def _use_of(series: Series, rows: Sequence[tuple[float, float, str]]) -> list[tuple[float, float]]:
    """What of an account's use a window counts."""
    if not series.scope:
        return [(at, units) for at, units, _ in rows]
    module = provider_module(Provider(series.account.partition(":")[0]))
    return [(at, units) for at, units, model in rows if series.scope in (module.model_family(model), model)]


def _identity(account: str, present: Present) -> tuple[Credential, Options] | None:
    """An account's credential and options, of one that is gone as far as its id tells; None for a strange id."""
    if account in present:
        return present[account]
    try:
        return Credential(Provider(account.partition(":")[0]), account, CredentialKind.OAUTH), Options()
    except ValueError:
        return None


def _worths(growths: Mapping[Series, Growth], known: Mapping[str, tuple[Credential, Options]]) -> dict[Series, Worth]:
    """What a percent of each window is worth, accounts of one plan informing each other."""
    alone = {one: worth(found.turns) for one, found in growths.items()}
    plans: dict[tuple[str, ...], list[tuple[Series, Worth]]] = defaultdict(list)
    for one, found in alone.items():
        if found is not None and one.account in known:
            plans[_plan_of(one, known)].append((one, found))
    told: dict[Series, Worth] = {}
    for one, grown in growths.items():
        if one.account not in known:
            continue
        like = pooled([found for other, found in plans.get(_plan_of(one, known), ()) if other != one])
        both = worth(grown.turns, like)
        if both is not None:
            told[one] = both
    return told


def _plan_of(series: Series, known: Mapping[str, tuple[Credential, Options]]) -> tuple[str, ...]:
    credential = known[series.account][0]
    return credential.provider.value, credential.tier or credential.plan, series.window, series.scope


def _facts(series: Series, rows: list[Sighting], grown: Growth, told: Worth | None, frm: float) -> WindowFacts:
    first, seconds = rows[0], float(rows[-1].seconds)
    resets = next((s.resets_at for s in rows if s.resets_at is not None), None)
    floating = seconds < DAY
    seen_at_start = first.at <= frm + min(seconds / 4, DAY)
    if floating:
        resets = first.resets_at if seen_at_start and first.used_percent > 0 else None
    elif resets is None:
        resets = frm + seconds
    else:
        resets -= seconds * math.floor((resets - frm) / seconds)  # the first one after the beginning
        resets += seconds if resets <= frm else 0.0
    return WindowFacts(
        series.window, seconds, series.scope, told,
        highest=max(win.FULL, *(s.used_percent for s in rows)),
        used=first.used_percent if seen_at_start else 0.0, resets_at=resets, outside=grown.outside,
        seen_from=first.at, unused=_unused(rows), most=grown.most,
    )  # fmt: skip


def _unused(rows: Sequence[Sighting]) -> float:
    """Percent points that were left when the window began anew, of turns seen from their beginning."""
    lost, whole = 0.0, False
    for before, after in pairwise(rows):
        if began_anew(before, after):
            lost += max(0.0, win.FULL - before.used_percent) if whole else 0.0
            whole = True
    return lost
