"""Connections that serve who blocks: their event loop runs in a thread of its own, so that what waits for the database,
or reads much of it, keeps no other loop waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import warnings
from collections.abc import Coroutine
from typing import Any, TypeVar

from pool_server.storage.errors import StoreError
from pool_server.storage.postgres.connection import DatabasePool
from pool_server.storage.postgres.url import DatabaseUrl

T = TypeVar("T")


class BlockedLoopWarning(RuntimeWarning):
    """What should have been asked in a thread was asked on an event loop."""


class DatabaseThread:
    """Starts with the first work and ends with `close`. Use from any other thread, event loops' too."""

    def __init__(self, url: DatabaseUrl, most: int) -> None:
        """`most` connections at once."""
        self.pool = DatabasePool(url, most)
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Its event loop. Raises StoreError when it is closed."""
        with self._starting:
            if self._closed:
                raise StoreError("the connections to the database are closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="database", daemon=True)
                self._thread.start()
            return self._loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result. Blocks, and warns where that keeps an event loop waiting; raises what it raises."""
        if asyncio._get_running_loop() is not None:
            warnings.warn("an event loop waits for the database", BlockedLoopWarning, stacklevel=3)
        return asyncio.run_coroutine_threadsafe(work, self._open_for(work)).result()

    async def ask(self, work: Coroutine[Any, Any, T]) -> T:
        """The same, without keeping the caller's loop waiting."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._open_for(work)))

    def _open_for(self, work: Coroutine[Any, Any, T]) -> asyncio.AbstractEventLoop:
        try:
            return self.loop
        except StoreError:
            work.close()
            raise

    def close(self) -> None:
        """Ends connections, loop and thread; what runs there is cancelled."""
        with self._starting:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        with contextlib.suppress(RuntimeError):
            asyncio.run_coroutine_threadsafe(self._end(), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.pool.close()
        await asyncio.sleep(0)  # the transports that were ended say so
