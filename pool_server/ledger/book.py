"""Writes records, their index entries and the rollups in one transaction, each record exactly once.

Runs in the store's writer thread with a whole batch at a time. Increments are merged in memory first, so that a
batch touches each rollup row once; rows written last are remembered as long as nobody else wrote in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter

from pool_server.ledger.keys import (
    GRAINS,
    RECORD_IDS,
    RECORD_INDEX,
    RECORDS,
    ROLLUPS,
    Cell,
    Days,
    account_key,
    index_keys,
    names_of,
    record_key,
    seconds_key,
)
from pool_server.ledger.shelf import pack
from pool_server.ledger.span import Kept
from pool_server.ledger.sums import Sums
from pool_server.records import UsageRecord
from pool_server.store import Txn

Place = tuple[int, Cell]  # start of a bucket, who and what
_REMEMBERED_ROWS = 20_000
_ALL = Kept()


class Book:
    """Applies batches of cleaned, priced records. One a process; only the writer thread calls it."""

    def __init__(self, timezone: str) -> None:
        self._days = Days(timezone)
        self._rows: dict[bytes, Sums] = {}
        self._last_txn = -1

    def apply(self, txn: Txn, records: Sequence[UsageRecord], have: Kept = _ALL) -> list[bool]:
        """Record a batch; True for each. One whose id is there already adds nothing. See `merge` for `have`."""
        if txn.id != self._last_txn + 1:
            self._rows.clear()  # another process wrote, or a transaction was given up
        self._last_txn = txn.id
        if len(self._rows) > _REMEMBERED_ROWS:
            self._rows.clear()
        new = [rec for rec in records if self._add(txn, rec)]
        self._roll_up(txn, merge(new, self._days, have))
        return [True] * len(records)

    def dropped(self) -> None:
        """What was applied last was not committed."""
        self._rows.clear()
        self._last_txn = -1

    def _add(self, txn: Txn, rec: UsageRecord) -> bool:
        key = record_key(rec.at, rec.id)
        packed = pack(rec)
        if not txn.put_new(RECORD_IDS, rec.id.encode(), key):
            return False
        while not txn.put_new(RECORDS, key, packed):  # same microsecond, same hash: the next place
            key = (int.from_bytes(key, "big") + 1).to_bytes(12, "big")
            txn.put(RECORD_IDS, rec.id.encode(), key)
        for entry in index_keys(rec, key):
            txn.put(RECORD_INDEX, entry, b"")
        return True

    def _roll_up(self, txn: Txn, increments: dict[bytes, Sums]) -> None:
        rows = self._rows
        changed: list[tuple[bytes, bytes]] = []
        for key, increment in sorted(increments.items(), key=itemgetter(0)):
            row = rows.get(key)
            if row is None:
                raw = txn.get(ROLLUPS, key)
                row = rows[key] = Sums() if raw is None else Sums.decode(raw)
            row.add(increment)
            changed.append((key, row.encode()))
        txn.put_many(ROLLUPS, changed)


def merge(records: Sequence[UsageRecord], days: Days, have: Kept = _ALL) -> dict[bytes, Sums]:
    """The rollup rows that `records` add to, with what they add. `days` says where days begin, `have` from when on
    minute and hour rows are kept: a history that is loaded makes none that would be pruned at once.

    Minutes are summed into hours and hours into days before each is spread over the dimensions. Rows may share one
    object: nobody changes them in place.
    """
    rows: dict[bytes, Sums] = {}
    minutes = _gather(((int(rec.at) // 60 * 60, _cell(rec)), Sums.of(rec)) for rec in records)
    hours = _gather(((days.hour(start), cell), sums) for (start, cell), sums in minutes.items())
    whole_days = _gather(((days.start(start), cell), sums) for (start, cell), sums in hours.items())
    for grain, places, since in zip(GRAINS, (minutes, hours, whole_days), (have.minutes, have.hours, 0), strict=True):
        for (start, cell), sums in places.items():
            if start < since:
                continue
            bucket = seconds_key(start)
            for dimension, name in names_of(cell):
                key = grain + dimension + bucket + name
                row = rows.get(key)
                rows[key] = sums if row is None else row.plus(sums)
    return rows


def _gather(parts: Iterable[tuple[Place, Sums]]) -> dict[Place, Sums]:
    gathered: dict[Place, Sums] = {}
    for place, sums in parts:
        there = gathered.get(place)
        gathered[place] = sums if there is None else there.plus(sums)
    return gathered


def _cell(rec: UsageRecord) -> Cell:
    return rec.user, account_key(rec), rec.model
