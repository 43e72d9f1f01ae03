"""What records add up to, compared with the rollups that were made of them, a day at a time.

Sums of a day that agree with each other may still speak of another model or person: only the records tell. Labels are
compared in one direction: a row of one speaks of no more than its records do. Some have none: bounded in number, made
by a program that knew no labels, or of conversations that are forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from pool_server.core.models import UsageRecord
from pool_server.ledger.records.days import Days
from pool_server.ledger.records.layout import (
    DIMENSIONS,
    GRAINS,
    LABELS,
    OTHER,
    RECENT,
    ROLLUPS,
    seconds_key,
)
from pool_server.ledger.rollups import pending
from pool_server.ledger.rollups.sums import Sums
from pool_server.ledger.rollups.time_slices import kept, kept_since
from pool_server.ledger.rollups.writer import merge, parts_of
from pool_server.storage import Reader

_AT_ONCE = 2_000  # records added up together
_OTHER = OTHER.encode()
_Rows = dict[bytes, Sums]


class Recount:
    """Takes records in the order of time."""

    def __init__(self, reader: Reader, days: Days) -> None:
        self._reader = reader
        self._days = days
        self._have = kept(reader)
        self._day = -1
        self._waiting: list[UsageRecord] = []
        self._rows: _Rows = {}
        self._labelled: _Rows = {}
        self._wrong: set[int] = set()

    def add(self, day: int, key: bytes, rec: UsageRecord) -> Iterator[tuple[str, bytes, bytes]]:
        """Count a record; gives its row in `recent` where it has one that says something else."""
        if day != self._day:
            self._close()
            self._day = day
        there = self._reader.get(RECENT, key)
        if there is None:
            self._waiting.append(rec)
            if len(self._waiting) >= _AT_ONCE:
                self._add_up()
        elif there != (right := pending.encode(rec, self._days)):
            yield RECENT, key, right

    def done(self) -> set[int]:
        """The days whose rollups are not what their records come to."""
        self._close()
        return self._wrong

    def _add_up(self) -> None:
        rows, labelled = merge(parts_of(self._waiting, self._days), self._have)
        _gather(self._rows, rows)
        _gather(self._labelled, labelled)
        self._waiting = []

    def _close(self) -> None:
        self._add_up()
        if self._day >= 0 and not self._same():
            self._wrong.add(self._day)
        self._rows, self._labelled = {}, {}

    def _same(self) -> bool:
        found = 0
        try:
            for key, sums in self._stored(DIMENSIONS):
                made = self._rows.get(key)
                if made is None or made.n != sums.n or made.spread != sums.spread:
                    return False
                found += 1
            if found != len(self._rows):
                return False
            return all(self._within(key, sums) for key, sums in self._stored(LABELS))
        except msgspec.MsgspecError:
            return False

    def _within(self, key: bytes, sums: Sums) -> bool:
        made = self._labelled.get(key)
        if made is None:
            return key.endswith(_OTHER)
        return key.endswith(_OTHER) or all(a <= b for a, b in zip(sums.n, made.n, strict=True))

    def _stored(self, dimensions: tuple[bytes, ...]) -> Iterator[tuple[bytes, Sums]]:
        after = self._days.after(self._day)
        for grain in GRAINS:
            start = max(self._day, kept_since(self._have, grain))
            for dimension in dimensions:
                head = grain + dimension
                for key, raw in self._reader.scan(ROLLUPS, head + seconds_key(start), head + seconds_key(after)):
                    yield key, Sums.decode(raw)


def _gather(into: _Rows, rows: _Rows) -> None:
    for key, sums in rows.items():
        there = into.get(key)
        into[key] = sums if there is None else there.plus(sums)
