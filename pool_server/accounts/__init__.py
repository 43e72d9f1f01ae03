"""Which account serves, and why: credential files, refresh, quota windows, states, choice and pins."""

from pool_server.accounts import pins, refresh, shared
from pool_server.accounts.choose import Ask, Decision, choose
from pool_server.accounts.files import Unusable
from pool_server.accounts.files import create as create_file
from pool_server.accounts.lane import Candidate
from pool_server.accounts.pool import Accounts
from pool_server.accounts.refresh import RefreshFailed
from pool_server.accounts.setup import SetupFailed
from pool_server.accounts.states import Actor, Event
from pool_server.accounts.vault import ReloadReport

STATE_TABLES = (*shared.TABLES, *pins.TABLES, *refresh.TABLES)

__all__ = [
    "STATE_TABLES",
    "Accounts",
    "Actor",
    "Ask",
    "Candidate",
    "Decision",
    "Event",
    "RefreshFailed",
    "ReloadReport",
    "SetupFailed",
    "Unusable",
    "choose",
    "create_file",
]
