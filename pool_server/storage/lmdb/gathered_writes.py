"""Transactions of a process that alone writes its rows, kept in memory for a moment and committed together.

A transaction of the engine costs a dozen system calls, whatever it changes. Rows that can be made anew after a crash
need none of their own: they are read from memory until one transaction writes all that came meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from pool_server.core.tasks import running_loop
from pool_server.storage.errors import StoreError
from pool_server.storage.lmdb.store import Store

log = logging.getLogger(__name__)

SEEN = 4096  # rows that are remembered

T = TypeVar("T")
Rows = dict[tuple[str, bytes], bytes | None]  # None: deleted


class RowChanges(Protocol):
    """What a change may do within a transaction, be it the engine's or a gathered one."""

    def get(self, table: str, key: bytes) -> bytes | None: ...
    def put(self, table: str, key: bytes, value: bytes) -> None: ...
    def delete(self, table: str, key: bytes) -> bool: ...


class GatheredWrites:
    """Rows are at most `within_s` seconds behind in the store; a change that puts a row into one of the tables
    `at_once` is committed before `write` returns, and everything before it."""

    def __init__(self, store: Store, *, within_s: float, at_once: frozenset[str] = frozenset()) -> None:
        self._store = store
        self._within_s = within_s
        self._at_once = at_once
        self._rows: Rows = {}
        self._seen: Rows = {}  # as they are in the store, which nobody else changes while changes are gathered
        self._timer: asyncio.TimerHandle | None = None
        self._fails = False

    def get(self, table: str, key: bytes) -> bytes | None:
        """The row as it stands. Raises StoreError."""
        row = table, key
        return self._rows[row] if row in self._rows else self._store.get(table, key)

    def gathered(self, table: str, key: bytes) -> bool:
        """Is the store behind memory for this row?"""
        return (table, key) in self._rows

    def write(self, change: Callable[[RowChanges], T], *, gather: bool = True) -> T:
        """Make a change, all of it or (it raises) nothing. It goes to the store now where it is not to `gather`, where
        no loop runs, and while the store fails. Raises StoreError."""
        if not gather or self._fails:
            return self._write_through(change)
        try:
            loop = running_loop()
        except RuntimeError:
            return self._write_through(change)
        if len(self._seen) > SEEN:
            self._seen.clear()
        made = _Gathered(self._store, self._rows, self._seen)
        result = change(made)
        if any(table in self._at_once for table, _ in made.rows):
            self._write_through(lambda txn: _apply(made.rows, txn))
        elif made.rows:
            self._rows.update(made.rows)
            if self._timer is None:
                self._timer = loop.call_later(self._within_s, self._in_time)
        return result

    def _write_through(self, change: Callable[[RowChanges], T]) -> T:
        if self._rows:
            result = self._store.write(lambda txn: _after(self._rows, txn, change))
        else:
            result = self._store.write(change)
        self._seen.clear()
        self._committed()
        return result

    def share(self) -> None:
        """Another process may change the rows from now on: what was gathered is written, if it can be, and the others
        are read anew."""
        self.try_commit()
        self._seen.clear()

    def commit(self) -> None:
        """Write what was gathered. Raises StoreError; then it stays."""
        if self._rows:
            self._store.write(lambda txn: _apply(self._rows, txn))
            self._seen |= self._rows
        self._committed()

    def _committed(self) -> None:
        self._rows = {}
        self._fails = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _in_time(self) -> None:
        self._timer = None
        self.try_commit()

    def try_commit(self) -> None:
        """`commit`; what cannot be written goes with a later change."""
        try:
            self.commit()
        except StoreError as exc:
            self._fails = True
            log.warning("%d rows wait in memory: %s", len(self._rows), exc)


class _Gathered:
    """A change under way: what it writes is seen by itself alone."""

    __slots__ = ("_below", "_seen", "_store", "rows")

    def __init__(self, store: Store, below: Mapping[tuple[str, bytes], bytes | None], seen: Rows) -> None:
        self._store = store
        self._below = below
        self._seen = seen
        self.rows: Rows = {}

    def get(self, table: str, key: bytes) -> bytes | None:
        row = table, key
        for known in (self.rows, self._below, self._seen):
            if row in known:
                return known[row]
        found = self._seen[row] = self._store.get(table, key)
        return found

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.rows[table, key] = value

    def delete(self, table: str, key: bytes) -> bool:
        there = self.get(table, key) is not None
        self.rows[table, key] = None
        return there


def _apply(rows: Rows, txn: RowChanges) -> None:
    for (table, key), value in rows.items():
        if value is None:
            txn.delete(table, key)
        else:
            txn.put(table, key, value)


def _after(rows: Rows, txn: RowChanges, change: Callable[[RowChanges], T]) -> T:
    _apply(rows, txn)
    return change(txn)
