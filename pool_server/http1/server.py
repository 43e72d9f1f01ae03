"""The server's side of one connection: requests come in one after the other, each is answered by a taker.

Requests are read strictly (llhttp), since what two servers read differently is how requests are smuggled. The next
request of a connection is looked at when the answer before it is out.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from http.client import responses as _REASONS
from typing import TYPE_CHECKING, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from pool_server.http1.request import Headers, Request, head_bytes

if TYPE_CHECKING:
    from pool_server.http1.front import Front

IDLE_S = 3600.0  # how long a connection may wait for its next request
HEAD_S = 120.0  # how long a head may take from its first byte to its last
CLOSING_S = 60.0  # how long a client may take to read what was written before the end
_AHEAD = 64 << 10  # bytes of further requests taken in while an answer is under way
LINGER_S = 2.0  # how long a client that was answered early may go on sending, so that it gets to read the answer
_BODILESS = frozenset({204, 304})
_VERSIONS = frozenset({"1.0", "1.1"})
_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:([^\r\n]*)", re.IGNORECASE)
_END = b"\r\n\r\n"


class Gone(ConnectionError):
    """The client has left."""


class Taker(Protocol):
    """Answers one request through the `Response` it was made with."""

    def data_received(self, chunk: bytes) -> None:
        """A piece of the request's body."""

    def finish(self) -> None:
        """The request is whole."""

    def on_connection_close(self) -> None:
        """The client left before the answer was over."""


