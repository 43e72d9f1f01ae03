"""A node's records on their way into the database: a batch is a transaction, each record is kept once by its id."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from pool_server.cluster.ledger.stored_forms import share_of, shipped_form
from pool_server.core.models import Usage, UsageRecord
from pool_server.ledger.records.codec import pack
from pool_server.ledger.records.layout import Days
from pool_server.ledger.rollups.writer import RUNS, PendingRecord
from pool_server.storage import Sender, StoreError
from pool_server.storage.errors import StoreAwayError, StoreRefusedError
from pool_server.storage.postgres import ledger_calls
from pool_server.storage.postgres.connection import PROVE, Connection, DatabasePool
from pool_server.storage.postgres.ledger_calls import StoredShare
from pool_server.storage.postgres.thread import DatabaseThread

log = logging.getLogger(__name__)

T = TypeVar("T")
MOST = 500  # records of a batch
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
    """Gathers what is sent while a batch is under way; the next batch takes it, `MOST` items at once."""

    def __init__(
        self,
        thread: DatabaseThread,
        ship: Callable[[Sequence[T]], Awaitable[Sequence[bool]]],
        failed: Callable[[T, BaseException], bool],
    ) -> None:
        self._thread = thread
        self._ship = ship
        self._failed = failed
        self._jobs: deque[_Job[T]] = deque()
        self._task: asyncio.Task[None] | None = None  # the thread's

    def send(self, item: T) -> asyncio.Future[bool]:
        loop = asyncio.get_running_loop()
        job = _Job(item, loop.create_future(), loop)
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self._thread.loop.call_soon_threadsafe(self._begin)
        return job.future

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        await asyncio.sleep(0)  # what comes in the same turn goes together
        while self._jobs:
            batch = [self._jobs.popleft() for _ in range(min(MOST, len(self._jobs)))]
            try:
                await self._try(batch)
            finally:
                self._tell(batch)
        self._task = None
        if self._jobs:  # sent between the last look and now
            self._begin()

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

    def __init__(self, node: Callable[[], int], timezone: str) -> None:
        """`node`: the number of this node's present life."""
        self._node = node
        self._days = Days(timezone)
        self.turn = asyncio.Lock()
        self._known: tuple[int, int] | None = None  # node and what it has shipped; None = to be asked

    async def ship(self, pool: DatabasePool, entries: Sequence[PendingRecord]) -> list[bool]:
        """Keeps a batch. Raises StoreError, or what a record raises that cannot be packed."""
        async with self.turn, pool.connection() as connection:
            await self.keep(connection, [entry.record for entry in entries], [entry.packed() for entry in entries])
            await connection.value(PROVE)
        return [True] * len(entries)

    async def keep(
        self, connection: Connection, records: Sequence[UsageRecord], packed: Sequence[bytes], *, shared: bool = True
    ) -> list[UsageRecord]:
        """Keeps records in this `turn`; returns those that are new, as they count. Not `shared`: they are added to the
        sums otherwise."""
        node = self._node()
        if self._known is None or self._known[0] != node:
            self._known = node, await ledger_calls.shipped(connection, node)
        before = self._known[1]
        self._known = None  # until the answer is here
        async with connection.transaction():
            if shared:  # a standby that hangs must not keep the node's row locked: `ship` waits for it afterwards
                await connection.value("select set_config('synchronous_commit', 'off', true)")
            rows = []
            for rec, raw in zip(records, packed, strict=True):
                counts = not rec.job or await _claim(connection, rec)
                one = rec if counts else msgspec.structs.replace(rec, usage=Usage(), cost=None)
                rows.append((one, shipped_form(one, raw if counts else pack(one))))
            unique = {row.id: (rec, row) for rec, row in reversed(rows)}
            upto = before + max(1, len(unique))
            forms = [row for _, row in unique.values()]
            shares: list[StoredShare] = []
            if shared:
                numbered = enumerate(unique.values(), 1)
                shares = [share_of(rec, self._days, (node, upto, i)) for i, (rec, _) in numbered]
            fresh = await ledger_calls.ship(connection, node, (before, upto), forms, shares)
        self._known = node, upto
        return [rec for ident, (rec, _) in unique.items() if ident in fresh]


async def _claim(connection: Connection, rec: UsageRecord) -> bool:
    """Whether a record of a job counts its usage."""
    reserved = None if rec.reserved is None else _encode(rec.reserved)
    run = rec.operation in RUNS
    found: bool = await connection.value(
        "select pool.job_claim_1($1, $2, $3, $4, $5)", rec.job, rec.id, rec.usage.counted, run, reserved
    )
    return found
