"""Tokens with which programs of the operator call the API: each with its scopes, kept only as a hash.

A token reads `pst_ID_SECRET`: the id finds the record, the secret (256 random bits) is compared by its hash, so that
nobody can guess one and no throttle is needed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pool_server.core.enums import Denial, TokenScope
from pool_server.language import gettext as _
from pool_server.storage import Store
from pool_server.users.changes import stored
from pool_server.users.models import (
    ADMIN_TOKENS,
    ADMIN_USER,
    SEEN,
    AdminToken,
    AuditActor,
    AuditRow,
    Denied,
    Principal,
    bad_value,
)
from pool_server.users.ports import PeoplePort, Trail

_SHAPE = re.compile(r"pst_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_LABEL = 80  # characters
_MOST = 100
_decode = msgspec.msgpack.Decoder(AdminToken).decode

NO_TOKEN = Denied(Denial.BAD_KEY, "this admin token is not known or was revoked", 401)
ENDED = Denied(Denial.EXPIRED_KEY, "this admin token has expired; make a new one", 401)


class TokenHolder(msgspec.Struct, frozen=True):
    """Who shows a token, and what it may do."""

    principal: Principal
    scopes: frozenset[TokenScope]


def is_admin_token(text: str) -> bool:
    """Whether this has the shape of an admin token, so that it is tried as nothing else."""
    return text.startswith("pst_")


class AdminTokens:
    """The operator's tokens."""

    def __init__(self, port: PeoplePort, store: Store, state: Store, clock: Callable[[], float]) -> None:
        self._port = port
        self._store = store
        self._state = state
        self._clock = clock
        self.last_used: dict[str, float] = {}  # id → when, since it was last written

    async def create(
        self, *, actor: AuditActor, label: str, scopes: Sequence[str], expires: float | None = None
    ) -> dict[str, Any]:
        """A new token → its row with "token", shown this once. `expires` in unix seconds. Raises RefusedError 400."""
        now = self._clock()
        label = " ".join(label.split())
        if not label or len(label) > _LABEL or not label.isprintable():
            raise bad_value(_("label must be a name of 1 to {most} visible characters", most=_LABEL))
        unknown = [scope for scope in scopes if scope not in tuple(TokenScope)]
        if unknown or not scopes:
            raise bad_value(_("scopes must be some of {known}", known=", ".join(TokenScope)))
        if expires is not None and not now < expires < 1e11:
            raise bad_value(_("the token would have expired already, or never would"))
        made = f"pst_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"
        wanted = [scope.value for scope in TokenScope if scope in scopes]
        token = AdminToken(made.split("_")[1], _hash(made), label, wanted, now, expires)

        trail = Trail([AuditRow.of(now, actor, "token.create", token.id, {"label": label, "scopes": wanted})])
        await stored(self._port.token_make(token, _MOST, trail))
        return {**_row(token, now, None), "token": made}

    def rows(self) -> list[dict[str, Any]]:
        """All tokens, newest first, without the tokens themselves: {"id", "label", "scopes", "created", "expires",
        "expired", "last_used"}."""
        now = self._clock()
        with self._store.read() as txn:
            found = [_decode(raw) for _, raw in txn.scan(ADMIN_TOKENS)]
        return [_row(token, now, self._used(token.id)) for token in sorted(found, key=lambda token: -token.created)]

    def _used(self, token_id: str) -> float | None:
        raw = self._state.get(SEEN, b"t" + token_id.encode())
        return self.last_used.get(token_id) or (float(raw) if raw is not None else None)

    async def revoke(self, token_id: str, *, actor: AuditActor) -> None:
        """The token opens nothing any more. RefusedError 404."""
        trail = Trail([AuditRow.of(self._clock(), actor, "token.revoke", token_id)])
        await stored(self._port.token_end(token_id, trail))

    def find(self, text: str) -> TokenHolder | Denied:
        """Whose token this is. Never raises for a bad one; StoreError when the store cannot be read."""
        shape = _SHAPE.fullmatch(text)
        raw = self._store.get(ADMIN_TOKENS, shape[1].encode()) if shape else None
        token = _decode(raw) if raw is not None else None
        if token is None or not hmac.compare_digest(token.hash, _hash(text)):
            return NO_TOKEN
        if token.expires is not None and token.expires <= self._clock():
            return ENDED
        self.last_used[token.id] = self._clock()
        scopes = frozenset(scope for scope in TokenScope if scope in token.scopes)
        return TokenHolder(Principal(ADMIN_USER, f"token {token.label}", admin=True), scopes)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _row(token: AdminToken, now: float, used: float | None) -> dict[str, Any]:
    return {
        "id": token.id, "label": token.label, "scopes": token.scopes, "created": token.created,
        "expires": token.expires, "expired": token.expires is not None and token.expires <= now, "last_used": used,
    }  # fmt: skip
