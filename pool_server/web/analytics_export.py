"""`GET /api/usage/export`: every kept exchange of a range as CSV or JSON lines, written as it is read.

However long the range, only some hundred exchanges are in memory: the next piece is read when the last one has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, cast

from tornado.iostream import StreamClosedError

from pool_server.ledger import LogFilters, flat
from pool_server.records import UsageRecord
from pool_server.web import analytics_ask as asking
from pool_server.web import figures
from pool_server.web.analytics_names import Names
from pool_server.web.base import Access, BaseHandler

TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson; charset=utf-8"}


class Export(BaseHandler, access=Access.FRIEND):
    """`?format=csv|jsonl`, ranges and filters as elsewhere below `/api/usage/`. A friend gets own exchanges only,
    without the accounts that served them."""

    async def get(self) -> None:
        ask, who = asking.read(self, own=True), asking.viewer(self)
        fmt = cast(Literal["csv", "jsonl"], asking.word(self, "format", tuple(TYPES), "csv"))
        wanted = ask.filters
        filters = LogFilters(wanted.user, wanted.account, wanted.model, wanted.provider)
        line = named(Names(self.ctx, who)) if who.admin else own
        days = "-".join(datetime.fromtimestamp(at, UTC).strftime("%Y%m%d") for at in (ask.frm, ask.to))
        self.set_header("Content-Type", TYPES[fmt])
        self.set_header("Content-Disposition", f'attachment; filename="usage-{days}.{fmt}"')
        pieces = self.ctx.ledger.export(fmt, ask.frm, ask.to, filters, line=line)
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                self.write(piece)
                await self.flush()
        except StreamClosedError:
            return


def named(names: Names) -> Callable[[UsageRecord], dict[str, Any]]:
    """An exchange as the operator reads it in a spreadsheet: the time also as text, the user also by name."""
    known: dict[str, str] = {}

    def line(record: UsageRecord) -> dict[str, Any]:
        if record.user not in known:
            known[record.user] = names.user(record.user) if record.id else ""
        return {"time": figures.stamp(record.at), "user_name": known[record.user], **flat(record)}

    return line


def own(record: UsageRecord) -> dict[str, Any]:
    """An exchange as its user may have it: whose account served it is not theirs to know."""
    found = {"time": figures.stamp(record.at), **flat(record)}
    del found["account"], found["attempts"]
    return found
