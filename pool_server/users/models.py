"""What users consist of: people, keys, codes, sessions, tickets, callers, refusals.

Times are unix seconds (float). Records are msgpack arrays in the store: fields are only ever added at the end,
with a default. No record holds a secret: passphrases and codes are bcrypt hashes, keys are named by their
`jti`, sessions and tickets by a hash of their id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from pool_server.core.enums import Denial
from pool_server.core.models import Denied as Denied
from pool_server.core.models import Principal as Principal
from pool_server.core.settings import Limits
from pool_server.language import gettext, marked
from pool_server.users import limits

PEOPLE = "users.people"  # user id → User
NAMES = "users.names"  # skeleton of a name → user id
KEYS = "users.keys"  # jti → Key
USER_KEYS = "users.user_keys"  # user id, NUL, jti → b""
ALIASES = "users.aliases"  # mark of another pool's key → Alias
CODES = "users.codes"  # lookup prefix → Code
SESSIONS = "users.sessions"  # SHA-256 of the session id → Session
CHANGES = "users.changes"  # number → UserChange, followed by every worker
AUDIT = "users.audit"  # sequence → AuditRow
META = "users.meta"  # what was done once (imports)
ADMIN_TOKENS = "users.admin_tokens"  # id → AdminToken
CONSENTS = "users.consents"  # user id → Consent
NOTICES = "users.notices"  # user id → Notice
BOOKINGS = "users.bookings"  # id → Booking
CONSENT, NOTICE = "consent", "notice"
CHOICES = {CONSENT: CONSENTS, NOTICE: NOTICES}  # what people decide for themselves, by kind

SEEN = "users.seen"  # "k" + jti or "u" + user id → time last used
THROTTLE = "users.throttle"  # kind, scope, whom → Tries
TICKETS = "users.tickets"  # SHA-256 of the ticket → Ticket

LEDGER_TABLES = (
    PEOPLE,
    NAMES,
    KEYS,
    USER_KEYS,
    ALIASES,
    CODES,
    SESSIONS,
    CHANGES,
    AUDIT,
    META,
    ADMIN_TOKENS,
    CONSENTS,
    NOTICES,
    BOOKINGS,
)
STATE_TABLES = (*limits.TABLES, SEEN, THROTTLE, TICKETS)

LOCAL_USER = "local"
ADMIN_USER = "admin"

USED_UP = marked("this code has been used up; ask for a new one")


class KeyFacts(msgspec.Struct, frozen=True):
    """What requests need of the key they are made with. `limits` are its own, beside the user's: what is absent there
    limits nothing further; `counted` says whether one is that is counted. `expires` in unix seconds, None = never;
    `moved` and `wait` as of the `Key`."""

    id: str
    user: str
    label: str
    limits: Limits
    counted: bool
    expires: float | None
    moved: bool = False
    wait: str = ""

    @property
    def owner(self) -> str:
        """What the key's counters are kept under."""
        return f"{self.user}\0{self.id}"


class RefusedError(Exception):
    """A door or people call that cannot be done; `denied` says why, with a status of 400, 401, 403, 404, 409,
    429 or 503.
    """

    def __init__(self, denial: Denial, message: str, status: int, retry_at: float | None = None) -> None:
        super().__init__(message)
        self.denied = Denied(denial, message, status, retry_at)


def bad_value(message: str) -> RefusedError:
    """400: the caller gave something that cannot be accepted."""
    return RefusedError(Denial.BAD_VALUE, message, 400)


def not_found(what: str) -> RefusedError:
    """404: there is no such user, key, code …"""
    return RefusedError(Denial.NOT_FOUND, f"there is no such {what}", 404)


class AuditActor(msgspec.Struct, frozen=True):
    """Who makes a change, for the audit log. `peer` is the caller's address, "" from the shell or the server
    itself.
    """

    kind: Literal["admin", "user", "shell", "server"]
    user: str = ""
    name: str = ""
    peer: str = ""

    @classmethod
    def of(cls, principal: Principal, peer: str) -> AuditActor:
        """The actor behind a principal."""
        kind: Literal["admin", "user"] = "admin" if principal.admin else "user"
        return cls(kind, principal.user, principal.name, peer)


SERVER = AuditActor("server", name="server")


class User(msgspec.Struct, array_like=True):
    """A person. `limits` overrides the defaults: an absent name = the default, None = no limit.

    `epoch` rises when all sessions of the user end. A deleted user stays as a tombstone, so that history has a
    name.
    """

    id: str
    name: str
    created: float
    passphrase: str = ""  # bcrypt hash; "" = keys only
    disabled: bool = False
    deleted: float | None = None
    limits: dict[str, Any] = {}
    note: str = ""
    via: str = ""  # how the user came: "code:<prefix>", "friend_code", "admin", "import"
    epoch: int = 0
    weight: float = 1.0  # fair share
    groups: list[str] = []  # in the form of `core.models.group_names`


