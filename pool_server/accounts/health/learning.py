"""What an account's `AccountHealth` learns from faults, answers and observations. Pure: data and time come as
arguments."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pool_server.accounts.health import windows as win
from pool_server.accounts.health.state import AccountHealth, Cooldown, FaultNote, counts_until, move, settle
from pool_server.accounts.health.transitions import AccountEvent, StateActor
from pool_server.core.enums import AccountState, FaultKind, FaultScope, Source
from pool_server.core.models import Fault, WindowObservation

HALF_LIFE_S = 600.0  # of `trouble`
LATENCY_WEIGHT = 0.2  # of the newest first byte in the moving average
CLEAR_ROOM_USED = 90.0  # percent: at or below it a window ends a quota rest at once …
LAGGING_S = 60.0  # … above it only so long after the refusal, since usage endpoints lag behind
WEEK = 7 * win.DAY

# first rest and longest rest in seconds when the provider gave no hint; doubled with each level
LADDERS: dict[FaultKind, tuple[float, float]] = {
    FaultKind.QUOTA: (1.0, 1800.0),
    FaultKind.RATE: (1.0, 1800.0),
    FaultKind.TRANSIENT: (2.0, 60.0),
    FaultKind.NETWORK: (2.0, 60.0),
    FaultKind.CAPACITY: (5.0, 60.0),
    FaultKind.CHALLENGE: (10.0, 1800.0),
    FaultKind.AUTH: (1800.0, 1800.0),
    FaultKind.PAYMENT: (1800.0, 1800.0),
    FaultKind.PERMISSION: (1800.0, 1800.0),
    FaultKind.NOT_FOUND: (12 * 3600.0, 12 * 3600.0),
    FaultKind.MODEL_UNSUPPORTED: (12 * 3600.0, 12 * 3600.0),
}
# a hint may lengthen the rest of these kinds to at most this many seconds; QUOTA and RATE go by the windows
HINT_CAPS: dict[FaultKind, float] = {FaultKind.CAPACITY: 60.0, FaultKind.TRANSIENT: 300.0, FaultKind.NETWORK: 60.0}
BLAMELESS = frozenset({FaultKind.REQUEST, FaultKind.ENCRYPTED_CONTENT, FaultKind.CONTINUATION, FaultKind.CLIENT_GONE})
METERED = frozenset({FaultKind.QUOTA, FaultKind.RATE})  # ended by room, or by a half-open request, not by luck
EARNED = METERED | {FaultKind.PAYMENT, FaultKind.AUTH, FaultKind.PERMISSION}


def fail(live: AccountHealth, fault: Fault, now: float, *, model: str, token: str, current: str) -> bool:
    """Learn from a fault of a real request; True when anything changed.

    `token` is the fingerprint of the credential the request went out with, `current` that of the account's
    credential now: a refused login speaks of its own token only.
    """
    if fault.kind in BLAMELESS:
        return False
    if fault.kind is FaultKind.AUTH and token and token != current:
        return False
    if fault.windows:
        absorb(live, fault.windows, now)
    live.last_fault = FaultNote(now, fault.kind, fault.code, fault.message, fault.status, fault.model or model)
    if fault.kind is FaultKind.SUSPENDED:
        move(live, AccountEvent.STOPPED, StateActor.PROVIDER, now, fault.message)
        return True
    if fault.kind is FaultKind.NEEDS_USER:
        return login_lost(live, now, fault.message, current, StateActor.PROVIDER)
    if fault.kind is not FaultKind.OVERLOAD:
        live.trouble, live.trouble_at = trouble(live, now) + 1.0, now
    if fault.kind in LADDERS and fault.scope is not FaultScope.NONE:
        _rest(live, fault, now, model, current)
    settle(live, now)
    return True


def _rest(live: AccountHealth, fault: Fault, now: float, model: str, current: str) -> None:
    scope = "" if fault.scope is FaultScope.ACCOUNT else (fault.family or fault.model or model)
    old = live.rests.get(scope)
    if fault.kind is FaultKind.QUOTA and scope in live.overage:
        live.overage.remove(scope)
    level = _level(old, now)
    until = _until(live, fault, scope, level, now)
    since = now
    if old is not None and now < old.until:
        tested = bool(old.probing) and fault.retry_at is not None
        if not tested:
            until = max(until, old.until)
        since = old.since
    rest = Cooldown(fault.kind, since, until, level, fault.code, fault.message)
    if old is not None:
        rest.probed_at = now if old.probing else old.probed_at
    live.rests[scope] = rest
    if scope:
        return
    if fault.kind is FaultKind.AUTH and level:
        login_lost(live, now, fault.message, current, StateActor.PROVIDER)
        return
    event = AccountEvent.QUOTA if fault.kind in (FaultKind.QUOTA, FaultKind.PAYMENT) else AccountEvent.FAULT
    if not move(live, event, StateActor.PROVIDER, now, fault.message):
        live.reason = fault.message


def _level(old: Cooldown | None, now: float) -> int:
    """One level a rest: faults that arrive while it lasts were under way already and do not escalate."""
    if old is None or not old.confirmed:
        return 0
    if now < old.until:
        return old.level
    return old.level + 1 if now <= counts_until(old) else 0


def _until(live: AccountHealth, fault: Fault, scope: str, level: int, now: float) -> float:
    first, longest = LADDERS[fault.kind]
    ladder = now + min(longest, first * 2.0 ** min(level, 20))
    bound = win.binding(live.windows, (scope,) if scope else ())
    if fault.retry_at is None or fault.retry_at <= now:
        full = [at for w in bound if fault.kind is FaultKind.QUOTA and (at := win.full_until(w, now)) is not None]
        return max([ladder, *full])
    if fault.kind in METERED:
        longest_window = max((w.seconds for w in bound), default=0) or WEEK
        return win.believable(fault.retry_at, bound, now, longest=max(longest_window, 60.0))
    if fault.kind in HINT_CAPS:
        return min(fault.retry_at, now + HINT_CAPS[fault.kind])
    return max(ladder, min(fault.retry_at, now + WEEK))


def trouble(live: AccountHealth, now: float) -> float:
    """Recent faults, each halved every ten minutes."""
    if not live.trouble:
        return 0.0
    return live.trouble * math.exp2(-max(0.0, now - live.trouble_at) / HALF_LIFE_S)


def succeed(live: AccountHealth, scopes: tuple[str, ...], first_byte_s: float | None, now: float) -> bool:
    """Learn from an answered request; True when anything changed that is worth keeping.

    An answer ends the rests it disproves. A quota rest is disproved by a half-open request only: other answers
    may belong to streams that began before the account ran out.
    """
    changed = first_byte_s is not None and _note_latency(live, first_byte_s)
    for scope in ("", *scopes):
        rest = live.rests.get(scope)
        if rest is None or not (rest.probing or rest.kind not in EARNED or now >= rest.until):
            continue
        if rest.probing and not rest.confirmed and scope not in live.overage:
            live.overage.append(scope)  # it reads full, yet it answers: extra usage is being sold
        if not scope and live.state in (AccountState.COOLING, AccountState.EXHAUSTED, AccountState.PROBING):
            move(live, AccountEvent.ANSWERED, StateActor.PROVIDER, now)
        del live.rests[scope]
        changed = True
    if changed:
        settle(live, now)
    return changed


def _note_latency(live: AccountHealth, seconds: float) -> bool:
    """Average another first byte in; True when the average moved by more than a tenth."""
    old = live.latency
    live.latency = seconds if old is None else old + LATENCY_WEIGHT * (seconds - old)
    return old is None or abs(live.latency - old) > 0.1 * old


def absorb(live: AccountHealth, observations: Iterable[WindowObservation], now: float) -> bool:
    """Take in sightings of windows; True when one of them, or the state, changed."""
    changed = False
    scopes: dict[str, WindowObservation] = {}
    for new in observations:
        name = win.key(new.window, new.scope)
        old = live.windows.get(name)
        merged = win.merge(old, new)
        if merged is old:
            continue
        live.windows[name] = merged
        scopes[new.scope] = new
        changed |= old is None or _differs(old, merged)
    for scope, new in scopes.items():
        if new.source is not Source.ERROR:
            _weigh_rest(live, scope, new, now)
    if scopes:
        win.prune(live.windows, now)
    return settle(live, now) or changed


def _differs(old: WindowObservation, new: WindowObservation) -> bool:
    """Is the newer sighting worth writing down? An equal one is once a minute."""
    same = old.used_percent == new.used_percent and old.resets_at == new.resets_at
    return not same or new.observed_at - old.observed_at > LAGGING_S


def _weigh_rest(live: AccountHealth, scope: str, new: WindowObservation, now: float) -> None:
    """End a rest for want of quota when the windows show room again; note when they confirm it."""
    rest = live.rests.get(scope)
    if rest is None or rest.kind not in METERED or now >= rest.until:
        return
    bound = [w for w in live.windows.values() if w.scope == scope and w.window != win.CREDITS]
    percent = max((win.used(w, now) for w in bound), default=win.FULL)
    if percent >= win.FULL - 2.0:
        if new.source is Source.USAGE_ENDPOINT:
            rest.probed_at = now
        return
    if rest.confirmed and percent > CLEAR_ROOM_USED and new.observed_at < rest.since + LAGGING_S:
        return
    if rest.kind is FaultKind.RATE and rest.until - now < LAGGING_S:
        return  # a short-term limit is not what these windows count
    del live.rests[scope]
    if not scope:
        actor = StateActor.USAGE if new.source is Source.USAGE_ENDPOINT else StateActor.PROVIDER
        move(live, AccountEvent.ROOM, actor, now)


def login_lost(live: AccountHealth, now: float, reason: str, token: str, actor: StateActor) -> bool:
    """The credential named by `token` is dead for good: somebody must sign in again."""
    live.token = token
    return move(live, AccountEvent.LOGIN_LOST, actor, now, reason)


def new_login(live: AccountHealth, now: float) -> bool:
    """The file brought a credential that the pool did not write: what the old one suffered is over."""
    changed = move(live, AccountEvent.NEW_LOGIN, StateActor.FILE, now) or bool(live.rests)
    live.rests.clear()
    live.token = ""
    settle(live, now)
    return changed


def reset(live: AccountHealth, now: float) -> bool:
    """The operator's word: forget rests, faults and full windows, and try again. Always a change."""
    live.rests.clear()
    live.windows = {name: w for name, w in live.windows.items() if win.used(w, now) < win.FULL - 2.0}
    live.trouble = 0.0
    live.easing_until = 0.0
    live.token = ""
    move(live, AccountEvent.RESET, StateActor.OPERATOR, now)
    settle(live, now)
    return True
