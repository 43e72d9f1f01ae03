"""Durable changes: one commit, the change log the workers tail, and the audit log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pool_server.core.enums import Denial
from pool_server.storage import Reader, Store, StoreError, Txn
from pool_server.users.models import (
    AUDIT,
    CHANGES,
    AuditActor,
    AuditRow,
    RefusedError,
    UserChange,
    decode_audit,
    decode_change,
    encode,
)

T = TypeVar("T")

KEEP_CHANGES = 10_000
SCAN_AUDIT = 5_000  # rows looked at for one page of a filtered query


async def commit(store: Store, change: Callable[[Txn], T]) -> T:
    """Runs `change` in a durable transaction and returns its result once it is on disk.

    Raises what `change` raises (nothing is kept then) and Refused (503) when the store cannot be written.
    """
    try:
        return await store.submit(change)
    except StoreError as exc:
        raise RefusedError(Denial.STORE, f"nothing was changed: {exc}", 503) from exc


def sequence(number: int) -> bytes:
    """The store key of a numbered row."""
    return number.to_bytes(8, "big")


def append_change(txn: Txn, change: UserChange) -> None:
    """Adds to the change log and drops what is older than its last 10,000 lines."""
    number = _next(txn, CHANGES)
    txn.put(CHANGES, sequence(number), encode(change))
    if number > KEEP_CHANGES:
        txn.delete(CHANGES, sequence(number - KEEP_CHANGES))


def append_audit(
    txn: Txn, now: float, actor: AuditActor, action: str, target: str = "", detail: Mapping[str, Any] | None = None
) -> None:
    """Adds a line to the audit log, in the transaction of the change it is about. No secret may be in `detail`."""
    row = AuditRow(now, actor.kind, actor.user, actor.name, actor.peer, action, target, dict(detail or {}))
    txn.put(AUDIT, sequence(_next(txn, AUDIT)), encode(row))


def _next(txn: Reader, table: str) -> int:
    for key, _ in txn.scan(table, reverse=True, limit=1):
        return int.from_bytes(key, "big") + 1
    return 1


def audit_page(
    store: Store, *, cursor: int | None, limit: int, match: Callable[[AuditRow], bool]
) -> tuple[list[AuditRow], int | None]:
    """Newest first: at most `limit` rows before `cursor` that match, and the next cursor (None = no more)."""
    stop = sequence(cursor) if cursor is not None else None
    rows: list[AuditRow] = []
    number, seen = 0, 0
    with store.read() as txn:
        for key, value in txn.scan(AUDIT, stop=stop, reverse=True, limit=SCAN_AUDIT):
            number, seen = int.from_bytes(key, "big"), seen + 1
            row = decode_audit(value)
            if match(row):
                row.seq = number
                rows.append(row)
                if len(rows) == limit:
                    break
    more = number > 1 and (len(rows) == limit or seen == SCAN_AUDIT)
    return rows, number if more else None


class ChangeFeed:
    """Follows the change log from where it stood when the worker started."""

    def __init__(self, store: Store, apply: Callable[[UserChange], None], lost: Callable[[], None]) -> None:
        self._store = store
        self._apply = apply
        self._lost = lost  # called when lines were dropped before they could be read
        with store.read() as txn:
            self._at = _next(txn, CHANGES) - 1

    def poll(self) -> None:
        """Applies every change since the last call, also those of this very worker."""
        with self._store.read() as txn:
            rows = list(txn.scan(CHANGES, sequence(self._at + 1)))
        for key, value in rows:
            number = int.from_bytes(key, "big")
            if number > self._at + 1:
                self._lost()
            self._at = number
            self._apply(decode_change(value))
