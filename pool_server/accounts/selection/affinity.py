"""Which account a conversation, or a thing only one account can serve, belongs to.

Soft pins keep a conversation's cache warm: (provider, user, session) → account, for a day after the last use. Hard
pins say who owns a response, an uploaded file or a turn: (user, kind, id) → account. Identifiers are hashed, so
the store holds none of the clients' own.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol

from pool_server.core.enums import Provider
from pool_server.storage import StoreError
from pool_server.storage.write_behind import SmallValues, WriteBehind

TABLE = "pins"
TABLES = (TABLE,)
SLIDE = 1 / 24  # a pin is written again when so much of its time is gone
SWEEP_LIMIT = 2000
SEEN = 4096  # pins that are remembered between a choice and its answer
_head = struct.Struct(">d")
_SOFT, _HARD, _WARM = b"s", b"h", b"w"


def _nobody(_: str) -> bool:
    return False


class PinsPort(SmallValues, Protocol):
    """Pins where they are not in this machine's store: what is read was fetched before, or written here."""

    def fetch(self, keys: Iterable[bytes]) -> Awaitable[None]:
        """What returns when `get` tells what all know of these, or nobody can be asked; never raises. An admission
        that is asked for before it is awaited takes the question along."""

    def sweep(self) -> None:
        """Begins to forget a part of what is past its time."""

    async def start(self) -> None:
        """Begins what runs by itself."""

    async def close(self) -> None:
        """Ends that; what was written here and is not kept yet is tried once more."""


class Pins:
    """Pins in the state store, shared by all workers, or in `elsewhere`, whose `fetch` comes before a read. `ttl_s` is
    how long a soft pin lives after its last use; `alone` says whether no other worker makes any now, so that those seen
    lately need not be read again."""

    def __init__(
        self,
        store: WriteBehind,
        *,
        ttl_s: float,
        alone: Callable[[], bool] = bool,
        elsewhere: PinsPort | None = None,
    ) -> None:
        self._here = store
        self._elsewhere = elsewhere
        self._store: SmallValues = elsewhere or store
        self.ttl_s = ttl_s
        self._alone = alone
        self._swept_to = b""
        self._seen: dict[bytes, tuple[float, str]] = {}  # until when a pin that was found lately holds, and whose it is
        self._seen_alone = False  # all of them are this worker's own to change

    def pinned(self, provider: Provider, user: str, session: str, now: float) -> str | None:
        """The account this conversation is pinned to, None when it is not or no longer."""
        return self._get(_key(_SOFT, provider, user, session), now)

    def pin(
        self, provider: Provider, user: str, session: str, account_id: str, now: float,
        keeps: Callable[[str], bool] = _nobody,
    ) -> None:  # fmt: skip
        """Pin a conversation, or slide its time; writes only when either moves by enough to matter. Nothing happens
        when it is pinned to another account that `keeps` it."""
        self._put(_key(_SOFT, provider, user, session), account_id, self.ttl_s, now, keeps)

    def owner(self, user: str, kind: str, thing: str, now: float) -> str | None:
        """The account that owns a response, file or turn of this user, None when unknown."""
        return self._get(_key(_HARD, user, kind, thing), now)

    def own(self, user: str, kind: str, thing: str, account_id: str, ttl_s: float, now: float) -> None:
        """Remember for `ttl_s` seconds who owns it."""
        self._put(_key(_HARD, user, kind, thing), account_id, ttl_s, now, _nobody)

    def _get(self, key: bytes, now: float) -> str | None:
        if self._remembers() and (seen := self._seen.get(key)) is not None and seen[0] > now:
            return seen[1]
        raw = self._store.get(TABLE, key)
        if raw is None or (until := _head.unpack_from(raw)[0]) <= now:
            return None
        holder = raw[8:].decode()
        self._remember(key, until, holder)
        return holder

    def _remembers(self) -> bool:
        """Does what was seen still hold?"""
        alone = self._alone()
        if alone is not self._seen_alone:
            self._seen.clear()
            self._seen_alone = alone
        return alone

    def _remember(self, key: bytes, until: float, holder: str) -> None:
        if len(self._seen) >= SEEN:
            self._seen.clear()
        self._seen[key] = until, holder

    def _put(self, key: bytes, account_id: str, ttl_s: float, now: float, keeps: Callable[[str], bool]) -> None:
        until, alone = now + ttl_s, self._remembers()
        # Else by the choice that led here, a moment ago.
        seen = self._seen.get(key) if alone else self._seen.pop(key, None)
        if seen is not None and seen[1] == account_id and 0.0 <= until - seen[0] < ttl_s * SLIDE:
            return
        raw = self._store.get(TABLE, key)
        if raw is not None:
            (before,), holder = _head.unpack_from(raw), raw[8:].decode()
            if holder == account_id:
                if 0.0 <= until - before < ttl_s * SLIDE:
                    return
            elif before > now and keeps(holder):
                return
        self._store.put(TABLE, key, _head.pack(until) + account_id.encode())
        if alone:
            self._remember(key, until, account_id)

    def sweep(self, now: float, limit: int = SWEEP_LIMIT) -> int:
        """Look at the next `limit` pins and drop those whose time is over; returns how many went from here."""
        if self._elsewhere is not None:
            self._elsewhere.sweep()
            return 0
        seen = self._here.scan(TABLE, self._swept_to, limit=limit) or []
        gone = [key for key, raw in seen if _head.unpack_from(raw)[0] <= now]
        self._swept_to = seen[-1][0] + b"\0" if len(seen) == limit else b""
        if gone:
            try:
                self._here.write(lambda txn: [txn.delete(TABLE, key) for key in gone])
            except StoreError:
                return 0  # told by the store; the next round finds them again
        return len(gone)


def keys_of(
    providers: Iterable[Provider], user: str, session: str | None, things: Iterable[tuple[str, str]]
) -> set[bytes]:
    """Where the table keeps all that is known of a conversation and of these (kind, id)."""
    found = {_key(_HARD, user, kind, thing) for kind, thing in things}
    if session is not None:
        found |= {_key(_SOFT, provider, user, session) for provider in providers}
        found.add(warm_key(user, session))
    return found


def warm_key(user: str, session: str) -> bytes:
    """Where the table keeps what is known of a conversation's cache (`warmth`)."""
    return _key(_WARM, "", user, session)


@lru_cache(maxsize=8192)  # one exchange asks for the same pin several times
def _key(kind: bytes, first: str, second: str, client_id: str) -> bytes:
    """Only `client_id` comes from outside, so a NUL in it cannot make two pins one."""
    text = f"{first}\0{second}\0{client_id}"
    return kind + blake2b(text.encode("utf-8", "surrogatepass"), digest_size=18).digest()
