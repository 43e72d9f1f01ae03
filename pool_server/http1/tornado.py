"""Tornado behind this server: its routers, handlers and WebSockets see the connection they know.

Pages are few beside the data path, so here each request may cost what Tornado's own connection would.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import cast

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPOutputError,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, StreamClosedError

from pool_server.http1.request import MOST_FIELDS, Request
from pool_server.http1.response import ClientDisconnectedError, Response
from pool_server.http1.tls import TlsSession, TlsTransport

log = logging.getLogger(__name__)

BODY_CAP = 1 << 20  # bytes of a request's body before its handler has said how many it takes
_COOKIES_CAP = 16 << 10  # bytes
_MOST_FIELDS = 128  # header lines: a browser and two proxies send some fifty, and Tornado looks at each in turn
_PIECE = 64 << 10  # bytes of a WebSocket within TLS that are encrypted, or read, in one step
_FRAMING = frozenset({"Content-Length", "Transfer-Encoding", "Connection"})


class TornadoRequestHandler:
    """One request, handed to a Tornado router at the pace of what it finds there."""

    def __init__(
        self, router: HTTPServerConnectionDelegate, request: Request, response: Response, scheme: str = "http"
    ) -> None:
        self._response = response
        response.shorten()  # a browser comes again where it needs to
        self._pieces: list[bytes] = []
        self._size = 0
        self._whole = False
        self._gone = False
        self._news = asyncio.Event()
        self._connection = TornadoConnection(request, response, scheme)
        self._delegate: HTTPMessageDelegate | None = None  # while it still wants to hear of the request
        delegate = router.start_request(object(), self._connection)
        self._task = asyncio.get_running_loop().create_task(self._run(request, delegate))

    async def _run(self, request: Request, delegate: HTTPMessageDelegate) -> None:
        if self._done:
            return
        cookies = request.headers.get("Cookie", "")
        much = max(request.query.count("&"), cookies.count(";")) > MOST_FIELDS or len(cookies) > _COOKIES_CAP
        if much or len(request.headers.pairs) > _MOST_FIELDS:
            self._end(431)  # Tornado would take each apart
            return
        headers = HTTPHeaders()
        try:
            for name, value in request.headers.pairs:
                headers.add(name, value)
            line = RequestStartLine(request.method, request.target, f"HTTP/{request.version}")
            self._delegate = delegate
            await _settled(delegate.headers_received(line, headers))
            self._bound()  # what came before the handler said how many bytes it takes
            while not self._done:
                pieces, self._pieces = self._pieces, []
                for piece in pieces:
                    if not self._done:
                        await _settled(delegate.data_received(piece))
                if not pieces:
                    if self._whole:
                        delegate.finish()
                        return
                    self._news.clear()
                    await self._news.wait()
        except HTTPInputError:
            self._end(400)
        except Exception:
            log.exception("a page's request failed outside its handler")
            self._end(500)
        finally:
            self._delegate = None  # it and what it serves refer to each other

    @property
    def _done(self) -> bool:
        """Nobody wants to hear more of the request."""
        return self._gone or self._response.finished

    def data_received(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size <= self._connection.cap:
            self._pieces.append(chunk)
            self._news.set()
        self._bound()

    def _bound(self) -> None:
        if self._size > self._connection.cap and not self._done:
            self._pieces.clear()
            self._end(413)
            self.on_connection_close()

    def finish(self) -> None:
        self._whole = True
        self._news.set()

    def on_connection_close(self) -> None:
        self._gone = True
        self._news.set()
        if self._delegate is not None:
            self._delegate.on_connection_close()
        else:
            self._connection.left()

    def _end(self, status: int) -> None:
        """Ends an answer that no handler will give."""
        if self._response.started:
            self._response.abort()
        elif not self._response.closed:
            self._response.last = True
            self._response.start(status, [], length=0)
            self._response.finish()


class TornadoConnection(HTTPConnection):
    """What Tornado's handlers write their answer to. `cap`: bytes of a body that are taken in."""

    def __init__(self, request: Request, response: Response, scheme: str) -> None:
        self.context = _Context(request.remote_ip, scheme)
        self.cap = BODY_CAP
        self._response = response
        self._left: int | None = None  # bytes of a body of known length still to come
        self._switching = b""  # the head of a 101 leaves by the stream that takes over
        self._close_callback: Callable[[], object] | None = None

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        self._close_callback = callback

    def set_max_body_size(self, size: int) -> None:
        self.cap = size

    def left(self) -> None:
        """The client has left after its request was whole."""
        callback, self._close_callback = self._close_callback, None
        if callback is not None:
            callback()

    def write_headers(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders, chunk: bytes | None = None
    ) -> asyncio.Future[None]:
        assert isinstance(start_line, ResponseStartLine)
        if start_line.code == 101:
            lines = [f"HTTP/1.1 101 {start_line.reason}", *(f"{name}: {value}" for name, value in headers.get_all())]
            self._switching = "\r\n".join((*lines, "", "")).encode("latin-1")
            return _done()
        kept = [pair for pair in headers.get_all() if pair[0] not in _FRAMING]
        length = headers.get("Content-Length")
        if headers.get("Connection", "").lower() == "close":
            self._response.last = True
        known = int(length) if length is not None else None
        self._left = None if self._response.bare else known
        chunk = chunk or b""
        self._count(chunk)
        return self._sent(lambda: self._response.start(start_line.code, kept, chunk, length=known))

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        self._count(chunk)
        return self._sent(lambda: self._response.write(chunk) if chunk else None)

    def _count(self, chunk: bytes) -> None:
        if self._left is not None:
            self._left -= len(chunk)
            if self._left < 0:
                self._response.abort()
                raise HTTPOutputError("tried to write more data than Content-Length")

    def _sent(self, write: Callable[[], asyncio.Future[None] | None]) -> asyncio.Future[None]:
        try:
            waiting = write()
        except ClientDisconnectedError:
            failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            failed.set_exception(StreamClosedError())
            failed.exception()  # whoever does not wait for it need not hear of it
            return failed
        return waiting if waiting is not None else _done()

    def finish(self) -> None:
        if self._switching:
            return
        if self._left and not self._response.closed:
            self._response.abort()
            raise HTTPOutputError(f"tried to write {self._left} bytes less than Content-Length")
        self._response.finish()

    def detach(self) -> IOStream:
        """The connection leaves HTTP (a WebSocket): a Tornado stream on the same socket, closed when the client has
        left."""
        try:
            transport, rest = self._response.release()
        except ClientDisconnectedError:
            stream = IOStream(socket.socket())
            stream.close()
            return stream
        try:
            taken = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        except OSError:
            transport.abort()
            raise
        taken.setblocking(False)
        transport.abort()  # closes its own descriptor; the connection lives on by ours
        tls = transport.session if isinstance(transport, TlsTransport) else None
        stream = _Straight(taken, rest) if tls is None else _Encrypted(taken, rest, tls)
        stream.write(self._switching)
        return stream


