"""A range beside the one before it, of the same length: its sums, how they differ, and its line in a chart."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from pool_server.language import Words
from pool_server.ledger import Filters, Ledger, Metric, Step, UsageSeries, UsageSums
from pool_server.texts import format
from pool_server.web.dashboard.overview import EarlierSums, change, prices_of, sums_until

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


def sums(ledger: Ledger, ask: ComparedRange) -> EarlierSums:
    """The sums of the range before, up to the same moment. Reads the ledger: for a thread."""
    began, until = before(ask)
    return sums_until(ledger, began, until, ask.filters)


def series(ledger: Ledger, ask: ComparedRange, step: Step, every: int, metric: Metric) -> UsageSeries:
    """The range before as one line, in the steps of the range itself. Reads the ledger: for a thread."""
    began, until = before(ask)
    return ledger.queries.series(None, step, began, until, ask.filters, tz=ask.zone, metric=metric, every=every)


def differences(total: UsageSums, then: EarlierSums) -> dict[str, str]:
    """Name of a sum → "12 % more"; nothing where there was no request to compare with."""
    if not then.requests:
        return {}
    same = ("requests", "total_tokens", "failures", "cache_read", "output", "reasoning")
    found = {name: change(getattr(total, name), getattr(then, name)) for name in same}
    found["input"] = change(total.input + total.cache_write, then.input + then.cache_write)
    unknown = format.no_price() in prices_of(total, then)
    found["cost_usd"] = "" if unknown else change(total.cost_usd, then.cost_usd)
    return found
