"""What was recorded, as one transaction of the database sees it. The database filters, groups and adds up; what a
question makes of that is the same for every store.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from pool_server.cluster.ledger.stored_forms import column, share_in
from pool_server.core.enums import Source
from pool_server.core.models import Usage, UsageRecord
from pool_server.ledger.ports import JobState, LogFilters, UsageReader, matches
from pool_server.ledger.quota_history import Series, Sighting
from pool_server.ledger.records.codec import unpack
from pool_server.ledger.records.days import Days, eras_in
from pool_server.ledger.rollups.pending import Share
from pool_server.ledger.rollups.reader import Field, Filters, RollupRow, newest_rows, order_of
from pool_server.ledger.rollups.sums import COUNTS, N, wire
from pool_server.ledger.rollups.time_slices import Kept, Slice
from pool_server.storage.postgres.connection import Connection, ResultRow, storable
from pool_server.storage.postgres.thread import DatabaseThread

log = logging.getLogger(__name__)

PRUNED = "ledger pruned"
ERAS = "ledger days"
_PAGE = 500  # records a look
_GOOD = ("ok", "client_gone")  # as the index of the table names them

_LOG = "select id, (extract(epoch from at) * 1000000)::bigint as us, body from pool.record"

_decode_kept = msgspec.json.Decoder(Kept).decode
_decode_usage = msgspec.msgpack.Decoder(Usage).decode


class DatabaseUsage(UsageReader):
    """One snapshot, over one connection of the thread's."""

    def __init__(self, thread: DatabaseThread, connection: Connection, timezone: str) -> None:
        self._thread = thread
        self._connection = connection
        self._timezone = timezone
        self._shares: list[Share] | None = None
        self._notes: ResultRow | None = None

    def _rows(self, sql: str, *values: Any) -> Sequence[ResultRow]:
        return self._thread.run(self._connection.rows(sql, *values))

    def kept(self) -> Kept:
        return kept_in(self._noted()["kept"])

    def days(self) -> Days:
        return Days(eras_in(self._noted()["days"]) or self._timezone)

    def _noted(self) -> ResultRow:
        if self._notes is None:
            sql = "select pool.note_read_1($1) as kept, pool.note_read_1($2) as days"
            self._notes = self._rows(sql, PRUNED, ERAS)[0]
        return self._notes

    def rows(
        self,
        slices: Iterable[Slice],
        filters: Filters,
        by: tuple[Field, ...] = (),
        *,
        apart: bool = True,
        timed: bool = True,
    ) -> Iterable[RollupRow]:
        slices = list(slices)
        if not slices:
            return
        sql, values = rollup_query(slices, filters, by, apart=apart, timed=timed)
        at = 1 + len(by)
        for row in self._rows(sql, *values):
            bucket, *rest = row.values()
            spread, extra = rest[-2:]
            if apart:
                parts = [part for part in (spread, extra) if part is not None]
            else:
                parts = [*(spread or ()), *(extra or ())]
            yield bucket, tuple(rest[: at - 1]), wire(rest[at - 1 : -2], parts)
        yield from newest_rows(self._newest(), slices, filters, by)

    def _newest(self) -> list[Share]:
        if self._shares is None:
            self._shares = [share_in(row) for row in self._rows("select * from pool.delta")]
        return self._shares

    def with_months(self, slices: Iterable[Slice], days: Days) -> list[Slice]:
        return list(slices)

    def nothing_since(self, at: int) -> bool:
        known = self._rows(
            "select exists (select from pool.rollup where grain = any('{m,h,d}') and dim = '-'"
            " and bucket >= $1::bigint) or exists (select from pool.delta where minute >= $1::bigint) as known",
            at,
        )
        return not known[0]["known"]

    def records_of(self, filters: LogFilters) -> Iterator[UsageRecord]:
        after: tuple[int, str] | None = None
        while True:
            sql, values = log_query(filters, after, _PAGE)
            rows = self._rows(sql, *values)
            for row in rows:
                rec = readable(row)
                if rec is not None and matches(rec, filters):
                    yield rec
            if len(rows) < _PAGE:
                return
            after = rows[-1]["us"], rows[-1]["id"]

    def series(self) -> list[Series]:
        found = self._rows("select distinct account, scope, win from pool.sighting order by 1, 2, 3")
        return [Series(row["account"], row["scope"], row["win"]) for row in found]

    def sightings(self, series: Series, frm: float, to: float, limit: int) -> list[Sighting]:
        rows = self._rows(
            "select at, percent, resets, seconds, source from pool.sighting where account = $1 and scope = $2"
            " and win = $3 and at >= $4 and at < $5 order by at desc limit $6",
            series.account, series.scope, series.window, frm, to, limit,
        )  # fmt: skip
        return [
            Sighting(row["at"], row["percent"], row["resets"], row["seconds"], Source(row["source"]))
            for row in reversed(rows)
        ]

    def job(self, job: str) -> JobState:
        for row in self._rows("select reserved, counted from pool.job where name = $1", job):
            reserved = None if row["reserved"] is None else _decode_usage(row["reserved"])
            return JobState(row["counted"] is not None, reserved)
        return JobState(False, None)


