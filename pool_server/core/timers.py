"""One task that does things when they are due: refreshes, polls. Never more than a few at once, never twice at
a time."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

LONGEST_NAP_S = 60.0  # the clock may jump; look again at least so often


class Timers:
    """Runs `act(key)` when its time has come. Times are those of `clock` (unix seconds).

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
