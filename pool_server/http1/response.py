"""What a server's handler sees: the response it writes, and what it is told of the request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http.client import responses as _REASONS
from typing import Protocol

from pool_server.http1.request import BODILESS, head_bytes


class ClientDisconnectedError(ConnectionError):
    """The client has left."""


class RequestHandler(Protocol):
    """Answers one request through the `Response` it was made with."""

    def data_received(self, chunk: bytes) -> None:
        """A piece of the request's body."""

    def finish(self) -> None:
        """The request is whole."""

    def on_connection_close(self) -> None:
        """The client left before the response was over."""


class ResponseWriter(Protocol):
    """What a response asks of its connection."""

    @property
    def ending(self) -> bool: ...

    def send(self, data: bytes) -> asyncio.Future[None] | None: ...

    def responded(self, response: Response) -> None: ...

    def shortened(self) -> None: ...

    def close(self) -> None: ...

    def release(self) -> tuple[asyncio.Transport, bytes]: ...


class Response:
    """One response: `start`, `write` as often as needed, `finish`. What was handed over counts as written.

    `start` and `write` return a future to wait for when the client reads more slowly than it is written to, None
    otherwise, and raise `ClientDisconnectedError` when the client has left. `bare`: to a HEAD, whose response has no
    body whatever its headers say. What is written of a body where none may be is left out.
    """

    __slots__ = ("_chunked", "_connection", "_old", "_send", "bare", "brief", "closed", "finished", "last", "started")

    def __init__(self, connection: ResponseWriter, *, old: bool, last: bool, bare: bool) -> None:
        self._connection = connection
        self._send = connection.send
        self._old = old  # HTTP/1.0 knows no chunks
        self._chunked = False
        self.last = last  # the connection ends with this response
        self.bare = bare
        self.brief = False  # see `shorten`
        self.closed = False  # nothing can be written any more
        self.started = False
        self.finished = False

    def start(
        self, status: int, headers: Sequence[tuple[str, str]], chunk: bytes = b"", *, length: int | None = None
    ) -> asyncio.Future[None] | None:
        """The head and a first piece. `length` of the body in bytes, None = it ends with `finish`. `headers` frame
        nothing: no Content-Length, no Transfer-Encoding, no Connection. Raises ValueError when they cannot be
        written; then nothing was."""
        if self.closed:
            raise ClientDisconnectedError
        never = status in BODILESS or status < 200
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if length is not None:
            if not never:
                lines.append(f"Content-Length: {length}")
        elif not never and not self.bare:
            self._chunked = not self._old
            self.last = self.last or self._old
            if self._chunked:
                lines.append("Transfer-Encoding: chunked")
        self.last = self.last or self._connection.ending
        if self.last:
            lines.append("Connection: close")
        elif self._old:
            lines.append("Connection: keep-alive")
        head = head_bytes(lines)
        self.started, self.bare = True, self.bare or never
        if chunk and not self.bare:
            head += b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk
        return self._send(head)

    def write(self, chunk: bytes) -> asyncio.Future[None] | None:
        """A piece of the body, not empty."""
        if self.closed:
            raise ClientDisconnectedError
        if self.bare:
            return None
        return self._send(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)

    def finish(self) -> None:
        """The response is whole. Does nothing after an abort or when the client has left."""
        if self.finished or self.closed:
            return
        self.finished = True
        if self._chunked:
            self._send(b"0\r\n\r\n")
        self._connection.responded(self)

    def abort(self) -> None:
        """Ends the connection so that the client can see the response is incomplete; what was written still goes
        out."""
        self.finished = True
        if not self.closed:
            self.closed = True
            self._connection.close()

    def shorten(self) -> None:
        """Nobody known sent this request: its body gets less time, the connection is kept less long, and where there
        are too many connections it may give way while the body is still to come."""
        self.brief = True
        self._connection.shortened()

    def release(self) -> tuple[asyncio.Transport, bytes]:
        """The connection of a request that is whole leaves HTTP: its transport, which reads nothing any more, and what
        was read beyond the request. Raises `ClientDisconnectedError` when the connection ends or has ended."""
        if self.closed:
            raise ClientDisconnectedError
        return self._connection.release()