class Response:
    """One answer: `start`, `write` as often as needed, `finish`. What was handed over counts as written.

    `start` and `write` return a future to wait for when the client reads more slowly than it is written to, None
    otherwise, and raise `Gone` when the client has left.
    """

    __slots__ = ("_chunked", "_connection", "_old", "closed", "finished", "last", "started", "status")

    def __init__(self, connection: ServerConnection, *, old: bool, last: bool) -> None:
        self._connection = connection
        self._old = old  # HTTP/1.0 knows no chunks
        self.last = last  # the connection ends with this answer
        self._chunked = False
        self.closed = False  # nothing can be written any more
        self.started = False
        self.finished = False
        self.status = 0

    def start(
        self,
        status: int,
        headers: Sequence[tuple[str, str]],
        chunk: bytes = b"",
        *,
        length: int | None = None,
        bare: bool = False,
    ) -> asyncio.Future[None] | None:
        """The head and a first piece. `length` of the body in bytes, None = it ends with `finish`. `bare`: to a
        HEAD, whose answer has no body whatever its headers say. `headers` frame nothing: no Content-Length, no
        Transfer-Encoding, no Connection."""
        if self.closed:
            raise Gone
        never = status in _BODILESS or status < 200
        bodiless = bare or never
        self.started, self.status = True, status
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if length is not None:
            if not never:
                lines.append(f"Content-Length: {length}")
        elif not bodiless:
            self._chunked = not self._old
            self.last = self.last or self._old
            if self._chunked:
                lines.append("Transfer-Encoding: chunked")
        if self.last:
            lines.append("Connection: close")
        elif self._old:
            lines.append("Connection: keep-alive")
        head = head_bytes(lines)
        return self._connection.send(head + self._framed(chunk) if chunk and not bodiless else head)

    def write(self, chunk: bytes) -> asyncio.Future[None] | None:
        """A piece of the body, not empty."""
        if self.closed:
            raise Gone
        return self._connection.send(self._framed(chunk))

    def _framed(self, chunk: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk

    def interim(self) -> None:
        """100 Continue: the client may send its body."""
        if not self.closed and not self.started:
            self._connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def finish(self) -> None:
        """The answer is whole. Does nothing after an abort or when the client has left."""
        if self.finished or self.closed:
            return
        self.finished = True
        if self._chunked:
            self._connection.send(b"0\r\n\r\n")
        self._connection.answered(self)

    def abort(self) -> None:
        """Ends the connection so that the client can see the answer is incomplete; what was written still goes out."""
        self.finished = True
        if not self.closed:
            self._connection.close()

    def release(self) -> tuple[asyncio.Transport, bytes]:
        """The connection leaves HTTP: its transport, which reads nothing any more, and what was read beyond the
        request."""
        return self._connection.release()


class ServerConnection(asyncio.Protocol):
    """Belongs to a `Front`, which gives out the takers. `since`: the loop's time when what it waits for began."""

    __slots__ = (
        "_answer", "_closing", "_draining", "_front", "_headers", "_left", "_loop", "_next", "_parser", "_peer",
        "_reading", "_spoilt", "_taker", "_target", "_transport", "_whole", "linger", "since",
    )  # fmt: skip

    def __init__(self, front: Front) -> None:
        self._front = front
        self._loop = asyncio.get_running_loop()
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._next = b""  # what is not parsed yet: an unfinished head, or requests to come
        self._target = b""
        self._headers = Headers([])
        self._answer: Response | None = None
        self._taker: Taker | None = None
        self._left: int | None = None  # bytes of its body still to come, None = it is chunked
        self._whole = False  # the request under way is all here
        self._spoilt = False  # no further request can be served
        self._reading = True
        self._draining: asyncio.Future[None] | None = None
        self._closing = False
        self.linger: asyncio.TimerHandle | None = None
        self.since = self._loop.time()

    def tidy(self, now: float) -> None:
        """Ends a connection that has waited for too long; `now` is the loop's time."""
        waited = now - self.since
        if self._closing:
            if waited > CLOSING_S:
                self.abort()
        elif self._answer is None and waited > (HEAD_S if self._next else IDLE_S):
            self.close()

    # -- what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if isinstance(peer, tuple) else ""
        self._front.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        taker, answer, whole = self._taker, self._answer, self._whole
        self._forget()
        if answer is not None:
            answer.closed = True
            if taker is not None and not (whole and answer.finished):
                taker.on_connection_close()

    def _forget(self) -> None:
        self._front.connections.discard(self)
        self._transport = self._parser = self._taker = self._answer = None
        self._next = b""
        if self.linger is not None:
            self.linger.cancel()
            self.linger = None
        self.resume_writing()

    def pause_writing(self) -> None:
        self._draining = self._loop.create_future()

    def resume_writing(self) -> None:
        draining, self._draining = self._draining, None
        if draining is not None and not draining.done():
            draining.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self.linger is not None or self._parser is None:
            return  # answered already, and the connection is about to close
        if self._answer is None:
            if not self._next:
                self.since = self._loop.time()
            self._next = self._next + data if self._next else data
            self._read_head()
        elif self._whole:
            self._next += data
            if len(self._next) > _AHEAD and self._reading and self._transport is not None:
                self._reading = False
                self._transport.pause_reading()
        else:
            self._feed_body(data)

    # -- requests

    def _read_head(self) -> None:
        """Begins with the next request as soon as its head is whole."""
        data = self._next = self._next.lstrip(b"\r\n") if self._next[:1] in b"\r\n" else self._next
        end = data.find(_END)
        if (end if end >= 0 else len(data)) > self._front.max_head:
            self._refuse(431)
            return
        if end < 0:
            return
        head, self._next = data[: end + 4], data[end + 4 :]
        if b"pgrade" in head or b"PGRADE" in head:
            head = _without_foreign_upgrade(head)
        self._whole = False
        self._headers = Headers([])
        if not self._feed(head) or self._whole:
            return
        if self._answer is None:
            self._refuse(400)  # HTTP/2 begins so
        elif self._next:
            rest, self._next = self._next, b""
            self._feed_body(rest)

    def _feed_body(self, data: bytes) -> None:
        """Parses what belongs to the request under way; what lies behind it waits."""
        if self._left is not None:
            data, self._next = data[: self._left], data[self._left :]
            self._left -= len(data)
        self._feed(data)

    def _feed(self, data: bytes) -> bool:
        """Parses; False when it was no HTTP."""
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._spoilt = True  # a WebSocket, or nothing more
        except HttpParserError as error:
            cause = error.__context__
            self._refuse(400)
            if cause is not None and not isinstance(cause, HttpParserError):
                raise cause from None  # it was ours
            return False
        if self._whole and self._taker is not None:
            self._taker.finish()
        return True

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._answer is None:  # else a trailer
            self._headers.add(name, value)

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        if self._answer is not None:
            self._spoilt = True  # another request behind a chunked one: it is not served
            return
        method, version = parser.get_method().decode("latin-1"), parser.get_http_version()
        host = self._headers.fields.get("host", "," if version == "1.1" else "")
        if version not in _VERSIONS or "," in host:
            raise HttpParserError("no version this server speaks, or not one Host (RFC 9112 §3.2)")
        request = Request(method, self._target.decode("latin-1"), version, self._headers, self._peer)
        self._target = b""
        length = request.headers.fields.get("content-length")
        self._left = int(length) if length is not None else None
        last = self._front.stopping or not parser.should_keep_alive()
        response = Response(self, old=version == "1.0", last=last)
        self._answer = response
        self._taker = self._front.serve(request, response)
        if request.headers.fields.get("expect", "").lower() == "100-continue":
            response.interim()

    def on_body(self, data: bytes) -> None:
        if self._taker is not None and not self._whole:
            self._taker.data_received(data)

    def on_message_complete(self) -> None:
        self._whole = True

    def _refuse(self, status: int) -> None:
        """What came is no request that can be served."""
        answer = self._answer
        if answer is None or not answer.started:
            line = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            self.send(line.encode())
        taker = self._taker
        if answer is not None:
            answer.closed = True
        self._linger()
        if taker is not None:
            taker.on_connection_close()

    # -- answers

    def send(self, data: bytes) -> asyncio.Future[None] | None:
        """Hands bytes to the socket; a future while the client is behind."""
        if self._transport is not None:
            self._transport.write(data)
        return self._draining

    def answered(self, response: Response) -> None:
        """The answer is out; on to the next request, or the end."""
        if response is not self._answer:
            return
        response.closed = True
        whole = self._whole
        self._answer = self._taker = None
        if not whole:
            self._linger()
        elif response.last or self._spoilt:
            self.close()
        else:
            self.since = self._loop.time()
            if not self._reading and self._transport is not None:
                self._reading = True
                self._transport.resume_reading()
            if self._next:
                self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._answer is None and self._transport is not None and self.linger is None:
            self._read_head()

    def _linger(self) -> None:
        """Closing while the client still sends would make it lose the answer (a reset)."""
        if self._transport is None:
            return
        self._taker = None
        self.linger = self._loop.call_later(LINGER_S, self.close)
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def close(self) -> None:
        """What was written still goes out, then the connection ends."""
        self.since, self._closing = self._loop.time(), True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """The connection ends at once."""
        if self._transport is not None:
            self._transport.abort()

    def release(self) -> tuple[asyncio.Transport, bytes]:
        """See `Response.release`."""
        transport, rest = self._transport, self._next
        assert transport is not None
        transport.pause_reading()
        if self._answer is not None:
            self._answer.closed = True
        self._forget()
        return transport, rest


def _without_foreign_upgrade(head: bytes) -> bytes:
    """The head without an Upgrade this server does not take (h2c): ignored, as RFC 9110 §7.8 allows. The parser
    would take what follows for the other protocol."""
    if head.startswith(b"GET "):
        for found in _UPGRADE.finditer(head):
            if found[1].strip().lower() == b"websocket":
                return head
    return _UPGRADE.sub(b"", head)
