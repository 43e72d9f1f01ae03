"""Friends of the pool: people, codes, keys, sessions, limits, fair share, audit. Knows nothing of accounts."""

from pool_server.users.admin_tokens import TokenHolder, is_admin_token
from pool_server.users.identity.directory import checked_limits, model_allowed, provider_allowed
from pool_server.users.identity.imported.aliases import (
    ImportedSecret,
    OtherPool,
    hashed_mark,
    load_secrets,
    person_mark,
    token_mark,
)
from pool_server.users.identity.importer import ImportedUser, TakenUser
from pool_server.users.identity.importer import read as read_codex_pool_users
from pool_server.users.limits.counters import FLOOR_COST
from pool_server.users.limits.pending import Reservation
from pool_server.users.limits.standing import LimitStanding
from pool_server.users.models import (
    LEDGER_TABLES,
    SERVER,
    STATE_TABLES,
    AuditActor,
    AuditRow,
    Denied,
    Principal,
    RefusedError,
)
from pool_server.users.service import Users

__all__ = [
    "FLOOR_COST",
    "LEDGER_TABLES",
    "SERVER",
    "STATE_TABLES",
    "AuditActor",
    "AuditRow",
    "Denied",
    "ImportedSecret",
    "ImportedUser",
    "LimitStanding",
    "OtherPool",
    "Principal",
    "RefusedError",
    "Reservation",
    "TakenUser",
    "TokenHolder",
    "Users",
    "checked_limits",
    "hashed_mark",
    "is_admin_token",
    "load_secrets",
    "model_allowed",
    "person_mark",
    "provider_allowed",
    "read_codex_pool_users",
    "token_mark",
]
