"""Every form in which providers write a moment or a wait. Nothing here raises: what cannot be read is None."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

MINUTE = 60
HOUR = 3600
DAY = 86400
WEEK = 7 * DAY
MONTH = 30 * DAY

_LATEST = 4102444800.0  # 2100-01-01: a moment after it is not one
_MS_FROM = 1e11  # a number of this size can only be milliseconds

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(days?|hours?|hrs?|minutes?|mins?|seconds?|secs?|ms|d|h|m|s)", re.I)
_SPELT = r"(?:\d+(?:\.\d+)?\s*(?:days?|hours?|hrs?|minutes?|mins?|seconds?|secs?|ms|[dhms])(?![a-z])\s*(?:and\s+)?)"
_WAIT = re.compile(rf"(?:try again in|retry in|retry after|reset(?:s)? after|after)\s+({_SPELT}{{1,5}})", re.I)
_UNITS = {"d": DAY, "h": HOUR, "m": MINUTE, "s": 1}

_SHANGHAI = timezone(timedelta(hours=8))


def number(value: object) -> float | None:
    """A finite number from an int, a float or their text; booleans are no numbers."""
    if isinstance(value, str):
        if len(value) > 64:
            return None
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def moment(value: object) -> float | None:
    """Unix seconds from seconds, milliseconds, their text, RFC 3339 or an HTTP-date."""
    stamp = number(value)
    if stamp is not None:
        stamp = stamp / 1000 if stamp >= _MS_FROM else stamp
        return stamp if 0 < stamp < _LATEST else None
    if not isinstance(value, str) or not 8 <= len(value) <= 64:
        return None
    parsed = _iso(value.strip()) or _http_date(value)
    if parsed is None:
        return None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    stamp = parsed.timestamp()
    return stamp if 0 < stamp < _LATEST else None


def _iso(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _http_date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def rfc3339(at: float) -> str:
    """`at` (unix seconds) as vendors' files write it: UTC, whole seconds, `Z`."""
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(text: object) -> float | None:
    """Seconds of a protobuf, Go or OpenAI duration: `34.07s`, `1h2m3s`, `6m0s`, `300ms`."""
    if not isinstance(text, str) or len(text) > 64:
        return None
    one = _DURATION.fullmatch(text)
    pieces = [one.groups()] if one is not None else _DURATION.findall(text)
    if one is None and (not pieces or _DURATION.sub("", text).replace("and", "").strip()):
        return None
    total = 0.0
    for amount, unit in pieces:
        small = unit.lower()
        total += float(amount) * (0.001 if small == "ms" else _UNITS[small[0]])
    return total if math.isfinite(total) else None


def wait_in_text(text: str) -> float | None:
    """Seconds to wait as a message says it: "try again in 1.2s", "Please retry in 300ms", "after 1h2m3s"."""
    found = _WAIT.search(text[:4000])
    return duration(found.group(1).strip().removesuffix("and").strip()) if found else None


_DATED = re.compile(
    r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?: at |[T ])[ ]*(\d{1,2}):(\d{2})(?::(\d{2}))?(?:\.\d{1,9})?"
    r"\s*(Z\b|UTC|GMT|[+-]\d{2}:?\d{2})?",
    re.I,
)


def dated_reset(text: str, *, zone_h: int = 0) -> float | None:
    """The moment a message names ("… will reset at 2026-09-23 23:59:59 +0800 CST", "… resets at 2026-05-15T15:00:00Z");
    without a zone of its own it is read `zone_h` hours east of UTC."""
    found = _DATED.search(text[:4000])
    if found is None:
        return None
    *parts, zone = found.groups()
    year, month, day, hour, minute, second = (int(part or 0) for part in parts)
    offset = timedelta(hours=zone_h)
    if zone is not None:
        plain = zone.replace(":", "")
        sign = -1 if plain[0] == "-" else 1
        offset = sign * timedelta(hours=int(plain[1:3]), minutes=int(plain[3:5])) if plain[0] in "+-" else timedelta()
    try:
        stamp = datetime(year, month, day, hour, minute, second, tzinfo=timezone(offset)).timestamp()
    except ValueError:
        return None
    return stamp if 0 < stamp < _LATEST else None


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds to wait by `retry-after-ms` or `retry-after` (seconds, float or HTTP-date); None when not said or
    past."""
    milliseconds = number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000 if milliseconds > 0 else None
    value = headers.get("retry-after")
    seconds = number(value)
    if seconds is None and value is not None:
        at = moment(value)
        seconds = None if at is None else at - now
    return seconds if seconds is not None and seconds > 0 else None


def until(at: float | None, *, now: float, cap: float) -> float | None:
    """`at`, but at most `cap` seconds from now; None for a moment already past."""
    if at is None or at <= now:
        return None
    return min(at, now + cap)


def pacific_midnight(now: float) -> float:
    """The next 00:00 in Los Angeles, when Google's daily quotas begin anew.

    The United States' rule (summer time from the second Sunday of March to the first Sunday of November, at 2
    a.m.) is written out, because a time zone database is not on every machine; midnight is never within a change.
    """
    today = datetime.fromtimestamp(now, UTC).date()
    midnights = (_pacific(today + timedelta(days=ahead)) for ahead in (0, 1))
    return next(at for at in midnights if at > now)


def _pacific(day: date) -> float:
    """00:00 of this day in Los Angeles."""
    zone = timezone(timedelta(hours=-7 if _pacific_summer(day) else -8))
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()


def _pacific_summer(day: date) -> bool:
    """Is it summer time at the very beginning of this day?"""
    begins = _sunday(day.year, 3, 2)
    ends = _sunday(day.year, 11, 1)
    return begins < day <= ends


def _sunday(year: int, month: int, nth: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(6 - first.weekday()) % 7 + 7 * (nth - 1))


def shanghai_midnight(now: float) -> float:
    """The next 00:00 in Shanghai (UTC+8, no summer time), when Qwen's daily quota begins anew."""
    day = datetime.fromtimestamp(now, _SHANGHAI).date() + timedelta(days=1)
    return datetime(day.year, day.month, day.day, tzinfo=_SHANGHAI).timestamp()
