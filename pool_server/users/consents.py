"""What each person decides for themselves on their page: whether their exchanges may be kept as transcripts, and where
they are told of their limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from pool_server.core.enums import NoticeWhen
from pool_server.storage import Store, StoreError
from pool_server.users.changes import stored
from pool_server.users.models import (
    CONSENT,
    CONSENTS,
    NOTICE,
    NOTICES,
    PEOPLE,
    AuditActor,
    AuditRow,
    UserChange,
    decode_user,
    encode,
    id_key,
)
from pool_server.users.ports import PeoplePort, Trail


class Consent(msgspec.Struct, array_like=True):
    """When a person allowed transcripts, unix seconds."""

    given: float


_decode = msgspec.msgpack.Decoder(Consent).decode


class Consents:
    """Whose word stands is in memory once it was loaded, and read anew beside the loop when somebody's may have
    changed. `poll` applies changes in this worker at once."""

    def __init__(self, people: PeoplePort, store: Store, clock: Callable[[], float], poll: Callable[[], None]) -> None:
        self._people = people
        self._store = store
        self._clock = clock
        self._poll = poll
        self._given: set[str] | None = None  # who allows it; None until it was loaded
        self._reader: ThreadPoolExecutor | None = None  # one thread: what is read later is taken in later
        self.on_change: list[Callable[[], None]] = []

    def load(self) -> None:
        """Reads whose word stands. Blocks. Raises StoreError."""
        with self._store.read() as txn:
            self._given = {key.decode() for key, _raw in txn.scan(CONSENTS)}

    def allows(self, user: str) -> bool:
        """From memory where it was loaded; False where the store cannot be read."""
        return self.stands(user) if self._given is None else user in self._given

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
        row = AuditRow.of(now, actor, "transcripts.allow" if allowed else "transcripts.withdraw", user)
        value = encode(Consent(now)) if allowed else None
        trail = Trail([row], [UserChange("user", now, user)])
        await stored(self._people.choose(user, CONSENT, value, trail, anew=False))
        self._learn(user, {user} if allowed else set())
        self._poll()

    async def tell(self, user: str, *, actor: AuditActor, action: str, detail: dict[str, Any]) -> None:
        """Lets every worker look again at what this person ordered. Raises RefusedError 503."""
        now = self._clock()
        row = AuditRow.of(now, actor, action, user, detail)
        await stored(self._people.tell(Trail([row], [UserChange("user", now, user)])))
        self._poll()

    def forget(self, user: str = "") -> None:
        """That person's word may have changed; "" = anybody's."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is None or self._given is None:
            self._learn(user, self._standing(user) if self._given is not None else set())
            return
        self._reader = self._reader or ThreadPoolExecutor(1, "consents")
        asked = loop.run_in_executor(self._reader, self._standing, user)
        asked.add_done_callback(lambda done: None if done.cancelled() else self._learn(user, done.result()))

    def close(self) -> None:
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)
            self._reader = None

    def _standing(self, user: str) -> set[str]:
        """Who allows it, of all or only this person; nobody where the store cannot be read."""
        if user:
            return {user} if self.stands(user) else set()
        try:
            with self._store.read() as txn:
                return {key.decode() for key, _raw in txn.scan(CONSENTS)}
        except StoreError:
            return set()

    def _learn(self, user: str, standing: set[str]) -> None:
        if self._given is not None:
            self._given = (self._given - {user} | standing) if user else standing
        for listener in self.on_change:
            listener()


class Notice(msgspec.Struct, array_like=True, frozen=True):
    """`target` is an address as `alerts.destinations` reads it; `language` the one its texts are written in."""

    target: str
    when: NoticeWhen = NoticeWhen.ALL
    language: str = "en"


_decode_notice = msgspec.msgpack.Decoder(Notice).decode


class Notices:
    def __init__(self, people: PeoplePort, store: Store, clock: Callable[[], float]) -> None:
        self._people = people
        self._store = store
        self._clock = clock

    def of(self, user: str) -> Notice | None:
        """What a person has chosen. Raises StoreError."""
        raw = self._store.get(NOTICES, id_key(user))
        return _decode_notice(raw) if raw is not None else None

    def everybody(self) -> dict[str, Notice]:
        """Person → choice, of all who have made one. Raises StoreError."""
        with self._store.read() as txn:
            return {key.decode(): _decode_notice(raw) for key, raw in txn.scan(NOTICES)}

    async def change(self, user: str, notice: Notice | None, *, actor: AuditActor) -> None:
        """Sets or, with None, takes back; durable on return. The address stays out of the audit log. Raises
        RefusedError 503."""
        row = AuditRow.of(self._clock(), actor, "alerts.choose" if notice else "alerts.stop", user)
        value = encode(notice) if notice is not None else None
        await stored(self._people.choose(user, NOTICE, value, Trail([row])))
