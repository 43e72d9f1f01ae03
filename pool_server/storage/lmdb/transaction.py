"""What can be done within one transaction. Keys and values are bytes, keys 1 to 511 long and ordered bytewise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import lmdb

_BAD_KEY = "a key is 1 to 511 bytes long"


class Reader:
    """A consistent view of the store. Never keep one across an `await`: it pins old pages."""

    __slots__ = ("_tables", "_txn")

    def __init__(self, txn: lmdb.Transaction[bytes], tables: Mapping[str, Any]) -> None:
        self._txn = txn
        self._tables = tables

    @property
    def id(self) -> int:
        """The engine's number of this transaction; committed writes, of any process, count up by one."""
        return self._txn.id()

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._txn.get(key, db=self._tables[table])

    def scan(
        self,
        table: str,
        start: bytes = b"",
        stop: bytes | None = None,
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[bytes, bytes]]:
        """The pairs with start <= key < stop, ascending, or descending with `reverse`; at most `limit` of them."""
        cursor = self._txn.cursor(db=self._tables[table])
        pairs = _down(cursor, start, stop) if reverse else _up(cursor, start, stop)
        if limit is None:
            return pairs
        return _first(pairs, limit)

    def last(self, table: str) -> bytes | None:
        """The greatest key; None in an empty table."""
        cursor = self._txn.cursor(db=self._tables[table])
        return cursor.key() if cursor.last() else None

    def count(self, table: str) -> int:
        """How many keys a table holds; costs nothing."""
        return int(self._txn.stat(self._tables[table])["entries"])

    def bytes_of(self, table: str) -> int:
        """What a table's pages take on disk."""
        found = self._txn.stat(self._tables[table])
        pages = found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
        return int(pages) * int(found["psize"])


class Txn(Reader):
    """A write transaction: all of it or nothing. Whoever began it ends it."""

    __slots__ = ()

    def nested(self, env: lmdb.Environment) -> Txn:
        """Begins a transaction within this one, in its environment."""
        return Txn(env.begin(parent=self._txn, write=True), self._tables)

    def commit(self) -> None:
        self._txn.commit()

    def abort(self) -> None:
        self._txn.abort()

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Raises ValueError for a key that is empty or longer than 511 bytes, as every change does."""
        try:
            self._txn.put(key, value, db=self._tables[table])
        except lmdb.BadValsizeError:
            raise ValueError(_BAD_KEY) from None

    def put_new(self, table: str, key: bytes, value: bytes) -> bool:
        """False, and nothing changed, when the key is there already."""
        try:
            return bool(self._txn.put(key, value, overwrite=False, db=self._tables[table]))
        except lmdb.BadValsizeError:
            raise ValueError(_BAD_KEY) from None

    def put_many(self, table: str, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """`put` for many pairs; cheaper, the more so when they are sorted."""
        try:
            self._txn.cursor(db=self._tables[table]).putmulti(pairs)
        except lmdb.BadValsizeError:
            raise ValueError(_BAD_KEY) from None

    def delete(self, table: str, key: bytes) -> bool:
        """False when the key was not there."""
        return bool(self._txn.delete(key, db=self._tables[table]))

    def delete_range(self, table: str, start: bytes, stop: bytes, *, limit: int) -> int:
        """Delete at most `limit` pairs with start <= key < stop, lowest first; returns how many went."""
        gone = 0
        cursor = self._txn.cursor(db=self._tables[table])
        found = cursor.set_range(start)
        while found and gone < limit and cursor.key() < stop:
            cursor.delete()  # leaves the cursor on the next pair
            gone += 1
            found = bool(cursor.key())
        return gone


def _up(cursor: lmdb.Cursor[bytes], start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, bytes]]:
    if not (cursor.set_range(start) if start else cursor.first()):
        return
    for pair in cursor.iternext():
        if stop is not None and pair[0] >= stop:
            return
        yield pair


def _down(cursor: lmdb.Cursor[bytes], start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, bytes]]:
    if stop is not None and cursor.set_range(stop):
        if not cursor.prev():
            return
    elif not cursor.last():
        return
    for pair in cursor.iterprev():
        if pair[0] < start:
            return
        yield pair


def _first(pairs: Iterator[tuple[bytes, bytes]], limit: int) -> Iterator[tuple[bytes, bytes]]:
    for left, pair in enumerate(pairs):
        if left >= limit:
            return
        yield pair
