"""Whether what the ledger's tables say of each other is true, and how it is made true again.

Records are the truth. Ids, index entries and rollups of days whose records are all there are made from them anew; what
no record can tell any more is told and left as it is. For a folder that no server uses.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import msgspec

from pool_server.core.models import UsageRecord
from pool_server.ledger.embedded.recount import Recount
from pool_server.ledger.records import layout
from pool_server.ledger.records.codec import unpack
from pool_server.ledger.records.days import Days
from pool_server.ledger.records.layout import RECENT, RECORD_IDS, RECORD_INDEX, RECORDS, ROLLUPS, Grain
from pool_server.ledger.rollups import months, pending
from pool_server.ledger.rollups.months import Month
from pool_server.ledger.rollups.sums import leading_counts
from pool_server.ledger.rollups.time_slices import days_kept, kept, kept_since
from pool_server.ledger.rollups.writer import add_up
from pool_server.storage import Reader, Store, Txn

T = TypeVar("T")

_STEP = 1_000  # rows put right in a transaction
_KIND_AND_HASH = 5  # bytes of an index key before the record's


class Consistency(NamedTuple):
    """What a look at a ledger found. `missing` and `astray` are rows (table, key, value) to write and rows (table, key)
    that lead nowhere; `days` are local midnights whose sums are wrong, `lost_days` those of them whose records are not
    all there any more; `months` are to be summed anew, of `lost_months` some day is not what it was when they were."""

    records: int
    unreadable: list[bytes]
    missing: list[tuple[str, bytes, bytes]]
    astray: list[tuple[str, bytes]]
    days: list[int]
    lost_days: list[int]
    months: list[Month]
    lost_months: list[Month]

    @property
    def sound(self) -> bool:
        return not any(self[1:])


def check(reader: Reader, timezone: str) -> Consistency:
    """Read all of it: 30 to 120 µs a record, by how many share an hour. Raises StoreError."""
    unreadable: list[bytes] = []
    missing: list[tuple[str, bytes, bytes]] = []
    told: Counter[int] = Counter()  # local midnight → records
    blind: set[int] = set()  # days with a record that cannot be read
    days = days_kept(reader, timezone)
    whole = whole_since(reader, days)
    strange = _of_other_zones(reader, days)
    recount = Recount(reader, days)
    records = 0
    for key, raw in reader.scan(RECORDS):
        records += 1
        rec = _read(raw)
        day = days.start(int.from_bytes(key[:8], "big") // 1_000_000)
        told[day] += 1
        if rec is None:
            unreadable.append(key)
            blind.add(day)
        else:
            missing += _missing(reader, rec, key)
            if day >= whole and day not in strange:
                missing += recount.add(day, key, rec)
    wrong = _wrong_days(reader, days, told, whole, strange) | recount.done() - blind
    stale, changed = _wrong_months(reader, days)
    known = [month for month in changed if month.start >= whole and not blind & set(_days_of(reader, month))]
    wrong |= {day for month in known for day in _days_of(reader, month)}
    lost = [day for day in sorted(wrong) if day < whole or day in blind]
    return Consistency(
        records, unreadable, missing, list(_astray(reader, whole)), sorted(wrong - set(lost)), lost, stale,
        [month for month in changed if month not in known],
    )  # fmt: skip


def repair(store: Store, timezone: str, found: Consistency) -> None:
    """Put right what can be. Raises StoreError."""
    for part in _parts(found.missing):
        store.write(lambda txn, part=part: [txn.put(*row) for row in part])  # type: ignore[misc]
    for gone in _parts(found.astray):
        store.write(lambda txn, gone=gone: [txn.delete(*row) for row in gone])  # type: ignore[misc]
    with store.read() as reader:
        days = days_kept(reader, timezone)
    for day in found.days:
        store.write(lambda txn, day=day: _make_anew(txn, day, days))  # type: ignore[misc]
    for month in {*found.months, *(months.around(day, days) for day in found.days)}:
        store.write(lambda txn, month=month: months.forget(txn, month))  # type: ignore[misc]


def _parts(rows: list[T]) -> Iterator[list[T]]:
    return (rows[at : at + _STEP] for at in range(0, len(rows), _STEP))


def _read(raw: bytes) -> UsageRecord | None:
    try:
        return unpack(raw)
    except ValueError:
        return None


def _missing(reader: Reader, rec: UsageRecord, key: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    """The rows that lead to a record and are not there."""
    if reader.get(RECORD_IDS, rec.id.encode()) != key:
        yield RECORD_IDS, rec.id.encode(), key
    for entry in layout.index_keys(rec, key):
        if reader.get(RECORD_INDEX, entry) is None:
            yield RECORD_INDEX, entry, b""


def _astray(reader: Reader, whole: int) -> Iterator[tuple[str, bytes]]:
    """The rows that lead to no record."""
    for ident, key in reader.scan(RECORD_IDS):
        if reader.get(RECORDS, key) is None:
            yield RECORD_IDS, ident
    for entry, _ in reader.scan(RECORD_INDEX):
        if reader.get(RECORDS, entry[_KIND_AND_HASH:]) is None:
            yield RECORD_INDEX, entry
    for key, _ in reader.scan(RECENT, layout.time_key(whole)):  # what is older may be forgotten before it is summed
        if reader.get(RECORDS, key) is None:
            yield RECENT, key


def whole_since(reader: Reader, days: Days) -> int:
    """From which midnight on all records are there: of the oldest one's own day some may be forgotten already, and one
    that came late may be older than what is forgotten."""
    first = next(reader.scan(RECORDS, limit=1), None)
    if first is None:
        return 1 << 40
    forgotten = kept(reader).records
    return max(
        days.after(int.from_bytes(first[0][:8], "big") // 1_000_000),
        days.after(forgotten) if forgotten > 0 else 0,
    )


def _of_other_zones(reader: Reader, days: Days) -> set[int]:
    """The days beside rows of another time zone's: their records are not compared."""
    head = b"d" + layout.POOL
    there = {int.from_bytes(key[2:6], "big") for key, _ in reader.scan(ROLLUPS, head, head + b"\xff")}
    there |= {share.starts[2] for share in _shares(reader)}
    strange: set[int] = set()
    for bucket in there:
        if (day := days.start(bucket)) != bucket:
            strange |= {day, days.after(bucket), days.start(day - 1)}
    return strange


