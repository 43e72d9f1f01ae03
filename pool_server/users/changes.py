"""Durable changes: one commit, the change feed of people and keys, and the audit log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from pool_server.core.enums import Denial
from pool_server.storage import Store, StoreError, Txn
from pool_server.storage.change_feed import append, next_number, number_key
from pool_server.users.models import (
    AUDIT,
    CHANGES,
    AuditActor,
    AuditRow,
    RefusedError,
    UserChange,
    decode_audit,
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


def append_change(txn: Txn, change: UserChange) -> None:
    """Tells all workers, this one too, in the transaction of the change."""
    append(txn, CHANGES, encode(change), most=KEEP_CHANGES)


def append_audit(
    txn: Txn, now: float, actor: AuditActor, action: str, target: str = "", detail: Mapping[str, Any] | None = None
) -> None:
    """Adds a line to the audit log, in the transaction of the change it is about. No secret may be in `detail`."""
    row = AuditRow(now, actor.kind, actor.user, actor.name, actor.peer, action, target, dict(detail or {}))
    txn.put(AUDIT, number_key(next_number(txn, AUDIT)), encode(row))


def audit_filter(actor: str, action: str, target: str) -> Callable[[AuditRow], bool]:
    """Whether a row is by this user id or name, its action begins so and it is about this id; "" = any."""

    def match(row: AuditRow) -> bool:
        who = not actor or actor in (row.actor_id, row.actor_name, row.actor)
        return who and row.action.startswith(action) and target in ("", row.target)

    return match


def audit_page(
    store: Store, *, cursor: int | None, limit: int, match: Callable[[AuditRow], bool]
) -> tuple[list[dict[str, Any]], int | None]:
    """Newest first: at most `limit` rows before `cursor` that match, and the next cursor (None = no more)."""
    stop = number_key(cursor) if cursor is not None else None
    rows: list[dict[str, Any]] = []
    number, seen = 0, 0
    with store.read() as txn:
        for key, value in txn.scan(AUDIT, stop=stop, reverse=True, limit=SCAN_AUDIT):
            number, seen = int.from_bytes(key, "big"), seen + 1
            row = decode_audit(value)
            if match(row):
                row.seq = number
                rows.append(msgspec.structs.asdict(row))
                if len(rows) == limit:
                    break
    more = number > 1 and (len(rows) == limit or seen == SCAN_AUDIT)
    return rows, number if more else None
