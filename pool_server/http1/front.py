"""Listens, and looks after the connections of clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from pool_server.http1.request import Request
from pool_server.http1.server import Response, ServerConnection, Taker

MAX_HEAD = 128 << 10  # bytes of a request line and its headers
_SWEEP_S = 15.0


class Front:
    """`serve(request, response)` gives each request its taker, as soon as its head is here."""

    def __init__(self, serve: Callable[[Request, Response], Taker], *, max_head: int = MAX_HEAD) -> None:
        self.serve = serve
        self.max_head = max_head
        self.stopping = False
        self.connections: set[ServerConnection] = set()
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
        """Ends every connection at once."""
        self.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)  # the transports say so to their connections

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        for connection in list(self.connections):
            connection.tidy(loop.time())
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep)
