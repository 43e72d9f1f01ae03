"""The ledger's answers as far as a viewer may see them: a friend of a discreet pool is shown themselves and, in one
sum, everybody else.
"""

from __future__ import annotations

import msgspec

from pool_server.language import gettext as _
from pool_server.ledger import Field, GroupSums, Ledger, Metric, SeriesLine, Step, UsageSeries
from pool_server.web.base.handler import ProblemError
from pool_server.web.base.shared.names import OTHERS
from pool_server.web.base.shared.query_params import UsageQuery, Viewer

SUMMED = frozenset({"tokens", "cost", "requests", "failures", "input", "cache_read", "cache_write", "output",
                    "reasoning"})  # fmt: skip


def nameless(who: Viewer, ask: UsageQuery, field: str | None) -> bool:
    """Whether people are asked for whose names the viewer may not see."""
    return field == "user" and not who.admin and who.sees == "pool" and ask.filters.user is None


def series(
    ledger: Ledger,
    who: Viewer,
    ask: UsageQuery,
    field: Field | None,
    step: Step,
    metric: Metric,
    top: int = 8,
    *,
    every: int = 1,
) -> UsageSeries:
    """`Queries.series` for this viewer. Raises ValueError for too many steps, Problem 400 for shares of others."""
    if not nameless(who, ask, field):
        return ledger.queries.series(
            field, step, ask.frm, ask.to, ask.filters, tz=ask.zone, metric=metric, top=top, every=every
        )
    if metric not in SUMMED:
        raise ProblemError(400, "bad_request", _("{metric} cannot be split by person here", metric=metric))
    mine = ask.filters.__class__(ask.filters.provider, ask.filters.account, who.user, ask.filters.model)
    pool = ledger.queries.series(None, step, ask.frm, ask.to, ask.filters, tz=ask.zone, metric=metric, every=every)
    own = ledger.queries.series(None, step, ask.frm, ask.to, mine, tz=ask.zone, metric=metric, every=every)
    everyone, me = _values(pool), _values(own)
    others = [all_ - part for all_, part in zip(everyone, me, strict=True)]
    return msgspec.structs.replace(pool, series=[SeriesLine(who.user, [*me]), SeriesLine(OTHERS, [*others])])


def _values(chart: UsageSeries) -> list[float]:
    """Of its only line, of a metric that adds up."""
    return [value or 0 for value in chart.series[0].values] if chart.series else [0] * len(chart.buckets)


def top(
    ledger: Ledger,
    who: Viewer,
    ask: UsageQuery,
    field: Field,
    metric: Metric = "tokens",
    limit: int = 50,
    *,
    timed: bool = True,
) -> list[GroupSums]:
    """`Queries.top` for this viewer."""
    if not nameless(who, ask, field):
        return ledger.queries.top(field, ask.frm, ask.to, ask.filters, metric=metric, limit=limit, timed=timed)
    mine = ask.filters.__class__(ask.filters.provider, ask.filters.account, who.user, ask.filters.model)
    pool = ledger.queries.total(ask.frm, ask.to, ask.filters)
    own = ledger.queries.total(ask.frm, ask.to, mine)
    rows = [own.of_group(who.user), pool.less(own).of_group(OTHERS)]
    return [row for row in rows if row.requests]
