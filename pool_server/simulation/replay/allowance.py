"""Limits that a what-if sets for everybody, or for one person: what a calendar day, week or month allows."""

from __future__ import annotations

from collections.abc import Mapping

from pool_server.users.limits.periods import Bounds, Calendar

PERIODS = ("day", "week", "month")
COUNTED = ("tokens", "cost")
NAMES = tuple(f"{what}_{period}" for what in COUNTED for period in PERIODS)


class Allowance:
    """`most` maps names of NAMES to an amount; `users` are numbers of the people concerned, None = all."""

    def __init__(self, most: Mapping[str, float], users: frozenset[int] | None, calendar: Calendar) -> None:
        split = [(name, name.partition("_"), amount) for name, amount in most.items()]
        self._most = [(name, what, period, amount) for name, (what, _, period), amount in split]
        self._users = users
        self._calendar = calendar
        self._used: dict[tuple[int, str, int], float] = {}

    def admits(self, user: int, at: float) -> bool:
        """May this user's next request be served?"""
        if self._users is not None and user not in self._users:
            return True
        bounds = self._calendar.at(at)
        return all(
            self._used.get((user, name, _began(bounds, period)), 0.0) < most for name, _, period, most in self._most
        )

    def used(self, user: int, tokens: int, cost: float, at: float) -> None:
        """A request that arrived at `at` was served."""
        bounds = self._calendar.at(at)
        for name, what, period, _ in self._most:
            key = user, name, _began(bounds, period)
            self._used[key] = self._used.get(key, 0.0) + (tokens if what == "tokens" else cost)


def _began(bounds: Bounds, period: str) -> int:
    return bounds.day if period == "day" else bounds.week if period == "week" else bounds.month
