"""`LedgerPort` over the embedded store: several processes of one machine may share it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from pool_server.core.models import UsageRecord
from pool_server.core.tasks import wait_at_most
from pool_server.ledger import quota_history, retention
from pool_server.ledger.embedded import stored_log
from pool_server.ledger.ports import JobState, LedgerPort, LogFilters, NotesPort, UsageReader
from pool_server.ledger.quota_history import Entry, Series, Sighting
from pool_server.ledger.records import layout
from pool_server.ledger.records.days import Days
from pool_server.ledger.records.layout import GRAINS, POOL, RECENT, ROLLUPS, seconds_key, time_key
from pool_server.ledger.rollups import months, pending, reader, time_slices
from pool_server.ledger.rollups.pending import Share
from pool_server.ledger.rollups.reader import Field, Filters, RollupRow
from pool_server.ledger.rollups.time_slices import Kept, Slice
from pool_server.ledger.rollups.writer import PendingRecord, RollupWriter
from pool_server.storage import Reader, Sender, Store, Txn

PRUNE_PAUSE_S = 0.02


class EmbeddedUsage(UsageReader):
    """What one transaction of the store sees."""

    def __init__(self, txn: Reader, timezone: str) -> None:
        self._txn = txn
        self._timezone = timezone
        self._newest: list[Share] | None = None

    def kept(self) -> Kept:
        return time_slices.kept(self._txn)

    def days(self) -> Days:
        return time_slices.days_kept(self._txn, self._timezone)

    def rows(
        self,
        slices: Iterable[Slice],
        filters: Filters,
        by: tuple[Field, ...] = (),
        *,
        apart: bool = True,
        timed: bool = True,
    ) -> Iterable[RollupRow]:
        if self._newest is None:
            self._newest = pending.shares(self._txn)
        return reader.rows(self._txn, slices, filters, by, self._newest)

    def with_months(self, slices: Iterable[Slice], days: Days) -> list[Slice]:
        return months.with_months(self._txn, slices, days)

    def nothing_since(self, at: int) -> bool:
        for grain in GRAINS:
            head = grain + POOL
            if next(self._txn.scan(ROLLUPS, head + seconds_key(at), head + b"\xff", limit=1), None) is not None:
                return False
        return next(self._txn.scan(RECENT, time_key(at), limit=1), None) is None

    def records_of(self, filters: LogFilters) -> Iterator[UsageRecord]:
        return stored_log.records_of(self._txn, filters)

    def series(self) -> list[Series]:
        return quota_history.all_series(self._txn)

    def sightings(self, series: Series, frm: float, to: float, limit: int) -> list[Sighting]:
        return quota_history.history(self._txn, series, frm, to, limit=limit)

    def job(self, job: str) -> JobState:
        counted = self._txn.get(layout.RECORD_IDS, layout.counted_key(job)) is not None
        made = self._txn.get(layout.RECORD_IDS, layout.made_key(job))
        raw = None if made is None else self._txn.get(layout.RECORDS, made)
        record = None if made is None or raw is None else stored_log.readable(made, raw)
        return JobState(counted, None if record is None else record.reserved)


class EmbeddedLedger(LedgerPort):
    """One store's."""

    instant = True

    def __init__(self, store: Store, timezone: str) -> None:
        self._store = store
        self._timezone = timezone
        self._writer = RollupWriter(timezone)

    def start(self) -> None:
        """Nothing is done in the background."""

    def close(self) -> None:
        """The store belongs to whoever opened it."""

    @contextmanager
    def read(self) -> Iterator[UsageReader]:
        with self._store.read() as txn:
            yield EmbeddedUsage(txn, self._timezone)

    def get(self, ident: str) -> UsageRecord | None:
        with self._store.read() as txn:
            return stored_log.get(txn, ident)

    def page(
        self, limit: int, cursor: str | None, filters: LogFilters, most: int
    ) -> tuple[list[UsageRecord], str | None]:
        with self._store.read() as txn:
            return stored_log.page(txn, limit, cursor, filters, most)

    def scan(self, frm: float, to: float, filters: LogFilters) -> Iterator[UsageRecord]:
        return stored_log.scan(self._store, frm, to, filters)

    def changes(self) -> int:
        with self._store.read() as txn:
            return txn.id

    def sender(self, failed: Callable[[PendingRecord, BaseException], bool]) -> Sender[PendingRecord]:
        return self._store.channel(self._writer.apply, failed=failed)

    def apply(self, entries: Sequence[PendingRecord]) -> None:
        self._store.write(lambda txn: self._writer.apply(txn, entries))

    def load(self, records: Sequence[UsageRecord], have: Kept) -> None:
        self._store.write(lambda txn: self._writer.load(txn, records, have))

    def watch(self, failed: Callable[[Entry, BaseException], bool]) -> Sender[Entry]:
        return self._store.channel(quota_history.write, failed=failed)

    def cut(self, now: float, retention_days: int) -> Kept:
        cut = self._store.write(lambda txn: self._cut(txn, now, retention_days))
        return Kept(minutes=cut.minutes, hours=cut.hours)

    async def forget(self, now: float, retention_days: int, closing: asyncio.Event) -> None:
        cut = await self._store.submit(lambda txn: self._cut(txn, now, retention_days))
        await self._in_steps(lambda txn: retention.step(txn, cut), closing)
        await self._in_steps(lambda txn: retention.quota(txn, cut.records), closing)

    def _cut(self, txn: Txn, now: float, retention_days: int) -> retention.Cut:
        return retention.begin(txn, now, retention_days, self._writer.kept_days(txn))

    async def _in_steps(self, step: Callable[[Txn], bool], closing: asyncio.Event) -> None:
        """Repeat a transaction while it says that there is more, until the end of the ledger."""
        while await self._store.submit(step):
            if closing.is_set():
                return
            await wait_at_most(closing, PRUNE_PAUSE_S)

    async def sum_up(self, now: float, closing: asyncio.Event) -> None:
        """Makes the rows of closed months that have none or have grown since, each in a transaction of milliseconds
        after its days were added up in a thread."""
        with self._store.read() as txn:
            found = months.stale(txn, now, time_slices.days_kept(txn, self._timezone))
        for month in found:
            if closing.is_set():
                return
            made = await asyncio.to_thread(self._summed, month)
            await self._store.submit(partial(months.keep, month=month, made=made))
            await wait_at_most(closing, PRUNE_PAUSE_S)

    def _summed(self, month: months.Month) -> months.MonthRows:
        with self._store.read() as txn:
            return months.summed(txn, month)


class EmbeddedNotes(NotesPort):
    """Notes in this machine's store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, place: bytes) -> bytes | None:
        return self._store.get(layout.NOTES, place)

    async def put(self, place: bytes, raw: bytes) -> None:
        await self._store.submit(lambda txn: txn.put(layout.NOTES, place, raw))
