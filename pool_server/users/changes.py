"""Durable changes: what a store says when it fails, the change feed of people and keys, and the audit log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from pool_server.core.enums import Denial
from pool_server.language import gettext as _
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


async def stored(change: Awaitable[T]) -> T:
    """The result of a change once it is durable.

    Raises what the change raises (nothing is kept then) and RefusedError (503) when the store cannot be written.
    """
    try:
        return await change
    except StoreError as exc:
        raise RefusedError(Denial.STORE, _("nothing was changed: {error}", error=exc), 503) from exc


async def commit(store: Store, change: Callable[[Txn], T]) -> T:
    """Runs `change` in a durable transaction; see `stored`."""
    return await stored(store.submit(change))


async def asked(answer: Awaitable[T]) -> T:
    """What a store answers at the door. Raises RefusedError (503) when it cannot be asked."""
    try:
        return await answer
    except StoreError as exc:
        raise RefusedError(Denial.STORE, _("nobody can sign in just now; try again in a moment"), 503) from exc


def keep_trail(txn: Txn, audit: Iterable[AuditRow], changes: Iterable[UserChange] = ()) -> None:
    """Tells all workers, this one too, and adds to the audit log, in the transaction of the change."""
    for change in changes:
        append_change(txn, change)
    for row in audit:
        txn.put(AUDIT, number_key(next_number(txn, AUDIT)), encode(row))


def append_change(txn: Txn, change: UserChange) -> None:
    """Tells all workers, this one too, in the transaction of the change."""
    append(txn, CHANGES, encode(change), most=KEEP_CHANGES)


def append_audit(
    txn: Txn, now: float, actor: AuditActor, action: str, target: str = "", detail: Mapping[str, Any] | None = None
) -> None:
    """Adds a line to the audit log, in the transaction of the change it is about. No secret may be in `detail`."""
    keep_trail(txn, [AuditRow.of(now, actor, action, target, detail)])


def audit_page(
    store: Store, before: int | None, limit: int, *, actor: str, action: str, target: str
) -> tuple[list[AuditRow], int | None]:
    """`PeoplePort.audit_page` over the embedded store."""
    stop = number_key(before) if before is not None else None
    rows: list[AuditRow] = []
    number, seen = 0, 0
    with store.read() as txn:
        for key, value in txn.scan(AUDIT, stop=stop, reverse=True, limit=SCAN_AUDIT):
            number, seen = int.from_bytes(key, "big"), seen + 1
            row = decode_audit(value)
            if _matches(row, actor, action, target):
                row.seq = number
                rows.append(row)
                if len(rows) == limit:
                    break
    more = number > 1 and (len(rows) == limit or seen == SCAN_AUDIT)
    return rows, number if more else None


def _matches(row: AuditRow, actor: str, action: str, target: str) -> bool:
    who = not actor or actor in (row.actor_id, row.actor_name, row.actor)
    return who and row.action.startswith(action) and target in ("", row.target)
