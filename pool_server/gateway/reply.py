"""One HTTP answer to one client, over Tornado's connection: start, pieces, end or abort."""

from __future__ import annotations

import time
from asyncio import Future
from http.client import responses as _REASONS

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPConnection, HTTPHeaders, ResponseStartLine
from tornado.iostream import IOStream, StreamClosedError

from pool_server import dialects
from pool_server.records import ClientError
from pool_server.words import Dialect

REQUEST_ID = "X-Pool-Request-Id"


class Reply:
    """`started` once headers went out; `bytes` counts the body bytes handed to the socket."""

    __slots__ = ("_chunked", "_connection", "_head", "bytes", "finished", "request_id", "started", "status")

    def __init__(self, connection: HTTPConnection, request_id: str, *, head: bool = False) -> None:
        self._connection = connection
        self._head = head  # the request was a HEAD: its answer has no body, whatever is to be said
        self._chunked: IOStream | None = None  # where the pieces of a chunked body go
        self.request_id = request_id
        self.started = False
        self.finished = False
        self.status = 0
        self.bytes = 0

    def start(
        self, status: int, headers: list[tuple[str, str]], chunk: bytes = b"", *, length: int | None = None
    ) -> Future[None]:
        """Sends the headers and a first piece; without `length` the body is chunked."""
        if self._head:
            chunk, length = b"", length or 0
        out = HTTPHeaders()
        for name, value in headers:
            out.add(name, value)
        out[REQUEST_ID] = self.request_id
        if length is not None:
            out["Content-Length"] = str(length)
        self.started = True
        self.status = status
        self.bytes += len(chunk)
        line = ResponseStartLine("HTTP/1.1", status, _REASONS.get(status, "Unknown"))
        done = self._connection.write_headers(line, out, chunk or None)
        if out.get("Transfer-Encoding") == "chunked" and isinstance(self._connection, HTTP1Connection):
            self._chunked = self._connection.stream
        return done

    def write(self, chunk: bytes) -> Future[None]:
        """Hands over a piece; the future is done when the socket took it all (back-pressure).

        Raises StreamClosedError. A chunk is framed here: the connection's own way costs a third more an event.
        """
        size = len(chunk)
        self.bytes += size
        if self._chunked is not None:
            return self._chunked.write(b"%x\r\n%b\r\n" % (size, chunk)) if size else _nothing()
        return self._connection.write(chunk)

    async def send(self, chunk: bytes) -> None:
        """Writes a piece and waits for the socket; a closed connection is not an error here."""
        try:
            await self.write(chunk)
        except StreamClosedError:
            pass

    async def whole(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """A complete answer."""
        try:
            await self.start(status, headers, body, length=len(body))
        except StreamClosedError:
            pass
        self.finish()

    def finish(self) -> None:
        """Ends the answer well; after an abort or a hang-up this does nothing."""
        if not self.finished:
            self.finished = True
            if not self.closed:
                self._connection.finish()

    async def error_event(self, dialect: Dialect, error: ClientError) -> None:
        """Ends a stream already begun with an error event the client shows or retries."""
        await self.send(dialects.stream_error(dialect, error, now=time.time()))
        self.break_off(dialect)

    def break_off(self, dialect: Dialect) -> None:
        """After an error event: a clean end where the event itself is the end (Codex drops it otherwise), an
        aborted connection where a clean end would pass for a good one."""
        if dialects.ends_stream(dialect):
            self.finish()
        else:
            self.abort()

    def abort(self) -> None:
        """Ends the connection so that the client can see the answer is incomplete."""
        self.finished = True
        if isinstance(self._connection, HTTP1Connection):
            self._connection.close()

    @property
    def closed(self) -> bool:
        connection = self._connection
        if not isinstance(connection, HTTP1Connection):
            return False
        return connection.stream is None or connection.stream.closed()


def _nothing() -> Future[None]:
    """An empty chunk would end the body."""
    done: Future[None] = Future()
    done.set_result(None)
    return done
