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
from pool_server.language import LazyText
from pool_server.providers.evidence.table import EARNED, EVIDENCE, METERED, NextStep

HALF_LIFE_S = 600.0  # of `trouble`
LATENCIES_KEPT = 5  # first bytes whose median is an account's latency: one late answer moves it by nothing
LATENCIES_LEAST = 3
CLEAR_ROOM_USED = 90.0  # percent: at or below it a window ends a quota cooldown at once …
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
    health: AccountHealth, fault: Fault, now: float, *, model: str, operation: Operation, token: str, current: str
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
        absorb(health, fault.windows, now)
    health.last_fault = FaultNote(now, fault.kind, fault.code, fault.message, fault.status, model)
    if fault.kind is FaultKind.SUSPENDED:
        move(health, AccountEvent.STOPPED, StateActor.PROVIDER, now, fault.message)
        return True
    if fault.kind is FaultKind.NEEDS_USER:
        return login_lost(health, now, fault.message, current, StateActor.PROVIDER)
    if evidence.counts and not isinstance(fault.scope, RequestScope | ProviderScope):
        health.trouble, health.trouble_at = trouble(health, now) + 1.0, now
    scope = cooled(fault.scope, operation)
    if scope is not None and evidence.longest_s:
        _cool(health, fault, scope, now, current)
    settle(health, now)
    return True


_BLAMELESS = frozenset({FaultKind.ENCRYPTED_CONTENT, FaultKind.CLIENT_GONE})


def contrast(
    health: AccountHealth, fault: Fault, now: float, *, model: str, operation: Operation, token: str, current: str
) -> bool:
    """Another account served what this one refused: learnt for the model once that happened often enough in an hour
    without an answer of this account's in between. True when anything changed."""
    if not model:
        return False
    scope = scope_key(operation, model)
    times, since = health.doubts.pop(scope, (0, now))
    if not 0 <= now - since <= DOUBT_S:
        times, since = 0, now
    if times + 1 < EVIDENCE[fault.kind].times:
        health.doubts[scope] = (times + 1, since)
        if len(health.doubts) > DOUBTS_KEPT:
            del health.doubts[next(iter(health.doubts))]
        return True
    own = msgspec.structs.replace(fault, scope=ModelScope(model))
    return fail(health, own, now, model=model, operation=operation, token=token, current=current)


def acquit(health: AccountHealth, kind: FaultKind, since: float, now: float) -> bool:
    """A second account refused the same: what a bare refusal taught of this one since then is taken back."""
    cooldown = health.cooldowns.get("")
    if cooldown is None or cooldown.kind is not kind or not cooldown.bare or cooldown.since < since:
        return False
    del health.cooldowns[""]
    move(health, AccountEvent.ANSWERED, StateActor.PROVIDER, now)
    settle(health, now)
    return True


class LearnStep(Protocol):
    """`fail` or `contrast`."""

    def __call__(
        self, health: AccountHealth, fault: Fault, now: float, /, *, model: str, operation: Operation, token: str,
        current: str,
    ) -> bool: ...  # fmt: skip


def _cool(health: AccountHealth, fault: Fault, scope: str, now: float, current: str) -> None:
    rebase(health, now)
    old = health.cooldowns.get(scope)
    if fault.kind is FaultKind.QUOTA and scope in health.overage:
        health.overage.remove(scope)
    level = _level(old, now)
    until = _until(health, fault, scope, level, now)
    since = now
    if old is not None and now < old.until:
        tested = bool(old.probing) and fault.retry_at is not None
        if not tested:
            until = max(until, old.until)
        since = old.since
    cooldown = Cooldown(
        fault.kind, since, until, level, fault.code, fault.message, bare=fault.bare, length_s=until - now
    )
    if old is not None:
        cooldown.probed_at = now if old.probing else old.probed_at
    health.cooldowns[scope] = cooldown
    if scope:
        _forget_surplus(health)
        return
    if fault.kind is FaultKind.AUTH and level:
        login_lost(health, now, fault.message, current, StateActor.PROVIDER)
        return
    event = AccountEvent.QUOTA if fault.kind in (FaultKind.QUOTA, FaultKind.PAYMENT) else AccountEvent.FAULT
    if not move(health, event, StateActor.PROVIDER, now, fault.message):
        health.reason = fault.message


def _forget_surplus(health: AccountHealth) -> None:
    """Of too many models' cooldowns the ones that end soonest go."""
    surplus = len(health.cooldowns) - SCOPES_KEPT
    if surplus > 0:
        for scope in sorted((s for s in health.cooldowns if s), key=lambda s: health.cooldowns[s].until)[:surplus]:
            del health.cooldowns[scope]


def _level(old: Cooldown | None, now: float) -> int:
    """One level a cooldown: faults that arrive while it lasts were under way already and do not escalate."""
    if old is None or not old.confirmed:
        return 0
    if now < old.until:
        return old.level
    return old.level + 1 if now <= counts_until(old) else 0


def _until(health: AccountHealth, fault: Fault, scope: str, level: int, now: float) -> float:
    evidence = EVIDENCE[fault.kind]
    ladder = now + min(evidence.longest_s, evidence.first_s * 2.0 ** min(level, 20))
    bound = win.binding(health.windows, (scope, scope.partition(":")[2]) if scope else ())
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


