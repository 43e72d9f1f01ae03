"""What the pool has learnt of one account: state, cooldowns, windows, latency. Plain data and pure changes by the
clock.

A cooldown is a time for which the account ("" as scope) or one model family or model is left alone. Faults make them
(`learn.py`), the clock, answers and observations end them.
"""

from __future__ import annotations

from math import inf

import msgspec

from pool_server.accounts.health import windows as win
from pool_server.accounts.health.share_use import ShareUse
from pool_server.accounts.health.transitions import AccountEvent, StateActor, after
from pool_server.core import deadlines
from pool_server.core.enums import AccountState, FaultKind
from pool_server.core.models import WindowObservation
from pool_server.language import LazyText
from pool_server.providers.evidence.table import METERED

LOW_ROOM = 1.0  # percent: at or below it an account drains, taking no new conversations while others can
PROBE_LIMIT_S = 600.0  # a half-open request that told nothing for so long (its worker died) is over
EASE_LONGEST_S = 30.0  # after a long cooldown accounts come back spread over so many seconds
LONG_COOLDOWN_S = 300.0
SKEW_S = 1.0  # between two readings of the clock that are one moment
RETURN_STEP_S = 2.0  # after a limit an account takes 1, 2, 4 … requests, doubled by time and by what is answered …
RETURN_STEPS = 6  # … for so many steps
LEVEL_KEPT_S = 600.0  # so long after its end, or twice its own length, a cooldown counts for the level of the next


class Cooldown(msgspec.Struct):
    """Why and until when something is left alone. `confirmed`: a refusal said so, not a window alone."""

    kind: FaultKind
    since: float
    until: float
    level: int = 0
    code: str = ""
    message: str = ""
    confirmed: bool = True
    probed_at: float = 0.0  # the last time a half-open request, or the usage endpoint, tested it
    probing: float = 0.0  # since when a half-open request is under way; 0 = none
    bare: bool = False  # a status alone said so
    begun: int = 0  # requests begun since the account is back, …
    answered: int = 0  # … and how many of them were answered
    length_s: float = 0.0  # how long it was to last from when `until` was set; 0 = from `since`


class FaultNote(msgspec.Struct, frozen=True):
    """The last fault, for people."""

    at: float
    kind: FaultKind
    code: str = ""
    message: str = ""
    status: int = 0
    model: str = ""


class AccountHealth(msgspec.Struct):
    """Everything learnt of an account; kept in the state store as it is.

    `jitter` (0–1) is drawn once an account, so that accounts that reset together do not come back together.
    `token` names (by fingerprint) the credential a NEEDS_LOGIN speaks of. `trouble` counts recent faults and
    halves every ten minutes; `latency` is the median of the last seconds to the first byte
    (`first_bytes`), None until enough are known, as seen at `latency_at`. `doubts` counts, for an
    operation's model, the requests refused here and served elsewhere, and since when. `share_use`: where the owner
    keeps a part.
    """

    state: AccountState = AccountState.READY
    since: float = 0.0
    actor: StateActor = StateActor.FILE
    event: AccountEvent = AccountEvent.NEW_LOGIN
    reason: str = ""  # in English
    told: LazyText | None = None  # the same where it is the pool's own words
    token: str = ""
    easing_until: float = 0.0
    cooldowns: dict[str, Cooldown] = msgspec.field(default_factory=dict, name="rests")
    windows: dict[str, WindowObservation] = {}
    overage: list[str] = []  # scopes that answer although their window reads full (paid extra usage)
    last_fault: FaultNote | None = None
    trouble: float = 0.0
    trouble_at: float = 0.0
    latency: float | None = None
    latency_at: float = 0.0
    first_bytes: list[float] = []
    jitter: float = 0.0
    doubts: dict[str, tuple[int, float]] = {}
    share_use: ShareUse | None = None

    @property
    def cooldown(self) -> Cooldown | None:
        """The cooldown of the whole account, if it has or had one."""
        return self.cooldowns.get("")


