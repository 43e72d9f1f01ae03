"""An event loop in a thread of its own: what a test calls from outside runs there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from aiohttp import web

T = TypeVar("T")


class LoopThread:
    """Started once, stopped once; `call` runs a coroutine on the loop and returns what it returns."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def call(self, what: Coroutine[Any, Any, T], *, within_s: float = 30) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(within_s)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class LoopbackApp:
    """An aiohttp server on a free port of loopback that hands every request to `take`."""

    origin: str

    def __init__(self, take: Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]) -> None:
        self._take = take

    async def start(self) -> str:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{rest:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.origin = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self.origin

    async def close(self) -> None:
        await self._runner.cleanup()
