"""Listens, and looks after the connections of clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence

from pool_server.http1.request import Request
from pool_server.http1.server import RequestHandler, Response, ServerConnection

_SWEEP_S = 15.0
_FLUSH_S = 2.0  # for what was written to reach its client when the front closes


class HttpServer:
    """`serve(request, response)` gives each request its taker, as soon as its head is here."""

    def __init__(self, serve: Callable[[Request, Response], RequestHandler]) -> None:
        self.serve = serve
        self.stopping = False
        self.connections: set[ServerConnection] = set()
        self._empty = asyncio.Event()  # no connection is left
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Serves on bound, listening sockets."""
        loop = asyncio.get_running_loop()
        for bound in sockets:
            self._servers.append(await loop.create_server(lambda: ServerConnection(self), sock=bound, backlog=1024))
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep)

    def stop(self) -> None:
        """Takes no new connection; those that are open get one answer more."""
        self.stopping = True
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def close(self) -> None:
        """Ends every connection, the slow ones after a moment."""
        self.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self.connections):
            if connection.linger is None:
                connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                while self.connections:
                    self._empty.clear()
                    await self._empty.wait()
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)  # the transports say so to their connections

    def forget(self, connection: ServerConnection) -> None:
        """A connection has ended, or left HTTP."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        for connection in list(self.connections):
            connection.tidy(loop.time())
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep)
