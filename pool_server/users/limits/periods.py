"""Days, weeks and months in the pool's time zone. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo


class Bounds(NamedTuple):
    """Where the day, the ISO week (from Monday) and the month around a moment begin and end, in unix seconds."""

    day: int
    day_end: int
    week: int
    week_end: int
    month: int
    month_end: int


def zone(name: str) -> tzinfo:
    """The time zone of that IANA name; UTC needs no time zone data. Raises ValueError when it is not known."""
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError) as exc:
        raise ValueError(f"ledger.timezone: {name!r} is not a known time zone") from exc


def bounds(now: float, tz: tzinfo) -> Bounds:
    """The periods around `now`. A day with a clock change is 23 or 25 hours long."""
    today = datetime.fromtimestamp(now, tz).date()
    monday = today - timedelta(days=today.weekday())
    first = today.replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    marks = (today, today + timedelta(days=1), monday, monday + timedelta(days=7), first, following)
    return Bounds(*(_midnight(day, tz) for day in marks))


def _midnight(day: date, tz: tzinfo) -> int:
    return int(datetime.combine(day, time(), tz).timestamp())


class Calendar:
    """`bounds`, worked out once a day."""

    def __init__(self, tz: tzinfo) -> None:
        self._tz = tz
        self._last = Bounds(0, 0, 0, 0, 0, 0)

    def at(self, now: float) -> Bounds:
        """The periods around `now` (unix seconds)."""
        if not self._last.day <= now < self._last.day_end:
            self._last = bounds(now, self._tz)
        return self._last
