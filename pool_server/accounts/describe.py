"""Accounts as people need them: enum values and numbers, no texts of the pool's own and nothing secret. The rows are
pure; `AccountRows` makes them: a short one of each account for lists and sums, a whole one of those that are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from itertools import islice

import msgspec

from pool_server.accounts.background import Background
from pool_server.accounts.health import windows as win
from pool_server.accounts.health.probing import probe_due
from pool_server.accounts.health.state import AccountHealth, Cooldown
from pool_server.accounts.health.transitions import AccountEvent, StateActor
from pool_server.accounts.registry import Registry
from pool_server.accounts.selection import returns
from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.candidates import RETURNING, Need
from pool_server.accounts.selection.score import Candidate
from pool_server.accounts.selection.select import SelectionRequest
from pool_server.core.enums import AccountState, CredentialKind, FaultKind, Provider, Refusal
from pool_server.core.models import WindowObservation
from pool_server.core.origins import host_of
from pool_server.language import localized

MOST_LOOKED_AT = 64  # accounts of a cohort; a pool with more has its mean estimated from as many


class QuotaWindowRow(msgspec.Struct, frozen=True):
    """`scope` "" is the whole account's window, else a model's or a group of models'. `elapsed_percent` is the pace
    mark: the share of the window's time that is gone."""

    window: str
    scope: str
    seconds: float
    used_percent: float | None
    resets_at: float | None
    elapsed_percent: float | None
    source: str
    observed_at: float


class PooledWindow(msgspec.Struct, frozen=True):
    """A window of all accounts of a provider together; `seconds` 0 where it has no length."""

    window: str
    seconds: float
    accounts: int
    used_percent: float | None
    resets_at: float | None


class ProviderStatus(msgspec.Struct, frozen=True):
    """`accounts` counts by state; `room_percent` is the mean of what usable accounts have left, null where that is not
    known."""

    provider: Provider
    accounts: dict[AccountState, int]
    ready: int
    total: int
    room_percent: float | None
    windows: list[PooledWindow]
    next_return: float | None
    in_flight: int
    unreachable: int
    returning: int


class CandidateRow(msgspec.Struct):
    """`terms` are what the score is made of; `refusal` is why it could not serve, `until` when it may again."""

    account: str
    score: float | None = None
    terms: dict[str, float] = {}
    refusal: str | None = None
    until: float | None = None


class MoveRow(msgspec.Struct):
    """A conversation's change of account, made or weighed and not made. `price`: what is to be read again, as a term of
    the score; `tokens`: the same at the price of fresh input; `gain`: by how much the other's score is better. null:
    not known."""

    before: str = msgspec.field(name="from")
    to: str
    price: float | None = None
    tokens: float | None = None
    gain: float | None = None


class DecisionRow(msgspec.Struct):
    """How the account was chosen; empty where none was looked for. `refused` counts accounts by why they could not
    serve."""

    account: str | None = None
    reason: str | None = None
    strategy: str = ""
    pinned: str | None = None
    probe: bool = False
    hard_lost: bool = False
    retry_at: float | None = None
    eligible: int = 0
    refused: dict[str, int] = {}
    candidates: list[CandidateRow] = []
    move: MoveRow | None = None


class CooldownRow(msgspec.Struct, frozen=True):
    """Why the account, or what `scope` names, is not asked, and until when."""

    scope: str
    kind: FaultKind
    until: float
    since: float
    level: int
    code: str
    message: str
    confirmed: bool
    probe_at: float | None


class FaultRow(msgspec.Struct, frozen=True):
    """`status` is 0 where no answer came."""

    at: float
    kind: FaultKind
    code: str
    message: str
    status: int
    model: str


class AccountBrief(msgspec.Struct, frozen=True):
    """What lists of accounts are searched, sorted and counted by; read from what is held already."""

    id: str
    provider: Provider
    kind: CredentialKind
    plan: str | None
    label: str
    state: AccountState
    message: str
    expires_at: float | None
    can_refresh: bool
    priority: int
    owner: str
    disabled: bool
    locked: bool


