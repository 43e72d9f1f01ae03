"""What the operator's API answers, as types: the described part of each row. Further fields may stand beside."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.accounts.describe import ProviderStatus, QuotaWindowRow
from pool_server.accounts.held_requests import HeldRequest
from pool_server.transcripts.archive import PersonWithTranscripts
from pool_server.web.usage_shapes import AccountUsage


class Problem(msgspec.Struct):
    """`code` is one word for programs, `message` one line for people."""

    code: str
    message: str


class ProblemAnswer(msgspec.Struct):
    error: Problem


class ReadyCount(msgspec.Struct):
    total: int
    ready: int


class StatusAnswer(msgspec.Struct):
    status: str
    version: str
    accounts: ReadyCount
    providers: list[ProviderStatus]


class CooldownRow(msgspec.Struct):
    """Why the account, or what `scope` names, is not asked, and until when."""

    scope: str
    kind: str
    until: float
    since: float
    level: int
    code: str
    message: str
    confirmed: bool
    probe_at: float | None


class FaultRow(msgspec.Struct):
    at: float
    kind: str
    code: str
    message: str
    status: int | None
    model: str


class SharingRow(msgspec.Struct):
    """An owner's terms: whether they go first, when sharing ends, when of a day others are served, and which part of
    each window is theirs."""

    own_first: bool
    until: float | None
    hours: list[str]
    share: dict[str, float]


class SharedAmount(msgspec.Struct):
    requests: int
    total_tokens: int
    cost_usd: float


class AccountRow(msgspec.Struct):
    """An account; times are unix seconds. `terms` are what its `score` is made of, `refusal` is why it would not be
    chosen now, `rests` are its cooldowns; null people and groups are everybody."""

    id: str
    provider: str
    kind: str
    plan: str | None
    label: str
    state: str
    reason: str | None
    message: str
    in_flight: int
    priority: int
    weight: float
    reserve: float
    disabled: bool
    locked: bool
    unsaved: bool
    owner: str | None
    owner_id: str
    file: str
    proxy: str
    hosts: list[str]
    models: list[str]
    people: list[str] | None
    groups: list[str] | None
    sharing: SharingRow
    windows: list[QuotaWindowRow]
    rests: list[CooldownRow]
    cooldown_until: float | None
    unreachable_until: float | None
    expires_at: float | None
    can_refresh: bool
    last_fault: FaultRow | None
    latency_ms: float | None
    served_at: float | None
    score: float | None
    terms: dict[str, float]
    refusal: str | None
    until: float | None
    next_poll: float | None
    next_refresh: float | None


class ListedAccount(AccountRow):
    """With what it was used for in seven days; of an owner's account also what it gave, and what its owner took."""

    usage: AccountUsage
    gave: SharedAmount | None
    took: SharedAmount | None


class RejectedFileRow(msgspec.Struct):
    file: str
    reason: str


class RemovedAccount(msgspec.Struct):
    """One that can be brought back."""

    account: str
    file: str
    at: float


class AccountsAnswer(msgspec.Struct):
    """`next` goes on after this page."""

    accounts: list[ListedAccount]
    rejected: list[RejectedFileRow]
    removed: list[RemovedAccount]
    next: str | None = None


class TestResult(msgspec.Struct):
    """What one real call brought back."""

    ok: bool
    status: int | None
    ms: float
    message: str
    account: str
    host: str
    call: str
    model: str
    fault: str | None


class AccountAnswer(msgspec.Struct):
    """`result` is what a test brought back."""

    account: AccountRow | None
    result: TestResult | None = None


class AddedAnswer(msgspec.Struct):
    id: str
    hosts: list[str]


class RemovedAnswer(msgspec.Struct):
    removed: str


class ReloadAnswer(msgspec.Struct):
    added: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: int
    rejected: list[RejectedFileRow]
    unread: list[RejectedFileRow]
    settings_error: str = ""
    restart_needed: list[str] = []


class LimitValues(msgspec.Struct):
    """Null is no limit; what is absent is the default's, or for a key its person's."""

    requests_per_minute: float | msgspec.UnsetType | None = msgspec.UNSET
    concurrent: float | msgspec.UnsetType | None = msgspec.UNSET
    tokens_5h: float | msgspec.UnsetType | None = msgspec.UNSET
    tokens_day: float | msgspec.UnsetType | None = msgspec.UNSET
    tokens_week: float | msgspec.UnsetType | None = msgspec.UNSET
    tokens_month: float | msgspec.UnsetType | None = msgspec.UNSET
    cost_day: float | msgspec.UnsetType | None = msgspec.UNSET
    cost_week: float | msgspec.UnsetType | None = msgspec.UNSET
    cost_month: float | msgspec.UnsetType | None = msgspec.UNSET
    providers: list[str] | msgspec.UnsetType | None = msgspec.UNSET
    models: list[str] | msgspec.UnsetType | None = msgspec.UNSET


