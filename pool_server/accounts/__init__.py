"""Which account serves, and why: credential files, refresh, quota windows, states, choice and pins."""

from pool_server.accounts import replication
from pool_server.accounts.administration.adding import (
    AccountRefusedError,
    NameTakenError,
    NewAccount,
    OtherPersonError,
    SameAccountError,
)
from pool_server.accounts.administration.pool_files import PoolFile, PoolFiles
from pool_server.accounts.credentials import back_off
from pool_server.accounts.credentials.files import create as create_file
from pool_server.accounts.credentials.refresh import RefreshError
from pool_server.accounts.credentials.scan import RejectedFile
from pool_server.accounts.credentials.store import ReloadReport
from pool_server.accounts.health.transitions import AccountEvent, StateActor
from pool_server.accounts.onboarding import OnboardingError
from pool_server.accounts.selection import affinity
from pool_server.accounts.selection.score import Candidate
from pool_server.accounts.selection.select import Decision, SelectionRequest, select
from pool_server.accounts.service import Accounts
from pool_server.accounts.sign_in import records
from pool_server.accounts.sign_in.pasted import PastedCodeError
from pool_server.accounts.sign_in.records import AccountSignIn
from pool_server.accounts.sign_in.service import SignInBusyError, SignInLimitError, SignInStart
from pool_server.accounts.translated import serves_natively, upstream_kind, vendor_of
from pool_server.storage import leases

STATE_TABLES = (*replication.TABLES, *affinity.TABLES, *leases.TABLES, back_off.TABLE, records.TABLE)

__all__ = [
    "STATE_TABLES",
    "AccountEvent",
    "AccountRefusedError",
    "AccountSignIn",
    "Accounts",
    "Candidate",
    "Decision",
    "NameTakenError",
    "NewAccount",
    "OnboardingError",
    "OtherPersonError",
    "PastedCodeError",
    "PoolFile",
    "PoolFiles",
    "RefreshError",
    "RejectedFile",
    "ReloadReport",
    "SameAccountError",
    "SelectionRequest",
    "SignInBusyError",
    "SignInLimitError",
    "SignInStart",
    "StateActor",
    "create_file",
    "select",
    "serves_natively",
    "upstream_kind",
    "vendor_of",
]
