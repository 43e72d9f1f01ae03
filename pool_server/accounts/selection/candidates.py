"""One order of a cohort's accounts, and the one place where an account's eligibility is judged."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Any

import msgspec

from pool_server.accounts.health import share_use
from pool_server.accounts.health import windows as win
from pool_server.accounts.health.demand_clock import EVEN, DemandClock
from pool_server.accounts.health.probing import probe_due
from pool_server.accounts.health.state import AccountHealth, Cooldown, next_step, returning
from pool_server.accounts.health.transitions import SCOPED_REFUSALS, STATE_REFUSALS
from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.score import Candidate, Key, rank, rate, rerate
from pool_server.core.enums import AccountState, Dialect, FaultKind, Operation, Provider, Refusal, Strategy

PROBE_TELLS_S = 10.0
UNSEEN_S = 2.0  # whoever waits for what requests in flight will have used looks again after so long

RETURNING = frozenset(
    {Refusal.COOLING, Refusal.EXHAUSTED, Refusal.RATE_LIMITED, Refusal.RETURNING, Refusal.MODEL_COOLING,
     Refusal.MODEL_EXHAUSTED, Refusal.PROBING, Refusal.EXPIRED, Refusal.RESERVED}
)  # fmt: skip


class Need(msgspec.Struct, frozen=True):
    """What an exchange asks of an account, as far as its kind of account decides it."""

    operation: Operation
    dialect: Dialect
    model: str
    websocket: bool = False
    own_dialect: bool = False  # whoever asks wants the vendor's own dialect spoken upstream


Return = tuple[float, str]  # unix seconds, account
Fit = Callable[[Account, Need], Refusal | None]
Family = Callable[[Provider, str], str]


class Placement:
    """Where a queue keeps an account: in which order, by which key, and when its half-open request is due."""

    __slots__ = ("account", "candidate", "due", "home", "key")

    def __init__(self, account: Account, candidate: Candidate) -> None:
        self.account = account
        self.candidate = candidate
        self.home: list[Any] | None = None
        self.key: Key | Return | None = None
        self.due: Return | None = None


class CandidateQueue:
    """A cohort's accounts as they stand for one set of scopes, in sorted lists.

    `ready`: eligible, best first. `cooling`: those with a known return, soonest first. `reserved`: owner →
    eligible for that owner alone. `probes`: when a half-open request to a cooling account is due.
    """

    __slots__ = ("clock", "cooling", "placements", "probes", "ready", "refused", "reserved", "scopes", "stopped")

    def __init__(self, scopes: tuple[str, ...], clock: DemandClock = EVEN) -> None:
        self.scopes = scopes
        self.clock = clock
        self.clear()

    def clear(self) -> None:
        """Nobody is placed any more."""
        self.placements: dict[str, Placement] = {}
        self.ready: list[Key] = []
        self.cooling: list[Return] = []
        self.probes: list[Return] = []
        self.reserved: dict[str, list[Key]] = {}
        self.stopped: dict[str, None] = {}
        self.refused: dict[Refusal, int] = {}

    def place(self, account: Account, strategy: Strategy, usual_latency: float | None, now: float) -> None:
        """Put the account where it belongs now."""
        placement = judge(account, self.scopes, now, usual_latency, self.clock)
        refusal = placement.candidate.refusal
        if placement.candidate.score is not None:
            placement.key = rank(account, placement.candidate, strategy)
            placement.home = self.ready
            if refusal is Refusal.RESERVED:
                placement.home = self.reserved.setdefault(account.owner, [])
        elif placement.candidate.until is not None and refusal in RETURNING:
            placement.key = (placement.candidate.until, account.id)
            placement.home = self.cooling
            due = probe_due(account.health, self.scopes, now)
            placement.due = (due, account.id) if due is not None else None
        self._insert(placement)

    def move(self, account: Account, strategy: Strategy, usual_latency: float | None, now: float) -> None:
        """`place`, where only what is under way at the account, or its turn, has changed."""
        known = self.placements.get(account.id)
        if known is None or known.home is not self.ready or account.keeps:
            self.place(account, strategy, usual_latency, now)
            return
        placement = Placement(account, rerate(account, known.candidate))
        placement.key = rank(account, placement.candidate, strategy)
        placement.home = self.ready
        self._insert(placement)

    def _insert(self, placement: Placement) -> None:
        account_id, refusal = placement.account.id, placement.candidate.refusal
        old = self.placements.get(account_id)
        if old is not None:
            same = old.home is placement.home and old.key == placement.key and old.due == placement.due
            if same and old.candidate.refusal is refusal:
                self.placements[account_id] = placement
                return
            self.drop(account_id)
        self.placements[account_id] = placement
        if placement.home is not None:
            insort(placement.home, placement.key)
        else:
            self.stopped[account_id] = None
        if placement.due is not None:
            insort(self.probes, placement.due)
        if refusal is not None:
            self.refused[refusal] = self.refused.get(refusal, 0) + 1

    def drop(self, account_id: str) -> None:
        """Take the account out, if it is in."""
        placement = self.placements.pop(account_id, None)
        if placement is None:
            return
        if placement.home is not None:
            _remove(placement.home, placement.key)
        else:
            del self.stopped[account_id]
        if placement.due is not None:
            _remove(self.probes, placement.due)
        refusal = placement.candidate.refusal
        if refusal is not None:
            self.refused[refusal] -= 1
            if not self.refused[refusal]:
                del self.refused[refusal]


def _remove(order: list[Any], key: Any) -> None:
    del order[bisect_left(order, key)]


def judge(
    account: Account, scopes: tuple[str, ...], now: float, usual_latency: float | None, clock: DemandClock = EVEN
) -> Placement:
    """An account's standing for a model of these scopes: the one place where eligibility is decided. `clock` counts the
    time that windows must last."""
    refusal, until = _refusal(account, scopes, now)
    if refusal is not None:
        return Placement(account, Candidate(account.id, refusal, until))
    candidate = rate(account, scopes, now, usual_latency=usual_latency, clock=clock)
    if account.keeps:
        kept, until = kept_back(account, account.health, scopes, now)
        if kept:
            candidate = msgspec.structs.replace(candidate, refusal=Refusal.RESERVED, until=until)
    return Placement(account, candidate)


def kept_back(
    account: Account, health: AccountHealth, scopes: tuple[str, ...], now: float
) -> tuple[bool, float | None]:
    """Whether what is left is the owner's alone, and when the last window that says so begins anew; None when one does
    not say. A window whose share its owner told and nobody has reported yet is taken for the owner's. `health` is the
    account's, as all have it."""
    options = account.options
    least = 100 * options.reserve
    seen = [w for w in win.binding(health.windows, scopes) if not 0 < w.seconds < win.SHORTEST_PACED]
    unseen = options.terms.share.keys() - {w.window for w in seen} - ({""} if seen else set())
    if any(options.terms.kept(name) > 0 for name in unseen):
        return True, None
    given = [
        (w, win.FULL - win.used(w, now) - kept) for w in seen if (kept := max(least, options.terms.kept(w.window)))
    ]
    down = [w for w, left in given if left <= 0]
    if not down:
        waits = not all(share_use.fits(health.share_use, w, left, now) for w, left in given)
        return waits, now + UNSEEN_S if waits else None
    resets = [win.time_left(w, now) for w in down]
    known = [left for left in resets if left is not None]
    return True, now + max(known) if known and len(known) == len(resets) else None


