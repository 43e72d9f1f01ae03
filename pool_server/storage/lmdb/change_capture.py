"""Notes what transactions change, and lays it beside the store once they are committed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import lmdb

from pool_server.storage.lmdb.change_frames import (
    POSITION,
    Change,
    Position,
    first_position,
    packed_frame,
    packed_position,
    read_position,
)
from pool_server.storage.lmdb.change_spool import SpoolWriter
from pool_server.storage.lmdb.transaction import Txn

log = logging.getLogger(__name__)

MOST_HELD = 8 << 20  # bytes in memory while the disk takes nothing


class CapturingTxn(Txn):
    """A write transaction that remembers what it changes, in its order."""

    __slots__ = ("_parent", "changes")

    def __init__(
        self, txn: lmdb.Transaction[bytes], tables: Mapping[str, Any], parent: CapturingTxn | None = None
    ) -> None:
        super().__init__(txn, tables)
        self._parent = parent
        self.changes: list[Change] = []

    def nested(self, env: lmdb.Environment) -> Txn:
        return CapturingTxn(env.begin(parent=self._txn, write=True), self._tables, self)

    def commit(self) -> None:
        super().commit()
        if self._parent is not None:
            self._parent.changes += self.changes

    def put(self, table: str, key: bytes, value: bytes) -> None:
        super().put(table, key, value)
        self.changes.append((table, key, value))

    def put_new(self, table: str, key: bytes, value: bytes) -> bool:
        put = super().put_new(table, key, value)
        if put:
            self.changes.append((table, key, value))
        return put

    def put_many(self, table: str, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        known = list(pairs)
        super().put_many(table, known)
        self.changes += [(table, key, value) for key, value in known]

    def delete(self, table: str, key: bytes) -> bool:
        gone = super().delete(table, key)
        if gone:
            self.changes.append((table, key, None))
        return gone

    def delete_range(self, table: str, start: bytes, stop: bytes, *, limit: int) -> int:
        going = [key for key, _ in self.scan(table, start, stop, limit=limit)]
        gone = super().delete_range(table, start, stop, limit=limit)
        self.changes += [(table, key, None) for key in going]
        return gone


class Capture:
    """The log of one store as one process writes it. Any thread may call it."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._spool = SpoolWriter(folder)
        self._clock = clock
        self._lock = threading.Lock()
        self._held: list[tuple[Position, bytes]] = []

    def seal(self, txn: CapturingTxn, table: str) -> tuple[Position, bytes] | None:
        """Give a transaction that is about to be committed its place, which its store remembers in `table`; None where
        it changed nothing."""
        if not txn.changes:
            return None
        before = read_position(txn.get(table, POSITION))
        here = before.next(txn.id, self._clock()) if before else first_position(txn.id, self._clock())
        changes = txn.changes
        txn.put(table, POSITION, packed_position(here))
        del changes[-1]  # the place itself
        return here, packed_frame(here, changes)

    def keep(self, sealed: tuple[Position, bytes]) -> None:
        """Lay down what was committed. While the disk takes nothing some of it stays in memory; what is beyond that
        leaves a hole, which whoever ships the log finds."""
        with self._lock:
            waiting = [*self._held, sealed]
            try:
                while waiting:
                    self._spool.append(*waiting[0])
                    del waiting[0]
            except OSError as exc:
                if not self._held:
                    log.warning("the log of changes waits in memory: %s", exc.strerror)
            self._held = waiting
            while sum(len(frame) for _, frame in self._held) > MOST_HELD:
                del self._held[0]

    def close(self) -> None:
        with self._lock:
            self._spool.close()