def trouble(health: AccountHealth, now: float) -> float:
    """Recent faults, each halved every ten minutes."""
    if not health.trouble:
        return 0.0
    return health.trouble * math.exp2(-max(0.0, now - health.trouble_at) / HALF_LIFE_S)


def succeed(health: AccountHealth, scopes: tuple[str, ...], first_byte_s: float | None, now: float) -> bool:
    """Learn from an answered request; True when anything changed that is worth keeping.

    An answer ends the cooldowns it disproves. A quota cooldown is disproved by a half-open request only: other answers
    may belong to streams that began before the account ran out.
    """
    changed = first_byte_s is not None and _note_latency(health, first_byte_s, now)
    for scope in ("", *scopes):
        changed |= health.doubts.pop(scope, None) is not None
        cooldown = health.cooldowns.get(scope)
        if cooldown is None or not (cooldown.probing or cooldown.kind not in EARNED or now >= cooldown.until):
            continue
        if returning(cooldown, now) is not None:
            continue  # others wait for the account to prove itself
        if cooldown.probing and not cooldown.confirmed and scope not in health.overage:
            health.overage.append(scope)  # it reads full, yet it answers: extra usage is being sold
        if not scope and health.state in (AccountState.COOLING, AccountState.EXHAUSTED, AccountState.PROBING):
            move(health, AccountEvent.ANSWERED, StateActor.PROVIDER, now)
        del health.cooldowns[scope]
        changed = True
    if changed:
        settle(health, now)
    return changed


def _note_latency(health: AccountHealth, seconds: float, now: float) -> bool:
    """Take another first byte in; True when the median moved by more than a tenth."""
    seen, old = health.first_bytes, health.latency
    seen.append(round(seconds, 3))
    if len(seen) > LATENCIES_KEPT:
        del seen[0]
    health.latency_at = now
    if len(seen) < LATENCIES_LEAST:
        return True
    health.latency = sorted(seen)[len(seen) // 2]
    return old is None or abs(health.latency - old) > 0.1 * old


def absorb(health: AccountHealth, observations: Iterable[WindowObservation], now: float) -> bool:
    """Take in sightings of windows; True when one of them, or the state, changed."""
    changed = rebase(health, now)
    scopes: dict[str, WindowObservation] = {}
    for new in observations:
        name = win.key(new.window, new.scope)
        old = health.windows.get(name)
        merged = win.merge(old, new)
        if merged is old:
            continue
        health.windows[name] = merged
        scopes[new.scope] = new
        changed |= old is None or _differs(old, merged)
    for scope, new in scopes.items():
        if new.source is not Source.ERROR:
            _weigh_cooldown(health, scope, new, now)
    if scopes:
        win.prune(health.windows, now)
    return settle(health, now) or changed


def _differs(old: WindowObservation, new: WindowObservation) -> bool:
    """Is the newer sighting worth writing down? An equal one is once a minute."""
    same = old.used_percent == new.used_percent and old.resets_at == new.resets_at
    return not same or new.observed_at - old.observed_at > LAGGING_S


def _weigh_cooldown(health: AccountHealth, scope: str, new: WindowObservation, now: float) -> None:
    """End a cooldown for want of quota when the windows show room again; note when they confirm it."""
    cooldown = health.cooldowns.get(scope)
    if cooldown is None or cooldown.kind not in METERED or now >= cooldown.until:
        return
    bound = [w for w in health.windows.values() if w.scope == scope and w.window != win.CREDITS]
    percent = max((win.used(w, now) for w in bound), default=win.FULL)
    if percent >= win.FULL - 2.0:
        if new.source is Source.USAGE_ENDPOINT:
            cooldown.probed_at = now
        return
    if cooldown.confirmed and percent > CLEAR_ROOM_USED and new.observed_at < cooldown.since + LAGGING_S:
        return
    if cooldown.kind is FaultKind.RATE and cooldown.until - now < LAGGING_S:
        return  # a short-term limit is not what these windows count
    del health.cooldowns[scope]
    if not scope:
        actor = StateActor.USAGE if new.source is Source.USAGE_ENDPOINT else StateActor.PROVIDER
        move(health, AccountEvent.ROOM, actor, now)


def login_lost(health: AccountHealth, now: float, reason: LazyText | str, token: str, actor: StateActor) -> bool:
    """The credential named by `token` is dead for good: somebody must sign in again."""
    health.token = token
    return move(health, AccountEvent.LOGIN_LOST, actor, now, reason)


def new_login(health: AccountHealth, now: float) -> bool:
    """The file brought a credential that the pool did not write: what the old one suffered is over."""
    changed = move(health, AccountEvent.NEW_LOGIN, StateActor.FILE, now) or bool(health.cooldowns)
    health.cooldowns.clear()
    health.token = ""
    settle(health, now)
    return changed


def reset(health: AccountHealth, now: float) -> bool:
    """The operator's word: forget cooldowns, faults and full windows, and try again. Always a change."""
    health.cooldowns.clear()
    health.windows = {name: w for name, w in health.windows.items() if win.used(w, now) < win.FULL - 2.0}
    health.trouble = 0.0
    health.easing_until = 0.0
    health.token = ""
    move(health, AccountEvent.RESET, StateActor.OPERATOR, now)
    settle(health, now)
    return True
