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


async def ship(connection: Connection, node: int, span: tuple[int, int], records: Sequence[ShippedRecord]) -> set[str]:
    """Keeps a batch: `span` is (number shipped before, number shipped with this). Returns the ids that were new with
    it: those alone may be settled. Raises StoreError."""
    columns = (
        [list(column) for column in zip(*records, strict=True)] if records else [[] for _ in ShippedRecord._fields]
    )
    rows = await connection.rows(
        "select ship_1 as id from pool.ship_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        node, *span, *columns,
    )  # fmt: skip
    return {row["id"] for row in rows}