class LimitStandingRow(msgspec.Struct):
    """Limits in effect, what is used of each, and when it frees."""

    limits: LimitValues
    used: LimitValues
    frees: LimitValues


class KeyRow(msgspec.Struct):
    """A key without its secret; `wait` is how long its requests are held for headroom, `standing` null where it has no
    limits of its own."""

    id: str
    label: str
    created: float
    expires: float | None
    last_used: float | None
    wait: str
    standing: LimitStandingRow | None


class PersonRow(msgspec.Struct):
    """A person; `state` is "active", "disabled" or "deleted", times are unix seconds."""

    id: str
    name: str
    state: str
    created: float
    last_seen: float | None
    limits: LimitValues
    note: str
    via: str
    weight: float
    groups: list[str]
    passphrase: bool


class ListedPerson(PersonRow):
    """`keys`: how many."""

    keys: int


class OnePerson(PersonRow):
    keys: list[KeyRow]
    standing: LimitStandingRow


class PeopleAnswer(msgspec.Struct):
    """`next` is the cursor of the following page, null on the last."""

    users: list[ListedPerson]
    next: str | None


class NewPersonAnswer(msgspec.Struct):
    """`key` is shown this once."""

    id: str
    name: str
    key: str


class DeletedAnswer(msgspec.Struct):
    deleted: str


class RevokedAnswer(msgspec.Struct):
    revoked: str


class KeysAnswer(msgspec.Struct):
    keys: list[KeyRow]


class NewKeyAnswer(msgspec.Struct):
    """`key` is shown this once."""

    id: str
    key: str


class EndedAnswer(msgspec.Struct):
    ended: str


class CodeRow(msgspec.Struct):
    """A code, without the code itself. `uses_left` and `expires` null = no end; `contributes` names the provider of
    which an account may be brought; `state` is "open", "used up" or "expired"."""

    id: str
    label: str
    created: float
    uses_left: int | None
    expires: float | None
    limits: LimitValues
    used_by: list[str]
    contributes: str
    done: list[str]
    state: str


class CodesAnswer(msgspec.Struct):
    codes: list[CodeRow]


class NewCodeAnswer(msgspec.Struct):
    """`code` is shown this once."""

    id: str
    code: str


class AuditEntry(msgspec.Struct):
    """Who did what to whom. `detail` holds names of fields and harmless values."""

    seq: int
    at: float
    actor: str
    actor_id: str
    actor_name: str
    peer: str
    action: str
    target: str
    detail: dict[str, Any]


class AuditAnswer(msgspec.Struct):
    rows: list[AuditEntry]
    next: int | None


class TokenRow(msgspec.Struct):
    """An admin token, without the token itself; times are unix seconds."""

    id: str
    label: str
    scopes: list[str]
    created: float
    expires: float | None
    expired: bool
    last_used: float | None


class TokensAnswer(msgspec.Struct):
    tokens: list[TokenRow]


class NewTokenAnswer(TokenRow):
    """`token` is shown this once."""

    token: str


class PersonChange(msgspec.Struct):
    """What is not given stays."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    disabled: bool | msgspec.UnsetType = msgspec.UNSET
    limits: LimitValues | msgspec.UnsetType = msgspec.UNSET
    note: str | msgspec.UnsetType = msgspec.UNSET
    weight: float | msgspec.UnsetType = msgspec.UNSET


class InvitationsAnswer(msgspec.Struct):
    invitations: list[CodeRow]


class NewInvitationAnswer(msgspec.Struct):
    """`code` and `url`, which opens the door with it, are shown this once; `message` is to be pasted, `qr` an SVG."""

    id: str
    code: str
    url: str
    message: str
    qr: str


class SettingAnswer(msgspec.Struct):
    key: str
    value: Any


class HeldAnswer(msgspec.Struct):
    """Requests that wait for headroom (`X-Pool-Wait`)."""

    held: list[HeldRequest]


class CancelledAnswer(msgspec.Struct):
    cancelled: str


class TranscriptsAnswer(msgspec.Struct):
    """Of whom there are transcripts, and how many; `shared` are those the operator may read."""

    people: list[PersonWithTranscripts]


class SignInAnswer(msgspec.Struct):
    """A sign-in: `line`, `url` with `user_code`, or what to paste, by its flow; `next` is the next step in words,
    `found` the sign-in that was there before."""

    id: str
    provider: str
    flow: str
    state: str
    step: str | None
    target: str
    name: str
    account: str
    code: str
    message: str
    found: dict[str, Any]
    test: dict[str, Any] | None
    expires_in: int
    next: str
    interval: float
    line: str = ""
    lines: dict[str, str] = {}
    url: str = ""
    user_code: str = ""
