"""Single exchanges in the embedded store: an index leads to the records of a user, account, model or kind of ending;
what it cannot tell apart is compared.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from pool_server.core.enums import Outcome
from pool_server.core.models import UsageRecord
from pool_server.ledger.ports import LogFilters, matches
from pool_server.ledger.records import layout
from pool_server.ledger.records.codec import unpack
from pool_server.storage import Reader, Store

log = logging.getLogger(__name__)

_SCAN_STEP = 500
_KEY_BYTES = 12


def get(reader: Reader, ident: str) -> UsageRecord | None:
    """The exchange with this id."""
    key = reader.get(layout.RECORD_IDS, ident.encode("utf-8", "replace"))
    raw = None if key is None else reader.get(layout.RECORDS, key)
    return None if key is None or raw is None else readable(key, raw)


def page(
    reader: Reader, limit: int, cursor: str | None, filters: LogFilters, most: int
) -> tuple[list[UsageRecord], str | None]:
    """As `LedgerPort.page`."""
    found: list[UsageRecord] = []
    for seen, (key, raw) in enumerate(_newest_first(reader, filters, _before(cursor)), 1):
        rec = readable(key, raw)
        if rec is not None and matches(rec, filters):
            found.append(rec)
        if len(found) >= limit or seen >= most:
            return found, key.hex()
    return found, None


def scan(store: Store, frm: float, to: float, filters: LogFilters) -> Iterator[UsageRecord]:
    """As `LedgerPort.scan`."""
    at, stop = layout.time_key(frm), layout.time_key(to)
    while True:
        with store.read() as reader:
            part = list(reader.scan(layout.RECORDS, at, stop, limit=_SCAN_STEP))
        for key, raw in part:
            rec = readable(key, raw)
            if rec is not None and matches(rec, filters):
                yield rec
        if len(part) < _SCAN_STEP:
            return
        at = part[-1][0] + b"\0"


def records_of(reader: Reader, filters: LogFilters) -> Iterator[UsageRecord]:
    """As `UsageReader.records_of`."""
    for key, raw in _newest_first(reader, filters, None):
        rec = readable(key, raw)
        if rec is not None and matches(rec, filters):
            yield rec


def readable(key: bytes, raw: bytes) -> UsageRecord | None:
    """The record, or None, and a line in the log, for one that cannot be read: it must not hide the others."""
    try:
        return unpack(raw)
    except ValueError as exc:
        log.warning("record %s of the ledger: %s", key.hex(), exc)
        return None


def _before(cursor: str | None) -> bytes | None:
    if cursor is None:
        return None
    try:
        key = bytes.fromhex(cursor)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ValueError("that cursor was not given by this log")
    return key


def _newest_first(reader: Reader, filters: LogFilters, before: bytes | None) -> Iterator[tuple[bytes, bytes]]:
    """Candidates by the best index: key and stored record."""
    low = b"" if filters.since is None else layout.time_key(filters.since)
    high = b"\xff" if filters.until is None else layout.time_key(filters.until)
    if before is not None:
        high = min(high, before)
    prefix = _index(filters)
    if prefix is None:
        yield from reader.scan(layout.RECORDS, low, high, reverse=True)
        return
    for entry, _ in reader.scan(layout.RECORD_INDEX, prefix + low, prefix + high, reverse=True):
        key = entry[len(prefix) :]
        raw = reader.get(layout.RECORDS, key)
        if raw is not None:
            yield key, raw


def _index(filters: LogFilters) -> bytes | None:
    """The index that leads to the fewest candidates, as a rule of thumb."""
    if filters.failed or (filters.status is not None and filters.status >= 400):
        narrow = filters.outcome
        return layout.index_prefix(layout.BY_OUTCOME, narrow) if narrow else layout.index_prefix(layout.FAILED, "")
    if filters.outcome is not None and filters.outcome != Outcome.OK:
        return layout.index_prefix(layout.BY_OUTCOME, filters.outcome)
    for kind, value in ((layout.BY_USER, filters.user), (layout.BY_ACCOUNT, filters.account)):
        if value is not None:
            return layout.index_prefix(kind, value)
    return None if filters.model is None else layout.index_prefix(layout.BY_MODEL, filters.model)