def _shares(reader: Reader) -> Iterator[pending.Share]:
    """What is not in the rollups yet, as far as it can be read."""
    return (share for _, raw in reader.scan(RECENT) if (share := pending.decoded(raw)) is not None)


def _wrong_days(reader: Reader, days: Days, told: Counter[int], whole: int, strange: set[int]) -> set[int]:
    """The days whose rows cannot be read, do not add up to each other, or not to as many exchanges as have records."""
    wrong: set[int] = set()
    summed: Counter[int] = Counter()
    for grain in layout.GRAINS:
        wholes = _sums(reader, grain, layout.POOL, wrong, days)
        if grain == b"d":
            for bucket, counts in wholes.items():
                summed[days.start(bucket)] += counts[0]
        for dimension in layout.DIMENSIONS[1:]:
            parts = _sums(reader, grain, dimension, wrong, days)
            buckets = wholes.keys() | parts.keys()
            wrong |= {days.start(bucket) for bucket in buckets if wholes.get(bucket) != parts.get(bucket)}
    for share in _shares(reader):
        summed[days.start(share.starts[2])] += 1
    compared = {day for day in told.keys() | summed.keys() if day >= whole} - strange
    return wrong | {day for day in compared if told[day] != summed[day]}


def _sums(reader: Reader, grain: Grain, dimension: bytes, wrong: set[int], days: Days) -> dict[int, tuple[int, ...]]:
    """Bucket → the counts of its rows added up. Of minutes and hours that are being forgotten some rows may be gone."""
    sums: defaultdict[int, list[tuple[int, ...]]] = defaultdict(list)
    head = grain + dimension
    since = kept_since(kept(reader), grain)
    for key, raw in reader.scan(ROLLUPS, head + layout.seconds_key(since), head + b"\xff"):
        bucket = int.from_bytes(key[2:6], "big")
        try:
            counts = msgspec.structs.astuple(leading_counts(raw))
        except msgspec.MsgspecError:
            wrong.add(days.start(bucket))
        else:
            sums[bucket].append(counts)
    return {bucket: tuple(map(sum, zip(*rows, strict=True))) for bucket, rows in sums.items()}


def _wrong_months(reader: Reader, days: Days) -> tuple[list[Month], list[Month]]:
    """Of the months that count as up to date those that do not say what their days do, and those of which a day was
    changed since it was summed."""
    stale: list[Month] = []
    changed: list[Month] = []
    for month in months.current(reader, days):
        seal = months.sealed(reader, month)
        if seal.requests == months.requests_of(reader, month) and seal.digest != months.days_digest(reader, month):
            changed.append(month)
            continue
        try:
            same = months.says_what_its_days_do(reader, month)
        except msgspec.MsgspecError:  # one of its days is wrong, and told
            continue
        if not same:
            stale.append(month)
    return stale, changed


def _days_of(reader: Reader, month: Month) -> list[int]:
    """The days of a month that have rows."""
    head = b"d" + layout.POOL
    found = reader.scan(ROLLUPS, head + layout.seconds_key(month.start), head + layout.seconds_key(month.stop))
    return [int.from_bytes(key[2:6], "big") for key, _ in found]


def _make_anew(txn: Txn, day: int, days: Days) -> None:
    """A day's rollups from its records."""
    after = days.after(day)
    for grain in layout.GRAINS:
        for dimension in layout.DIMENSIONS + layout.LABELS:
            head = grain + dimension
            txn.delete_range(ROLLUPS, head + layout.seconds_key(day), head + layout.seconds_key(after), limit=1 << 30)
    there = list(txn.scan(RECORDS, layout.time_key(day), layout.time_key(after)))
    add_up(txn, [unpack(raw) for key, raw in there if txn.get(RECENT, key) is None], days)
