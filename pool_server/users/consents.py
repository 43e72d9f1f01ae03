"""Whose exchanges may be kept as transcripts: each person's own word, given and taken back on their page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from pool_server.storage import Store, StoreError, Txn
from pool_server.users.changes import append_audit, append_change, commit
from pool_server.users.models import CONSENTS, PEOPLE, AuditActor, UserChange, decode_user, encode, id_key

REMEMBERED = 50_000


class Consent(msgspec.Struct, array_like=True):
    """When a person allowed transcripts, unix seconds."""

    given: float


_decode = msgspec.msgpack.Decoder(Consent).decode


class Consents:
    """`poll` applies changes in this worker at once."""

    def __init__(self, store: Store, clock: Callable[[], float], poll: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._poll = poll
        self._known: dict[str, bool] = {}
        self.on_change: list[Callable[[], None]] = []

    def allows(self, user: str) -> bool:
        """From memory where it was asked before; False where the store cannot be read."""
        known = self._known.get(user)
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            known = self._known[user] = self.stands(user)
        return known

    def stands(self, user: str) -> bool:
        """As the store has it now; False where it cannot be read. In any thread."""
        try:
            return self.given(user) is not None
        except StoreError:
            return False

    def given(self, user: str) -> float | None:
        """When the person allowed it, None = they do not. Raises StoreError."""
        raw = self._store.get(CONSENTS, id_key(user))
        return _decode(raw).given if raw is not None else None

    def left(self, user: str) -> bool:
        """Whether the person was deleted, as far as the store can be read. In any thread."""
        try:
            raw = self._store.get(PEOPLE, id_key(user))
        except StoreError:
            return False
        return raw is not None and decode_user(raw).deleted is not None

    async def change(self, user: str, allowed: bool, *, actor: AuditActor) -> None:
        """Gives or takes back; durable on return. Raises RefusedError 503."""
        now = self._clock()

        def write(txn: Txn) -> None:
            if allowed and txn.get(CONSENTS, id_key(user)) is None:
                txn.put(CONSENTS, id_key(user), encode(Consent(now)))
            elif not allowed:
                txn.delete(CONSENTS, id_key(user))
            append_change(txn, UserChange("user", now, user))
            append_audit(txn, now, actor, "transcripts.allow" if allowed else "transcripts.withdraw", user)

        await commit(self._store, write)
        self._poll()

    async def tell(self, user: str, *, actor: AuditActor, action: str, detail: dict[str, Any]) -> None:
        """Lets every worker look again at what this person ordered. Raises RefusedError 503."""
        now = self._clock()

        def write(txn: Txn) -> None:
            append_change(txn, UserChange("user", now, user))
            append_audit(txn, now, actor, action, user, detail)

        await commit(self._store, write)
        self._poll()

    def forget(self, user: str = "") -> None:
        """That person's word may have changed; "" = anybody's."""
        if user:
            self._known.pop(user, None)
        else:
            self._known.clear()
        for listener in self.on_change:
            listener()
