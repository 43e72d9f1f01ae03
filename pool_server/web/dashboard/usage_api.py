"""`/api/usage/…`: what was used, as JSON. A friend sees own numbers and, as far as the settings allow, the pool's.

Every route takes `range=24h|7d|30d|1y` or `from=` and `to=` (unix seconds, or dates in `tz`), and the filters `user`
(an id or a name, `me`, `all`), `provider`, `model` and, for the admin, `account`. A range is half open and widened to
what is still kept; `from` and `to` of an answer say what was taken. Without `user` a friend asks about themselves.
Of an export, however long its range, only some hundred exchanges are in memory: the next piece is read when the last
one has left.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, cast, get_args
from zoneinfo import ZoneInfo

import msgspec

from pool_server.core.models import UsageRecord
from pool_server.language import gettext as _
from pool_server.ledger import (
    AccountUser,
    Field,
    Filters,
    GroupSums,
    LogFilters,
    SeriesLine,
    Step,
    UsageSummary,
    UsageSums,
    flat,
    tame,
)
from pool_server.texts import format
from pool_server.web.base.handler import Access, BaseHandler, ProblemError
from pool_server.web.base.shared import headline, visible
from pool_server.web.base.shared import query_params as asking
from pool_server.web.base.shared.names import Names
from pool_server.web.base.shared.query_params import UsageQuery

STEPS = ("minute", "hour", "day")
TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson; charset=utf-8"}


class UsedAnswer(UsageSummary, frozen=True):
    """`user` null is everybody; `pool`: the pool's sums, for a friend who may see them."""

    user: str | None
    pool: UsageSums | msgspec.UnsetType = msgspec.UNSET


class TopRow(GroupSums, frozen=True):
    name: str


class TopAnswer(msgspec.Struct):
    frm: float = msgspec.field(name="from")
    to: float
    by: str
    top: list[TopRow]


class MatrixRow(AccountUser, frozen=True):
    name: str


class MatrixAnswer(msgspec.Struct):
    frm: float = msgspec.field(name="from")
    to: float
    rows: list[MatrixRow]


class NamedLine(SeriesLine):
    name: str


class Summary(BaseHandler, access=Access.FRIEND):
    """`GET /api/usage/summary` → `{"from","to","user","total":{…},"providers":{…},"models":{…}}`; a friend who may
    see them also gets the pool's sums as `"pool"`."""

    asks = asking.ASKED

    async def get(self) -> None:
        who, ask = asking.viewer(self), asking.read(self)
        found = await asyncio.to_thread(self.ctx.ledger.queries.summary, ask.frm, ask.to, ask.filters)
        answer = UsedAnswer(**msgspec.structs.asdict(found), user=ask.filters.user)
        if not who.admin and who.sees != "own":
            everyone = Filters(ask.filters.provider, None, None, ask.filters.model)
            pool = await asyncio.to_thread(self.ctx.ledger.queries.total, ask.frm, ask.to, everyone)
            answer = msgspec.structs.replace(answer, pool=pool.describe())
        self.answer(answer)


class SeriesHandler(BaseHandler, access=Access.FRIEND):
    """`GET /api/usage/series?by=&bucket=&metric=&top=` → a chart: `{"from","to","step","tz","metric","buckets",
    "series":[{"key","name","values"}]}`; `by=none` for one line, `bucket` minute, hour or day."""

    asks = asking.ASKED | {"by", "bucket", "metric", "top"}

    async def get(self) -> None:
        who, ask = asking.viewer(self), asking.read(self)
        field, metric = asking.by(self, "none"), asking.metric(self)
        asking.own_label(who, ask, field)
        step = cast(Step, asking.word(self, "bucket", STEPS, asking.step_for(ask, field)))
        top = asking.whole(self, "top", 12, most=100) or 12
        ledger = self.ctx.ledger
        try:
            chart = await asyncio.to_thread(visible.series, ledger, who, ask, field, step, metric, top)
        except ValueError as wrong:
            raise ProblemError(400, "bad_request", f"{wrong}: take a longer bucket or a shorter range") from None
        names = Names(self.ctx, who)
        lines = [NamedLine(line.key, line.values, names(field, line.key)) for line in chart.series]
        about: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(chart, series=[]))
        self.answer({**about, "by": field, "series": lines})


class Top(BaseHandler, access=Access.FRIEND):
    """`GET /api/usage/top?by=&metric=&limit=` → `{"top":[{"key","name", sums…}]}`, the largest first."""

    asks = asking.ASKED | {"by", "metric", "limit"}

    async def get(self) -> None:
        who, ask = asking.viewer(self), asking.read(self)
        field = asking.by(self, "model")
        if field is None:
            raise ProblemError(
                400, "bad_request", _("{name} must be one of {listed}", name="by", listed=", ".join(get_args(Field)))
            )
        asking.own_label(who, ask, field)
        limit = asking.whole(self, "limit", 50) or 50
        ledger, metric = self.ctx.ledger, asking.metric(self)
        try:
            rows = await asyncio.to_thread(visible.top, ledger, who, ask, field, metric, limit)
        except ValueError as wrong:
            raise ProblemError(400, "bad_request", str(wrong)) from None
        names = Names(self.ctx, who)
        named = [TopRow(**msgspec.structs.asdict(row), name=names(field, row.key)) for row in rows]
        self.answer(TopAnswer(ask.frm, ask.to, field, named))


class HeatMap(BaseHandler, access=Access.FRIEND):
    """`GET /api/usage/heatmap?metric=` → `{"from","to","tz","metric","cells"}`: 7 weekdays, Monday first, of 24
    hours."""

    asks = asking.ASKED | {"metric"}

    async def get(self) -> None:
        ask, metric = asking.read(self), asking.metric(self)
        ledger = self.ctx.ledger
        self.answer(
            await asyncio.to_thread(ledger.queries.heatmap, ask.frm, ask.to, ask.filters, tz=ask.zone, metric=metric)
        )


class Matrix(BaseHandler, access=Access.ADMIN):
    """`GET /api/usage/matrix` → `{"rows":[{"user","name","account", tokens…}]}`: who used which account."""

    asks = asking.ASKED

    async def get(self) -> None:
        ask = asking.read(self)
        rows = await asyncio.to_thread(self.ctx.ledger.queries.matrix, ask.frm, ask.to, ask.filters)
        names = Names(self.ctx, asking.viewer(self))
        named = [MatrixRow(**msgspec.structs.asdict(row), name=names.user(row.user)) for row in rows]
        self.answer(MatrixAnswer(ask.frm, ask.to, named))


class ForecastHandler(BaseHandler, access=Access.FRIEND):
    """`GET /api/usage/forecast` → `{"now","providers":{…}}`: room, burn and end of each; for the admin also each
    account's windows and the calendar of resets."""

    asks = frozenset[str]()

    async def get(self) -> None:
        now = self.ctx.clock()
        found = await headline.foretold(self.ctx, now)
        shown = found if asking.viewer(self).admin else {"providers": found["providers"]}
        self.answer({"now": now, **shown})


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
        await self.stream(self.ctx.ledger.log.export(fmt, ask.frm, ask.to, filters, line=line))

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
            moment = datetime.fromtimestamp(at, where)
            when = f"{moment:%Y-%m-%d} {format.time_of_day(moment)}"
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
