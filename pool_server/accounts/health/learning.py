"""What an account's `AccountHealth` learns from faults, answers and observations. Pure: data and time come as
arguments."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import msgspec

from pool_server.accounts.health import windows as win
from pool_server.accounts.health.state import (
    AccountHealth,
    Cooldown,
    FaultNote,
    counts_until,
    move,
    rebase,
    returning,
    settle,
)
from pool_server.accounts.health.transitions import AccountEvent, StateActor
from pool_server.core.enums import AccountState, FaultKind, Operation, Source
from pool_server.core.models import (
    AccountScope,
    FamilyScope,
    Fault,
    FaultScope,
    ModelScope,
    ProviderScope,
    RequestScope,
    WindowObservation,
)
from pool_server.providers.evidence.table import EARNED, EVIDENCE, METERED, NextStep

HALF_LIFE_S = 600.0  # of `trouble`
LATENCIES_KEPT = 5  # first bytes whose median is an account's latency: one late answer moves it by nothing
LATENCIES_LEAST = 3
CLEAR_ROOM_USED = 90.0  # percent: at or below it a window ends a quota rest at once …
LAGGING_S = 60.0  # … above it only so long after the refusal, since usage endpoints lag behind
WEEK = 7 * win.DAY

SCOPES_KEPT = 64  # cooldowns of models an account keeps; a client may invent names without end
DOUBTS_KEPT = 32
DOUBT_S = 3600.0  # a refusal that another account did not share counts for so long


def scope_key(operation: Operation, model: str) -> str:
    """The name of a cooldown of one model in one operation."""
    return f"{operation.value}:{model}"


def cooled(scope: FaultScope, operation: Operation) -> str | None:
    """The name under which a fault's cooldown is kept: "" the account, else a family or an operation's model; None when
    the fault cools nothing."""
    if isinstance(scope, AccountScope):
        return ""
    if isinstance(scope, FamilyScope):
        return scope.family
    return scope_key(operation, scope.model) if isinstance(scope, ModelScope) else None


def fail(
    live: AccountHealth, fault: Fault, now: float, *, model: str, operation: Operation, token: str, current: str
) -> bool:
    """Learn from a fault whose evidence is confirmed; True when anything changed.

    `token` is the fingerprint of the credential the request went out with, `current` that of the account's
    credential now: a refused login speaks of its own token only.
    """
    evidence = EVIDENCE[fault.kind]
    if evidence.next is NextStep.PASS_ON or fault.kind in _BLAMELESS:
        return False
    if fault.kind is FaultKind.AUTH and token and token != current:
        return False
    if fault.windows:
        absorb(live, fault.windows, now)
    live.last_fault = FaultNote(now, fault.kind, fault.code, fault.message, fault.status, model)
    if fault.kind is FaultKind.SUSPENDED:
        move(live, AccountEvent.STOPPED, StateActor.PROVIDER, now, fault.message)
        return True
    if fault.kind is FaultKind.NEEDS_USER:
        return login_lost(live, now, fault.message, current, StateActor.PROVIDER)
    if evidence.counts and not isinstance(fault.scope, RequestScope | ProviderScope):
        live.trouble, live.trouble_at = trouble(live, now) + 1.0, now
    scope = cooled(fault.scope, operation)
    if scope is not None and evidence.longest_s:
        _rest(live, fault, scope, now, current)
    settle(live, now)
    return True


_BLAMELESS = frozenset({FaultKind.ENCRYPTED_CONTENT, FaultKind.CLIENT_GONE})


def contrast(
    live: AccountHealth, fault: Fault, now: float, *, model: str, operation: Operation, token: str, current: str
) -> bool:
    """Another account served what this one refused: learnt for the model once that happened often enough in an hour
    without an answer of this account's in between. True when anything changed."""
    if not model:
        return False
    scope = scope_key(operation, model)
    times, since = live.doubts.pop(scope, (0, now))
    if not 0 <= now - since <= DOUBT_S:
        times, since = 0, now
    if times + 1 < EVIDENCE[fault.kind].times:
        live.doubts[scope] = (times + 1, since)
        if len(live.doubts) > DOUBTS_KEPT:
            del live.doubts[next(iter(live.doubts))]
        return True
    own = msgspec.structs.replace(fault, scope=ModelScope(model))
    return fail(live, own, now, model=model, operation=operation, token=token, current=current)


