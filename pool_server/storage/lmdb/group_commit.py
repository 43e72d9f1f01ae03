"""Group commit: one thread writes what many callers ask for, one transaction and one fsync for all of them.

Jobs are handed over after the first turn of the event loop that brings no more of them, so that a busy loop gathers
company and an idle one loses no time. What comes while the disk is busy goes together next.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import lmdb

from pool_server.core.tasks import running_loop
from pool_server.storage.errors import StoreError
from pool_server.storage.lmdb.engine import Engine
from pool_server.storage.lmdb.transaction import Txn

T = TypeVar("T")
R = TypeVar("R")

ENOUGH = 16  # company for which a commit waits no longer: its own cost is spread thin
MAX_BATCH = 4096


class Channel(Generic[T, R]):
    """A stream of like items, applied a batch at a time.

    `apply(txn, items)` returns one result an item and may run again with the same items (or one item alone) when a
    transaction had to be given up.
    """

    def __init__(
        self,
        committer: Committer,
        apply: Callable[[Txn, Sequence[T]], Sequence[R]],
        failed: Callable[[T, BaseException], R] | None = None,
    ) -> None:
        self._committer = committer
        self.apply = apply
        self.failed = failed

    def send(self, item: T) -> asyncio.Future[R]:
        """Queue an item; the future resolves on the running loop once the item is committed (and, in a durable
        store, on the disk), or holds what `apply` or the store raised for it."""
        loop = running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._committer.put(_Job(self, item, future, loop))
        return future


class _Job:
    __slots__ = ("channel", "error", "future", "item", "loop", "result")

    def __init__(
        self, channel: Channel[Any, Any], item: Any, future: asyncio.Future[Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.channel = channel
        self.item = item
        self.future = future
        self.loop = loop
        self.result: Any = None
        self.error: BaseException | None = None


class Committer:
    """Owns the writer thread of one engine; the thread starts with the first job."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs: deque[_Job] = deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()  # rung when there is work
        self._waker: asyncio.AbstractEventLoop | None = None  # the loop that rings next, or rang last
        self._thread: threading.Thread | None = None
        self._closed = False
        self.batches = 0

    def put(self, job: _Job) -> None:
        """Queue a job and see to it that a loop rings for it."""
        if self._closed:
            raise StoreError(f"the store in {self._engine.folder} is closed")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="store-committer", daemon=True)
            self._thread.start()
        self._jobs.append(job)
        if len(self._jobs) == 1 or self._waker is not job.loop:  # looked at after appending: none is left behind
            self._waker = job.loop
            job.loop.call_soon(self._ring, job.loop, 0)

    def _ring(self, loop: asyncio.AbstractEventLoop, before: int) -> None:
        """Wake the thread, or see first what the loop's next turn brings when this one brought more than `before`."""
        waiting = len(self._jobs)
        if before < waiting < ENOUGH:
            loop.call_soon(self._ring, loop, waiting)
        elif waiting:
            self._bell.put(None)

    def close(self) -> None:
        """Commit what is queued and end the thread."""
        self._closed = True
        if self._thread is not None:
            self._bell.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._closed:
            self._bell.get()
            self._commit(self._take())
        while self._jobs:
            self._commit(self._take())

    def _take(self) -> list[_Job]:
        """Whatever waits, also what was added meanwhile: nobody rings for a job that found others waiting."""
        batch: list[_Job] = []
        while self._jobs:
            if len(batch) == MAX_BATCH:
                self._bell.put(None)
                break
            batch.append(self._jobs.popleft())
        return batch

    def _commit(self, batch: list[_Job]) -> None:
        if not batch:
            return
        self.batches += 1
        channels: dict[Channel[Any, Any], list[_Job]] = {}
        for job in batch:
            channels.setdefault(job.channel, []).append(job)
        try:
            self._engine.write(lambda txn, _: _together(txn, channels))
        except StoreError as exc:
            for job in batch:
                job.error = exc
        except Exception:
            # Some item is bad. Everything again, each in a nested transaction, so that only the bad ones fail.
            self._commit_apart(batch, channels)
        _deliver(batch)

    def _commit_apart(self, batch: list[_Job], channels: dict[Channel[Any, Any], list[_Job]]) -> None:
        try:
            self._engine.write(lambda _, child: _apart(batch, child))
        except Exception as exc:
            for job in batch:
                job.error = exc


def _together(txn: Txn, channels: dict[Channel[Any, Any], list[_Job]]) -> None:
    for channel, jobs in channels.items():
        results = channel.apply(txn, [job.item for job in jobs])
        for job, result in zip(jobs, results, strict=True):
            job.result = result


def _apart(batch: list[_Job], child: Callable[[], Txn]) -> None:
    for job in batch:
        txn = child()
        try:
            (job.result,) = job.channel.apply(txn, [job.item])
            job.error = None
            txn.commit()
        except Exception as exc:
            txn.abort()
            if isinstance(exc, lmdb.Error):
                raise  # the map is full or the disk is: not this item's fault
            job.error = exc


def _deliver(batch: list[_Job]) -> None:
    """Resolve the futures of a batch with one wake-up a loop."""
    loops: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in batch:
        loops.setdefault(job.loop, []).append(job)
    for loop, jobs in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, jobs)
        except RuntimeError:
            pass  # the loop was closed: nobody is waiting any more


def _resolve(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.done() and (job.error is None or job.channel.failed is None):
            continue  # the waiter was cancelled
        if job.error is None:
            job.future.set_result(job.result)
        elif job.channel.failed is not None:
            result = job.channel.failed(job.item, job.error)
            if not job.future.done():
                job.future.set_result(result)
        else:
            job.future.set_exception(job.error)
