"""The table of owners: (user, kind, id) → account, durable, bounded and expiring.

Two tables in the durable store. `objects`: family, kind, hash of the id, user → `Owned`, so that one look tells
whether a caller has an id and a short scan who else does. `objects_by_user`: user, family, kind, end of life, hash →
account, so that lists and the oldest are found; its short keys (user, family, kind) count. Ids are hashed: the store
holds none of the providers' own.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Protocol

import msgspec

from pool_server.accounts.objects.lifetimes import lifetime
from pool_server.core.enums import ApiFamily, ObjectKind
from pool_server.storage import Reader, Store, StoreError, Txn

log = logging.getLogger(__name__)

OBJECTS = "objects"
BY_USER = "objects_by_user"
TABLES = (OBJECTS, BY_USER)

MOST = 50_000  # objects of one kind that one person has; the one that would expire first makes room
SLIDE = 1 / 16  # of its lifetime: a use moves the end only when that much of it is gone
STEP = 1000  # entries one sweep looks at
_HASH = 16
_until = struct.Struct(">d")
_count = struct.Struct(">Q")

Reference = tuple[ObjectKind, str]


class Owned(msgspec.Struct, omit_defaults=True):
    """One object of one person. `account` holds it; times are unix seconds. `models` are the models a batch names, each
    with the most tokens its requests may use, `expected` with the tokens of prompts and of answers they are likely to
    use; `batch` is the ledger's key of the batch whose results a file holds; `key` is the pool key an upload was
    started with; `user` is filled in when it is read."""

    account: str
    made_at: float
    until: float
    models: dict[str, int] = {}
    key: str = ""
    user: str = ""
    expected: dict[str, tuple[int, int]] = {}
    batch: str = ""


_DECODER = msgspec.msgpack.Decoder(Owned)


class OwnersPort(Protocol):
    """Whose is what. Where it is kept `elsewhere`, `fetch` comes before a read of what it names. Reads raise
    StoreError."""

    elsewhere: bool

    async def fetch(self, family: ApiFamily, references: Iterable[Reference]) -> None:
        """Returns when `get` and `everybodys` know of these, or nobody can be asked. Never raises."""

    async def fetch_list(self, user: str, family: ApiFamily, kind: ObjectKind) -> None:
        """The same for `of_user`."""

    def get(self, user: str, family: ApiFamily, reference: Reference) -> Owned | None:
        """The caller's own object under this id, None when there is none or no longer."""

    def everybodys(self, family: ApiFamily, reference: Reference) -> list[Owned]:
        """Who has an object under this id, whoever asks."""

    def of_user(self, user: str, family: ApiFamily, kind: ObjectKind) -> dict[str, set[bytes]]:
        """The hashes (`digest`) of all ids a person has of a kind, by account."""

    async def keep(
        self,
        user: str,
        family: ApiFamily,
        references: Iterable[Reference],
        account: str,
        *,
        models: dict[str, int] | None = None,
        key: str = "",
        expected: dict[str, tuple[int, int]] | None = None,
        batch: str = "",
    ) -> bool:
        """Makes objects the caller's, or their end later when they are already. Durable when it returns True; False
        (told to the log) when nothing can be written."""

    async def used(self, owned: Owned, family: ApiFamily, reference: Reference) -> None:
        """Moves the end of an object that was used, when enough of its life is gone to matter."""

    async def forget(self, family: ApiFamily, reference: Reference, user: str = "") -> None:
        """The object is gone at the provider; without `user` whoever had it."""

    async def sweep(self) -> int:
        """Drops some of what is past its time; how many went. Raises StoreError."""


