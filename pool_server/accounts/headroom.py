"""A provider's room at a glance, for the data plane: exact for a usual pool, sampled for a huge one. Pure."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Any

from pool_server.accounts import describe
from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.score import Candidate
from pool_server.core.enums import Provider

MOST_LOOKED_AT = 64  # accounts of a cohort; a pool with more has its mean estimated from as many


def sample(accounts: Collection[Account]) -> list[Account]:
    """At most `MOST_LOOKED_AT` of the accounts, spread evenly over them."""
    step = max(1, -(-len(accounts) // MOST_LOOKED_AT))
    return list(islice(accounts, 0, None, step))


def glance(provider: Provider, accounts: list[Account], now: float) -> tuple[float | None, list[dict[str, Any]]]:
    """(percent of room left, windows) as in `Accounts.summary()`, without the rest of its row."""
    standings = [Candidate(account.id) for account in accounts]
    row = describe.provider_row(provider, accounts, standings, now)
    return row["room_percent"], row["windows"]
