"""Usage records as calls of the database: batches of a node's journal, each record kept once by its id."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from pool_server.storage.postgres.connection import Connection

_DAY_S = 86_400
_OWN_ID = re.compile(r"[0-9a-f]{24}")  # as `new_request_id` makes them
_ID_TIME = 11  # hex digits of milliseconds at their begin
_NEAR_S = _DAY_S / 2  # of its id's time a record lies so near, however long its exchange took


class ShippedShare(msgspec.Struct, kw_only=True):
    """What a record adds to the sums, as a row of the table `delta`: where its minute, hour and day begin, who and
    what, its labels, the sums themselves; None where nothing is added."""

    minute: int = 0
    hour: int = 0
    day: int = 0
    s_usr: str = ""
    s_account: str = ""
    s_model: str = ""
    program: str = ""
    key: str = ""
    project: str = ""
    conversation: str = ""
    sums: bytes | None = None


class ShippedRecord(ShippedShare):
    """A record as the database keeps it: what is searched and settled, and the packed form. `cost` in nano-dollars,
    None where no price is known."""

    at: float
    id: str
    usr: str
    jti: str
    account: str
    model: str
    outcome: str
    status: int
    tok: int
    cost: int | None
    body: bytes
    provider: str = ""
    session: str = ""


_encode = msgspec.json.Encoder().encode


async def shipped(connection: Connection, node: int) -> int:
    """The number of the last record that a node has shipped. Raises StoreError."""
    return int(await connection.value("select shipped from pool.node where id = $1", node) or 0)


async def ship(connection: Connection, node: int, span: tuple[int, int], records: Sequence[ShippedRecord]) -> set[str]:
    """Keeps a batch of records with ids of their own: `span` is (number shipped before, number shipped with this).
    Returns the ids that were new. Raises StoreError, or UnicodeEncodeError for a text that is none."""
    days = sorted({record.at // _DAY_S * _DAY_S for record in records})
    odd = [record.id for record in records if not _near_its_id(record)]
    fresh = await connection.value(
        "select pool.ship_4($1, $2, $3, $4, $5, $6, $7)",
        node, *span, days, [record.id for record in records], odd, _encode(records).decode(),
    )  # fmt: skip
    return set(fresh)


def _near_its_id(record: ShippedRecord) -> bool:
    """Whether another record of that id can only lie near this one."""
    if not _OWN_ID.fullmatch(record.id):
        return False
    return abs(int(record.id[:_ID_TIME], 16) / 1000 - record.at) < _NEAR_S
