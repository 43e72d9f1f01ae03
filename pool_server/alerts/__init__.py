"""Whom to tell when something is wrong: rules over facts, open incidents, webhook and e-mail."""

from pool_server.alerts.incidents import open_incidents
from pool_server.alerts.monitor import AlertMonitor
from pool_server.alerts.rules import AlertEvent, AlertFacts, AlertRule, Budget, Incident

__all__ = ["AlertEvent", "AlertFacts", "AlertMonitor", "AlertRule", "Budget", "Incident", "open_incidents"]
