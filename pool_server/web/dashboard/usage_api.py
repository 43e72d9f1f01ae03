"""`/api/usage/…`: what was used, as JSON. A friend sees own numbers and, as far as the settings allow, the pool's.

Every route takes `range=24h|7d|30d|1y` or `from=` and `to=` (unix seconds, or dates in `tz`), and the filters `user`
(an id or a name, `me`, `all`), `provider`, `model` and, for the admin, `account`. A range is half open and widened to
what is still kept; `from` and `to` of an answer say what was taken. Without `user` a friend asks about themselves.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast, get_args

import msgspec

from pool_server.ledger import Field, Filters, SeriesLine, Step
from pool_server.web.base.handler import Access, BaseHandler, ProblemError
from pool_server.web.base.shared import headline, visible
from pool_server.web.base.shared import query_params as asking
from pool_server.web.base.shared.names import Names

STEPS = ("minute", "hour", "day")


class NamedLine(SeriesLine):
    name: str


class Summary(BaseHandler, access=Access.FRIEND):
    """`GET /api/usage/summary` → `{"from","to","user","total":{…},"providers":{…},"models":{…}}`; a friend who may
    see them also gets the pool's sums as `"pool"`."""

    asks = asking.ASKED

    async def get(self) -> None:
        who, ask = asking.viewer(self), asking.read(self)
        found = await asyncio.to_thread(self.ctx.ledger.queries.summary, ask.frm, ask.to, ask.filters)
        answer: dict[str, Any] = {**found, "user": ask.filters.user}
        if not who.admin and who.sees != "own":
            everyone = Filters(ask.filters.provider, None, None, ask.filters.model)
            pool = await asyncio.to_thread(self.ctx.ledger.queries.total, ask.frm, ask.to, everyone)
            answer["pool"] = pool.describe()
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
            raise ProblemError(400, "bad_request", f"by must be one of {', '.join(get_args(Field))}")
        asking.own_label(who, ask, field)
        limit = asking.whole(self, "limit", 50) or 50
        ledger, metric = self.ctx.ledger, asking.metric(self)
        try:
            rows = await asyncio.to_thread(visible.top, ledger, who, ask, field, metric, limit)
        except ValueError as wrong:
            raise ProblemError(400, "bad_request", str(wrong)) from None
        names = Names(self.ctx, who)
        named = [{**row, "name": names(field, row["key"])} for row in rows]
        self.answer({"from": ask.frm, "to": ask.to, "by": field, "top": named})


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
        self.answer({"from": ask.frm, "to": ask.to, "rows": [{**r, "name": names.user(r["user"])} for r in rows]})


class ForecastHandler(BaseHandler, access=Access.FRIEND):
    """`GET /api/usage/forecast` → `{"now","providers":{…}}`: room, burn and end of each; for the admin also each
    account's windows and the calendar of resets."""

    asks = frozenset[str]()

    async def get(self) -> None:
        now = self.ctx.clock()
        found = await headline.foretold(self.ctx, now)
        shown = found if asking.viewer(self).admin else {"providers": found["providers"]}
        self.answer({"now": now, **shown})