class AccountRow(AccountBrief, frozen=True):
    """An account. Times are unix seconds (`served_at`: when it last answered this worker), `latency_ms` milliseconds,
    percentages 0 to 100 and more. `terms` are what its `score` is made of, `refusal` is why it would not be chosen now,
    `rests` are its cooldowns; null people and groups are everybody."""

    reason: AccountEvent | None
    set_by: StateActor
    since: float | None
    windows: list[QuotaWindowRow]
    cooldown_until: float | None
    unreachable_until: float | None
    rests: list[CooldownRow]
    in_flight: int
    admin_key: bool
    sign_in_ends: float | None
    served_at: float | None
    last_fault: FaultRow | None
    latency_ms: int | None
    weight: float
    reserve: float
    score: float | None
    terms: dict[str, float]
    refusal: Refusal | None
    until: float | None
    proxy: str
    hosts: list[str]
    owner_id: str
    file: str
    models: list[str]
    people: list[str] | None
    groups: list[str] | None
    sharing: SharingRow
    unsaved: bool
    next_poll: float | None
    next_refresh: float | None


class RejectedFileRow(msgspec.Struct):
    file: str
    reason: str


class RemovedAccount(msgspec.Struct):
    """One that can be brought back."""

    account: str
    file: str
    at: float


class SharingRow(msgspec.Struct, frozen=True):
    """An owner's terms: whether they go first, when sharing ends, when of a day others are served, and which part of
    each window is theirs."""

    own_first: bool
    until: float | None
    hours: list[str]
    share: dict[str, float]


class StandingRow(msgspec.Struct, frozen=True):
    """Would this account be chosen now, and why or why not."""

    account: str
    eligible: bool
    refusal: Refusal | None
    until: float | None
    score: float | None
    terms: dict[str, float]
    priority: int


_Brief = tuple[
    str, Provider, CredentialKind, str | None, str, AccountState, str, float | None, bool, int, str, bool, bool
]


def _brief(account: Account, locked: str | None) -> _Brief:
    """The fields of `AccountBrief`."""
    credential, options, health, state = account.credential, account.options, account.health, account.state
    message = "" if state is AccountState.READY else localized(health.told or health.reason)
    return (
        account.id, account.provider, credential.kind, credential.plan, options.label, state, message,
        credential.expires_at, account.refreshable, options.priority, options.owner, options.disabled,
        account.id == locked,
    )  # fmt: skip


def standing_row(account: Account, refusal: Refusal | None, standing: Candidate) -> StandingRow:
    score, terms = standing.shown()
    return StandingRow(account.id, refusal is None, refusal, standing.until, score, terms, account.options.priority)


def window_row(w: WindowObservation, now: float) -> QuotaWindowRow:
    """One window as it reads now."""
    left = win.time_left(w, now)
    return QuotaWindowRow(
        window=w.window,
        scope=w.scope,
        seconds=w.seconds,
        used_percent=round(win.used(w, now), 2),
        resets_at=w.resets_at if left is not None else None,
        elapsed_percent=round(100 * (1 - left / w.seconds), 1) if left is not None and w.seconds else None,
        source=str(w.source),
        observed_at=w.observed_at,
    )


def _cooldown_row(health: AccountHealth, scope: str, cooldown: Cooldown, now: float) -> CooldownRow:
    return CooldownRow(
        scope=scope,
        kind=cooldown.kind,
        until=cooldown.until,
        since=cooldown.since,
        level=cooldown.level,
        code=cooldown.code,
        message=localized(cooldown.message),
        confirmed=cooldown.confirmed,
        probe_at=probe_due(health, (scope,) if scope else (), now),
    )


def cooldown_until(health: AccountHealth, now: float) -> float | None:
    """When the whole account's cooldown ends, None without one."""
    cooldown = health.cooldown
    cooling = health.state in (AccountState.COOLING, AccountState.EXHAUSTED, AccountState.PROBING)
    return cooldown.until if cooling and cooldown is not None and cooldown.until > now else None