def acquit(live: AccountHealth, kind: FaultKind, since: float, now: float) -> bool:
    """A second account refused the same: what a bare refusal taught of this one since then is taken back."""
    rest = live.rests.get("")
    if rest is None or rest.kind is not kind or not rest.bare or rest.since < since:
        return False
    del live.rests[""]
    move(live, AccountEvent.ANSWERED, StateActor.PROVIDER, now)
    settle(live, now)
    return True


class LearnStep(Protocol):
    """`fail` or `contrast`."""

    def __call__(
        self, live: AccountHealth, fault: Fault, now: float, /, *, model: str, operation: Operation, token: str,
        current: str,
    ) -> bool: ...  # fmt: skip


def _rest(live: AccountHealth, fault: Fault, scope: str, now: float, current: str) -> None:
    rebase(live, now)
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
    rest = Cooldown(fault.kind, since, until, level, fault.code, fault.message, bare=fault.bare, length_s=until - now)
    if old is not None:
        rest.probed_at = now if old.probing else old.probed_at
    live.rests[scope] = rest
    if scope:
        _forget_surplus(live)
        return
    if fault.kind is FaultKind.AUTH and level:
        login_lost(live, now, fault.message, current, StateActor.PROVIDER)
        return
    event = AccountEvent.QUOTA if fault.kind in (FaultKind.QUOTA, FaultKind.PAYMENT) else AccountEvent.FAULT
    if not move(live, event, StateActor.PROVIDER, now, fault.message):
        live.reason = fault.message


def _forget_surplus(live: AccountHealth) -> None:
    """Of too many models' cooldowns the ones that end soonest go."""
    surplus = len(live.rests) - SCOPES_KEPT
    if surplus > 0:
        for scope in sorted((s for s in live.rests if s), key=lambda s: live.rests[s].until)[:surplus]:
            del live.rests[scope]


def _level(old: Cooldown | None, now: float) -> int:
    """One level a rest: faults that arrive while it lasts were under way already and do not escalate."""
    if old is None or not old.confirmed:
        return 0
    if now < old.until:
        return old.level
    return old.level + 1 if now <= counts_until(old) else 0


def _until(live: AccountHealth, fault: Fault, scope: str, level: int, now: float) -> float:
    evidence = EVIDENCE[fault.kind]
    ladder = now + min(evidence.longest_s, evidence.first_s * 2.0 ** min(level, 20))
    bound = win.binding(live.windows, (scope, scope.partition(":")[2]) if scope else ())
    if fault.retry_at is None or fault.retry_at <= now:
        full = [at for w in bound if fault.kind is FaultKind.QUOTA and (at := win.full_until(w, now)) is not None]
        return max(full) if full else ladder
    if fault.kind in METERED:
        lasting = [w for w in bound if not 0 < w.seconds < win.SHORTEST_PACED]  # the length of others is assumed
        longest_window = max((w.seconds for w in lasting), default=0) or WEEK
        return win.believable(fault.retry_at, lasting, now, longest=longest_window)
    if evidence.told_s is not None and evidence.told_s < WEEK:
        return min(fault.retry_at, now + evidence.told_s)
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
    changed = first_byte_s is not None and _note_latency(live, first_byte_s, now)
    for scope in ("", *scopes):
        changed |= live.doubts.pop(scope, None) is not None
        rest = live.rests.get(scope)
        if rest is None or not (rest.probing or rest.kind not in EARNED or now >= rest.until):
            continue
        if returning(rest, now) is not None:
            continue  # others wait for the account to prove itself
        if rest.probing and not rest.confirmed and scope not in live.overage:
            live.overage.append(scope)  # it reads full, yet it answers: extra usage is being sold
        if not scope and live.state in (AccountState.COOLING, AccountState.EXHAUSTED, AccountState.PROBING):
            move(live, AccountEvent.ANSWERED, StateActor.PROVIDER, now)
        del live.rests[scope]
        changed = True
    if changed:
        settle(live, now)
    return changed


def _note_latency(live: AccountHealth, seconds: float, now: float) -> bool:
    """Take another first byte in; True when the median moved by more than a tenth."""
    seen, old = live.first_bytes, live.latency
    seen.append(round(seconds, 3))
    if len(seen) > LATENCIES_KEPT:
        del seen[0]
    live.latency_at = now
    if len(seen) < LATENCIES_LEAST:
        return True
    live.latency = sorted(seen)[len(seen) // 2]
    return old is None or abs(live.latency - old) > 0.1 * old


def absorb(live: AccountHealth, observations: Iterable[WindowObservation], now: float) -> bool:
    """Take in sightings of windows; True when one of them, or the state, changed."""
    changed = rebase(live, now)
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
