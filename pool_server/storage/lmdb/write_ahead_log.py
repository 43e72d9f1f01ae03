"""Durable at once, in the engine a moment later.

An item counts as durable as soon as the log holds it, whether or not the engine can be written; many of them together
then go to the engine by their channel. While the log cannot take one (full, no disk space) it counts as durable when
the engine has it.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from pool_server.core.tasks import running_loop
from pool_server.storage.errors import StoreError
from pool_server.storage.lmdb.group_commit import ENOUGH
from pool_server.storage.lmdb.log_file import LogFile, leave

log = logging.getLogger(__name__)

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
Future = asyncio.Future[bool]

RETRY_S = 10.0  # a log that failed (no disk space) is left alone so long, rather than be tried by every batch
FOLLOW_S = 0.25  # how long the engine may be behind the log: its commits share the disk with the next writes to the log


class Sender(Protocol[T_contra]):
    """A stream of like items that are written many at a time, in their order; `Channel` is the engine's."""

    def send(self, item: T_contra) -> Future:
        """The future resolves on the running loop once the item is kept, or with what is said of one that was not.
        Raises StoreError when the store is closed."""


class _Batch(NamedTuple, Generic[T]):
    """What goes together; `last` is the number of its last item."""

    items: Sequence[T]
    futures: Sequence[Future]
    last: int
    loop: asyncio.AbstractEventLoop


class Leftover(NamedTuple):
    """What became of items that the engine had not taken at the end: how many wait in a log of the folder, how
    many in a file elsewhere and where that is, and how many are nowhere, and why."""

    kept: int = 0
    elsewhere: int = 0
    path: Path | None = None
    lost: int = 0
    why: str = ""


