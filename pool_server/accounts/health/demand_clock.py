"""Time as demand passes: how much of what is usually asked of a pool lies between two moments.

What is left of a week at Friday noon has the weekend before it, in which little is asked for: counted in hours it
seems to have long to last, and is lost at the reset. Pure; even until enough has been seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

HOUR = 3600.0
DAY = 86400.0
WEEK = 604800.0
LEARNS_FROM_S = 28 * DAY  # older weeks say less about the next one
_READABLE = (1e-9, 1e15)  # amounts; what is none of these is no use
_MONDAY = 4 * DAY  # 1970-01-05, 00:00 UTC
_LEAST = 0.25  # of an even hour: even in hours nobody has used yet somebody may ask
_DAYS_UNSEEN = 2.0  # so many even days, and …
_WEEKS_UNSEEN = 1.0  # … weeks in which all days are alike, are believed beside what was seen


class DemandClock:
    """Learnt hour by hour of the week; other parts may hold on to it."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: list[float] = []  # seconds of demand in the hours of a week before each one; none: time is even

    def learn(self, asked: Iterable[tuple[float, float]], now: float) -> None:
        """Learn anew from what was asked: (unix seconds, amount in any unit), what lies further back than
        `LEARNS_FROM_S` left out. Of less than a day nothing is learnt."""
        hours, first = [0.0] * 168, now
        for at, amount in asked:
            if now - LEARNS_FROM_S <= at < now and _READABLE[0] <= amount <= _READABLE[1]:
                hours[int((at - _MONDAY) % WEEK // HOUR)] += amount
                first = min(first, at)
        days = (now - first) / DAY
        self._until = _sums(_expected(hours, days)) if days >= 1 else []

    def between(self, frm: float, to: float) -> float:
        """Seconds of even demand that the time from `frm` to `to` is worth; their difference while nothing is
        known."""
        return self._at(to) - self._at(frm) if self._until else to - frm

    def _at(self, moment: float) -> float:
        weeks, within = divmod(moment - _MONDAY, WEEK)
        hour = int(within // HOUR)
        before, after = self._until[hour], self._until[hour + 1]
        return weeks * WEEK + before + (after - before) * (within / HOUR - hour)


EVEN = DemandClock()  # for who has learnt nothing


def _expected(hours: Sequence[float], days: float) -> list[float]:
    """What each hour of a week is expected to ask for, by its sums in so many days: the less was seen, the more the
    hour of the day decides alone, and at first nothing."""
    even = sum(hours) / (24 * days)
    daily = [(sum(hours[hour::24]) + _DAYS_UNSEEN * even) / (days + _DAYS_UNSEEN) for hour in range(24)]
    weeks = days / 7
    weekly = [(seen + _WEEKS_UNSEEN * daily[at % 24]) / (weeks + _WEEKS_UNSEEN) for at, seen in enumerate(hours)]
    return [max(amount, _LEAST * even) for amount in weekly]


def _sums(weights: Sequence[float]) -> list[float]:
    scale, until = WEEK / sum(weights), [0.0]
    for weight in weights:
        until.append(until[-1] + weight * scale)
    return until