_COOLING = frozenset({AccountState.COOLING, AccountState.EXHAUSTED, AccountState.PROBING})


def move(
    health: AccountHealth, event: AccountEvent, actor: StateActor, now: float, reason: LazyText | str = ""
) -> bool:
    """Apply one event through the table; True when the state changed."""
    state = after(health.state, event)
    if state is health.state:
        return False
    health.state, health.since, health.actor, health.event = state, now, actor, event
    health.reason, health.told = str(reason), reason if isinstance(reason, LazyText) else None
    return True


def settle(health: AccountHealth, now: float) -> bool:
    """Bring the state in line with the clock and the windows; True when anything changed.

    Ends cooldowns whose time is over, begins a cooldown where a window reads full, and drains or frees by room.
    """
    changed = rebase(health, now)
    changed |= bool(health.cooldowns or health.state in _COOLING) and _end_cooldowns(health, now)
    tight = [w for w in health.windows.values() if w.used_percent >= win.FULL - LOW_ROOM]
    if tight:
        changed |= _cool_full_windows(health, tight, now)
    if health.state is AccountState.READY:
        if tight and _low(health, tight, now):
            changed |= move(health, AccountEvent.LOW, StateActor.CLOCK, now)
    elif health.state is AccountState.DRAINING and not _low(health, tight, now):
        changed |= move(health, AccountEvent.ROOM, StateActor.CLOCK, now)
    return changed


def rebase(health: AccountHealth, now: float) -> bool:
    """Bring back what was written by a clock that has been set back since; True when there was any."""
    changed = False
    for cooldown in health.cooldowns.values():
        until = deadlines.within(cooldown.until, now, cooldown.length_s or cooldown.until - cooldown.since)
        if until < cooldown.until - 0.001 or max(cooldown.since, cooldown.probing, cooldown.probed_at) > now:
            cooldown.until, cooldown.since = until, min(cooldown.since, now)
            cooldown.probing, cooldown.probed_at = min(cooldown.probing, now), min(cooldown.probed_at, now)
            changed = True
    for name, w in health.windows.items():
        if w.observed_at > now + SKEW_S:
            at = w.resets_at
            resets_at = None if at is None else deadlines.within(at, now, max(0.0, at - w.observed_at))
            health.windows[name] = msgspec.structs.replace(w, observed_at=now, resets_at=resets_at)
            changed = True
    if health.easing_until > now + EASE_LONGEST_S + 1:
        health.easing_until = now + EASE_LONGEST_S
        changed = True
    return changed


def returning(cooldown: Cooldown, now: float) -> int | None:
    """How many requests more an account may take that is just back from a limit; None when it takes all."""
    if (
        cooldown.kind not in METERED
        or not cooldown.confirmed
        or not 0 <= now - cooldown.until < RETURN_STEPS * RETURN_STEP_S
    ):
        return None
    allowed = (1 + cooldown.answered) << int((now - cooldown.until) / RETURN_STEP_S)
    return max(0, allowed - (cooldown.begun - cooldown.answered))


def return_begun(health: AccountHealth, scopes: tuple[str, ...], now: float) -> bool:
    """A request to an account that is just back began; True when that was worth counting."""
    found = [r for s in ("", *scopes) if (r := health.cooldowns.get(s)) is not None and returning(r, now) is not None]
    for cooldown in found:
        cooldown.begun += 1
    return bool(found)


def return_answered(health: AccountHealth, scopes: tuple[str, ...], now: float) -> bool:
    """An account that is just back answers: it may take two more for this one."""
    found = [r for s in ("", *scopes) if (r := health.cooldowns.get(s)) is not None and returning(r, now) is not None]
    for cooldown in found:
        cooldown.answered = min(cooldown.answered + 1, cooldown.begun)
    return bool(found)


def counts_until(cooldown: Cooldown) -> float:
    """Until when a cooldown that is over still makes the next one longer."""
    return cooldown.until + max(LEVEL_KEPT_S, 2 * (cooldown.until - cooldown.since))


