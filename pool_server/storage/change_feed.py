"""How workers learn of each other's changes: a table of numbered entries, each written in the transaction of the change
it tells of, followed by every worker from where it stood when the worker began.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from pool_server.storage.lmdb.transaction import Reader, Txn

_BYTES = 8


class FeedSource(Protocol):
    """The store as a follower reads it; None where it cannot be read now."""

    def last(self, table: str) -> bytes | None: ...
    def after(self, table: str, key: bytes) -> list[tuple[bytes, bytes]] | None: ...


def number_key(number: int) -> bytes:
    """The key of a numbered row."""
    return number.to_bytes(_BYTES, "big")


def next_number(txn: Reader, table: str) -> int:
    """One more than the number of the table's last row; 1 for the first."""
    return _number(txn.last(table)) + 1


def append(txn: Txn, table: str, entry: bytes, *, most: int) -> int:
    """Add an entry and drop the one before the last `most`; returns its number."""
    number = next_number(txn, table)
    txn.put(table, number_key(number), entry)
    if number > most:
        txn.delete(table, number_key(number - most))
    return number


class ChangeFeed:
    """One worker's place in a table of changes."""

    def __init__(self, source: FeedSource, table: str) -> None:
        self._source = source
        self._table = table
        self._seen = _number(source.last(table))

    def made(self, number: int) -> None:
        """This worker appended the entry itself: where it is the next one, it is no news."""
        if number == self._seen + 1:
            self._seen = number

    def news(self) -> Iterable[bytes | None]:
        """The entries since the last call, oldest first; None in the place of those that were dropped before they could
        be read. About two microseconds where there are none. An entry counts as read once it is taken."""
        return self._entries() if _number(self._source.last(self._table)) > self._seen else ()

    def _entries(self) -> Iterator[bytes | None]:
        for key, entry in self._source.after(self._table, number_key(self._seen)) or ():
            number = _number(key)
            if number > self._seen + 1:
                yield None
            self._seen = number
            yield entry


def _number(key: bytes | None) -> int:
    return int.from_bytes(key or b"", "big")
