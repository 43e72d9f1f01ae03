"""Work of the event loop and behind it: the loop that runs, what a part of the server does every so often, and what is
done when its time has come."""

from __future__ import annotations

import asyncio
import heapq
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

LONGEST_NAP_S = 60.0  # the clock may jump; look again at least so often

Call = Callable[[], Awaitable[object] | object]
Seconds = float | Callable[[], float]  # between the end of a call and the next one; asked anew each time


class _Here(threading.local):
    loop: asyncio.AbstractEventLoop | None = None  # what ran in this thread when it was last asked for


_here = _Here()


def _remembered_loop() -> asyncio.AbstractEventLoop:
    loop = _here.loop
    if loop is None or not loop.is_running():
        _here.loop = None
        _here.loop = loop = asyncio.get_running_loop()
    return loop


def _forget() -> None:
    _here.loop = None  # a forked process runs no loop, though its parent's looks as if it ran


if sys.version_info >= (3, 12):
    running_loop = asyncio.get_running_loop
else:
    # Up to 3.11 CPython asks the kernel for the process id each time, a dozen times a request. A loop belongs to one
    # thread for its life here, so that one that has run in this thread and runs now runs here.
    running_loop = _remembered_loop
    os.register_at_fork(after_in_child=_forget)


class PeriodicTasks:
    """The periodic work of one part, each in a task of its own under one TaskGroup, from `start` to `close`.

    A call that fails is told to the log and made again when it is due. `close` waits for calls under way.
    """

    def __init__(self) -> None:
        self._loops: list[tuple[Seconds, Call, str, bool]] = []
        self._closing = asyncio.Event()
        self._all: asyncio.Task[None] | None = None

    def every(self, seconds: Seconds, call: Call, what: str, *, at_once: bool = False) -> None:
        """Make `call` every so often from `start` on, the first time after `seconds` or `at_once`. `what` names it in
        the log."""
        self._loops.append((seconds, call, what, at_once))

    def start(self) -> None:
        """Begin, on the running loop."""
        self._all = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """End; returns when the calls under way have ended."""
        self._closing.set()
        if self._all is not None:
            await self._all

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for loop in self._loops:
                group.create_task(self._repeat(*loop))

    async def _repeat(self, seconds: Seconds, call: Call, what: str, at_once: bool) -> None:
        if at_once:
            await _called(call, what)
        while True:
            await wait_at_most(self._closing, seconds() if callable(seconds) else seconds)
            if self._closing.is_set():
                return
            await _called(call, what)


async def _called(call: Call, what: str) -> None:
    try:
        done = call()
        if isinstance(done, Awaitable):
            await done
    except Exception:
        log.exception("%s failed", what)


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Returns when the event is set, or after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


class Timers:
    """One task that runs `act(key)` when its time has come, a few at once, no key twice at a time. Times are
    those of `clock` (unix seconds).

    `act` returns when it wants to be run again, None for never; what it raises is logged and tried again in five
    minutes. `setting` a key replaces its time; while it runs, the time it returns wins.
    """

    def __init__(
        self, act: Callable[[str], Awaitable[float | None]], *, clock: Callable[[], float], at_once: int
    ) -> None:
        self._act = act
        self._clock = clock
        self._heap: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._slots = at_once
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def set(self, key: str, at: float | None) -> None:
        """Run `key` at `at`; None takes it off the list."""
        if at is None:
            self._due.pop(key, None)
        elif self._due.get(key) != at:
            self._due[key] = at
            heapq.heappush(self._heap, (at, key))
            self._wake.set()

    def due(self, key: str) -> float | None:
        """When `key` is due next."""
        return self._due.get(key)

    def running(self, key: str) -> bool:
        return key in self._running

    def start(self) -> None:
        self._task = asyncio.create_task(self._loop())

    async def close(self) -> None:
        """Stop, and stop what is running."""
        tasks = [*self._running.values()]
        if self._task is not None:
            tasks.append(self._task)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._task = None

    async def _loop(self) -> None:
        while True:
            self._wake.clear()
            nap = self.run_due()
            alarm = asyncio.get_running_loop().call_later(nap, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                alarm.cancel()

    def run_due(self) -> float:
        """Start what is due as far as slots allow; returns the seconds until the next look."""
        now = self._clock()
        while self._heap:
            at, key = self._heap[0]
            if self._due.get(key) != at or key in self._running:
                heapq.heappop(self._heap)
                continue
            if at > now or len(self._running) >= self._slots:
                break
            heapq.heappop(self._heap)
            del self._due[key]
            self._running[key] = asyncio.create_task(self._run(key))
        if not self._heap or len(self._running) >= self._slots:
            return LONGEST_NAP_S
        return min(LONGEST_NAP_S, max(0.01, self._heap[0][0] - now))

    async def _run(self, key: str) -> None:
        again: float | None = self._clock() + 300.0
        try:
            again = await self._act(key)
        except Exception:
            log.exception("%s: a timed task failed", key)
        finally:
            del self._running[key]
            self.set(key, again)
            self._wake.set()


def beside_the_loop(work: Callable[..., object], *args: object) -> None:
    """Runs in a thread what takes the kernel long (unmapping, freeing tens of megabytes); at once where no event loop
    runs."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        work(*args)
    else:
        loop.run_in_executor(None, work, *args)
