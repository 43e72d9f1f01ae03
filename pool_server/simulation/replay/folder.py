"""The accounts that the pool folder holds now. Reads, and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from pool_server.accounts.credentials.escrow import Escrow
from pool_server.accounts.credentials.files import Options
from pool_server.accounts.credentials.source import PoolFolder
from pool_server.accounts.credentials.store import CredentialStore
from pool_server.providers import Credential


def present(
    pool_dir: Path, data_dir: Path, people: Mapping[str, str], now: float
) -> dict[str, tuple[Credential, Options]]:
    """Credential and options by account. Names of owners and of those who may use it become the ids that `people`
    knows; an owner it does not know is nobody."""
    items = CredentialStore(PoolFolder(pool_dir), Escrow(data_dir)).look(now).items
    return {account: (item.credential, _owned(item.options, people)) for account, item in items.items()}


def _owned(options: Options, people: Mapping[str, str]) -> Options:
    owner = people.get(options.owner.strip(), "") if options.owner else ""
    named = None if options.people is None else tuple(people.get(one.strip(), one) for one in options.people)
    return msgspec.structs.replace(options, owner=owner, people=named)
