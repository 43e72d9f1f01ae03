"""What owners of accounts give to others, and take from others' accounts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from pool_server.ledger.rollups.sums import Sums
from pool_server.ledger.rollups.usage_sums import SharedAmount


class SharedUse(msgspec.Struct):
    """`gave`: what others used of one's accounts; `took`: what one used of accounts that are not one's own, the pool's
    among them; `own`: what one used of one's own."""

    gave: Sums
    took: Sums
    own: Sums

    def brief(self) -> SharedAmounts:
        return SharedAmounts(self.gave.brief(), self.took.brief(), self.own.brief())


class SharedAmounts(NamedTuple):
    gave: SharedAmount
    took: SharedAmount
    own: SharedAmount


class SharedUses:
    """Everybody's, of one range of time: `people` by user id, `accounts` by the account (it gave; its owner took).

    `found` is what each (user, account) used; `owners` maps an account to its owner's id, those without are the
    pool's."""

    def __init__(self, found: Mapping[tuple[str, ...], Sums], owners: Mapping[str, str]) -> None:
        self._people: dict[str, SharedUse] = {}
        self._accounts: dict[str, SharedUse] = {}
        self._owners = owners
        for (user, account), sums in found.items():
            owner = owners.get(account, "")
            if not owner:
                self.person(user).took.add(sums)
            elif owner == user:
                self.person(user).own.add(sums)
                self._account(account).own.add(sums)
            else:
                self.person(user).took.add(sums)
                self.person(owner).gave.add(sums)
                self._account(account).gave.add(sums)

    def person(self, user: str) -> SharedUse:
        return self._people.setdefault(user, SharedUse(Sums(), Sums(), Sums()))

    def account(self, account: str) -> SharedUse:
        """What it gave, and what its owner took elsewhere."""
        row = self._account(account)
        owner = self._owners.get(account, "")
        return SharedUse(row.gave, self.person(owner).took if owner else Sums(), row.own)

    def _account(self, account: str) -> SharedUse:
        return self._accounts.setdefault(account, SharedUse(Sums(), Sums(), Sums()))
