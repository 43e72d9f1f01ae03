"""What one percent of a window is worth, from how its figure grew while the pool used it. Pure.

A figure grows with what the pool served, and with what its owner used elsewhere. Growth while the pool served nothing
is the owner's; the rest, turn by turn of the window, is a ratio with a spread.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import sqrt

import msgspec

from pool_server.ledger import Sighting

DROP = 2.0  # percent points less than before: the window began anew
LEAST_GROWTH = 3.0  # percent points in all before a worth is told
ROUNDING = 0.5  # percent points by which a whole figure may be off
ALIKE = 0.3  # by how much (share) accounts of one plan differ, before anything is known of this one
QUIET_S = 1800.0  # growth so long after the pool's last use is not the pool's


class Worth(msgspec.Struct, frozen=True):
    """Units one percent stands for, and the standard deviation of that. `turns` is how many turns of the window say so,
    0 = other accounts of the plan do."""

    units: float
    spread: float
    turns: int = 0


class Growth(msgspec.Struct, frozen=True):
    """How a window was used: (units, percent) of each turn, the most units served in one turn, and (time, percent) of
    growth that the pool had no part in."""

    turns: tuple[tuple[float, float], ...]
    most: float
    outside: tuple[tuple[float, float], ...]


def growth(sightings: Sequence[Sighting], use: Sequence[tuple[float, float]]) -> Growth:
    """What a window's sightings and the account's use (time, units), both oldest first, say of each other."""
    ends = [at for at, _ in use]
    sums = [0.0, *accumulate(units for _, units in use)]
    turns: list[tuple[float, float]] = []
    outside: list[tuple[float, float]] = []
    units = percent = most = 0.0
    began = sightings[0].at if sightings else 0.0
    for before, after in pairwise(sightings):
        anew = began_anew(before, after)
        part = sums[bisect_right(ends, after.at)] - sums[bisect_right(ends, before.at)]
        grown = after.used_percent if anew else max(0.0, after.used_percent - before.used_percent)
        if anew:
            turns.append((units, percent))
            units = percent = 0.0
            began = before.at
        last = bisect_right(ends, after.at)
        quiet = after.at - (ends[last - 1] if last else began) > QUIET_S
        if part <= 0.0 and grown > 0.0 and quiet:
            outside.append((after.at, grown))
            continue
        units += part
        percent += grown
        most = max(most, units)
    turns.append((units, percent))
    return Growth(tuple(turn for turn in turns if turn[1] > 0.0 and turn[0] > 0.0), most, tuple(outside))


def began_anew(before: Sighting, after: Sighting) -> bool:
    """Did the window begin anew between two sightings? Resets wander by some seconds; without one the figure tells."""
    if before.resets_at is not None and after.resets_at is not None and after.seconds:
        return after.resets_at - before.resets_at > after.seconds / 2
    return after.used_percent < before.used_percent - DROP


def worth(turns: Sequence[tuple[float, float]], like: Worth | None = None) -> Worth | None:
    """What a percent is worth by these turns, weighed against what it is worth in accounts of the same plan; None when
    neither says enough."""
    own = _ratio(turns)
    if own is None or like is None:
        return own or (None if like is None else Worth(like.units, sqrt(like.spread**2 + (ALIKE * like.units) ** 2)))
    doubt = like.spread**2 + (ALIKE * like.units) ** 2
    if not own.spread:
        return own
    weight = doubt / (doubt + own.spread**2)
    spread = sqrt(weight) * own.spread
    return Worth(weight * own.units + (1 - weight) * like.units, spread, own.turns)


def _ratio(turns: Sequence[tuple[float, float]]) -> Worth | None:
    percent = sum(grown for _, grown in turns)
    if percent < LEAST_GROWTH:
        return None
    units = sum(part for part, _ in turns) / percent
    n = len(turns)
    apart = sum((part - units * grown) ** 2 for part, grown in turns)
    doubt = apart * n / (n - 1) if n > 1 else (ALIKE * units * percent) ** 2
    rounding = n * (2 * ROUNDING**2) * units**2
    return Worth(units, sqrt(doubt + rounding) / percent, n)


def pooled(worths: Sequence[Worth]) -> Worth | None:
    """What a percent is worth in accounts of one plan taken together."""
    if not worths:
        return None
    mean = sum(one.units for one in worths) / len(worths)
    apart = sum((one.units - mean) ** 2 for one in worths) / max(1, len(worths) - 1)
    own = sum(one.spread**2 for one in worths) / len(worths) ** 2
    return Worth(mean, sqrt(apart / len(worths) + own))
