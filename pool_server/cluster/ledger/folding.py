"""The newest exchanges are added to the sums many at a time, by one node at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pool_server.cluster.ledger.stored_forms import PLACE, ROW, columns_of, place_of, row_of, rows_of, share_in, sums_in
from pool_server.ledger.records.layout import HOURLY, MOST_LABELS, OTHER
from pool_server.ledger.rollups.sums import Sums
from pool_server.ledger.rollups.time_slices import Kept
from pool_server.ledger.rollups.writer import Part, merge
from pool_server.storage.postgres.connection import Connection

MOST = 2_000  # exchanges of a transaction

_Place = tuple[Any, ...]
_KEYS = "unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[])"


async def fold(connection: Connection, most: int = MOST) -> bool:
    """Adds what has come to the sums, in one transaction; True while there may be more. Raises StoreError."""
    async with connection.transaction():
        await connection.value("select pool.fold_begin_1()")
        found = await connection.rows("select * from pool.delta order by node, seq, i limit $1", most)
        if not found:
            return False
        shares = [share_in(row) for row in found]
        await add(connection, ((one.starts, one.cell, Sums.decode(one.sums), one.labels) for one in shares), Kept())
        gone = [[row[name] for row in found] for name in ("node", "seq", "i")]
        await connection.value("select pool.fold_end_1($1, $2, $3)", *gone)
    return len(found) == most


async def add(connection: Connection, parts: Iterable[Part], have: Kept) -> None:
    """Adds exchanges to the sums, within a transaction whose turn it is. Of rows of minutes and hours only those that
    `have` says are kept."""
    increments, labelled = map(rows_of, merge(parts, have))
    labelled = await _bounded(connection, labelled)
    for place, sums in labelled.items():
        increments[place] = sums
    there = await _there(connection, list(increments))
    rows = []
    for place, sums in sorted(increments.items()):
        known = there.get(place)
        if known is not None:
            known.add(sums)
            sums = known
        rows.append(row_of(place, sums))
    await connection.value("select pool.fold_put_1($1)", rows)


async def put_missing(connection: Connection, rows: Sequence[tuple[_Place, Sums]]) -> None:
    """Keeps rows of the sums that are not there at all, within a transaction whose turn it is."""
    there = await _there(connection, [place for place, _ in rows])
    await connection.value("select pool.fold_put_1($1)", [row_of(*row) for row in rows if row[0] not in there])


async def _there(connection: Connection, places: Sequence[_Place]) -> dict[_Place, Sums]:
    using = ", ".join(PLACE)
    rows = await connection.rows(
        f"select {', '.join(ROW)} from {_KEYS} as k ({using}) join pool.rollup using ({using})", *columns_of(places)
    )
    return {tuple(row[name] for name in PLACE): sums_in(row) for row in rows}


async def _bounded(connection: Connection, labelled: dict[_Place, Sums]) -> dict[_Place, Sums]:
    """The same, with those of a user's, or of the pool's, other labels in one row where there are too many already in
    its bucket."""
    if not labelled:
        return labelled
    heads = sorted({place[:4] for place in labelled})
    rows = await connection.rows(
        "select k.*, array_agg(r.label) filter (where r.label is not null) as labels"
        " from unnest($1::text[], $2::text[], $3::int[], $4::text[]) as k (grain, dim, bucket, usr)"
        " left join pool.rollup r using (grain, dim, bucket, usr) group by 1, 2, 3, 4",
        *[list(column) for column in zip(*heads, strict=True)],
    )
    known = {(row["grain"], row["dim"], row["bucket"], row["usr"]): set(row["labels"] or ()) for row in rows}
    bounded: dict[_Place, Sums] = {}
    for place, sums in sorted(labelled.items()):
        head, label = place[:4], place[6]
        labels = known[head]
        if label not in labels and len(labels) >= MOST_LABELS[place[1].encode()]:
            label = OTHER
        labels.add(label)
        target = (*place[:6], label)
        bounded[target] = bounded[target].plus(sums) if target in bounded else sums
    return bounded


assert MOST_LABELS.keys() >= HOURLY
assert place_of(b"m-\0\0\0\0") == ("m", "-", 0, "", "", "", "")
