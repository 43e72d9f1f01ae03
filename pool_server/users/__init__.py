"""Friends of the pool: people, codes, keys, sessions, limits, fair share, audit. Knows nothing of accounts."""

from pool_server.users.model import LEDGER_TABLES, STATE_TABLES, Actor, Denied, Principal, Refused
from pool_server.users.reserve import Reservation
from pool_server.users.users import Users

__all__ = [
    "LEDGER_TABLES",
    "STATE_TABLES",
    "Actor",
    "Denied",
    "Principal",
    "Refused",
    "Reservation",
    "Users",
]
