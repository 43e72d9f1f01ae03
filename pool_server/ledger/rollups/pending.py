"""The newest exchanges lie in a short table of their own and are added to the rollups many at a time.

One exchange adds to 27 rollup rows on almost as many pages: written one by one, they cost more than all else about
it. Whoever asks reads both tables in one transaction, so that an exchange counts from the moment it is committed.
"""

from __future__ import annotations

import msgspec

from pool_server.core.models import UsageRecord
from pool_server.ledger.records.days import Days
from pool_server.ledger.records.layout import RECENT, Cell, Labels, account_key
from pool_server.ledger.rollups.sums import Sums
from pool_server.storage import Reader

MOST = 256  # every question reads them all, and the commit that moves them takes some milliseconds longer


class Share(msgspec.Struct, frozen=True, array_like=True):
    """What one exchange adds to the rollups.

    `starts` says where its minute, its hour and its day begin (unix seconds, in the order of GRAINS), `sums` are
    encoded.
    """

    starts: tuple[int, int, int]
    cell: Cell
    sums: bytes
    labels: Labels = ("", "", "", "")


_LABEL = 64  # characters

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Share).decode


def starts_of(rec: UsageRecord, days: Days) -> tuple[int, int, int]:
    """Where a record's minute, hour and day begin; `days` says where days do."""
    minute = int(rec.at) // 60 * 60
    return minute, days.hour(minute), days.start(minute)


def cell_of(rec: UsageRecord) -> Cell:
    return rec.user, account_key(rec), rec.model


def labels_of(rec: UsageRecord) -> Labels:
    """Program, key, project and conversation as they stand in keys."""
    return _label(rec.agent), _label(rec.key), _label(rec.project), _label(rec.session)


def _label(text: str) -> str:
    return text[:_LABEL].replace("\0", " ").strip() if text else ""


def encode(rec: UsageRecord, days: Days) -> bytes:
    """The row of a cleaned and priced record."""
    return _encode((starts_of(rec, days), cell_of(rec), Sums.of(rec).encode(), labels_of(rec)))


def shares(reader: Reader) -> list[Share]:
    """Everything that is not in the rollups yet."""
    return [_decode(raw) for _, raw in reader.scan(RECENT)]


def decoded(raw: bytes) -> Share | None:
    """One of them; None for bytes that are none."""
    try:
        return _decode(raw)
    except msgspec.MsgspecError:
        return None
