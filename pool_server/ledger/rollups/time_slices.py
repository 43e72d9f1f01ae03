"""Which rollup rows make up a stretch of time.

The middle of a range is read from days, its ends from hours and minutes, as far as those are still kept. Where
they are not, the range is widened to what is; the slices say what was really taken.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pool_server.ledger.records.days import Days, eras_in
from pool_server.ledger.records.layout import NOTES, Grain
from pool_server.storage import Reader

PRUNED = b"pruned"
ERAS = b"days"
Step = Literal["minute", "hour", "day"]


class Kept(msgspec.Struct, frozen=True):
    """From when on minute and hour rows are kept, unix seconds; minutes at a full hour, hours at a midnight. Records
    were forgotten up to `records`; late ones of that time may have come since."""

    minutes: int = 0
    hours: int = 0
    records: int = 0


class Slice(msgspec.Struct, frozen=True):
    """Rows of one grain with start <= bucket < stop."""

    grain: Grain
    start: int
    stop: int


_decode = msgspec.json.Decoder(Kept).decode


def kept(reader: Reader) -> Kept:
    """What pruning has left, as the store says."""
    raw = reader.get(NOTES, PRUNED)
    return Kept() if raw is None else _decode(raw)


def days_kept(reader: Reader, timezone: str) -> Days:
    """Where days begin, as the store says; in `timezone`, where it says nothing yet."""
    return Days(eras_in(reader.get(NOTES, ERAS)) or timezone)


def kept_since(have: Kept, grain: Grain) -> int:
    """From when on the rows of a grain are kept."""
    return have.minutes if grain == b"m" else have.hours if grain == b"h" else 0


def widen(frm: float, to: float, have: Kept, days: Days) -> tuple[int, int]:
    """`frm` and `to` moved outwards to bounds for which rows exist."""
    if to <= frm:
        start = int(frm)
        return start, start
    return _floor(frm, have, days), _ceil(to, have, days)


def cover(start: int, stop: int, days: Days) -> list[Slice]:
    """Slices that make up exactly [start, stop), in order; bounds as `widen` gives them."""
    if stop <= start:
        return []
    first = start if days.start(start) == start else days.after(start)
    last = days.start(stop)
    if first >= last:
        return _hours(start, stop, days)
    return [*_hours(start, first, days), Slice(b"d", first, last), *_hours(last, stop, days)]


def cover_at(step: Step, start: int, stop: int, days: Days) -> list[Slice]:
    """Slices no coarser than `step`, for a chart with that step."""
    if stop <= start:
        return []
    if step == "minute":
        return [Slice(b"m", start, stop)]
    return _hours(start, stop, days) if step == "hour" else cover(start, stop, days)


def _hours(start: int, stop: int, days: Days) -> list[Slice]:
    if stop <= start:
        return []
    first = days.hour(start)
    first = first if first == start else min(first + 3600, days.after(start))
    last = days.hour(stop)
    if first >= last:
        return [Slice(b"m", start, stop)]
    parts = (Slice(b"m", start, first), Slice(b"h", first, last), Slice(b"m", last, stop))
    return [part for part in parts if part.start < part.stop]


def _floor(at: float, have: Kept, days: Days) -> int:
    if at >= have.minutes:
        return int(at) // 60 * 60
    return days.hour(at) if at >= have.hours else days.start(at)


def _ceil(at: float, have: Kept, days: Days) -> int:
    floor = _floor(at, have, days)
    if floor == at:
        return floor
    if at >= have.minutes:
        return floor + 60
    return min(floor + 3600, days.after(at)) if at >= have.hours else days.after(at)
