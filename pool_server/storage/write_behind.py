"""The state store as exchanges use it: while it fails, memory holds what could not be written.

A full disk must not stop an exchange. What is owed to the store is read from memory, bounded, and written
together with the first write that succeeds again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

from pool_server.storage import Store, StoreError, Txn

log = logging.getLogger(__name__)

RETRY_S = 1.0  # a store that failed is left alone so long, rather than be tried by every request
MOST_OWED = 20_000  # writes kept in memory; beyond, the oldest are given up

T = TypeVar("T")


class _Owed(NamedTuple):
    """A write to be done. `value`: what a read of its key gives until then."""

    value: bytes | None
    write: Callable[[Txn], object]


class SmallValues(Protocol):
    """Values by table and key, of which the last one written counts; read from memory or about as fast."""

    def get(self, table: str, key: bytes) -> bytes | None: ...
    def put(self, table: str, key: bytes, value: bytes) -> None: ...
    def delete(self, table: str, key: bytes) -> None: ...


class WriteBehind(SmallValues):
    """A store whose failures are told once, to the log. `clock` gives unix seconds."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._owed: dict[tuple[str, bytes], _Owed] = {}
        self._failure = ""  # why it fails, in one line
        self._failed_at = 0.0

    def get(self, table: str, key: bytes) -> bytes | None:
        """One value; None also when it cannot be read."""
        if self._owed and (owed := self._owed.get((table, key))) is not None:
            return owed.value
        try:
            return self._store.get(table, key)
        except StoreError as exc:
            self._fails(exc)
            return None

    def scan(self, table: str, start: bytes = b"", *, limit: int | None = None) -> list[tuple[bytes, bytes]] | None:
        """What the store itself has from `start` on, in order; None when it cannot be read."""
        try:
            with self._store.read() as txn:
                return list(txn.scan(table, start, limit=limit))
        except StoreError as exc:
            self._fails(exc)
            return None

    def last(self, table: str) -> bytes | None:
        """The store's own greatest key of a table; None where it is empty or cannot be read."""
        try:
            return self._store.last(table)
        except StoreError as exc:
            self._fails(exc)
            return None

    def after(self, table: str, key: bytes) -> list[tuple[bytes, bytes]] | None:
        """What the store itself has with greater keys; None when it cannot be read."""
        return self.scan(table, key + b"\0")

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Write one value, now or when the store can."""
        self.owe(table, key, lambda txn: txn.put(table, key, value), value)

    def delete(self, table: str, key: bytes) -> None:
        """Remove one value, now or when the store can."""
        self.owe(table, key, lambda txn: txn.delete(table, key))

    def owe(self, table: str, key: bytes, write: Callable[[Txn], object], value: bytes | None = None) -> None:
        """Do `write`, now or when the store can; of several with the same key the last one counts."""
        try:
            self.write(write)
        except StoreError:
            self._owed.pop((table, key), None)
            self._owed[table, key] = _Owed(value, write)
            if len(self._owed) > MOST_OWED:
                del self._owed[next(iter(self._owed))]
        else:
            self._owed.pop((table, key), None)

    def owes(self, table: str, key: bytes) -> bool:
        """Is the store behind memory for this key?"""
        return (table, key) in self._owed

    def write(self, fn: Callable[[Txn], T]) -> T:
        """`Store.write`, after what is owed, in one transaction. Raises StoreError, at once while the store is left
        alone."""
        if self._failure and 0 <= self._clock() - self._failed_at < RETRY_S:
            raise StoreError(self._failure)
        try:
            result = self._store.write(fn if not self._owed else lambda txn: self._with_owed(txn, fn))
        except StoreError as exc:
            self._fails(exc)
            self._failed_at = self._clock()
            raise
        if self._failure:
            log.info("the state store can be written again; %d writes were made up for", len(self._owed))
            self._failure = ""
        self._owed.clear()
        return result

    def _with_owed(self, txn: Txn, fn: Callable[[Txn], T]) -> T:
        for owed in self._owed.values():
            owed.write(txn)
        return fn(txn)

    def settle(self, *, now: bool = False) -> None:
        """Write what is owed, if the store can; `now` also while it is left alone."""
        if now:
            self._failed_at = 0.0
        if not self._failure:
            return
        try:
            self.write(lambda _: None)
        except StoreError:
            return  # told already

    def _fails(self, exc: StoreError) -> None:
        if not self._failure:
            log.error("the state store fails, what is learnt stays in memory until it can be written: %s", exc)
        self._failure = str(exc)
