"""Absolute times that outlive the process, judged so that no step of the clock makes a wait longer than it was.

Nothing that is known came from the future: what claims to was written by a clock that has been set back since, and
counts as of now.
"""

from __future__ import annotations

import datetime
import re
import zoneinfo

_SPAN = re.compile(r"for=([0-9]{1,4}(?:\.[0-9]{1,3})?)(h|min|m|s)")
_CLOCK = re.compile(r"until=([01]?[0-9]|2[0-3]):([0-5][0-9])")
_UNITS = {"h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0}


def left(until: float, now: float, longest: float) -> float:
    """Seconds until `until`, 0.0 when it is over. A time further away than `longest`, the most that anybody would have
    waited, was written by a clock that was ahead: it is over."""
    return until - now if 0.0 < until - now <= longest else 0.0


def within(until: float, now: float, longest: float) -> float:
    """`until`, and never further from `now` than `longest`."""
    return min(until, now + longest)


def wait_until(asked: str, now: float, timezone: str) -> float:
    """When the wait that `X-Pool-Wait`, or a key, asks for ends, unix seconds; 0 = none asked for. A time of day is
    the next one in the operator's zone. Raises ValueError in one line.

    >>> wait_until("for=2h", 1000.0, "UTC")
    8200.0
    >>> wait_until("until=00:30", 1000.0, "UTC")
    1800.0
    """
    asked = asked.strip()
    if not asked:
        return 0.0
    if span := _SPAN.fullmatch(asked):
        return now + float(span[1]) * _UNITS[span[2]]
    if clock := _CLOCK.fullmatch(asked):
        here = datetime.datetime.fromtimestamp(now, zoneinfo.ZoneInfo(timezone))
        today = here.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0, fold=0)
        # Where clocks are set back, the same time comes twice.
        times = (today, today.replace(fold=1), today + datetime.timedelta(days=1))
        return min(moment for moment in map(datetime.datetime.timestamp, times) if moment > now)
    try:
        moment = datetime.datetime.fromisoformat(asked.removeprefix("until="))
        if asked.startswith("until=") and moment.tzinfo is not None:
            return moment.timestamp()
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"a wait is until=06:00, until=2026-11-30T06:00+01:00 or for=2h, not {asked[:40]!r}")
