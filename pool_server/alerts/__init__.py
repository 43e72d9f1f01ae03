"""Whom to tell when something is wrong: rules over facts, open incidents, how people are told; their own limits too."""

from pool_server.alerts.incidents import open_incidents
from pool_server.alerts.monitor import AlertMonitor
from pool_server.alerts.personal import PersonalAlerts
from pool_server.alerts.rules import AlertEvent, AlertFacts, AlertRule, Budget, Incident

__all__ = [
    "AlertEvent",
    "AlertFacts",
    "AlertMonitor",
    "AlertRule",
    "Budget",
    "Incident",
    "PersonalAlerts",
    "open_incidents",
]
