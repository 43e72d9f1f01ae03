"""Quota windows: named by duration, never by the slot a provider puts them in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from pool_server.core.enums import Source
from pool_server.core.models import WindowObservation
from pool_server.providers.times import DAY, HOUR, MINUTE, duration, moment, number

CREDITS = "credits"  # window and scope of paid credits; no model's family is called so, it binds nobody by itself
_MOST = 1000.0  # percent; more is a broken number

# Providers write 299 or 10079 minutes for 5 hours and a week, and months of 28 to 31 days.
_KNOWN = (
    MINUTE,
    HOUR,
    3 * HOUR,
    5 * HOUR,
    8 * HOUR,
    12 * HOUR,
    DAY,
    7 * DAY,
    14 * DAY,
    30 * DAY,
    90 * DAY,
    365 * DAY,
)


@lru_cache(maxsize=256)
def snap(seconds: float) -> int:
    """The well-known duration within 2 % (months: 28 to 31 days) of `seconds`, or `seconds` itself."""
    if 28 * DAY <= seconds <= 31 * DAY:
        return 30 * DAY
    for known in _KNOWN:
        if abs(seconds - known) <= 0.02 * known:
            return known
    return round(seconds)


@lru_cache(maxsize=256)
def window_name(seconds: int) -> str:
    """18000 → "5h", 604800 → "7d", 60 → "1m"."""
    for unit, letter in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds // unit}{letter}"
    return f"{seconds}s"


def observe(
    *,
    seconds: float | None,
    used: float | None,
    resets_at: float | None,
    source: Source,
    now: float,
    scope: str = "",
) -> WindowObservation | None:
    """One sighting; None when its length or its use is unknown. A reset further off than the window is long is a
    lie and cut to its length; used below 0 reads 0."""
    if seconds is None or used is None or not 1 <= seconds <= 366 * DAY:
        return None
    length = snap(seconds)
    if resets_at is not None:
        resets_at = min(resets_at, now + max(length, seconds))
    return WindowObservation(window_name(length), length, percent(used), resets_at, source, now, scope)


def percent(used: float) -> float:
    return min(max(used, 0.0), _MOST)


def credits_window(used: float, *, source: Source, now: float, resets_at: float | None = None) -> WindowObservation:
    return WindowObservation(CREDITS, 0, percent(used), resets_at, source, now, CREDITS)


_OPENAI = re.compile(r"^x-ratelimit-remaining(?:-([a-z]{1,24}(?:-(?:minute|hour|day))?))?$")
_ANTHROPIC = re.compile(r"^anthropic-ratelimit-(requests|tokens|input-tokens|output-tokens)-remaining$")
_RATE_SECONDS = {"minute": MINUTE, "hour": HOUR, "day": DAY}


def rate_windows(headers: Mapping[str, str], *, now: float, scope: str) -> list[WindowObservation]:
    """The short rate limits of API keys: `x-ratelimit-*` (OpenAI and its imitators; resets as durations, seconds
    or moments) and `anthropic-ratelimit-{requests,tokens,…}-*` (RFC 3339). They bind one model class, hence
    `scope`."""
    found: list[WindowObservation] = []
    for name, value in headers.items():
        rate = _rate_of(name) if "-ratelimit-" in name else None
        if rate is None:
            continue
        limit, remaining = number(headers.get(rate.limit)), number(value)
        if limit is None or remaining is None or limit <= 0:
            continue
        used = percent(100.0 * (1.0 - remaining / limit))
        reset = _rate_reset(headers.get(rate.reset, ""), now)
        found.append(WindowObservation(rate.kind, rate.seconds, used, reset, Source.HEADERS, now, scope))
    return found


_RESET = re.compile(
    r"(?:x-)?ratelimit-reset(?:-[a-z-]{1,32})?|anthropic-ratelimit-(?:requests|(?:input-|output-)?tokens)-reset"
)


def rate_reset(headers: Mapping[str, str], *, now: float) -> float | None:
    """When a refused request may be made again by the limits' own headers: when all that have nothing left begin anew,
    the first of those that do not say what is left; None where no header tells."""
    spent: list[float] = []
    untold: list[float] = []
    for name, value in headers.items():
        if "ratelimit-" not in name or not _RESET.fullmatch(name):
            continue
        at, left = _rate_reset(value, now), number(headers.get(name.replace("-reset", "-remaining", 1)))
        if at is not None and at > now and (left is None or left <= 0):
            (untold if left is None else spent).append(at)
    return max(spent) if spent else min(untold, default=None)


class _Rate(NamedTuple):
    """What a `…-remaining…` header counts ("requests", "input_tokens"), in how long, and the headers beside it."""

    kind: str
    seconds: int
    limit: str
    reset: str


@lru_cache(maxsize=512)
def _rate_of(name: str) -> _Rate | None:
    """None for any other header."""
    match = _OPENAI.match(name) or _ANTHROPIC.match(name)
    if match is None:
        return None
    kind = (match.group(1) or "requests").replace("-", "_")
    seconds = _RATE_SECONDS.get(kind.rpartition("_")[2], MINUTE)
    beside = (name.replace("-remaining", word, 1) for word in ("-limit", "-reset"))
    return _Rate(kind, seconds, *beside)


def _rate_reset(text: str, now: float) -> float | None:
    seconds = duration(text)
    if seconds is None:
        plain = number(text)
        seconds = plain if plain is not None and plain < DAY else None
    if seconds is None:
        at = moment(text)
        seconds = at - now if at is not None else None
    return None if seconds is None or seconds < 0 else now + min(seconds, DAY)
