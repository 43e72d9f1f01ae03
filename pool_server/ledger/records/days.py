"""Where days begin: where they did by the time zone that was set when they were summed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

NOTICE_S = 2 * 3600  # other processes hear of a change at least every hour
_NEVER = 1 << 40


class Era(msgspec.Struct, frozen=True, array_like=True):
    """From `since` on (unix seconds, a midnight there) days begin in this time zone, until the next era."""

    since: int
    timezone: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Era]).decode


class Days:
    """Where days begin. One that the change of the zone cuts off ends there, and has fewer hours. Remembers the day
    asked for last: not for several threads."""

    def __init__(self, timezone: str | Sequence[Era]) -> None:
        """One time zone for ever, or eras in the order of time."""
        self.eras = [Era(0, timezone)] if isinstance(timezone, str) else list(timezone)
        self._zones = [zone(era.timezone) for era in self.eras]
        self.zone = self._zones[-1]  # that of today, or of tomorrow
        self._from, self._to = 0, 0

    def start(self, at: float) -> int:
        """Unix seconds of the midnight at or before `at`."""
        if not self._from <= at < self._to:
            self._from, self._to = self._day(at)
        return self._from

    def hour(self, at: float) -> int:
        """Unix seconds at which the local hour of `at` began."""
        day = self.start(at)
        return day + int(at - day) // 3600 * 3600

    def after(self, at: float) -> int:
        """The midnight that follows `start(at)`; days of a clock change have 23 or 25 hours."""
        self.start(at)
        return self._to

    def date(self, at: float) -> datetime:
        """What clocks show then, where the days of that time begin."""
        return datetime.fromtimestamp(at, self._zones[self._era(at)])

    def first_of(self, year: int, month: int) -> int:
        """The midnight with which a month begins, as `start` finds it, also where clocks change at that hour."""
        stop = _NEVER
        for number in range(len(self.eras) - 1, -1, -1):
            first = int(datetime(year, month, 1, tzinfo=self._zones[number]).timestamp())
            if first >= self.eras[number].since or not number:
                return min(first, stop)
            stop = self.eras[number].since
        raise AssertionError("there is always an era")

    def all_in(self, place: ZoneInfo, start: float, stop: float) -> bool:
        """Whether all days between two instants begin by the clocks of one zone."""
        return all(found is place for found in self._zones[self._era(start) : self._era(stop - 1) + 1])

    def _era(self, at: float) -> int:
        number = len(self.eras) - 1
        while number and at < self.eras[number].since:
            number -= 1
        return number

    def _day(self, at: float) -> tuple[int, int]:
        number = self._era(at)
        midnight = datetime.fromtimestamp(at, self._zones[number]).replace(
            hour=0, minute=0, second=0, microsecond=0, fold=0
        )
        start, stop = int(midnight.timestamp()), int((midnight + timedelta(days=1)).timestamp())
        if number:
            start = max(start, self.eras[number].since)
        if number + 1 < len(self.eras):
            stop = min(stop, self.eras[number + 1].since)
        return start, stop


def changed(eras: Sequence[Era], timezone: str, now: float) -> list[Era]:
    """The eras once `timezone` is set: its own begins with its first midnight that is not too near. `now`: nothing was
    recorded later. A change that was to come is undone, unless that is too near."""
    if eras and eras[-1].timezone == timezone:
        return list(eras)
    near = now + NOTICE_S
    certain = [era for era in eras if era.since <= near]
    if not certain:
        return [Era(0, timezone)]
    if certain[-1].timezone == timezone:
        return certain
    return [*certain, Era(Days(timezone).after(near), timezone)]


def eras_note(eras: Sequence[Era]) -> bytes:
    """As a store keeps them."""
    return _encode(eras)


def eras_in(raw: bytes | None) -> list[Era]:
    """The eras a store has noted; none, where it has no note that can be read."""
    try:
        return [] if raw is None else _decode(raw)
    except msgspec.MsgspecError:
        return []


def zone(name: str) -> ZoneInfo:
    """The named zone, UTC when this machine does not know it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")