def kept_in(raw: bytes | None) -> Kept:
    """What pruning has left, of the note it left."""
    return Kept() if raw is None else _decode_kept(raw)


def readable(row: ResultRow) -> UsageRecord | None:
    """The record, or None, and a line in the log, for one that cannot be read: it must not hide the others."""
    try:
        return unpack(row["body"])
    except ValueError as exc:
        log.warning("record %r of the ledger: %s", row["id"], exc)
        return None


def rollup_query(
    slices: Sequence[Slice], filters: Filters, by: Sequence[Field], *, apart: bool, timed: bool
) -> tuple[str, list[Any]]:
    """The rows of the slices: bucket, a column for each of `by`, the counts, and their histograms and further counts,
    which are arrays where rows of several buckets are added up. Raises ValueError as `order_of` does."""
    dimension, order = order_of(filters, tuple(by))
    values: list[Any] = [dimension.decode()]
    conditions = _conditions(filters, order, values)
    names = [f"{_name(field, order)} as n{i}" for i, field in enumerate(by)]
    spread = "spread" if timed else "null::bytea as spread"
    columns = ", ".join(["bucket", *names, *COUNTS, spread, "extra"])
    parts = []
    for part in slices:
        values += [part.grain.decode(), part.start, part.stop]
        at = len(values)
        parts.append(
            f"select {columns} from pool.rollup where dim = $1 and grain = ${at - 2} and bucket >= ${at - 1}::bigint"
            f" and bucket < ${at}::bigint{conditions}"
        )
    whole = " union all ".join(parts)
    if apart:
        return whole, values
    numbered = [f"n{i}" for i in range(len(by))]
    added = [f"sum({name})::bigint" for name in COUNTS]
    arrays = [f"array_agg({name}) filter (where {name} is not null)" for name in ("spread", "extra")]
    grouped = f" group by {', '.join(numbered)}" if numbered else " having count(*) > 0"
    head = ", ".join(["min(bucket)", *numbered, *added, *arrays])
    return f"select {head} from ({whole}) as parts{grouped}", values


def _name(field: Field, order: Sequence[Field]) -> str:
    return column(field) if field in order else "split_part(account, ':', 1)"


def _conditions(filters: Filters, order: Sequence[Field], values: list[Any]) -> str:
    found = []
    for field in ("user", "account", "model", "provider"):
        value = getattr(filters, field)
        if value is None:
            continue
        if not storable(value):
            found.append(" and false")  # what the database cannot hold is not there
        elif field in order:
            values.append(value)
            found.append(f" and {column(field)} = ${len(values)}")
        else:  # of a provider, accounts of a row
            values += [f"{value}:", f"{value};"]
            found.append(f" and account >= ${len(values) - 1} and account < ${len(values)}")
    return "".join(found)


def log_query(
    filters: LogFilters,
    after: tuple[int, str] | None,
    most: int,
    *,
    oldest_first: bool = False,
    ident: str | None = None,
) -> tuple[str, list[Any]]:
    """Records that may pass the filters, newest first, from the one on that followed `after` (microseconds, id). A row
    is the record's id, its microseconds `us`, its packed form."""
    values: list[Any] = []
    found = []

    def where(condition: str, *more: Any) -> None:
        at = len(values)
        values.extend(more)
        found.append(condition.format(*(f"${at + i + 1}" for i in range(len(more)))))

    named = {
        "usr": filters.user, "account": filters.account, "model": filters.model, "provider": filters.provider,
        "outcome": filters.outcome, "status": filters.status, "session": filters.session, "id": ident,
    }  # fmt: skip
    for name, value in named.items():
        if isinstance(value, str) and not storable(value):
            found.append("false")  # what the database cannot hold is not there
        elif value is not None:
            where(("status::bigint" if name == "status" else name) + " = {}", value)
    if filters.failed:
        found.append(f"outcome not in {_GOOD}")
    if filters.since is not None:  # the database's clock has whole microseconds: a record is compared once more
        where("at >= to_timestamp({}) - interval '1 ms'", filters.since)
    if filters.until is not None:
        where("at < to_timestamp({}) + interval '1 ms'", filters.until)
    if after is not None:
        than = ">" if oldest_first else "<"
        where(f"(at, id) {than} (timestamptz 'epoch' + {{}}::bigint * interval '1 microsecond', {{}})", *after)
    condition = f" where {' and '.join(found)}" if found else ""
    order = "at, id" if oldest_first else "at desc, id desc"
    return f"{_LOG}{condition} order by {order} limit {most}", values


assert len(COUNTS) == N
