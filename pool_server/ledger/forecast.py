"""How fast a quota window burns and when it will be empty. Pure: sightings and a clock in, numbers out.

Rates are percent of the window an hour. The present pace is measured over the last tenth of a window (half an hour
of a 5-hour one, 17 hours of a week); what will go unused at the reset, over the whole of it, nights included.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise

import msgspec

from pool_server.ledger.quota_history import Sighting

LEAST_SHARE = 0.01  # of a window must have passed before anything is foretold
RECENT_SHARE = 0.1
MIN_RECENT_S, MAX_RECENT_S = 1800.0, 86_400.0
LEAST_UNKNOWN_S = 3600.0  # the same for a window whose length is not known
STALE_SHARE = 0.25  # of the window without a sighting: nothing can be said
DROP = 2.0  # percent points less than before: the window began anew
HORIZON_S = 14 * 86_400.0
_HOUR = 3600.0


class Confidence(StrEnum):
    """How far a forecast can be trusted; NONE means there is none."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Why(StrEnum):
    """Why there is no forecast."""

    UNSEEN = "unseen"
    TOO_SHORT = "too_short"  # less than a hundredth of the window has passed
    STALE = "stale"  # not seen for a quarter of the window
    RESET = "reset"  # the window has begun anew and was not seen since


class Forecast(msgspec.Struct, frozen=True):
    """What can be said of one window. Times are unix seconds, percents 0 to 100, None = not known.

    `empties_at` is None too when the window resets before it is empty, or does not burn; the truth lies between
    `empties_from` and `empties_to` (None = not before the reset) as far as the provider's rounding goes.
    """

    used_percent: float | None = None
    observed_at: float | None = None
    seconds: int = 0
    resets_at: float | None = None
    burn_per_h: float | None = None
    empties_at: float | None = None
    empties_from: float | None = None
    empties_to: float | None = None
    unused_at_reset: float | None = None
    confidence: Confidence = Confidence.NONE
    why: Why | None = None


def foretell(sightings: Sequence[Sighting], now: float) -> Forecast:
    """The forecast of one window from its sightings, oldest first."""
    if not sightings:
        return Forecast(why=Why.UNSEEN)
    last = sightings[-1]
    seen = Forecast(last.used_percent, last.at, last.seconds, last.resets_at)
    if last.resets_at is not None and last.resets_at <= now:
        return msgspec.structs.replace(seen, used_percent=None, resets_at=None, why=Why.RESET)
    if last.seconds and now - last.at > STALE_SHARE * last.seconds:
        return msgspec.structs.replace(seen, why=Why.STALE)
    points = _since_start(sightings)
    passed = now - points[0][0]
    if passed < (LEAST_SHARE * last.seconds or LEAST_UNKNOWN_S):
        return msgspec.structs.replace(seen, why=Why.TOO_SHORT)
    quantum = 1.0 if all(percent == int(percent) for _, percent in points) else 0.1
    base_at, base = _recent(points, now, last.seconds)
    grown = last.used_percent - base
    rate = max(0.0, grown) / (now - base_at)
    doubt = quantum / (now - base_at)
    return msgspec.structs.replace(
        seen,
        burn_per_h=rate * _HOUR,
        empties_at=_empty(last, now, rate),
        empties_from=_empty(last, now, rate + doubt) if rate else None,
        empties_to=_empty(last, now, max(0.0, rate - doubt)),
        unused_at_reset=_unused(last, now, points),
        confidence=_confidence(grown, quantum, passed, last.seconds),
    )


def _since_start(sightings: Sequence[Sighting]) -> list[tuple[float, float]]:
    """(time, percent) of the present window only, from its beginning at 0 % when that is known."""
    last = sightings[-1]
    first = len(sightings) - 1
    while first > 0 and _same_window(sightings[first - 1], sightings[first], last):
        first -= 1
    points = [(s.at, s.used_percent) for s in sightings[first:]]
    if last.resets_at is not None and last.seconds:
        began = last.resets_at - last.seconds
        if began < points[0][0]:
            points.insert(0, (began, 0.0))
    return points


def _same_window(before: Sighting, after: Sighting, last: Sighting) -> bool:
    if before.used_percent > after.used_percent + DROP:
        return False
    if before.resets_at is None or last.resets_at is None:
        return True
    return abs(last.resets_at - before.resets_at) < (last.seconds / 2 or 60.0)


def _recent(points: Sequence[tuple[float, float]], now: float, seconds: int) -> tuple[float, float]:
    """Where the present pace is measured from: the percent a while ago, between two sightings if need be."""
    since = now - min(max(seconds * RECENT_SHARE, MIN_RECENT_S), MAX_RECENT_S)
    if points[0][0] >= since or len(points) == 1:
        return points[0]
    for (at, percent), (later, more) in pairwise(points):
        if at <= since < later:
            return since, percent + (more - percent) * (since - at) / (later - at)
    return since, points[-1][1]


def _empty(last: Sighting, now: float, rate: float) -> float | None:
    if last.used_percent >= 100:
        return now
    if rate <= 0:
        return None
    at = now + (100 - last.used_percent) / rate
    return None if last.resets_at is not None and at >= last.resets_at else at


def _unused(last: Sighting, now: float, points: Sequence[tuple[float, float]]) -> float | None:
    if last.resets_at is None or now <= points[0][0]:
        return None
    average = max(0.0, last.used_percent - points[0][1]) / (now - points[0][0])
    return round(max(0.0, 100 - last.used_percent - average * (last.resets_at - now)), 2)


def _confidence(grown: float, quantum: float, passed: float, seconds: int) -> Confidence:
    """By how much of the window was watched, and how far its growth stands out from the provider's rounding."""
    watched = min(1.0, passed / (0.1 * seconds)) if seconds else 0.5
    clear = 1.0 if grown <= 0 else grown / (grown + 2 * quantum)
    trust = watched * clear
    return Confidence.HIGH if trust >= 0.7 else Confidence.MEDIUM if trust >= 0.35 else Confidence.LOW


class WindowHeadroom(msgspec.Struct):
    """One account's window as a part of its provider's headroom: percent left, next reset, length, weight."""

    left: float
    resets_at: float | None
    seconds: int
    burn_per_h: float
    weight: float = 1.0  # what a percent is worth beside the others'


def lasts_until(windows: Sequence[WindowHeadroom], now: float) -> float | None:
    """When all accounts together run out at their present pace; None = not within HORIZON_S.

    What resets first is spent first, and each reset fills its window again."""
    windows = [msgspec.structs.replace(window) for window in windows]
    burn = sum(window.burn_per_h * window.weight for window in windows) / _HOUR
    at = now
    while at < now + HORIZON_S:
        resets = [window.resets_at for window in windows if window.resets_at is not None and window.resets_at > at]
        until = min([*resets, now + HORIZON_S])
        left = sum(window.left * window.weight for window in windows)
        if burn * (until - at) >= left > 0 or (left <= 0 and burn > 0):
            return at + left / burn
        _spend(windows, burn * (until - at))
        at = until
        for window in windows:
            if window.resets_at is not None and window.resets_at <= at:
                window.left = 100.0
                window.resets_at = at + window.seconds if window.seconds else None
    return None


def _spend(windows: Sequence[WindowHeadroom], amount: float) -> None:
    for window in sorted(windows, key=lambda r: r.resets_at if r.resets_at is not None else float("inf")):
        part = min(amount, window.left * window.weight)
        window.left -= part / window.weight
        amount -= part
