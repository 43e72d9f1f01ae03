"""A node's records on their way into the database: a batch is a transaction, each record is kept once by its id."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from pool_server.cluster.ledger.database_usage import ERAS
from pool_server.cluster.ledger.stored_forms import ident_of, shipped_form
from pool_server.core.models import Usage, UsageRecord
from pool_server.ledger.records.codec import pack
from pool_server.ledger.records.days import NOTICE_S, Days, Era, changed, eras_in, eras_note
from pool_server.ledger.rollups.writer import RUNS, PendingRecord
from pool_server.storage import Sender, StoreError
from pool_server.storage.errors import StoreAwayError, StoreRefusedError
from pool_server.storage.postgres import ledger_calls
from pool_server.storage.postgres.connection import PROVE, Connection, DatabasePool
from pool_server.storage.postgres.ledger_calls import ShippedRecord
from pool_server.storage.postgres.thread import DatabaseThread

log = logging.getLogger(__name__)

T = TypeVar("T")
Shipped = tuple[UsageRecord, ShippedRecord]
Batch = dict[str, Shipped]
MOST = 500  # records of a batch
_NEWEST = "select extract(epoch from max(at))::float8 from pool.record"
_VALUES = ("22", "23")  # classes of SQLSTATE: data, constraints

_encode = msgspec.msgpack.Encoder().encode


class _Job(Generic[T]):
    __slots__ = ("future", "item", "loop", "result")

    def __init__(self, item: T, future: asyncio.Future[bool], loop: asyncio.AbstractEventLoop) -> None:
        self.item = item
        self.future = future
        self.loop = loop
        self.result: bool | BaseException = False


class BatchSender(Sender[T]):
    """Gathers what is sent while batches are under way; the next one takes it, `MOST` items at once. `at_once`: so many
    batches, so that one is prepared while another waits for the database."""

    def __init__(
        self,
        thread: DatabaseThread,
        ship: Callable[[Sequence[T]], Awaitable[Sequence[bool]]],
        failed: Callable[[T, BaseException], bool],
        at_once: int = 1,
    ) -> None:
        self._thread = thread
        self._ship = ship
        self._failed = failed
        self._jobs: deque[_Job[T]] = deque()
        self._at_once = at_once
        self._tasks: set[asyncio.Task[None]] = set()  # the thread's

    def send(self, item: T) -> asyncio.Future[bool]:
        loop = asyncio.get_running_loop()
        job = _Job(item, loop.create_future(), loop)
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self._thread.loop.call_soon_threadsafe(self._begin)
        return job.future

    def _begin(self) -> None:
        if len(self._tasks) < self._at_once:
            task = asyncio.get_running_loop().create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._jobs and not task.cancelled():  # sent between the last look and now
            self._begin()

    async def _run(self) -> None:
        await asyncio.sleep(0)  # what comes in the same turn goes together
        while self._jobs:
            batch = [self._jobs.popleft() for _ in range(min(MOST, len(self._jobs)))]
            if self._jobs:
                self._begin()
            try:
                await self._try(batch)
            finally:
                self._tell(batch)

    async def _try(self, batch: Sequence[_Job[T]]) -> None:
        for job in batch:
            job.result = StoreAwayError("the database was not asked any more")
        try:
            for job, result in zip(batch, await self._ship([job.item for job in batch]), strict=True):
                job.result = result
        except Exception as exc:
            if isinstance(exc, StoreError) and not _of_an_item(exc):
                for job in batch:
                    job.result = exc
            elif len(batch) == 1:
                batch[0].result = ValueError(str(exc)) if isinstance(exc, StoreError) else exc
            else:
                for job in batch:  # some item is bad: each alone, so that only the bad ones fail
                    await self._try([job])

    def _tell(self, batch: Sequence[_Job[T]]) -> None:
        loops: dict[asyncio.AbstractEventLoop, list[_Job[T]]] = {}
        for job in batch:
            loops.setdefault(job.loop, []).append(job)
        for loop, jobs in loops.items():
            try:
                loop.call_soon_threadsafe(self._resolve, jobs)
            except RuntimeError:
                pass  # the loop was closed: nobody is waiting any more

    def _resolve(self, jobs: Sequence[_Job[T]]) -> None:
        for job in jobs:
            result = job.result
            told = self._failed(job.item, result) if isinstance(result, BaseException) else result
            if not job.future.done():
                job.future.set_result(told)


def _of_an_item(exc: StoreError) -> bool:
    """Whether the database refused a value, rather than cannot be written."""
    return isinstance(exc, StoreRefusedError) and exc.state.startswith(_VALUES)


class Shipping:
    """One node's. Use from the thread's loop; batches follow each other."""

    def __init__(self, node: Callable[[], int], timezone: str, clock: Callable[[], float] = time.time) -> None:
        """`node`: the number of this node's present life. `timezone`: where days are to begin; those that have begun
        elsewhere stay."""
        self._node = node
        self._timezone = timezone
        self._days: Days | None = None
        self._clock = clock
        self._heard = 0.0  # when the database was asked last where days begin
        self.turn = asyncio.Lock()
        self._known: tuple[int, int] | None = None  # node and what it has shipped; None = to be asked

    async def ship(self, pool: DatabasePool, entries: Sequence[PendingRecord]) -> list[bool]:
        """Keeps a batch. Raises StoreError, or what a record raises that cannot be packed."""
        records, packed = [entry.record for entry in entries], [entry.packed() for entry in entries]
        async with pool.connection() as connection:
            batch = self.prepared(records, packed, await self.days(connection, records))
            async with self.turn:
                await self.keep(connection, batch)
            # A standby that hangs must not keep the node's row locked, nor the next batch waiting.
            await connection.value(PROVE)
        return [True] * len(entries)

    async def days(self, connection: Connection, records: Sequence[UsageRecord]) -> Days:
        """Where days begin, which is to add `records`. Notes a time zone that was set, once: another node may have
        another. Every node asks again within the notice that a change is given. Raises StoreError."""
        now = self._clock()
        if self._days is not None and 0 <= now - self._heard < NOTICE_S / 2:
            return self._days
        eras = await _eras(connection)
        if not eras or (self._days is None and eras[-1].timezone != self._timezone):
            async with connection.transaction():
                await connection.value("select pool.fold_begin_1()")
                newest = max(now, *(rec.at for rec in records), float(await connection.value(_NEWEST) or 0))
                eras = changed(await _eras(connection), self._timezone, newest)
                await connection.value("select pool.note_put_1($1, $2)", ERAS, eras_note(eras))
        self._days, self._heard = Days(eras), now
        return self._days

    def prepared(self, records: Sequence[UsageRecord], packed: Sequence[bytes], days: Days | None) -> Batch:
        """Records with their forms by the ids under which they are kept, the first of each. `days` None: what they add
        to the sums is added otherwise."""
        batch: Batch = {}
        for rec, raw in zip(records, packed, strict=True):
            batch.setdefault(ident_of(rec), (rec, shipped_form(rec, raw, days)))
        return batch

    async def keep(self, connection: Connection, batch: Batch) -> list[UsageRecord]:
        """Keeps records in this `turn`; returns those that are new, as they count."""
        node = self._node()
        if self._known is None or self._known[0] != node:
            self._known = node, await ledger_calls.shipped(connection, node)
        span = self._known[1], self._known[1] + max(1, len(batch))
        self._known = None  # until the answer is here
        jobs = [ident for ident, (rec, _) in batch.items() if rec.job]
        async with connection.transaction() if jobs else contextlib.nullcontext():
            if jobs:
                await connection.value("select set_config('synchronous_commit', 'off', true)")
            for ident in jobs:
                batch[ident] = await self._counted(connection, *batch[ident])
            fresh = await ledger_calls.ship(connection, node, span, [form for _, form in batch.values()])
        self._known = node, span[1]
        return [rec for ident, (rec, _) in batch.items() if ident in fresh]

    async def _counted(self, connection: Connection, rec: UsageRecord, form: ShippedRecord) -> Shipped:
        """A record of a job and its form as they count."""
        if await _claim(connection, rec):
            return rec, form
        one = msgspec.structs.replace(rec, usage=Usage(), cost=None)
        return one, shipped_form(one, pack(one), None if form.sums is None else self._days)


async def _eras(connection: Connection) -> list[Era]:
    return eras_in(await connection.value("select pool.note_read_1($1)", ERAS))


async def _claim(connection: Connection, rec: UsageRecord) -> bool:
    """Whether a record of a job counts its usage."""
    reserved = None if rec.reserved is None else _encode(rec.reserved)
    run = rec.operation in RUNS
    found: bool = await connection.value(
        "select pool.job_claim_1($1, $2, $3, $4, $5)", rec.job, rec.id, rec.usage.counted, run, reserved
    )
    return found