def _refusal(account: Account, scopes: tuple[str, ...], now: float) -> tuple[Refusal | None, float | None]:
    state = account.state
    cooldown = account.health.cooldowns.get("")
    if state in STATE_REFUSALS:
        cooling = state in (AccountState.COOLING, AccountState.EXHAUSTED, AccountState.PROBING)
        if not cooling or cooldown is None:
            return STATE_REFUSALS[state], None
        limited = state is AccountState.COOLING and cooldown.kind is FaultKind.RATE
        return Refusal.RATE_LIMITED if limited else STATE_REFUSALS[state], _back_at(cooldown, now)
    expires_at = account.credential.expires_at
    if expires_at is not None and now >= expires_at:
        if not account.refreshable:
            return Refusal.EXPIRED, None
        if account.refresh_retry_at > now:
            return Refusal.EXPIRED, account.refresh_retry_at
    if account.refused_until > now:
        return Refusal.EXPIRED, account.refused_until
    return _cooldown(account.health, scopes, now) if account.health.cooldowns else (None, None)


def _cooldown(health: AccountHealth, scopes: tuple[str, ...], now: float) -> tuple[Refusal | None, float | None]:
    """The cooldown of one of these scopes that ends last, or the return from one that has ended."""
    found: tuple[Refusal | None, float | None] = (None, None)
    for scope in ("", *scopes):
        cooldown = health.cooldowns.get(scope)
        if cooldown is None:
            continue
        if now >= cooldown.until:
            if returning(cooldown, now) != 0:
                continue
            why, until = Refusal.RETURNING, next_step(cooldown, now)
        elif scope:
            why = Refusal.PROBING if cooldown.probing else SCOPED_REFUSALS.get(cooldown.kind, Refusal.MODEL_COOLING)
            until = _back_at(cooldown, now)
        else:
            continue  # the account's state has said so
        if found[1] is None or until > found[1]:
            found = (why, until)
    return found


def _back_at(cooldown: Cooldown, now: float) -> float:
    """When the account may be back: a half-open request under way tells within moments."""
    told = cooldown.probing + PROBE_TELLS_S
    return told if cooldown.probing and now < told < cooldown.until else cooldown.until


def just_back(account: Account, now: float) -> bool:
    """Is the account, or a model of it, back from a limit only now?"""
    return any(returning(cooldown, now) is not None for cooldown in account.health.cooldowns.values())
