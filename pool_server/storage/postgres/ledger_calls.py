"""Usage records as calls of the database: batches of a node's journal, each record kept once by its id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pool_server.storage.postgres.connection import Connection


class ShippedRecord(NamedTuple):
    """A record as the database keeps it: what is searched and settled, and the packed form. `cost` in nano-dollars,
    None where no price is known."""

    at: float
    id: str
    user: str
    key: str
    account: str
    model: str
    outcome: str
    status: int
    tokens: int
    cost: int | None
    body: bytes
    provider: str = ""
    session: str = ""


class StoredShare(NamedTuple):
    """What a record adds to the sums, as a row of the table `delta`: where it lies (`i` is the record's place in its
    batch, from 1), where its minute, hour and day begin, who and what, its labels, the sums themselves."""

    node: int
    seq: int
    i: int
    minute: int
    hour: int
    day: int
    user: str
    account: str
    model: str
    program: str
    key: str
    project: str
    conversation: str
    sums: bytes


async def shipped(connection: Connection, node: int) -> int:
    """The number of the last record that a node has shipped. Raises StoreError."""
    return int(await connection.value("select shipped from pool.node where id = $1", node) or 0)


async def ship(
    connection: Connection,
    node: int,
    span: tuple[int, int],
    records: Sequence[ShippedRecord],
    shares: Sequence[StoredShare] = (),
) -> set[str]:
    """Keeps a batch: `span` is (number shipped before, number shipped with this). `shares` are of those records that
    nobody adds to the sums otherwise. Returns the ids that were new. Raises StoreError."""
    columns = (
        [list(column) for column in zip(*records, strict=True)] if records else [[] for _ in ShippedRecord._fields]
    )
    fresh = await connection.value(
        "select pool.ship_3($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        node, *span, *columns, list(shares),
    )  # fmt: skip
    return set(fresh)