class Key(msgspec.Struct, array_like=True):
    """A pool key the store knows. The token itself is not kept. `aliases` are the marks that lead to it; `limits` are
    its own, beside its user's. It is good until `expires` and until the end that its token names; that one counts no
    more once `moved`: `expires` was changed after the token was made. `wait`: how long its requests let themselves be
    held for headroom, as `X-Pool-Wait` says it."""

    id: str
    user: str
    label: str
    created: float
    expires: float | None = None
    aliases: list[bytes] = []
    limits: dict[str, Any] = {}
    moved: bool = False
    wait: str = ""


class Alias(msgspec.Struct, array_like=True):
    """A key of another pool: the pool key it stands for, and when it ends (None: when that key does)."""

    key: str
    expires: float | None = None


class Code(msgspec.Struct, array_like=True):
    """A personal friend code; `prefix` is its first part, `hash` the bcrypt hash of the whole. `contributes`: who came
    by it may bring one account of this provider, or of "any"; `done` are those who did."""

    prefix: str
    hash: str
    created: float
    uses_left: int | None = None  # None = any number
    expires: float | None = None
    limits: dict[str, Any] = {}
    label: str = ""
    used_by: list[str] = []
    contributes: str = ""
    done: list[str] = []

    def spend(self, user_id: str) -> None:
        """Takes one use. RefusedError 401 when there is none left."""
        if self.uses_left == 0:
            raise RefusedError(Denial.BAD_LOGIN, gettext(USED_UP), 401)
        if self.uses_left is not None:
            self.uses_left -= 1
        self.used_by.append(user_id)


class AdminToken(msgspec.Struct, array_like=True):
    """A token for programs of the operator; `hash` is the SHA-256 of the whole. `expires` None = never."""

    id: str
    hash: bytes
    label: str
    scopes: list[str]
    created: float
    expires: float | None = None


class Session(msgspec.Struct, array_like=True):
    """A browser session. `epoch` must equal the user's, `guard` the admin password's fingerprint."""

    user: str
    admin: bool
    created: float
    expires: float
    epoch: int = 0
    guard: str = ""
    peer: str = ""
    by_key: bool = False  # opened with a pool key instead of the passphrase


class Ticket(msgspec.Struct, array_like=True):
    """A single-use set-up ticket; `key` is the jti it hands out again, "" = a new key is made."""

    user: str
    expires: float
    key: str = ""
    label: str = ""


class Tries(msgspec.Struct, array_like=True):
    """Wrong tries of one network or at one name: when, the end of the ban, how many bans there were in a row, when
    those began that are being judged, and the last sign-in from there."""

    wrong: list[float] = []
    until: float = 0.0
    bans: int = 0
    pending: list[float] = []
    good: float = 0.0


class NewPerson(msgspec.Struct, array_like=True):
    """Somebody came at `at` (unix seconds), from these networks, the own one first."""

    at: float
    networks: list[str]


class UserChange(msgspec.Struct, array_like=True):
    """One entry of the change feed. `kind`: "end" (access ended), "user" (facts changed), "secret" (keys re-
    signed).
    """

    kind: Literal["end", "user", "secret"]
    at: float
    user: str = ""
    key: str = ""


class AuditRow(msgspec.Struct):
    """Who did what, when, to whom. `detail` holds field names and harmless values, never a secret."""

    at: float
    actor: str
    actor_id: str
    actor_name: str
    peer: str
    action: str
    target: str = ""
    detail: dict[str, Any] = {}
    seq: int = 0

    @classmethod
    def of(
        cls, now: float, actor: AuditActor, action: str, target: str = "", detail: Mapping[str, Any] | None = None
    ) -> AuditRow:
        """A line of what `actor` does now. No secret may be in `detail`."""
        return cls(now, actor.kind, actor.user, actor.name, actor.peer, action, target, dict(detail or {}))


def id_key(text: str) -> bytes:
    """The store key of an id that came from outside; where it cannot be one, a key that nothing has."""
    raw = text.encode("utf-8", "surrogatepass")
    return raw if 0 < len(raw) <= 500 else b"\0"


def user_key_index(user: str, key: str = "") -> bytes:
    """The key under which a user's keys are listed; with no `key` the prefix of them all."""
    return f"{user}\0{key}".encode()


def encode(record: msgspec.Struct) -> bytes:
    """msgpack of one record."""
    return _encoder.encode(record)


_encoder = msgspec.msgpack.Encoder()
decode_user = msgspec.msgpack.Decoder(User).decode
decode_key = msgspec.msgpack.Decoder(Key).decode
decode_alias = msgspec.msgpack.Decoder(Alias).decode
decode_code = msgspec.msgpack.Decoder(Code).decode
decode_session = msgspec.msgpack.Decoder(Session).decode
decode_ticket = msgspec.msgpack.Decoder(Ticket).decode
decode_change = msgspec.msgpack.Decoder(UserChange).decode
decode_audit = msgspec.msgpack.Decoder(AuditRow).decode
