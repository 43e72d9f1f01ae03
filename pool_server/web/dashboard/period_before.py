"""A range beside the one before it, of the same length: its sums, how they differ, and its line in a chart."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from pool_server.language import Words
from pool_server.ledger import Filters, Ledger, Metric, Step, UsageSeries
from pool_server.texts import format
from pool_server.web.dashboard.overview import change, sums_until

DAY = 86_400.0


class ComparedRange(NamedTuple):
    """The range: unix seconds and the viewer's zone."""

    frm: float
    to: float
    zone: str
    filters: Filters


BEFORE = Words(
    {"24h": "the 24 hours before", "7d": "the 7 days before", "30d": "the 30 days before",
     "1y": "the year before", "custom": "the same length of time before"}
)  # fmt: skip
COMPARED = ("requests", "total_tokens", "cache_read", "output", "reasoning", "cost_usd", "failures", "unpriced",
            "estimated", "assumed", "input", "cache_write")  # fmt: skip


def before(ask: ComparedRange) -> tuple[float, float]:
    """Begin and end of the range before: as many days earlier by the viewer's calendar, also across a change of
    clocks; a range of hours that many hours earlier."""
    length = ask.to - ask.frm
    days = round(length / DAY)
    if length < 0.95 * DAY:
        return max(0.0, ask.frm - length), ask.frm
    zone = ZoneInfo(ask.zone)
    return _days_earlier(ask.frm, days, zone), _days_earlier(ask.to, days, zone)


def _days_earlier(at: float, days: int, zone: ZoneInfo) -> float:
    try:
        return max(0.0, (datetime.fromtimestamp(at, zone) - timedelta(days=days)).timestamp())
    except (OverflowError, ValueError):
        return max(0.0, at - days * DAY)


def sums(ledger: Ledger, ask: ComparedRange) -> dict[str, float]:
    """The sums of the range before, up to the same moment. Reads the ledger: for a thread."""
    began, until = before(ask)
    return sums_until(ledger, began, until, ask.filters, COMPARED)


def series(ledger: Ledger, ask: ComparedRange, step: Step, every: int, metric: Metric) -> UsageSeries:
    """The range before as one line, in the steps of the range itself. Reads the ledger: for a thread."""
    began, until = before(ask)
    return ledger.queries.series(None, step, began, until, ask.filters, tz=ask.zone, metric=metric, every=every)


def differences(total: Mapping[str, Any], then: Mapping[str, float]) -> dict[str, str]:
    """Name of a sum → "12 % more"; nothing where there was no request to compare with."""
    if not then["requests"]:
        return {}
    found = {name: change(total[name], then[name]) for name in ("requests", "total_tokens", "failures")}
    found |= {name: change(total[name], then[name]) for name in ("cache_read", "output", "reasoning")}
    fresh = [sums["input"] + sums["cache_write"] for sums in (total, then)]
    found["input"] = change(*fresh)
    prices = format.price(total), format.price(then)
    found["cost_usd"] = "" if format.no_price() in prices else change(total["cost_usd"], then["cost_usd"])
    return found