def _fault_row(health: AccountHealth) -> FaultRow | None:
    note = health.last_fault
    if note is None:
        return None
    return FaultRow(note.at, note.kind, note.code, localized(note.message), note.status, note.model)


def provider_status(
    provider: Provider, accounts: list[Account], standings: list[Candidate], now: float
) -> ProviderStatus:
    """One provider's accounts together."""
    states: dict[AccountState, int] = {}
    disabled = AccountState.DISABLED
    ready = in_flight = unreachable = returning = 0
    next_return: float | None = None
    for account, standing in zip(accounts, standings, strict=True):  # of ten thousand, on the event loop
        state = disabled if account.options.disabled else account.health.state
        states[state] = states.get(state, 0) + 1
        in_flight += account.local + account.elsewhere
        if account.unreachable_until > now:
            unreachable += 1
        if (refusal := standing.refusal) is None:
            ready += 1
            continue
        returning += refusal is Refusal.RETURNING
        until = standing.until
        if until is not None and (next_return is None or until < next_return) and refusal in RETURNING:
            next_return = until
    room, windows = _pooled(accounts, now)
    return ProviderStatus(
        provider,
        states,
        ready,
        len(accounts),
        None if room is None else round(room, 1),
        windows,
        next_return,
        in_flight,
        unreachable,
        returning,
    )


_DEAD = (AccountState.NEEDS_LOGIN, AccountState.SUSPENDED)


def _pooled(accounts: Iterable[Account], now: float) -> tuple[float | None, list[PooledWindow]]:
    """The mean percent left in the tightest windows of those accounts that live (None: unknown), and per window of
    whole accounts the mean use and the next reset."""
    seen: dict[tuple[int, str], list[float]] = {}
    resets: dict[tuple[int, str], float] = {}
    rooms: list[float] = []
    used, credits, full = win.used, win.CREDITS, win.FULL
    for account in accounts:
        health = account.health
        if not health.windows or account.options.disabled or health.state in _DEAD:
            continue
        most = -1.0
        for w in health.windows.values():
            if w.scope or w.window == credits:
                continue
            percent, resets_at, key = used(w, now), w.resets_at, (w.seconds, w.window)
            if percent > most:
                most = percent
            if (group := seen.get(key)) is None:
                group = seen[key] = []
            group.append(percent)
            if resets_at is not None and resets_at > now and resets_at < resets.get(key, math.inf):
                resets[key] = resets_at
        if most >= 0:
            rooms.append(max(0.0, full - most))
    rows = [
        PooledWindow(name, seconds, len(group), round(sum(group) / len(group), 1), resets.get((seconds, name)))
        for (seconds, name), group in sorted(seen.items())
    ]
    return (sum(rooms) / len(rooms) if rooms else None), rows


