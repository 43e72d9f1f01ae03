"""Clearing out what has had its time, a bounded step at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pool_server.storage import Store, Txn

STEP = 1000  # records looked at in one step


class Sweeper:
    """Walks a table round and round and deletes what is stale."""

    def __init__(self, store: Store, table: str, stale: Callable[[bytes, float], bool]) -> None:
        self._store = store
        self._table = table
        self._stale = stale
        self._at = b""

    def step(self, now: float) -> Awaitable[int] | int:
        """Looks at the next records; how many went, for a durable store as something to await."""
        with self._store.read() as txn:
            seen = list(txn.scan(self._table, self._at, limit=STEP))
        self._at = seen[-1][0] + b"\0" if len(seen) == STEP else b""
        stale = [key for key, raw in seen if self._stale(raw, now)]
        if not stale:
            return 0

        def drop(txn: Txn) -> int:
            return sum(self._drop(txn, key, now) for key in stale)

        return self._store.submit(drop) if self._store.durable else self._store.write(drop)

    def _drop(self, txn: Txn, key: bytes, now: float) -> bool:
        raw = txn.get(self._table, key)  # it may have come to life since it was looked at
        return raw is not None and self._stale(raw, now) and txn.delete(self._table, key)
