"""Closed months as rows of their own: the sums of their days, for questions about a long time.

They are made in the background and cost recording nothing. A month's rows are of use only while its pool row counts as
many requests as the pool rows of its days do: days only grow, and every exchange adds one request, so equal counts mean
that nothing was added since. A row of its own says where the month ends: in another time zone it may begin at the same
instant and end at another. Another holds a digest of the days it was made of, so that `fsck` sees a change made to a
month and to its days alike. What comes late, or was written by a program that knows no months, makes a month stale:
its days are read until it is made anew. Labels have no months: the days of conversations are forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from pool_server.ledger.records.days import Days
from pool_server.ledger.records.layout import CONVERSATION, DIMENSIONS, LABELS, MONTH, POOL, ROLLUPS, seconds_key
from pool_server.ledger.rollups.sums import Sums, leading_counts
from pool_server.ledger.rollups.time_slices import Slice
from pool_server.storage import Reader, Txn

_END = b"."  # beside the dimensions: where the month ends
_SEAL = b"#"  # the requests and the digest of its days
_PLACES = (*DIMENSIONS, _END, _SEAL)
_SEALED = (*DIMENSIONS, *(label for label in LABELS if label != CONVERSATION))  # days that are kept for ever
SETTLED_S = 2 * 86_400  # after its end a month is summed: what takes a day to be told is in it
_SHORTEST_S = 27 * 86_400
_COUNT = 8  # bytes of the requests in a seal
_NAMES = 6  # bytes of a rollup key before its names


class Month(NamedTuple):
    """start <= day < stop, both local midnights in unix seconds."""

    start: int
    stop: int


class Seal(NamedTuple):
    """How many requests a month's days held when they were added up, and the digest of their rows."""

    requests: int
    digest: bytes


class MonthRows(NamedTuple):
    """Everything a month adds up to: how many requests, and its rollup rows."""

    requests: int
    rows: list[tuple[bytes, bytes]]


def with_months(reader: Reader, slices: Iterable[Slice], days: Days) -> list[Slice]:
    """The same stretch of time, its whole months read from their own rows as far as these are up to date."""
    found: list[Slice] = []
    for part in slices:
        if part.grain != b"d" or part.stop - part.start < _SHORTEST_S:
            found.append(part)
            continue
        at = part.start
        for month in _months(part.start, part.stop, days):
            if _kept(reader, month) == requests_of(reader, month):
                found += _days(at, month.start)
                found.append(Slice(MONTH, *month))
                at = month.stop
        found += _days(at, part.stop)
    return found


def stale(reader: Reader, now: float, days: Days) -> list[Month]:
    """The closed months in which anything happened and whose rows are not up to date, oldest first."""
    head = b"d" + POOL
    first = next(reader.scan(ROLLUPS, head, head + seconds_key(now - SETTLED_S), limit=1), None)
    if first is None:
        return []
    opened = around(int.from_bytes(first[0][2:6], "big"), days)
    closed = _months(opened.start, int(now) - SETTLED_S, days)
    return [
        month
        for month in closed
        if (n := requests_of(reader, month)) > 0 and not (_kept(reader, month) == n == sealed(reader, month).requests)
    ]


def summed(reader: Reader, month: Month) -> MonthRows:
    """Add up a month's days: about 4 µs for each of their rows. Raises MsgspecError for one that is damaged."""
    rows: list[tuple[bytes, bytes]] = []
    for dimension in DIMENSIONS:
        head = b"d" + dimension
        names: dict[bytes, list[bytes]] = {}
        for key, raw in reader.scan(ROLLUPS, head + seconds_key(month.start), head + seconds_key(month.stop)):
            names.setdefault(key[_NAMES:], []).append(raw)
        place = _head(dimension, month)
        rows += [(place + name, Sums.together(raws, full=True).encode()) for name, raws in names.items()]
    rows.append((_head(_END, month), seconds_key(month.stop)))
    requests = requests_of(reader, month)
    if requests >= 0:
        rows.append((_head(_SEAL, month), requests.to_bytes(_COUNT) + days_digest(reader, month)))
    return MonthRows(requests, sorted(rows))