class Owners(OwnersPort):
    """In this machine's store. Use from one event loop; several processes may share the store."""

    elsewhere = False

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time, most: int = MOST) -> None:
        self._store = store
        self._clock = clock
        self._most = most
        self._swept_to = b""

    async def fetch(self, family: ApiFamily, references: Iterable[Reference]) -> None:
        """The store is read when it is asked."""

    async def fetch_list(self, user: str, family: ApiFamily, kind: ObjectKind) -> None:
        """The store is read when it is asked."""

    def get(self, user: str, family: ApiFamily, reference: Reference) -> Owned | None:
        raw = self._store.get(OBJECTS, _key(family, reference, user))
        owned = _DECODER.decode(raw) if raw is not None else None
        if owned is None or owned.until <= self._clock():
            return None
        owned.user = user
        return owned

    def everybodys(self, family: ApiFamily, reference: Reference) -> list[Owned]:
        head, now = _key(family, reference, ""), self._clock()
        found: list[Owned] = []
        with self._store.read() as txn:
            for key, raw in txn.scan(OBJECTS, head, head[:-1] + b"\1"):
                owned = _DECODER.decode(raw)
                if owned.until > now:
                    owned.user = key[len(head) :].decode()
                    found.append(owned)
        return found

    def of_user(self, user: str, family: ApiFamily, kind: ObjectKind) -> dict[str, set[bytes]]:
        head = _user_key(user, family, kind) + b"\0"
        found: dict[str, set[bytes]] = {}
        start = head + _until.pack(self._clock()) + b"\xff" * (_HASH + 1)  # behind all that end now
        with self._store.read() as txn:
            for key, account in txn.scan(BY_USER, start, head[:-1] + b"\1"):
                found.setdefault(account.decode(), set()).add(key[-_HASH:])
        return found

    async def keep(
        self,
        user: str,
        family: ApiFamily,
        references: Iterable[Reference],
        account: str,
        *,
        models: dict[str, int] | None = None,
        key: str = "",
        expected: dict[str, tuple[int, int]] | None = None,
        batch: str = "",
    ) -> bool:
        now = self._clock()
        wanted = [one for one in references if one[1]]
        if not wanted:
            return True

        def write(txn: Txn) -> None:
            for reference in wanted:
                until = now + lifetime(family, reference[0])
                owned = Owned(account, now, until, models or {}, key, expected=expected or {}, batch=batch)
                self._put(txn, user, family, reference, owned)

        return await self._written(write)

    async def used(self, owned: Owned, family: ApiFamily, reference: Reference) -> None:
        life = lifetime(family, reference[0])
        if self._clock() + life - owned.until >= life * SLIDE:
            await self.keep(owned.user, family, (reference,), owned.account)

    async def forget(self, family: ApiFamily, reference: Reference, user: str = "") -> None:
        def write(txn: Txn) -> None:
            head = _key(family, reference, user)
            keys = [head] if user else [key for key, _ in txn.scan(OBJECTS, head, head[:-1] + b"\1")]
            for key in keys:
                self._drop(txn, key)

        await self._written(write)

    async def sweep(self) -> int:
        """Looks at the next entries and drops those whose time is over; how many went."""
        now = self._clock()
        with self._store.read() as txn:
            seen = list(txn.scan(OBJECTS, self._swept_to, limit=STEP))
        self._swept_to = seen[-1][0] + b"\0" if len(seen) == STEP else b""
        gone = [key for key, raw in seen if _DECODER.decode(raw).until <= now]
        if gone:
            await self._written(lambda txn: [self._drop(txn, key, now) for key in gone])
        return len(gone)

    async def _written(self, write: Callable[[Txn], object]) -> bool:
        try:
            await self._store.submit(write)
        except StoreError as error:
            log.error("whose objects are whose could not be written: %s", error)
            return False
        return True

    def _put(self, txn: Txn, user: str, family: ApiFamily, reference: Reference, owned: Owned) -> None:
        key, head = _key(family, reference, user), _user_key(user, family, reference[0])
        known = txn.get(OBJECTS, key)
        if known is not None:
            before = _DECODER.decode(known)
            txn.delete(BY_USER, head + b"\0" + _until.pack(before.until) + digest(reference[1]))
            owned.made_at = before.made_at
            for fact in ("models", "key", "expected", "batch"):
                setattr(owned, fact, getattr(owned, fact) or getattr(before, fact))
        else:
            self._make_room(txn, head)
        txn.put(OBJECTS, key, msgspec.msgpack.encode(owned))
        txn.put(BY_USER, head + b"\0" + _until.pack(owned.until) + digest(reference[1]), owned.account.encode())

    def _make_room(self, txn: Txn, head: bytes) -> None:
        """Counts one more, pushing out what would expire first when there are too many."""
        count = _counted(txn, head)
        while count >= self._most:
            first = next(txn.scan(BY_USER, head + b"\0", head + b"\1", limit=1), None)
            if first is None:
                count = 0
                break
            user, family, kind = head.split(b"\0")
            txn.delete(OBJECTS, b"\0".join((family, kind, first[0][-_HASH:])) + b"\0" + user)
            txn.delete(BY_USER, first[0])
            count -= 1
        txn.put(BY_USER, head, _count.pack(count + 1))

    def _drop(self, txn: Txn, key: bytes, stale_at: float | None = None) -> bool:
        raw = txn.get(OBJECTS, key)
        if raw is None:
            return False
        owned = _DECODER.decode(raw)
        if stale_at is not None and owned.until > stale_at:
            return False  # it was used since it was looked at
        family, _, rest = key.partition(b"\0")
        kind, _, rest = rest.partition(b"\0")
        ident, user = rest[:_HASH], rest[_HASH + 1 :]
        head = b"\0".join((user, family, kind))
        txn.delete(OBJECTS, key)
        txn.delete(BY_USER, head + b"\0" + _until.pack(owned.until) + ident)
        txn.put(BY_USER, head, _count.pack(max(0, _counted(txn, head) - 1)))
        return True


def digest(ident: str) -> bytes:
    """What stands in the store for an id."""
    return blake2b(ident.encode("utf-8", "surrogatepass"), digest_size=_HASH).digest()


def _key(family: ApiFamily, reference: Reference, user: str) -> bytes:
    """User ids are the pool's own: no NUL is in them."""
    return b"\0".join((family.value.encode(), reference[0].value.encode(), digest(reference[1]), user.encode()))


def _user_key(user: str, family: ApiFamily, kind: ObjectKind) -> bytes:
    return b"\0".join((user.encode(), family.value.encode(), kind.value.encode()))


def _counted(txn: Reader, head: bytes) -> int:
    raw = txn.get(BY_USER, head)
    return _count.unpack(raw)[0] if raw is not None else 0
