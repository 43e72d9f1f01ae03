"""Writes records, their index entries and the rollups, each record exactly once.

Runs in the store's writer thread with a whole batch at a time. What a record adds to the rollups is written down
beside it and added to them later, together with what others add: see `pending`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TypeVar

import msgspec

from pool_server.core.enums import Operation
from pool_server.core.models import Usage, UsageRecord
from pool_server.ledger.records.codec import pack, unpack
from pool_server.ledger.records.days import Days, changed, eras_in, eras_note
from pool_server.ledger.records.layout import (
    HOURLY,
    MOST_LABELS,
    NOTES,
    OTHER,
    POOL,
    RECENT,
    RECORD_IDS,
    RECORD_INDEX,
    RECORDS,
    ROLLUPS,
    Cell,
    Grain,
    Labels,
    Name,
    counted_key,
    index_keys,
    label_names,
    made_key,
    names_of,
    record_key,
    seconds_key,
)
from pool_server.ledger.rollups import pending
from pool_server.ledger.rollups.sums import Sums
from pool_server.ledger.rollups.time_slices import ERAS, Kept, kept
from pool_server.storage import Txn

P = TypeVar("P")
S = TypeVar("S", tuple[int, int, int], tuple[int, int], tuple[int])

# Where minute, hour and day begin; who and what; what it adds; its labels.
Part = tuple[tuple[int, int, int], Cell, Sums, Labels]
_ALL = Kept()
# Of the calls that are about a job, those that run the model.
RUNS = frozenset((Operation.RESPONSES, Operation.RESPONSES_COMPACT, Operation.CHAT))
_NAMES = 6  # bytes of a rollup key before its names


class PendingRecord:
    """A record on its way to the disk; its stored form is made once."""

    __slots__ = ("_packed", "record")

    def __init__(self, record: UsageRecord) -> None:
        self.record = record
        self._packed = b""

    def packed(self) -> bytes:
        """Raises what `codec.pack` raises."""
        self._packed = self._packed or pack(self.record)
        return self._packed

    def safely_packed(self) -> bytes | None:
        """The same; None for a record that cannot be packed."""
        try:
            return self.packed()
        except Exception:
            return None


class RollupWriter:
    """Applies batches of cleaned, priced records. Remembers nothing but where days begin, which the store says: several
    processes may write the same rows."""

    def __init__(self, timezone: str) -> None:
        """`timezone`: where days are to begin. Those that have begun elsewhere stay."""
        self._timezone = timezone
        self._days: Days | None = None
        self._noted: bytes | None = None  # what `_days` was made of
        self._replaced: bytes | None = None  # what was noted before this writer noted anything

    def apply(self, txn: Txn, entries: Sequence[PendingRecord]) -> list[bool]:
        """Record a batch; True for each. One whose id is there already adds nothing."""
        days = self.kept_days(txn, entries)
        new = _add(txn, entries)
        txn.put_many(RECENT, [(key, pending.encode(rec, days)) for key, rec in new])
        if txn.count(RECENT) >= pending.MOST:
            found = pending.shares(txn)
            parts = ((share.starts, share.cell, Sums.decode(share.sums), share.labels) for share in found)
            _roll_up(txn, *merge(parts))
            txn.delete_range(RECENT, b"", b"\xff", limit=len(found))
        return [True] * len(entries)

    def load(self, txn: Txn, records: Sequence[UsageRecord], have: Kept) -> None:
        """Record a batch of a history, straight into the rollups. See `merge` for `have`."""
        entries = [PendingRecord(rec) for rec in records]
        days = self.kept_days(txn, entries)
        new = _add(txn, entries)
        _roll_up(txn, *merge(parts_of((rec for _, rec in new), days), have))

    def kept_days(self, txn: Txn, entries: Sequence[PendingRecord] = ()) -> Days:
        """Where days begin, also those of `entries`, which are to be recorded. Notes a time zone that was set, once:
        another process may have another."""
        raw = txn.get(NOTES, ERAS)
        if self._days is not None and raw == self._noted:
            return self._days
        eras = eras_in(raw)
        if self._days is None or raw == self._replaced or not eras:  # or what was noted then has been rolled back
            newest = max((entry.record.at for entry in entries), default=0.0)
            eras = changed(eras, self._timezone, max(newest, _newest(txn, Days(eras or self._timezone))))
            self._replaced, raw = raw, eras_note(eras)
            txn.put(NOTES, ERAS, raw)
        self._days, self._noted = Days(eras), raw
        return self._days


def add_up(txn: Txn, records: Sequence[UsageRecord], days: Days) -> None:
    """Add stored records to the rollups, down to the grains that are kept."""
    _roll_up(txn, *merge(parts_of(records, days), kept(txn)))


def parts_of(records: Iterable[UsageRecord], days: Days) -> Iterator[Part]:
    """What stored records add to the rollups; see `merge`."""
    for rec in records:
        yield pending.starts_of(rec, days), pending.cell_of(rec), Sums.of(rec), pending.labels_of(rec)


def _newest(txn: Txn, days: Days) -> int:
    """The time of the newest record or, where those of the newest day are forgotten, of its end; unix seconds."""
    head = b"d" + POOL
    record = next(
        (int.from_bytes(key[:8], "big") // 1_000_000 for key, _ in txn.scan(RECORDS, reverse=True, limit=1)), 0
    )
    rows = txn.scan(ROLLUPS, head, head + b"\xff", reverse=True, limit=1)
    day = next((int.from_bytes(key[2:6], "big") for key, _ in rows), 0)
    return record if record >= day else days.after(day)


def _add(txn: Txn, entries: Sequence[PendingRecord]) -> list[tuple[bytes, UsageRecord]]:
    """Write the records that are new and their index entries; returns those records with their keys."""
    new: list[tuple[bytes, UsageRecord]] = []
    index: list[bytes] = []
    for entry in entries:
        rec, packed = entry.record, entry.packed()
        key = record_key(rec.at, rec.id)
        if not txn.put_new(RECORD_IDS, rec.id.encode(), key):
            continue
        if rec.job and not _first(txn, rec, key):  # its usage is in another record already
            rec = msgspec.structs.replace(rec, usage=Usage(), cost=None)
            packed = pack(rec)
        while not txn.put_new(RECORDS, key, packed):  # same microsecond, same hash: the next place
            key = (int.from_bytes(key, "big") + 1).to_bytes(12, "big")
            txn.put(RECORD_IDS, rec.id.encode(), key)
        index += index_keys(rec, key)
        new.append((key, rec))
    index.sort()
    txn.put_many(RECORD_INDEX, [(key, b"") for key in index])
    return new


def _first(txn: Txn, rec: UsageRecord, key: bytes) -> bool:
    """Note a record that makes a job or counts one; False when the job has been counted.

    A run of the model counts also under an id that another run had: some servers give each answer the same one.
    """
    if rec.reserved is not None:
        txn.put_new(RECORD_IDS, made_key(rec.job), key)
    if not rec.usage.counted or txn.put_new(RECORD_IDS, counted_key(rec.job), key):
        return True
    if rec.operation not in RUNS:
        return False
    earlier = txn.get(RECORD_IDS, counted_key(rec.job))
    txn.put(RECORD_IDS, counted_key(rec.job), key)
    return earlier is None or not _fetched(txn.get(RECORDS, earlier))


def _fetched(packed: bytes | None) -> bool:
    """Whether this is the record of a call that fetched a result: the run that made it has a record of its own."""
    try:
        return packed is not None and unpack(packed).operation not in RUNS
    except ValueError:
        return False


def _roll_up(txn: Txn, increments: dict[bytes, Sums], labelled: dict[bytes, Sums]) -> None:
    changed: list[tuple[bytes, bytes]] = []
    for key, row in sorted(increments.items(), key=itemgetter(0)):
        changed.append((key, _added(txn, key, row)))
    txn.put_many(ROLLUPS, changed)
    for key, row in sorted(labelled.items(), key=itemgetter(0)):
        there = _bounded(txn, key)
        txn.put(ROLLUPS, there, _added(txn, there, row))


def _added(txn: Txn, key: bytes, row: Sums) -> bytes:
    """A row with what is added to it, encoded."""
    raw = txn.get(ROLLUPS, key)
    if raw is not None:
        there = Sums.decode(raw)
        there.add(row)
        row = there
    return row.encode()


def _bounded(txn: Txn, key: bytes) -> bytes:
    """The key of a label's row; that of the user's other labels where there are too many already in its bucket."""
    if txn.get(ROLLUPS, key) is not None:
        return key
    dimension = key[1:2]
    head = key[:_NAMES] if dimension in HOURLY else key[: key.index(b"\0", _NAMES) + 1]
    most = MOST_LABELS[dimension]
    many = sum(1 for _ in txn.scan(ROLLUPS, head, head + b"\xff", limit=most))
    return key if many < most else head + OTHER.encode()


def merge(parts: Iterable[Part], have: Kept = _ALL) -> tuple[dict[bytes, Sums], dict[bytes, Sums]]:
    """The rollup rows that `parts` add to, with what they add, and those of their labels. `have` says from when on
    minute and hour rows are kept: a history that is loaded makes none that would be pruned at once.

    What lies in one minute is summed before it is spread over the dimensions, minutes before hours, hours before
    days. Rows may share one object: nobody changes them in place.
    """
    found = [(_kept_starts(starts, have), cell, sums, labels) for starts, cell, sums, labels in parts]
    cells = _gather(((starts, cell), sums) for starts, cell, sums, _ in found)
    minutes = _gather(((starts, name), sums) for (starts, cell), sums in cells.items() for name in names_of(cell))
    hours = _gather((((hour, day), name), sums) for ((_, hour, day), name), sums in minutes.items())
    days = _gather((((day,), name), sums) for ((_, day), name), sums in hours.items())
    rows = {
        **_keyed(b"m", minutes, have.minutes),
        **_keyed(b"h", hours, have.hours),
        **_keyed(b"d", days, 0),
    }
    return rows, _labelled(found, have)


def _kept_starts(starts: tuple[int, int, int], have: Kept) -> tuple[int, int, int]:
    """The same with a coarser bucket's start where the finer rows are not kept: what is older than both is summed by
    the day from the first."""
    minute, hour, day = starts
    if minute >= have.minutes:
        return starts
    return (hour, hour, day) if hour >= have.hours else (day, day, day)


def _labelled(parts: Iterable[Part], have: Kept) -> dict[bytes, Sums]:
    """The rows of labels: counts alone, no histograms."""
    hours = _gather(
        (((hour, day), name), slim)
        for (_, hour, day), cell, sums, labels in parts
        for slim in (sums.slim(),)
        for name in label_names(cell[0], labels)
    )
    days = _gather((((day,), name), sums) for ((_, day), name), sums in hours.items())
    kept = {place: sums for place, sums in hours.items() if place[1][0] in HOURLY}
    return {**_keyed(b"h", kept, have.hours), **_keyed(b"d", days, 0)}


def _gather(parts: Iterable[tuple[P, Sums]]) -> dict[P, Sums]:
    """The sums of each place; the given ones do not change."""
    gathered: dict[P, Sums] = {}
    own: set[P] = set()  # places whose sums were made here
    for place, sums in parts:
        there = gathered.get(place)
        if there is None:
            gathered[place] = sums
        elif place in own:
            there.add(sums)
        else:
            gathered[place] = there.plus(sums)
            own.add(place)
    return gathered


def _keyed(grain: Grain, rows: Mapping[tuple[S, Name], Sums], since: int) -> dict[bytes, Sums]:
    """Rows of one grain by their keys, without those of buckets before `since`."""
    return {
        grain + dimension + seconds_key(starts[0]) + name: sums
        for (starts, (dimension, name)), sums in rows.items()
        if starts[0] >= since
    }