def _low(health: AccountHealth, tight: list[WindowObservation], now: float) -> bool:
    """Has the account hardly any room? Its own windows of ten minutes and longer say so."""
    lasting = [
        w for w in tight if not w.scope and w.window != win.CREDITS and not 0 < w.seconds < win.SHORTEST_PACED
    ]  # fmt: skip
    room = win.room(lasting, now)
    return room is not None and room <= LOW_ROOM and "" not in health.overage


def _end_cooldowns(health: AccountHealth, now: float) -> bool:
    changed = False
    for scope, cooldown in list(health.cooldowns.items()):
        if cooldown.probing and now - cooldown.probing > PROBE_LIMIT_S:
            changed |= probe_lost(health, scope, now)
        if scope and counts_until(cooldown) < now:
            del health.cooldowns[scope]
    whole = health.cooldowns.get("")
    if health.state not in _COOLING:
        return changed
    if whole is None or now >= whole.until:
        if whole is not None and whole.until - whole.since >= LONG_COOLDOWN_S:
            health.easing_until = whole.until + 1 + health.jitter * (EASE_LONGEST_S - 1)
        changed |= move(health, AccountEvent.RESTED, StateActor.CLOCK, now)
    return changed


def _cool_full_windows(health: AccountHealth, tight: list[WindowObservation], now: float) -> bool:
    changed = False
    for w in tight:
        if w.used_percent < win.FULL or w.scope in health.overage:
            continue
        until = win.full_until(w, now)
        cooldown = health.cooldowns.get(w.scope)
        if until is None or until <= now or (cooldown is not None and cooldown.until > now and cooldown.until >= until):
            continue
        if not w.scope and health.state not in (AccountState.READY, AccountState.DRAINING):
            continue
        health.cooldowns[w.scope] = Cooldown(
            FaultKind.QUOTA, now, until, code=w.window, confirmed=False, length_s=until - now
        )
        changed = True
        if not w.scope:
            move(health, AccountEvent.FULL, StateActor.PROVIDER, now)
    return changed


def probe_begun(health: AccountHealth, scope: str, now: float) -> bool:
    """A half-open request to what cools under `scope` began; True when there was something to probe,
    and nobody did."""
    cooldown = health.cooldowns.get(scope)
    if cooldown is None or now >= cooldown.until or (cooldown.probing and now - cooldown.probing <= PROBE_LIMIT_S):
        return False
    if not scope and not move(health, AccountEvent.PROBE, StateActor.CLOCK, now, cooldown.message):
        return False
    cooldown.probing = cooldown.probed_at = now
    return True


def probe_lost(health: AccountHealth, scope: str, now: float) -> bool:
    """The half-open request ended without an answer or a fault: back to its cooldown. True when one was under way."""
    cooldown = health.cooldowns.get(scope)
    if cooldown is None or not cooldown.probing:
        return False
    cooldown.probing = 0.0
    if not scope and health.state is AccountState.PROBING:
        move(health, AccountEvent.PROBE_LOST, StateActor.CLOCK, now, cooldown.message)
        if cooldown.kind in (FaultKind.QUOTA, FaultKind.PAYMENT):
            move(health, AccountEvent.QUOTA, StateActor.CLOCK, now, cooldown.message)
    return True


def next_step(cooldown: Cooldown, now: float) -> float:
    """When an account that is just back may take more by the clock alone."""
    return cooldown.until + RETURN_STEP_S * (int((now - cooldown.until) / RETURN_STEP_S) + 1)


def next_change(health: AccountHealth, now: float) -> float:
    """When the clock alone will next change what this account is worth; infinity for never."""
    nearest = inf
    for cooldown in health.cooldowns.values():
        if now < cooldown.until < nearest:
            nearest = cooldown.until
        elif returning(cooldown, now) is not None:
            nearest = min(nearest, next_step(cooldown, now))
    if now < health.easing_until < nearest:
        nearest = health.easing_until
    for w in health.windows.values():
        at = w.resets_at if w.resets_at is not None else w.observed_at + w.seconds
        if now < at < nearest:
            nearest = at
    return nearest
