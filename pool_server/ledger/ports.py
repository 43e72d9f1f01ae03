"""What the ledger asks of a store, in its own terms: no tables, no bytes of keys, no SQL.

Reading blocks, and is safe in any thread; where `instant`, it takes microseconds and may be done on the event loop too.
Every method raises StoreError where the store cannot be asked or written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import msgspec

from pool_server.core.models import Usage, UsageRecord
from pool_server.ledger.quota_history import Entry, Series, Sighting
from pool_server.ledger.records.days import Days
from pool_server.ledger.rollups.reader import Field, Filters, RollupRow
from pool_server.ledger.rollups.sums import GOOD
from pool_server.ledger.rollups.time_slices import Kept, Slice
from pool_server.ledger.rollups.writer import PendingRecord
from pool_server.storage import Sender


class LogFilters(msgspec.Struct, frozen=True):
    """Which exchanges; None = any. `since` <= time < `until`, unix seconds; `failed` = ended badly."""

    user: str | None = None
    account: str | None = None
    model: str | None = None
    provider: str | None = None
    outcome: str | None = None
    status: int | None = None
    session: str | None = None
    failed: bool = False
    since: float | None = None
    until: float | None = None


def matches(rec: UsageRecord, filters: LogFilters) -> bool:
    """Whether an exchange passes every filter."""
    wanted = (
        (filters.user, rec.user), (filters.account, rec.account), (filters.model, rec.model),
        (filters.provider, rec.provider), (filters.outcome, rec.outcome), (filters.status, rec.status),
        (filters.session, rec.session),
    )  # fmt: skip
    return (
        all(want is None or want == have for want, have in wanted)
        and not (filters.failed and rec.outcome in GOOD)
        and (filters.since is None or rec.at >= filters.since)
        and (filters.until is None or rec.at < filters.until)
    )


class JobState(NamedTuple):
    """`reserved` is what the limits were charged when the job was made, None when nothing was."""

    counted: bool
    reserved: Usage | None


class UsageReader(Protocol):
    """One consistent view of what was recorded."""

    def kept(self) -> Kept:
        """What pruning has left."""

    def days(self) -> Days:
        """Where days begin."""

    def rows(
        self,
        slices: Iterable[Slice],
        filters: Filters,
        by: tuple[Field, ...] = (),
        *,
        apart: bool = True,
        timed: bool = True,
    ) -> Iterable[RollupRow]:
        """Every row of the slices that passes the filters, named by the fields of `by`, the newest exchanges included.
        Not `apart`, rows of several buckets may come as one, under any of these; not `timed`, histograms may lack.
        Raises ValueError where no rows are kept by these fields."""

    def with_months(self, slices: Iterable[Slice], days: Days) -> list[Slice]:
        """The same stretch of time, its whole months read from rows of their own where there are any."""

    def nothing_since(self, at: int) -> bool:
        """Whether nothing was recorded at that time or later."""

    def records_of(self, filters: LogFilters) -> Iterator[UsageRecord]:
        """Every kept exchange that passes the filters, newest first: for what is known to be short."""

    def series(self) -> list[Series]:
        """Every quota window of every account that was ever seen."""

    def sightings(self, series: Series, frm: float, to: float, limit: int) -> list[Sighting]:
        """The sightings with frm <= time < to, oldest first; of more than `limit`, the newest."""

    def job(self, job: str) -> JobState:
        """What is known of a stored response or a batch."""


class NotesPort(Protocol):
    """Small notes of those who watch the books: what is open, who was told."""

    def get(self, place: bytes) -> bytes | None:
        """Raises StoreError."""

    async def put(self, place: bytes, raw: bytes) -> None:
        """Returns when it is kept. Raises StoreError."""


class LedgerPort(Protocol):
    """Where usage records, their sums and the history of quota windows are kept."""

    instant: bool

    def start(self) -> None:
        """Begins what is done in the background."""

    def close(self) -> None:
        """Ends that, and lets go of what was opened for it. Blocks."""

    def read(self) -> AbstractContextManager[UsageReader]:
        """A consistent view for a `with` block without an `await` in it."""

    def get(self, ident: str) -> UsageRecord | None:
        """The exchange with this id."""

    def page(
        self, limit: int, cursor: str | None, filters: LogFilters, most: int
    ) -> tuple[list[UsageRecord], str | None]:
        """Up to `limit` exchanges, newest first, and the cursor of the next page (None = there is none). It looks at no
        more than `most` of them, so that it may hold fewer and still have a next one. Raises ValueError for a foreign
        cursor."""

    def scan(self, frm: float, to: float, filters: LogFilters) -> Iterator[UsageRecord]:
        """Every kept exchange of a range that passes the filters, oldest first, read in short transactions."""

    def changes(self) -> int:
        """Another number whenever any process has recorded anything."""

    def sender(self, failed: Callable[[PendingRecord, BaseException], bool]) -> Sender[PendingRecord]:
        """Keeps records, each once by its id. `failed` says what becomes of one that could not be kept."""

    def apply(self, entries: Sequence[PendingRecord]) -> None:
        """Keep records now: what a process that died had not. Blocks."""

    def load(self, records: Sequence[UsageRecord], have: Kept) -> None:
        """Keep a part of a history; of its rollup rows only those that `have` says are kept. Blocks."""

    def watch(self, failed: Callable[[Entry, BaseException], bool]) -> Sender[Entry]:
        """Keeps sightings; those that say nothing new beside what another process wrote are left out (False)."""

    async def forget(self, now: float, retention_days: int, closing: asyncio.Event) -> None:
        """Forgets what is past its time, in steps with room for others between them, until `closing`."""

    def cut(self, now: float, retention_days: int) -> Kept:
        """Notes what will be forgotten as of now, before a history is loaded. Blocks."""

    async def sum_up(self, now: float, closing: asyncio.Event) -> None:
        """Makes sums of what has been closed since the last time, until `closing`."""
