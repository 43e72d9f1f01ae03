"""What the operator's API answers, as types: the described part of each row. Further fields may stand beside."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.accounts.describe import AccountRow, ProviderStatus, RejectedFileRow
from pool_server.accounts.held_requests import HeldRequest
from pool_server.transcripts.archive import PersonWithTranscripts


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
