"""`GET /api/usage/export`: every kept exchange of a range as CSV or JSON lines, written as it is read; or, with
`what=series`, the values of a chart as CSV.

However long the range, only some hundred exchanges are in memory: the next piece is read when the last one has left.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, cast
from zoneinfo import ZoneInfo

from tornado.iostream import StreamClosedError

from pool_server.core.models import UsageRecord
from pool_server.ledger import LogFilters, flat, tame
from pool_server.texts import format
from pool_server.web.base.handler import Access, BaseHandler, ProblemError
from pool_server.web.base.shared import query_params as asking
from pool_server.web.base.shared import visible
from pool_server.web.base.shared.names import Names
from pool_server.web.base.shared.query_params import UsageQuery

TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson; charset=utf-8"}


class Export(BaseHandler, access=Access.FRIEND):
    """`?format=csv|jsonl`, ranges and filters as elsewhere below `/api/usage/`. A friend gets own exchanges only,
    without the accounts that served them."""

    asks = asking.ASKED | {"format", "what", "by", "metric"}

    async def get(self) -> None:
        fmt = cast(Literal["csv", "jsonl"], asking.word(self, "format", tuple(TYPES), "csv"))
        if asking.word(self, "what", ("requests", "series"), "requests") == "series":
            await self._series()
            return
        ask, who = asking.read(self, own=True), asking.viewer(self)
        wanted = ask.filters
        filters = LogFilters(wanted.user, wanted.account, wanted.model, wanted.provider)
        line = named(Names(self.ctx, who)) if who.admin else own
        self._name("requests", ask, fmt)
        pieces = self.ctx.ledger.log.export(fmt, ask.frm, ask.to, filters, line=line)
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                self.write(piece)
                await self.flush()
        except StreamClosedError:
            return

    async def _series(self) -> None:
        """What a chart of the dashboard shows, bar by bar, as a table: a line a bar, a column a name."""
        ask, who = asking.read(self), asking.viewer(self)
        field, metric, ledger = asking.by(self, "none"), asking.metric(self), self.ctx.ledger
        asking.own_label(who, ask, field)
        step, every = asking.drawn_by(ask, field, self.ctx.clock())
        try:
            chart = await asyncio.to_thread(visible.series, ledger, who, ask, field, step, metric, every=every)
        except ValueError as wrong:
            raise ProblemError(400, "bad_request", str(wrong)) from None
        names, where = await Names.of(self.ctx, who, field), ZoneInfo(chart.tz)
        out = io.StringIO()
        sheet = csv.writer(out)
        sheet.writerow([f"time ({where})", *(tame(names(field, line.key)) for line in chart.series)])
        for i, at in enumerate(chart.buckets):
            when = f"{datetime.fromtimestamp(at, where):%Y-%m-%d %H:%M}"
            sheet.writerow([when, *(line.values[i] for line in chart.series)])
        self._name(metric, ask, "csv")
        self.finish(out.getvalue())

    def _name(self, what: str, ask: UsageQuery, fmt: str) -> None:
        days = "-".join(datetime.fromtimestamp(at, UTC).strftime("%Y%m%d") for at in (ask.frm, ask.to))
        self.set_header("Content-Type", TYPES[fmt])
        self.set_header("Content-Disposition", f'attachment; filename="{what}-{days}.{fmt}"')


def named(names: Names) -> Callable[[UsageRecord], dict[str, Any]]:
    """An exchange as the operator reads it in a spreadsheet: the time also as text, the user also by name."""
    known: dict[str, str] = {}

    def line(record: UsageRecord) -> dict[str, Any]:
        if record.user not in known:
            known[record.user] = names.user(record.user) if record.id else ""
        return {"time": format.stamp(record.at), "user_name": known[record.user], **flat(record)}

    return line


def own(record: UsageRecord) -> dict[str, Any]:
    """An exchange as its user may have it: whose account served it is not theirs to know."""
    found = {"time": format.stamp(record.at), **flat(record)}
    del found["account"], found["attempts"]
    return found
