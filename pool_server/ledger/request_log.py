"""The request log: single exchanges, newest first, by any filter, a page at a time; and their export.

An index leads to the records of a user, account, model or kind of ending; what it cannot tell apart is compared. A
page looks at no more than SCAN_LIMIT records, so a rare combination may take several pages, each quick.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec

from pool_server.core.enums import Outcome
from pool_server.core.models import UsageRecord
from pool_server.ledger.records import layout
from pool_server.ledger.records.codec import unpack
from pool_server.ledger.rollups.sums import GOOD
from pool_server.storage import Reader, Store

log = logging.getLogger(__name__)

PAGE = 50
MAX_PAGE = 500
SCAN_LIMIT = 3_000
_EXPORT_STEP = 500
_KEY_BYTES = 12


class LogFilters(msgspec.Struct, frozen=True):
    """Which exchanges; None = any. `since` <= time < `until`, unix seconds; `failed` = ended badly."""

    user: str | None = None
    account: str | None = None
    model: str | None = None
    provider: str | None = None
    outcome: str | None = None
    status: int | None = None
    session: str | None = None
    failed: bool = False
    since: float | None = None
    until: float | None = None


_ALL = LogFilters()


class Log:
    """Reads records of one store. Safe in any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, ident: str) -> UsageRecord | None:
        """The exchange with this id."""
        if not ident or len(ident) > 400:
            return None
        with self._store.read() as reader:
            key = reader.get(layout.RECORD_IDS, ident.encode("utf-8", "replace"))
            raw = None if key is None else reader.get(layout.RECORDS, key)
        return None if key is None or raw is None else _readable(key, raw)

    def page(
        self, limit: int = PAGE, cursor: str | None = None, filters: LogFilters = _ALL
    ) -> tuple[list[UsageRecord], str | None]:
        """Up to `limit` exchanges, newest first, and the cursor of the next page (None = there is none).

        A page may hold fewer than `limit` and still have a next one. Raises ValueError for a foreign cursor.
        """
        limit = max(1, min(limit, MAX_PAGE))
        found: list[UsageRecord] = []
        seen = 0
        with self._store.read() as reader:
            for key, raw in _newest_first(reader, filters, _before(cursor)):
                seen += 1
                rec = _readable(key, raw)
                if rec is not None and matches(rec, filters):
                    found.append(rec)
                if len(found) >= limit or seen >= SCAN_LIMIT:
                    return found, key.hex()
        return found, None

    def latest(self, user: str, n: int = 20) -> list[UsageRecord]:
        """A user's own last exchanges, newest first."""
        return self.page(n, None, LogFilters(user=user))[0]

    def scan(self, frm: float, to: float, filters: LogFilters = _ALL) -> Iterator[UsageRecord]:
        """Every kept exchange of a range, oldest first, read in short transactions."""
        at, stop = layout.time_key(frm), layout.time_key(to)
        while True:
            with self._store.read() as reader:
                part = list(reader.scan(layout.RECORDS, at, stop, limit=_EXPORT_STEP))
            for key, raw in part:
                rec = _readable(key, raw)
                if rec is not None and matches(rec, filters):
                    yield rec
            if len(part) < _EXPORT_STEP:
                return
            at = part[-1][0] + b"\0"

    def export(
        self,
        fmt: Literal["csv", "jsonl"],
        frm: float,
        to: float,
        filters: LogFilters = _ALL,
        *,
        line: Callable[[UsageRecord], dict[str, Any]] | None = None,
    ) -> Iterator[bytes]:
        """The exchanges of a range as CSV (with a header line) or JSON lines, in pieces of some hundred lines.

        `line` makes the plain values of one exchange, always under the same names; without it, `flat`.
        """
        made = line or flat
        write = _csv_piece if fmt == "csv" else _jsonl_piece
        if fmt == "csv":
            yield (",".join(made(_NOTHING)) + "\r\n").encode()
        part: list[dict[str, Any]] = []
        for rec in self.scan(frm, to, filters):
            part.append(made(rec))
            if len(part) >= _EXPORT_STEP:
                yield write(part)
                part = []
        if part:
            yield write(part)


def records_of(reader: Reader, filters: LogFilters) -> Iterator[UsageRecord]:
    """Every kept exchange that passes the filters, newest first, in one transaction: for what is known to be short."""
    for key, raw in _newest_first(reader, filters, None):
        rec = _readable(key, raw)
        if rec is not None and matches(rec, filters):
            yield rec


def _readable(key: bytes, raw: bytes) -> UsageRecord | None:
    """The record, or None, and a line in the log, for one that cannot be read: it must not hide the others."""
    try:
        return unpack(raw)
    except ValueError as exc:
        log.warning("record %s of the ledger: %s", key.hex(), exc)
        return None


def matches(rec: UsageRecord, filters: LogFilters) -> bool:
    """Whether an exchange passes every filter."""
    wanted = (
        (filters.user, rec.user), (filters.account, rec.account), (filters.model, rec.model),
        (filters.provider, rec.provider), (filters.outcome, rec.outcome), (filters.status, rec.status),
        (filters.session, rec.session),
    )  # fmt: skip
    return (
        all(want is None or want == have for want, have in wanted)
        and not (filters.failed and rec.outcome in GOOD)
        and (filters.since is None or rec.at >= filters.since)
        and (filters.until is None or rec.at < filters.until)
    )


def flat(rec: UsageRecord) -> dict[str, Any]:
    """One exchange as one line of plain values, in the order of EXPORT_COLUMNS."""
    usage = rec.usage
    return {
        "id": rec.id, "at": rec.at, "user": rec.user, "provider": rec.provider, "account": rec.account,
        "model": rec.model, "dialect": rec.dialect, "transport": rec.transport, "operation": rec.operation,
        "status": rec.status, "outcome": rec.outcome, "message": rec.message, "input": usage.input,
        "cache_read": usage.cache_read, "cache_write": usage.cache_write, "cache_write_1h": usage.cache_write_1h,
        "output": usage.output, "reasoning": usage.reasoning, "web_searches": usage.web_searches,
        "cost_usd": rec.cost, "partial": rec.partial, "attempts": len(rec.attempts),
        "first_byte_ms": rec.first_byte_ms, "total_ms": rec.total_ms, "request_bytes": rec.request_bytes,
        "response_bytes": rec.response_bytes, "agent": rec.agent, "tier": rec.tier,
        "estimated": usage.estimated, "cost_basis": rec.cost_basis, "answered": rec.answered, "speed": rec.speed,
        "geo": rec.geo, "cache_write_12h": usage.cache_write_12h, "audio_in": usage.audio_in,
        "image_in": usage.image_in, "audio_out": usage.audio_out, "image_out": usage.image_out,
        "cache_read_explicit": usage.cache_read_explicit, "video_in": usage.video_in,
        "audio_cache_read": usage.audio_cache_read, "image_cache_read": usage.image_cache_read,
        "other_kinds": usage.other_kinds,
    }  # fmt: skip


_NOTHING = UsageRecord(id="", at=0.0, user="")
EXPORT_COLUMNS = tuple(flat(_NOTHING))


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


def _jsonl_piece(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def _csv_piece(lines: list[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    for line in lines:
        writer.writerow(["" if value is None else tame(value) for value in line.values()])
    return out.getvalue().encode("utf-8", "replace")


def tame(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula is quoted."""
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
