"""Friends of the pool: people, codes, keys, sessions, limits, fair share, audit. Knows nothing of accounts."""

from pool_server.users.limits.counters import FLOOR_COST
from pool_server.users.limits.reservations import Reservation
from pool_server.users.models import LEDGER_TABLES, SERVER, STATE_TABLES, AuditActor, Denied, Principal, RefusedError
from pool_server.users.service import Users

__all__ = [
    "FLOOR_COST",
    "LEDGER_TABLES",
    "SERVER",
    "STATE_TABLES",
    "AuditActor",
    "Denied",
    "Principal",
    "RefusedError",
    "Reservation",
    "Users",
]
