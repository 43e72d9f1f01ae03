"""Listens, and looks after the connections of clients.

Connections are taken from the listening sockets a few a turn of the event loop, and each is judged before anything is
made for it: whoever only opens connections costs a system call each.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections import deque
from collections.abc import Callable, Collection, Sequence

from pool_server.http1.admission import ConnectionLimits, ConnectionTable, TooMany
from pool_server.http1.request import HeadMemory, Request
from pool_server.http1.response import RequestHandler, Response
from pool_server.http1.server_connection import LINGER_S, ServerConnection
from pool_server.http1.tls import TlsTransport

_SWEEP_S = 15.0
_NEW_SWEEP_S = 1.0  # connections that say nothing are looked at more often
_TURNS = 8  # sweeps over new connections before one of them is judged: each lies at least a turn of the loop apart
_STOOD_S = 0.5  # so late a timer runs where the loop was blocked or the machine busy
_CATCH_UP_S = 0.1
_FLUSH_S = 2.0  # for what was written to reach its client when the server closes
_BACKLOG = 1024
_BURST = 32  # connections taken from a socket in one turn
_PAUSE_S = 0.05  # without descriptors or memory for another connection
_LINGERING = 32  # connections turned away that may wait for their answer to be read
_LACKING = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def refusal(why: TooMany) -> bytes:
    """An answer without words to whoever is one too many; it is not known yet what protocol they speak."""
    status = "429 Too Many Requests" if why is TooMany.ADDRESS else "503 Service Unavailable"
    return f"HTTP/1.1 {status}\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


def _silence(why: TooMany) -> bytes:
    """The same within TLS: before a handshake there is nothing that could be read."""
    return b""


class HttpServer:
    """`serve(request, response)` gives each request its handler, as soon as its head is here.

    `table` judges new connections, `refuse` words the answer to one too many. `told` hears how connections end that
    the server ends: "refused" or "ended" with the `TooMany` that is the reason, "silent", "tls", and what
    `TlsTransport` tells, without one. `tls` is asked for each new connection's context; without it the server speaks
    plain HTTP.
    """

    def __init__(
        self,
        serve: Callable[[Request, Response], RequestHandler],
        *,
        table: ConnectionTable[ServerConnection] | None = None,
        refuse: Callable[[TooMany], bytes] = refusal,
        told: Callable[[str, str], object] = lambda what, why: None,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self.serve = serve
        self.stopping = False
        self.table = table if table is not None else ConnectionTable(ConnectionLimits())
        self.told = told
        self.heads = HeadMemory()
        self.long_heads = 0  # bytes of long heads that are not whole yet
        self._refuse = refuse if tls is None else _silence
        self._tls = tls
        self._refused: dict[socket.socket, asyncio.TimerHandle] = {}  # may read why
        self._empty = asyncio.Event()  # no connection is left
        self._sockets: list[socket.socket] = []
        self._making: set[asyncio.Task[None]] = set()
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._swept: deque[float] = deque(maxlen=_TURNS)  # when the last sweeps over new connections were

    @property
    def connections(self) -> Collection[ServerConnection]:
        """Those that are open and speak HTTP."""
        return self.table.open

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Serves on bound, listening, non-blocking sockets; they are the server's own from now on."""
        loop = asyncio.get_running_loop()
        for bound in sockets:
            bound.setblocking(False)
            bound.listen(_BACKLOG)
            self._sockets.append(bound)
            loop.add_reader(bound, self._accept, bound)
        self._again(_SWEEP_S, self._sweep)
        self._again(_NEW_SWEEP_S, self._sweep_new)

    # -- new connections

    def _accept(self, bound: socket.socket) -> bool:
        """Whether more may be waiting."""
        for _ in range(_BURST):
            try:
                taken, address = bound.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return False
            except OSError as error:
                if error.errno not in _LACKING:
                    raise
                self.told("refused", TooMany.DESCRIPTORS)
                self._make_way(bound)
                return False
            if self._judge(taken, str(address[0]) if isinstance(address, tuple) else "") is TooMany.DESCRIPTORS:
                self._make_way(bound)
                return False
        return True

    def _make_way(self, bound: socket.socket) -> None:
        """Ends some that wait. Nobody is taken until their descriptors are back, or the loop would only turn."""
        for waiting in self.table.longest_waits(_BURST):
            self._end(waiting, TooMany.DESCRIPTORS)
        loop = asyncio.get_running_loop()
        loop.remove_reader(bound)
        loop.call_later(_PAUSE_S, lambda: bound in self._sockets and loop.add_reader(bound, self._accept, bound))

    def _judge(self, taken: socket.socket, address: str) -> TooMany | None:
        """Takes a new connection or turns it away, and why."""
        verdict = self.table.judge(address, taken.fileno())
        if verdict.refused is not None:
            self._turn_away(taken, verdict.refused)
            return verdict.refused
        if verdict.ended is not None:
            self._end(verdict.ended, verdict.why)
        task = asyncio.get_running_loop().create_task(self._make(taken, ServerConnection(self, address)))
        self._making.add(task)
        task.add_done_callback(self._making.discard)
        return None

    def _turn_away(self, taken: socket.socket, why: TooMany) -> None:
        self.told("refused", why)
        taken.setblocking(False)
        try:
            taken.send(self._refuse(why))
            taken.shutdown(socket.SHUT_WR)
        except OSError:
            taken.close()
            return
        if why is TooMany.DESCRIPTORS:
            taken.close()
            return
        if len(self._refused) >= _LINGERING:
            self._drop(next(iter(self._refused)))
        self._refused[taken] = asyncio.get_running_loop().call_later(LINGER_S, self._drop, taken)

    def _drop(self, refused: socket.socket) -> None:
        self._refused.pop(refused).cancel()
        refused.close()

    def _end(self, waiting: ServerConnection, why: TooMany | None) -> None:
        self.told("ended", why or "")
        self.table.closed(waiting)  # at once: the transport takes a turn of the loop
        waiting.close()

    async def _make(self, taken: socket.socket, connection: ServerConnection) -> None:
        """Gives the connection its transport."""
        try:
            taken.setblocking(False)
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            protocol = connection if self._tls is None else TlsTransport(self._tls(), connection, self.told)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, taken)
        except OSError:  # it has left already
            taken.close()
            self.forget(connection)

    # -- the way out

    def stop(self) -> None:
        """Takes no new connection; those that are open get one answer more. Those that wait to be taken are: where no
        other process has the socket, its end would reset them."""
        self.stopping = True
        for bound in self._sockets:
            asyncio.get_running_loop().remove_reader(bound)
            while self._accept(bound):
                pass
        for bound in self._sockets:
            bound.close()
        self._sockets.clear()

    def quiet(self, seconds: float) -> bool:
        """Whether nothing is under way on any connection and has not been for so long: one that was promised to be kept
        open may be used again at any moment, and a request that meets its end is lost."""
        now = asyncio.get_running_loop().time()
        return all(connection.waited(now) >= seconds for connection in self.connections)

    async def close(self) -> None:
        """Ends every connection, the slow ones after a moment."""
        self.stop()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for refused in list(self._refused):
            self._drop(refused)
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
        self.table.closed(connection)
        if not self.connections:
            self._empty.set()

    # -- connections that take too long

    def _again(self, seconds: float, sweep: Callable[[], None]) -> None:
        self._timers[sweep] = asyncio.get_running_loop().call_later(seconds, self._due, sweep)

    def _due(self, sweep: Callable[[], None]) -> None:
        """Where this process has stood still, what clients have sent meanwhile is read before they are judged."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._timers[sweep].when() > _STOOD_S:
            self._timers[sweep] = loop.call_later(_CATCH_UP_S, sweep)
        else:
            sweep()

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in set(self.connections).difference(self.table.new):
            connection.tidy(now)
        self._again(_SWEEP_S, self._sweep)

    def _sweep_new(self) -> None:
        """New connections have their time by the clock and by turns of the loop: a first request takes a handshake's
        several, and where there is more to do than can be done each is long."""
        now = asyncio.get_running_loop().time()
        self._swept.append(now)
        turns = max(1, min(_TURNS, int(self.table.limits.first_byte_s / _NEW_SWEEP_S)))
        if len(self._swept) >= turns:
            for connection in self.table.new:
                if connection.since <= self._swept[-turns]:
                    connection.tidy(now)
        self._again(_NEW_SWEEP_S, self._sweep_new)
