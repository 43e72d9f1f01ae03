"""The request log: single exchanges, newest first, by any filter, a page at a time; and their export.

A page looks at no more than SCAN_LIMIT records, so a rare combination may take several pages, each quick.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec

from pool_server.core.models import UsageRecord
from pool_server.ledger.ports import LedgerPort, LogFilters

PAGE = 50
MAX_PAGE = 500
SCAN_LIMIT = 3_000
MAX_ID = 400  # characters of an id that is looked for
_EXPORT_STEP = 500


_ALL = LogFilters()


class Log:
    """Reads the records of one ledger. Safe in any thread."""

    def __init__(self, port: LedgerPort) -> None:
        self._port = port

    def get(self, ident: str) -> UsageRecord | None:
        """The exchange with this id."""
        return self._port.get(ident) if ident and len(ident) <= MAX_ID else None

    def page(
        self, limit: int = PAGE, cursor: str | None = None, filters: LogFilters = _ALL
    ) -> tuple[list[UsageRecord], str | None]:
        """Up to `limit` exchanges, newest first, and the cursor of the next page (None = there is none).

        A page may hold fewer than `limit` and still have a next one. Raises ValueError for a foreign cursor.
        """
        return self._port.page(max(1, min(limit, MAX_PAGE)), cursor, filters, SCAN_LIMIT)

    def latest(self, user: str, n: int = 20) -> list[UsageRecord]:
        """A user's own last exchanges, newest first."""
        return self.page(n, None, LogFilters(user=user))[0]

    def scan(self, frm: float, to: float, filters: LogFilters = _ALL) -> Iterator[UsageRecord]:
        """Every kept exchange of a range, oldest first, read in short transactions."""
        return self._port.scan(frm, to, filters)

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
    return "'" + value if isinstance(value, str) and _FORMULA.match(value) is not None else value


# Spreadsheets of Japanese and Chinese systems read the wide signs too, and some pass over blanks before any of them.
_FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
