"""Every exchange counted once: usage records, rollups, prices, and what can be asked of them."""

from pool_server.ledger.alerts import Budget, Event, Facts, Incident, Rule
from pool_server.ledger.cube import Field, Filters
from pool_server.ledger.forecast import Confidence, Forecast, Why
from pool_server.ledger.incidents import open_incidents
from pool_server.ledger.keys import FORMAT, MIGRATIONS, TABLES
from pool_server.ledger.ledger import Ledger
from pool_server.ledger.log import EXPORT_COLUMNS, LogFilters, flat, tame
from pool_server.ledger.prices import Prices
from pool_server.ledger.query import METRICS, Metric
from pool_server.ledger.quota import Series, Sighting
from pool_server.ledger.span import Step
from pool_server.ledger.watch import Watch

__all__ = [
    "EXPORT_COLUMNS",
    "FORMAT",
    "METRICS",
    "MIGRATIONS",
    "TABLES",
    "Budget",
    "Confidence",
    "Event",
    "Facts",
    "Field",
    "Filters",
    "Forecast",
    "Incident",
    "Ledger",
    "LogFilters",
    "Metric",
    "Prices",
    "Rule",
    "Series",
    "Sighting",
    "Step",
    "Watch",
    "Why",
    "flat",
    "open_incidents",
    "tame",
]
