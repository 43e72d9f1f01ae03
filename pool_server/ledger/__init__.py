"""Every exchange counted once: usage records, rollups, prices, and what can be asked of them."""

from pool_server.ledger.bill_split import OUTSIDE, AccountBill, by_headroom, by_use, totals
from pool_server.ledger.chart import METRICS, Metric, SeriesLine, UsageSeries
from pool_server.ledger.embedded.consistency import Consistency
from pool_server.ledger.forecast import Confidence, Forecast, Why
from pool_server.ledger.ports import JobState, LedgerPort, LogFilters
from pool_server.ledger.pricing import OLD_AFTER_DAYS, PriceFacts, Prices, Quote
from pool_server.ledger.query import LABEL_RANGE_S
from pool_server.ledger.quota_history import Series, Sighting
from pool_server.ledger.records.layout import FORMAT, MIGRATIONS, TABLES, USABLE_FROM, job_key
from pool_server.ledger.request_log import EXPORT_COLUMNS, flat, tame
from pool_server.ledger.rollups.reader import LABELS, Field, Filters
from pool_server.ledger.rollups.time_slices import Step
from pool_server.ledger.rollups.usage_sums import (
    AccountUsage,
    AccountUser,
    AccountValue,
    GroupSums,
    Percentiles,
    SharedAmount,
    TokenCounts,
    UsageSummary,
    UsageSums,
    WeekHours,
)
from pool_server.ledger.service import Ledger
from pool_server.ledger.shared_use import SharedUse, SharedUses

__all__ = [
    "EXPORT_COLUMNS",
    "FORMAT",
    "LABELS",
    "LABEL_RANGE_S",
    "METRICS",
    "MIGRATIONS",
    "OLD_AFTER_DAYS",
    "OUTSIDE",
    "TABLES",
    "USABLE_FROM",
    "AccountBill",
    "AccountUsage",
    "AccountUser",
    "AccountValue",
    "Confidence",
    "Consistency",
    "Field",
    "Filters",
    "Forecast",
    "GroupSums",
    "JobState",
    "Ledger",
    "LedgerPort",
    "LogFilters",
    "Metric",
    "Percentiles",
    "PriceFacts",
    "Prices",
    "Quote",
    "Series",
    "SeriesLine",
    "SharedAmount",
    "SharedUse",
    "SharedUses",
    "Sighting",
    "Step",
    "TokenCounts",
    "UsageSeries",
    "UsageSummary",
    "UsageSums",
    "WeekHours",
    "Why",
    "by_headroom",
    "by_use",
    "flat",
    "job_key",
    "tame",
    "totals",
]
