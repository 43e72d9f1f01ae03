"""Moves the ledger of one machine's data folder into the database. It may run again: what is there already stays.

Days whose records are all there are summed from those that are new. Of days before that, of which records may be
forgotten, the sums themselves are moved, where there are none yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import msgspec

from pool_server import __version__
from pool_server.cluster.ledger import folding
from pool_server.cluster.ledger.database_ledger import see
from pool_server.cluster.ledger.database_usage import ERAS, PRUNED, kept_in
from pool_server.cluster.ledger.record_shipping import Shipping
from pool_server.cluster.ledger.stored_forms import place_of
from pool_server.core.models import UsageRecord
from pool_server.ledger import quota_history
from pool_server.ledger.embedded.consistency import whole_since
from pool_server.ledger.records import layout
from pool_server.ledger.records.codec import unpack
from pool_server.ledger.records.days import Days, eras_note
from pool_server.ledger.rollups import pending
from pool_server.ledger.rollups.sums import Sums
from pool_server.ledger.rollups.time_slices import Kept, days_kept, kept
from pool_server.storage import Store, StoreError
from pool_server.storage.postgres.connection import Connection

T = TypeVar("T")
_Row = tuple[bytes, UsageRecord, bytes]  # key, record, its packed form
_BATCH = 2_000
_NODE = "import"


class _Bounds(NamedTuple):
    """`whole`: the midnight from which on all records are there; `recent`: keys of those that are in no sums yet."""

    have: Kept
    whole: int
    recent: frozenset[bytes]


async def move_usage(connection: Connection, store: Store, timezone: str) -> dict[str, int]:
    """Records, sums and the history of quota windows; returns how many records were new, of all. Raises StoreError."""
    with store.read() as reader:
        recent = frozenset(key for key, _ in reader.scan(layout.RECENT))
        there = days_kept(reader, timezone)
        bounds = _Bounds(kept(reader), whole_since(reader, there), recent)
    node = await connection.value("select id from pool.node_start_1($1, $2, '{}')", _NODE, __version__)
    if node is None:
        raise StoreError("the database answered nothing")
    try:
        async with connection.transaction():
            await connection.value("select pool.fold_begin_1()")  # nodes note where days begin, too
            await _keep_bounds(connection, bounds.have, there)
        for rows in _parts(_old_sums(store, bounds.whole)):
            async with connection.transaction():
                await connection.value("select pool.fold_begin_1()")
                await folding.put_missing(connection, rows)
        shipping, new, count = Shipping(lambda: node, timezone), 0, 0
        days = await shipping.days(connection, [])
        for batch in _parts(_records(store)):
            new += await _move(connection, shipping, batch, bounds, days)
            count += len(batch)
        for sightings in _parts(_sightings(store)):
            await see(connection, sightings)
    finally:
        await connection.value("select pool.node_end_1($1)", node)
    return {"new": new, "all": count}


async def _move(
    connection: Connection,
    shipping: Shipping,
    batch: list[_Row],
    bounds: _Bounds,
    days: Days,
) -> int:
    async with connection.transaction():
        await connection.value("select pool.fold_begin_1()")
        told = {rec.id for key, rec, _ in batch if key in bounds.recent or rec.at >= bounds.whole}
        made = shipping.prepared([rec for _, rec, _ in batch], [raw for _, _, raw in batch], None)
        new = await shipping.keep(connection, made)
        parts = (
            (pending.starts_of(rec, days), pending.cell_of(rec), Sums.of(rec), pending.labels_of(rec))
            for rec in new
            if rec.id in told
        )
        await folding.add(connection, parts, bounds.have)
    return len(new)


async def _keep_bounds(connection: Connection, have: Kept, days: Days) -> None:
    """Notes from when on rows of minutes and hours are there: no sooner than either store has them; and where days
    begin, if the database has no days yet."""
    if await connection.value("select pool.note_read_1($1)", ERAS) is None:
        await connection.value("select pool.note_put_1($1, $2)", ERAS, eras_note(days.eras))
    there = kept_in(await connection.value("select pool.note_read_1($1)", PRUNED))
    both = Kept(minutes=max(have.minutes, there.minutes), hours=max(have.hours, there.hours))
    await connection.value("select pool.note_put_1($1, $2)", PRUNED, msgspec.json.encode(both))


def _old_sums(store: Store, whole: int) -> Iterator[tuple[tuple[Any, ...], Sums]]:
    for grain in (b"h", b"d"):
        for dimension in (*layout.DIMENSIONS, *layout.LABELS):
            head = grain + dimension
            for key, raw in _pairs(store, layout.ROLLUPS, head, head + layout.seconds_key(whole)):
                yield place_of(key), Sums.decode(raw)


def _records(store: Store) -> Iterator[_Row]:
    for key, raw in _pairs(store, layout.RECORDS):
        try:
            yield key, unpack(raw), raw
        except ValueError:
            continue  # `fsck` tells of those that cannot be read


def _sightings(store: Store) -> Iterator[quota_history.Entry]:
    for key, raw in _pairs(store, layout.QUOTA):
        yield key[:-8], quota_history.read_sighting(key, raw)


def _pairs(store: Store, table: str, start: bytes = b"", stop: bytes = b"\xff" * 600) -> Iterator[tuple[bytes, bytes]]:
    """Everything of a table, read in short transactions."""
    while True:
        with store.read() as reader:
            part = list(reader.scan(table, start, stop, limit=_BATCH))
        yield from part
        if len(part) < _BATCH:
            return
        start = part[-1][0] + b"\0"


def _parts(found: Iterable[T]) -> Iterator[list[T]]:
    waiting = iter(found)
    while part := list(islice(waiting, _BATCH)):
        yield part
