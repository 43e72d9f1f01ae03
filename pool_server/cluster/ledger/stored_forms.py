"""How records, and what they add to the sums, lie in the database."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pool_server.core.models import UsageRecord
from pool_server.ledger.records.days import Days
from pool_server.ledger.rollups import pending
from pool_server.ledger.rollups.pending import Share
from pool_server.ledger.rollups.reader import FIELDS_OF
from pool_server.ledger.rollups.sums import COUNTS, N, Sums
from pool_server.storage.postgres.admission_calls import nano
from pool_server.storage.postgres.connection import ResultRow, storable
from pool_server.storage.postgres.ledger_calls import ShippedRecord

COLUMNS = {"user": "usr", "account": "account", "model": "model"}  # of a field; all others stand in `label`
_PLACES = {"usr": 0, "account": 1, "model": 2, "label": 3}
PLACE = ("grain", "dim", "bucket", *_PLACES)  # what names a row of the sums
ROW = (*PLACE, *COUNTS, "spread", "extra")
_AT = 6  # bytes of a rollup key before its names


def column(field: str) -> str:
    """Where a field of a row of the sums stands."""
    return COLUMNS.get(field, "label")


def shipped_form(rec: UsageRecord, body: bytes, days: Days | None) -> ShippedRecord:
    """A record as the database keeps it; `body` is its packed form. `days` says where days begin for what it adds to
    the sums; None where that is added otherwise."""
    names: tuple[str, ...] = (rec.user, rec.key, rec.account, rec.model, rec.outcome, rec.provider, rec.session)
    if not storable("".join(names)):
        names = tuple(name if storable(name) else "" for name in names)
    user, key, account, model, outcome, provider, session = names
    cost = None if rec.cost is None or not math.isfinite(rec.cost) else nano(rec.cost)
    form = ShippedRecord(
        rec.at, ident_of(rec), user, key, account, model, outcome, min(max(rec.status, 0), 999), rec.usage.total, cost,
        body, provider, session,
    )  # fmt: skip
    if days is not None:
        form.minute, form.hour, form.day = pending.starts_of(rec, days)
        form.s_usr, form.s_account, form.s_model = pending.cell_of(rec)
        form.program, form.key, form.project, form.conversation = pending.labels_of(rec)
        form.sums = Sums.of(rec).encode()
    return form


def ident_of(rec: UsageRecord) -> str:
    """The id under which the database keeps a record."""
    return rec.id if storable(rec.id) and 0 < len(rec.id) <= 400 else _digest(rec.id)


def share_in(row: ResultRow) -> Share:
    """The same, read."""
    return Share(
        (row["minute"], row["hour"], row["day"]), (row["usr"], row["account"], row["model"]), row["sums"],
        (row["program"], row["key"], row["project"], row["conversation"]),
    )  # fmt: skip


def place_of(key: bytes) -> tuple[Any, ...]:
    """The place, as in PLACE, of a rollup row that is named by an embedded store's key."""
    dimension = key[1:2]
    names = ["", "", "", ""]
    for field, name in zip(FIELDS_OF[dimension], key[_AT:].decode().split("\0"), strict=False):
        names[_PLACES[column(field)]] = name
    return key[:1].decode(), dimension.decode(), int.from_bytes(key[2:_AT], "big"), *names


def row_of(place: Sequence[Any], sums: Sums) -> tuple[Any, ...]:
    """A row of the sums, as in ROW."""
    return *place, *sums.n, *sums.parted()


def rows_of(rows: Mapping[bytes, Sums]) -> dict[tuple[Any, ...], Sums]:
    """Rollup rows by their places."""
    return {place_of(key): sums for key, sums in rows.items()}


def sums_in(row: ResultRow) -> Sums:
    """The sums of a row that was read with the columns of ROW."""
    return Sums.joined([row[name] for name in COUNTS], (row["spread"], row["extra"]))


def columns_of(places: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    """Places as arrays, a column each."""
    return [list(values) for values in zip(*places, strict=True)] or [[] for _ in PLACE]


def _digest(ident: str) -> str:
    """What stands for an id that the database cannot hold."""
    return "sha256:" + hashlib.sha256(ident.encode("utf-8", "surrogatepass")).hexdigest()


assert len(COUNTS) == N