class WriteAheadLog(Generic[T]):
    """Items of one channel, whose results say whether they were kept. Use from one event loop at a time.

    `content(item)` makes what the log holds of an item; it runs in a thread. What the engine could not take is
    for the channel's `failed` to keep: the log stays as long as `owing()`, and `made_up` says when that is over.
    Where the disk has no room for a log, that of a dead process is gone on with: `adopted` is told on the loop
    what it holds, and keeps it likewise.

    `size` bytes are the log's, 0 = the usual. With `within_s` an item is said to be durable when the engine has it as
    well, or does not take it within so long.
    """

    def __init__(
        self,
        folder: Path,
        channel: Sender[T],
        content: Callable[[T], bytes],
        owing: Callable[[], bool] = lambda: False,
        adopted: Callable[[list[bytes]], None] | None = None,
        *,
        size: int = 0,
        within_s: float = 0.0,
    ) -> None:
        self._size = size
        self._within_s = within_s
        self._file: LogFile | None = None  # the thread's
        self._folder = folder
        self._channel = channel
        self._content = content
        self._owing = owing
        self._adopted = adopted
        self.unlogged = 0  # items that neither the log nor the engine has; only the channel's `failed`
        self._left: Sequence[bytes] = ()
        self._fate = Leftover()
        self._bell: queue.SimpleQueue[_Batch[T] | int | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._new: tuple[list[T], list[Future]] = ([], [])  # this turn's
        self._later: list[T] = []  # in the log, not with the engine yet
        self._timer: asyncio.TimerHandle | None = None
        self._sent = 0  # items so far, …
        self._durable = 0  # … of those, in their order, what the log has or had, …
        self._landed = 0  # … and what the engine has
        self._closed = False  # the store was: what came after is in the log alone
        self._readers: list[tuple[int, asyncio.Future[None]]] = []
        self._left_alone_until = 0.0  # monotonic seconds; the thread's

    def start(self) -> None:
        """Make the log now, before there is anything to write: the disk may be full when there is."""
        self._begin()
        self._bell.put(_Batch([], [], self._sent, running_loop()))

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="store-log", daemon=True)
            self._thread.start()

    def send(self, item: T, *, alone: bool = False) -> Future:
        """The future resolves when the item is durable; False: only the channel's `failed` has it. `alone`: nobody else
        is served now whose item could go with it."""
        loop = running_loop()
        self._begin()
        future: Future = loop.create_future()
        items, futures = self._new
        items.append(item)
        futures.append(future)
        self._sent += 1
        if len(items) > 1:
            return future
        if alone:
            self._ring(loop, 1)
        else:
            loop.call_soon(self._ring, loop, 0)
        return future

    def _ring(self, loop: asyncio.AbstractEventLoop, before: int) -> None:
        """Hands over what has come, or sees first what the loop's next turn brings when this one brought more than
        `before`: a busy loop gathers company, an idle one loses no time."""
        waiting = len(self._new[0])
        if before < waiting < ENOUGH:
            loop.call_soon(self._ring, loop, waiting)
            return
        (items, futures), self._new = self._new, ([], [])
        self._bell.put(_Batch(items, futures, self._sent, loop))

    async def settled(self) -> None:
        """Returns when the engine has all that was sent before: whoever reads then finds it."""
        if self._landed < self._sent:
            reader = running_loop().create_future()
            self._readers.append((self._sent, reader))
            self._hand_over()
            await reader

    def contents(self) -> list[bytes]:
        """What the log holds now. Blocks; raises OSError."""
        return [] if self._file is None else self._file.contents

    def made_up(self) -> None:
        """What the engine could not take was written by other ways."""
        self.unlogged = 0
        self._bell.put(self._landed)

    async def close(self, owed: Callable[[], Sequence[bytes]] = tuple) -> Leftover:
        """Brings everything to the engine. What it does not take (`owed()` tells it, once all was tried) is found by
        whoever opens the folder next: in the log, else wherever it could be written."""
        await self.settled()
        self._left = owed()
        thread, self._thread = self._thread, None
        if thread is not None:
            self._bell.put(None)
            await asyncio.to_thread(thread.join)
        return self._fate

    # -- in the thread

    def _run(self) -> None:
        """Of what the bell brings, a batch is to be logged, a number says how many items have landed, None is the
        end. What came while the disk was busy goes together next. A log that never gets the time to begin anew
        is full one day: then what comes next waits for the engine, and it begins anew."""
        file: LogFile | None = None
        last = 0  # the number of the last item in the log
        over = False
        while not over:
            work = [self._bell.get()]
            while not self._bell.empty():
                work.append(self._bell.get_nowait())
            over = None in work
            if file is not None and any(isinstance(one, int) and one >= last for one in work):
                file.begin_anew()
            batches = [one for one in work if isinstance(one, _Batch)]
            if batches:
                file, kept = self._append(file, batches)
                last = batches[-1].last if kept else last
                for batch in batches:
                    self._tell(batch, kept)
        self._fate = self._leave(file)
        if file is not None:
            file.close(keep=self._closed or self._owing() or self._landed < last)

    def _leave(self, file: LogFile | None) -> Leftover:
        """Find a place for what is owed at the end and not in the log."""
        contents = list(self._left)
        try:
            there = set(file.contents) if file is not None and contents else set()
        except OSError:  # somebody took it away
            there = set()
        bare = [content for content in contents if content not in there]
        kept = len(contents) - len(bare)
        if not bare:
            return Leftover(kept)
        try:
            path = leave(self._folder, bare)
        except OSError as exc:
            return Leftover(kept, lost=len(bare), why=exc.strerror or str(exc))
        if path.parent == self._folder:
            return Leftover(len(contents))
        return Leftover(kept, len(bare), path)

    def _append(self, file: LogFile | None, batches: Sequence[_Batch[T]]) -> tuple[LogFile | None, bool]:
        """The log, made when it is needed first, and whether it has what the batches bring now."""
        if time.monotonic() < self._left_alone_until:
            return file, False
        try:
            contents = [self._content(item) for batch in batches for item in batch.items]
        except Exception:  # one that cannot be written: the engine tells which
            return file, False
        try:
            file = file or self._make(batches[0].loop)
            return file, file.append(contents)
        except OSError as exc:
            log.warning("the write-ahead log takes nothing for %.0f s, its store does: %s", RETRY_S, exc.strerror)
            self._left_alone_until = time.monotonic() + RETRY_S
            return file, False

    def _make(self, loop: asyncio.AbstractEventLoop) -> LogFile:
        try:
            self._file = LogFile(self._folder, size=self._size)
            return self._file
        except OSError:
            found = LogFile.adopt(self._folder) if self._adopted is not None else None
            if found is None or self._adopted is None:
                raise
            file, contents = found
            loop.call_soon_threadsafe(self._adopted, contents)  # before any batch is said to be kept
            self._file = file
            return file

    def _tell(self, batch: _Batch[T], kept: bool) -> None:
        try:
            batch.loop.call_soon_threadsafe(self._follow if kept else self._instead, batch)
        except RuntimeError:
            pass  # the loop was closed: the log has it, and nobody waits

    # -- on the loop

    def _follow(self, batch: _Batch[T]) -> None:
        """The log has a batch: it is durable, and the engine follows soon."""
        if self._within_s and not self._owing():
            self._follow_at_once(batch)
            return
        for future in batch.futures:
            if not future.done():
                future.set_result(True)
        self._later += batch.items
        self._durable = batch.last
        if self._readers:
            self._hand_over()
        elif self._timer is None:
            self._timer = batch.loop.call_later(FOLLOW_S, self._hand_over)

    def _follow_at_once(self, batch: _Batch[T]) -> None:
        """Nobody is told before the engine has it, or has had its time."""
        self._hand_over()
        self._durable = batch.last
        for kept, future in zip(self._to_engine(batch.items), batch.futures, strict=False):
            kept.add_done_callback(partial(_say_kept, future))
        batch.loop.call_later(self._within_s, self._say_all_kept, batch.futures)

    def _say_all_kept(self, futures: Sequence[Future]) -> None:
        for future in futures:
            _say_kept(future)

    def _instead(self, batch: _Batch[T]) -> None:
        """The log could not take a batch: it is durable when the engine has it."""
        self._hand_over()
        self._durable = batch.last
        tried = self._to_engine(batch.items)
        for kept, future in zip(tried, batch.futures, strict=False):
            kept.add_done_callback(partial(self._pass_on, future))
        for future in batch.futures[len(tried) :]:  # the store is closed
            if not future.done():
                future.set_result(False)

    def _pass_on(self, future: Future, kept: Future) -> None:
        self.unlogged += not kept.result()
        if not future.done():
            future.set_result(kept.result())

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        items, self._later = self._later, []
        if items:
            self._to_engine(items)

    def _to_engine(self, items: Sequence[T]) -> list[Future]:
        last = self._durable
        if not items:
            return []
        try:
            futures = [self._channel.send(item) for item in items]
        except StoreError:  # closed already
            self._closed = True
            self._arrived(last)
            return []
        futures[-1].add_done_callback(lambda _: self._arrived(last))  # they are committed in their order
        return futures

    def _arrived(self, last: int) -> None:
        """The engine has all items up to `last`, or `failed` does."""
        self._landed = last
        if not self._closed and not self._owing():
            self._bell.put(last)
        waiting, self._readers = self._readers, []
        for wanted, reader in waiting:
            if wanted > last:
                self._readers.append((wanted, reader))
            elif not reader.done():
                reader.set_result(None)


def _say_kept(future: Future, _: Future | None = None) -> None:
    if not future.done():
        future.set_result(True)