def sample(accounts: Collection[Account]) -> list[Account]:
    """At most `MOST_LOOKED_AT` of the accounts, spread evenly over them."""
    step = max(1, -(-len(accounts) // MOST_LOOKED_AT))
    return list(islice(accounts, 0, None, step))


def glance(provider: Provider, accounts: list[Account], now: float) -> tuple[float | None, list[PooledWindow]]:
    """(percent of room left, windows) as in `Accounts.summary()`, without the rest of its row."""
    standings = [Candidate(account.id) for account in accounts]
    row = provider_status(provider, accounts, standings, now)
    return row.room_percent, row.windows


class AccountRows:
    """`now` gives unix seconds, with the index brought up to them."""

    def __init__(self, registry: Registry, background: Background, now: Callable[[], float]) -> None:
        self._registry = registry
        self._index = registry.index
        self._background = background
        self._now = now

    def describe(self, account_id: str) -> AccountRow:
        """One account, with its score terms; see INTERFACE. Raises KeyError."""
        now = self._now()
        return self._row(self._registry.account(account_id), now)

    def all(self) -> list[AccountRow]:
        """All accounts, in the order of their ids; takes a tenth of a millisecond each."""
        return self.some(sorted(self._index.accounts))

    def some(self, ids: Iterable[str]) -> list[AccountRow]:
        """Those of these accounts that are in the pool, in that order."""
        now, accounts = self._now(), self._index.accounts
        return [self._row(accounts[account_id], now) for account_id in ids if account_id in accounts]

    def brief_all(self) -> list[AccountBrief]:
        """Of all accounts, in the order of their ids, what lists are searched, sorted and counted by."""
        self._now()
        locked = self._index.locked
        return [AccountBrief(*_brief(account, locked)) for _, account in sorted(self._index.accounts.items())]

    def _row(self, account: Account, now: float) -> AccountRow:
        credential, options, health = account.credential, account.options, account.health
        terms = options.terms
        standing = returns.standing(self._index, account, (), now)
        score, parts = standing.shown()
        credentials = self._registry.credentials
        windows = sorted(health.windows.values(), key=lambda w: (w.scope, w.seconds))
        return AccountRow(
            *_brief(account, self._index.locked),
            reason=None if account.state is AccountState.READY else health.event,
            set_by=health.actor,
            since=health.since or None,
            windows=[window_row(w, now) for w in windows],
            cooldown_until=cooldown_until(health, now),
            unreachable_until=account.unreachable_until if account.unreachable_until > now else None,
            rests=[_cooldown_row(health, of, one, now) for of, one in health.cooldowns.items() if one.until > now],
            in_flight=account.in_flight,
            admin_key=bool(credential.admin_key),
            sign_in_ends=credential.sign_in_ends,
            served_at=account.served_at or None,
            last_fault=_fault_row(health),
            latency_ms=None if health.latency is None else round(health.latency * 1000),
            weight=options.weight,
            reserve=options.reserve,
            score=score,
            terms=parts,
            refusal=standing.refusal,
            until=standing.until,
            proxy=host_of(options.proxy_url) if options.proxy_url else "",
            hosts=credentials.hosts(account.id, self._registry.settings),
            owner_id=credentials.owner_id(options.owner.strip()) if options.owner else "",
            file=credentials.items[account.id].found.name,
            models=list(credential.models),
            people=None if options.people is None else list(options.people),
            groups=None if options.groups is None else list(options.groups),
            sharing=SharingRow(terms.own_first, terms.until, list(terms.hours), terms.share),
            unsaved=account.id in credentials.owed,
            next_poll=self._background.polls.due(account.id),
            next_refresh=self._background.refreshes.due(account.id),
        )

    def explain(self, request: SelectionRequest | None = None) -> list[StandingRow]:
        """For each account of the asked providers (all, without an ask): would it be chosen now, and why or why
        not."""
        now = self._now()
        rows: list[tuple[Refusal | None, Account, Candidate]] = []
        for account in self._index.accounts.values():
            provider = account.provider
            scopes = self._index.scopes(provider, request.model, request.operation) if request is not None else ()
            standing = returns.standing(self._index, account, scopes, now)
            refusal = standing.refusal
            if request is not None:
                refusal = self._unfit(account, request, now) or refusal
            rows.append((refusal, account, standing))
        rows.sort(key=lambda r: (r[0] is not None, r[1].options.priority, -(r[2].score or 0.0), r[1].id))
        return [standing_row(account, refusal, standing) for refusal, account, standing in rows]

    def _unfit(self, account: Account, request: SelectionRequest, now: float) -> Refusal | None:
        if account.provider not in request.providers:
            return Refusal.PROVIDER
        if request.forced is not None and request.forced != account.id:
            return Refusal.NOT_FORCED
        cohort = self._index.cohort_of(account.id)
        if not self._index.shared(cohort, request.user, now):
            return Refusal.NOT_SHARED
        return self._index.unfit(
            cohort, Need(request.operation, request.dialect, request.model, request.websocket, request.own_dialect)
        )
