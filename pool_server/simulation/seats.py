"""A scenario's accounts as the choice takes them."""

from __future__ import annotations

from pool_server.accounts.credentials.files import Options
from pool_server.accounts.health.state import AccountHealth
from pool_server.accounts.selection.account import Account
from pool_server.core.enums import CredentialKind, Provider
from pool_server.providers import Credential
from pool_server.simulation.scenario import OPUS, Scenario, Seat


def accounts_of(scenario: Scenario) -> list[Account]:
    return [_account(seat, at) for at, seat in enumerate(scenario.seats)]


def family(provider: Provider, model: str) -> str:
    """The window family of a simulated model."""
    return OPUS if OPUS in model else "sonnet"


def _account(seat: Seat, at: int) -> Account:
    kind = CredentialKind.API_KEY if seat.plan.budget is not None else CredentialKind.OAUTH
    tier = "" if seat.plan.opus == 0 else "opus"
    options = Options(owner=seat.owner, reserve=seat.reserve)
    credential = Credential(Provider.CLAUDE, seat.name, kind, tier=tier)
    account = Account(credential, options, AccountHealth(jitter=at % 10 / 10))
    account.way = seat.host
    return account
