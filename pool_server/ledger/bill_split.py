"""The bill of shared accounts, split by month among the people who used them. Pure.

A subscription's price is split by measured headroom: each rise of its longest window goes to those who used the account
meanwhile, in proportion to what their exchanges were worth then. A rise while nobody used it here is use outside the
pool, its owner's own. What is billed by use is split by use.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from pool_server.ledger.quota_history import Sighting

OUTSIDE = ""  # stands among people for use outside the pool
HOUR = 3600
_CENTS = 100


class UsedHere(msgspec.Struct, frozen=True):
    """What one person used of one account in a bucket of `seconds` from `at` (unix seconds)."""

    at: int
    seconds: int
    user: str
    tokens: int
    cost_usd: float
    unpriced: int


class AccountBill(msgspec.Struct, frozen=True):
    """One account's month: its price, and what each person's part of it is, to the cent; the parts add up to it.
    `measured`: split by headroom; else by what exchanges were worth (or their tokens, where a price is missing).
    `unpriced`: each person's requests that are billed by use and have no price here, so are in no part."""

    account: str
    price_usd: float
    measured: bool
    people: dict[str, float]
    unpriced: dict[str, int] = {}


def by_headroom(account: str, price: float, seen: Sequence[Sighting], used: Sequence[UsedHere]) -> AccountBill:
    """A subscription's price by the rises of one window; by use where the window tells nothing."""
    weigh = _Weight(used)
    when = _ByTime(used)
    points: dict[str, float] = defaultdict(float)
    before: Sighting | None = None
    for sighting in seen:
        rise = sighting.used_percent
        if before is not None and sighting.used_percent >= before.used_percent:
            rise -= before.used_percent
        if before is not None and rise > 0:
            for user, share in _shares(before.at, sighting.at, when, weigh).items():
                points[user] += rise * share
        before = sighting
    if not points:
        return AccountBill(account, price, False, _parts(price, _summed(used, weigh)))
    return AccountBill(account, price, True, _parts(price, points))


def by_use(account: str, used: Sequence[UsedHere]) -> AccountBill:
    """An account that is billed by use: everybody's own, at list prices."""
    worth: dict[str, float] = defaultdict(float)
    unpriced: dict[str, int] = defaultdict(int)
    for one in used:
        worth[one.user] += one.cost_usd
        if one.unpriced:
            unpriced[one.user] += one.unpriced
    price = round(sum(worth.values()), 2)
    return AccountBill(account, price, False, _parts(price, worth), dict(unpriced))


def totals(bills: Iterable[AccountBill]) -> dict[str, float]:
    """Everybody's parts of all accounts together, in dollars; 0 for who has only requests without a price."""
    found: dict[str, int] = defaultdict(int)
    for bill in bills:
        for user in bill.people.keys() | bill.unpriced.keys():
            found[user] += round(bill.people.get(user, 0.0) * _CENTS)
    return {user: cents / _CENTS for user, cents in found.items()}


class _ByTime:
    """Uses in the order of time, to find those of an interval."""

    def __init__(self, used: Sequence[UsedHere]) -> None:
        self._used = sorted(used, key=lambda one: one.at)
        self._starts = [one.at for one in self._used]
        self._longest = max((one.seconds for one in used), default=0)

    def between(self, frm: float, to: float) -> list[UsedHere]:
        """The buckets that overlap an interval."""
        first, last = bisect_right(self._starts, frm - self._longest), bisect_left(self._starts, to)
        return [one for one in self._used[first:last] if one.at + one.seconds > frm]


class _Weight:
    """What an exchange weighs beside others of its account: its price, or its tokens where any price is missing."""

    def __init__(self, used: Sequence[UsedHere]) -> None:
        self._priced = not any(one.unpriced for one in used)

    def __call__(self, one: UsedHere) -> float:
        return one.cost_usd if self._priced else float(one.tokens)


def _shares(frm: float, to: float, when: _ByTime, weigh: _Weight) -> Mapping[str, float]:
    """Whose a rise between two moments is: those who used it then, else whoever used it within the same hour."""
    for slack in (0, HOUR):
        sums = _summed(when.between(frm - slack, to + slack), weigh)
        whole = sum(sums.values())
        if whole > 0:
            return {user: weight / whole for user, weight in sums.items()}
    return {OUTSIDE: 1.0}


def _summed(used: Iterable[UsedHere], weigh: _Weight) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for one in used:
        sums[one.user] += weigh(one)
    return {user: weight for user, weight in sums.items() if weight > 0}


def _parts(price: float, points: Mapping[str, float]) -> dict[str, float]:
    """The price in cents by points; what rounding leaves goes to the largest remainders."""
    whole, cents = sum(points.values()), round(price * _CENTS)
    if whole <= 0:
        return {OUTSIDE: price} if cents else {}
    exact = {user: cents * point / whole for user, point in points.items()}
    parts = {user: int(value) for user, value in exact.items()}
    left = cents - sum(parts.values())
    for user in sorted(exact, key=lambda one: (parts[one] - exact[one], one))[:left]:
        parts[user] += 1
    return {user: part / _CENTS for user, part in parts.items()}