class _Resumed(IOStream):
    """A stream that begins with bytes read before."""

    def __init__(self, taken: socket.socket, before: bytes) -> None:
        super().__init__(taken)
        self._before = before

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        if not self._before:
            return self._received(buf)
        piece, self._before = self._before[: len(buf)], self._before[len(buf) :]
        buf[: len(piece)] = piece
        return len(piece)

    def _received(self, buf: bytearray | memoryview) -> int | None:
        return super().read_from_fd(buf)


class _Straight(_Resumed):
    """One that writes without a detour."""

    def write(self, data: bytes | memoryview) -> asyncio.Future[None]:
        """Straight to the socket while that takes all, as it nearly always does: the buffer's way costs a frame more
        than the system call."""
        if not self.writing() and not self.closed():
            try:
                sent = self.socket.send(data)
            except OSError:  # not now, or never: the buffer's way knows what to do
                sent = 0
            if sent == len(data):
                return _done()
            data = memoryview(data)[sent:]
        return super().write(data)


class _Encrypted(_Resumed):
    """One within TLS, whose session goes on."""

    def __init__(self, taken: socket.socket, before: bytes, session: TlsSession) -> None:
        super().__init__(taken, before)
        self._session = session
        self._ciphertext = b""  # what the socket has not taken yet …
        self._owed = 0  # … and of how many bytes of the write buffer it is

    def _received(self, buf: bytearray | memoryview) -> int | None:
        while True:
            try:
                return cast(int, self._session.tls.read(len(buf), buf))  # 0: the client has said goodbye
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                return 0
            try:
                data = self.socket.recv(_PIECE)
            except BlockingIOError:
                return None
            if not data:
                return 0
            self._session.incoming.write(data)

    def write_to_fd(self, data: memoryview) -> int:
        """Encrypts a piece once; until the socket has taken all of that, the piece stays in the buffer."""
        if not self._owed:
            self._owed = self._session.tls.write(data[:_PIECE])
            self._ciphertext = self._session.outgoing.read()
        while self._ciphertext:
            self._ciphertext = self._ciphertext[self.socket.send(self._ciphertext) :]
        owed, self._owed = self._owed, 0
        return owed

    def close_fd(self) -> None:
        if not self._owed:  # else a record is cut off anyway
            with contextlib.suppress(OSError):  # it would wait for the client's, who may be gone
                self._session.tls.unwrap()
            with contextlib.suppress(OSError):
                self.socket.send(self._session.outgoing.read())
        super().close_fd()


class _Context:
    """What Tornado reads of a connection."""

    def __init__(self, remote_ip: str, scheme: str) -> None:
        self.address = (remote_ip, 0)
        self.address_family = socket.AF_INET6 if ":" in remote_ip else socket.AF_INET
        self.protocol = scheme
        self.remote_ip = remote_ip


async def _settled(waiting: Awaitable[None] | None) -> None:
    if waiting is not None:
        await waiting


def _done() -> asyncio.Future[None]:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done