def days_digest(reader: Reader, month: Month) -> bytes:
    """What all rows of a month's days come to: about 1 µs for each."""
    digest = blake2b(digest_size=16)
    for dimension in _SEALED:
        head = b"d" + dimension
        for key, raw in reader.scan(ROLLUPS, head + seconds_key(month.start), head + seconds_key(month.stop)):
            digest.update(b"%d,%d:%b%b" % (len(key), len(raw), key, raw))
    return digest.digest()


def sealed(reader: Reader, month: Month) -> Seal:
    """A month's seal: of use as long as its days hold as many requests. One of -1 where there is none."""
    raw = reader.get(ROLLUPS, _head(_SEAL, month)) or b""
    return Seal(int.from_bytes(raw[:_COUNT]), raw[_COUNT:]) if len(raw) > _COUNT else Seal(-1, b"")


def keep(txn: Txn, month: Month, made: MonthRows) -> bool:
    """Put a month's rows in the place of those it had; False, and nothing is changed, where its days have grown since
    they were added up."""
    if requests_of(txn, month) != made.requests:
        return False
    forget(txn, month)
    txn.put_many(ROLLUPS, made.rows)
    return True


def forget(txn: Txn, month: Month) -> None:
    """Remove a month's rows: its days are read until it is made anew."""
    for key, _ in stored(txn, month):
        txn.delete(ROLLUPS, key)


def says_what_its_days_do(reader: Reader, month: Month) -> bool:
    """Whether a month that is up to date has the sums of its days. Raises MsgspecError for a day that is damaged."""
    seal = _head(_SEAL, month)
    made = (row for row in summed(reader, month).rows if row[0] != seal)
    return list(made) == [row for row in stored(reader, month) if row[0] != seal]


def stored(reader: Reader, month: Month) -> list[tuple[bytes, bytes]]:
    """A month's rows, whether they are up to date or not."""
    places = sorted(_head(place, month) for place in _PLACES)
    return [row for place in places for row in reader.scan(ROLLUPS, place, place + b"\xff")]


def current(reader: Reader, days: Days) -> list[Month]:
    """The months whose rows are used."""
    head = MONTH + POOL
    starts = [int.from_bytes(key[2:6], "big") for key, _ in reader.scan(ROLLUPS, head, head + b"\xff")]
    found = _months(starts[0], starts[-1] + 32 * 86_400, days) if starts else []
    return [month for month in found if month.start in starts and _kept(reader, month) == requests_of(reader, month)]


def around(day: int, days: Days) -> Month:
    """The month a day lies in."""
    date = days.date(day)
    for year, number in (_after(date.year, date.month), (date.year, date.month)):
        if (start := days.first_of(year, number)) <= day:
            return Month(start, days.first_of(*_after(year, number)))
    return Month(days.first_of(*_before(date.year, date.month)), start)  # zones were changed on the first of a month


def _head(dimension: bytes, month: Month) -> bytes:
    return MONTH + dimension + seconds_key(month.start)


def _kept(reader: Reader, month: Month) -> int | None:
    """How many requests its rows speak of; None where it has none that can be read, or those of another end."""
    if reader.get(ROLLUPS, _head(_END, month)) != seconds_key(month.stop):
        return None
    raw = reader.get(ROLLUPS, _head(POOL, month))
    try:
        return None if raw is None else leading_counts(raw).requests
    except msgspec.MsgspecError:
        return None


def requests_of(reader: Reader, month: Month) -> int:
    """How many requests its days speak of; -1, which no month has, where one of them cannot be read."""
    head = b"d" + POOL
    found = reader.scan(ROLLUPS, head + seconds_key(month.start), head + seconds_key(month.stop))
    try:
        return sum(leading_counts(raw).requests for _, raw in found)
    except msgspec.MsgspecError:
        return -1


def _days(start: int, stop: int) -> list[Slice]:
    return [Slice(b"d", start, stop)] if start < stop else []


def _months(start: int, stop: int, days: Days) -> list[Month]:
    """The whole calendar months between two local midnights."""
    first = days.date(start)
    year, number = first.year, first.month
    found: list[Month] = []
    while True:
        begin = days.first_of(year, number)
        year, number = _after(year, number)
        end = days.first_of(year, number)
        if end > stop:
            return found
        if begin >= start:
            found.append(Month(begin, end))


def _after(year: int, number: int) -> tuple[int, int]:
    return (year + 1, 1) if number == 12 else (year, number + 1)


def _before(year: int, number: int) -> tuple[int, int]:
    return (year - 1, 12) if number == 1 else (year, number - 1)
