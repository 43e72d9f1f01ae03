"""What the operator's API answers, as types: the described part of each row. Further fields may stand beside."""

from __future__ import annotations

from typing import Any

import msgspec


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
    providers: list[dict[str, Any]]


class AccountRow(msgspec.Struct):
    """An account; times are unix seconds."""

    id: str
    provider: str
    state: str
    in_flight: int
    priority: int
    windows: list[dict[str, Any]]
    plan: str | None = None
    owner: str | None = None
    cooldown_until: float | None = None
    expires_at: float | None = None


class AccountsAnswer(msgspec.Struct):
    accounts: list[AccountRow]
    rejected: list[dict[str, Any]]
    removed: list[Any]
    next: str | None = None


class AccountAnswer(msgspec.Struct):
    """`result` is what a test brought back."""

    account: AccountRow | None
    result: dict[str, Any] | None = None


class AddedAnswer(msgspec.Struct):
    id: str
    hosts: list[str]


class RemovedAnswer(msgspec.Struct):
    removed: str


class ReloadAnswer(msgspec.Struct):
    added: list[str]
    changed: list[str]
    removed: list[str]
    rejected: list[dict[str, Any]]
    settings_error: str = ""
    restart_needed: list[str] = []


class PersonRow(msgspec.Struct):
    """A person; `state` is "active", "disabled" or "deleted", times are unix seconds."""

    id: str
    name: str
    state: str
    created: float
    last_seen: float | None
    limits: dict[str, Any]
    note: str


class PeopleAnswer(msgspec.Struct):
    """`next` is the cursor of the following page, null on the last."""

    users: list[PersonRow]
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
    keys: list[dict[str, Any]]


class NewKeyAnswer(msgspec.Struct):
    """`key` is shown this once."""

    id: str
    key: str


class EndedAnswer(msgspec.Struct):
    ended: str


class CodesAnswer(msgspec.Struct):
    codes: list[dict[str, Any]]


class NewCodeAnswer(msgspec.Struct):
    """`code` is shown this once."""

    id: str
    code: str


class RequestsAnswer(msgspec.Struct):
    requests: list[dict[str, Any]]
    cursor: str | None


class AuditAnswer(msgspec.Struct):
    rows: list[dict[str, Any]]
    next: int | None


class UsedAnswer(msgspec.Struct):
    total: dict[str, Any]


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
    limits: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    note: str | msgspec.UnsetType = msgspec.UNSET
    weight: float | msgspec.UnsetType = msgspec.UNSET


class InvitationsAnswer(msgspec.Struct):
    invitations: list[dict[str, Any]]


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

    held: list[dict[str, Any]]


class CancelledAnswer(msgspec.Struct):
    cancelled: str


class TranscriptsAnswer(msgspec.Struct):
    """Of whom there are transcripts, and how many."""

    people: list[dict[str, Any]]
