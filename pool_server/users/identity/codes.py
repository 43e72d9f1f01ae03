"""Personal friend codes: made by admins, good for so many people until some day, kept only as hashes.

A code reads `K7QF2-9XM4P-…`: its first group names the record, so that checking one is one bcrypt however many
there are; the rest (75 bits) is the secret.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from pool_server.core.enums import Denial
from pool_server.storage import Store, Txn
from pool_server.users.changes import append_audit, commit
from pool_server.users.identity.directory import checked_limits
from pool_server.users.identity.passwords import Hasher
from pool_server.users.identity.people import checked_label
from pool_server.users.models import (
    CODES,
    AuditActor,
    Code,
    RefusedError,
    User,
    bad_value,
    decode_code,
    encode,
    id_key,
    not_found,
)

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: nothing that reads like something else
GROUP, GROUPS = 5, 4
MAX_USES = 10_000
_MISREAD = str.maketrans("OIL", "011")


def spelt(code: str) -> str:
    """A typed code in its one spelling: upper case, no dashes or spaces, misread letters put right.

    >>> spelt("k7qf2 9xm4p-lo")
    'K7QF29XM4P10'
    """
    return re.sub(r"[^0-9A-Z]", "", code.upper()).translate(_MISREAD)


class Codes:
    """The personal codes."""

    def __init__(self, store: Store, hasher: Hasher, clock: Callable[[], float]) -> None:
        self._store = store
        self._hasher = hasher
        self._clock = clock

    async def create(
        self,
        *,
        actor: AuditActor,
        label: str = "",
        uses: int | None = 1,
        expires: float | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """A new code → its row with "code", shown this once. `uses` None = any number; `expires` in unix seconds.

        `limits` become the limits of whoever enters with it. Raises RefusedError 400.
        """
        now = self._clock()
        if uses is not None and not 1 <= uses <= MAX_USES:
            raise bad_value(f"uses must be between 1 and {MAX_USES}")
        if expires is not None and expires <= now:
            raise bad_value("the code would have expired already")
        preset = checked_limits(dict(limits or {}))
        groups = ["".join(secrets.choice(ALPHABET) for _ in range(GROUP)) for _ in range(GROUPS)]
        hashed = await self._hasher.hash("".join(groups))
        code = Code(groups[0], hashed, now, uses, expires, preset, checked_label(label or "code"))

        def make(txn: Txn) -> None:
            if not txn.put_new(CODES, code.prefix.encode(), encode(code)):
                raise RefusedError(Denial.BAD_VALUE, "this code exists by chance; make another", 409)
            append_audit(txn, now, actor, "code.create", code.prefix, {"label": code.label, "uses": uses})

        await commit(self._store, make)
        return {**_row(code, now), "code": "-".join(groups)}

    def rows(self) -> list[dict[str, Any]]:
        """All codes, newest first, without the codes themselves.

        {"id", "label", "created", "uses_left", "expires", "limits", "used_by", "state"}
        """
        now = self._clock()
        with self._store.read() as txn:
            codes = [decode_code(raw) for _, raw in txn.scan(CODES)]
        return [_row(code, now) for code in sorted(codes, key=lambda code: -code.created)]

    async def revoke(self, code_id: str, *, actor: AuditActor) -> None:
        """The code opens nothing any more; people who came by it stay. RefusedError 404."""
        now = self._clock()

        def drop(txn: Txn) -> None:
            if not txn.delete(CODES, id_key(code_id)):
                raise not_found("code")
            append_audit(txn, now, actor, "code.revoke", code_id)

        await commit(self._store, drop)

    async def check(self, typed: str) -> Code | None:
        """The code behind what was typed, spent and expired ones too; None when wrong. One bcrypt either way."""
        text = spelt(typed)
        raw = self._store.get(CODES, text[:GROUP].encode()) if len(text) == GROUP * GROUPS else None
        code = decode_code(raw) if raw is not None else None
        right = await self._hasher.check(text, code.hash if code is not None else "")
        return code if right else None

    def usable(self, code: Code) -> str | None:
        """Why a right code lets nobody new in, None when it does."""
        if code.uses_left == 0:
            return "this code has been used up; ask for a new one"
        if code.expires is not None and code.expires <= self._clock():
            return "this code has expired; ask for a new one"
        return None

    def spend(self, txn: Txn, code: Code, user: User) -> None:
        """Takes one use, within the transaction that makes the user. RefusedError 401 when it was the last by then."""
        raw = txn.get(CODES, code.prefix.encode())
        kept = decode_code(raw) if raw is not None else None
        if kept is None or kept.uses_left == 0:
            raise RefusedError(Denial.BAD_LOGIN, "this code has been used up; ask for a new one", 401)
        if kept.uses_left is not None:
            kept.uses_left -= 1
        kept.used_by.append(user.id)
        txn.put(CODES, kept.prefix.encode(), encode(kept))


def _row(code: Code, now: float) -> dict[str, Any]:
    expired = code.expires is not None and code.expires <= now
    return {
        "id": code.prefix,
        "label": code.label,
        "created": code.created,
        "uses_left": code.uses_left,
        "expires": code.expires,
        "limits": code.limits,
        "used_by": code.used_by,
        "state": "used up" if code.uses_left == 0 else "expired" if expired else "open",
    }
