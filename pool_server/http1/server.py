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

from pool_server.http1.request import BODILESS, HEAD_CAP, MOST_FIELDS, Headers, Request, head_bytes

if TYPE_CHECKING:
    from pool_server.http1.front import HttpServer

IDLE_S = 3600.0  # how long a connection may wait for its next request
HEAD_S = 20.0  # how long a head may take from its first byte to its last
BODY_S = 900.0  # how long a whole request may take
BRIEF_IDLE_S = 75.0  # both, after and in a request that nobody known sent
BRIEF_BODY_S = 30.0
STALLED_S = 600.0  # how long a client that is behind may read next to nothing
CLOSING_S = 60.0  # how long a client may take to read what was written before the end
LINGER_S = 2.0  # how long a client that was answered early may go on sending, so that it gets to read the answer
USUAL_HEAD = 16 << 10  # bytes; what is kept of longer ones that are not whole yet counts against `LONG_HEADS`
LONG_HEADS = 4 << 20  # bytes of all connections together
_VERSIONS = frozenset({"1.0", "1.1"})
_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:([^\r\n]*)", re.IGNORECASE)
_END = b"\r\n\r\n"
_TLS = 0x16  # a TLS handshake record begins so (RFC 8446 §5.1), and no request does


class ClientDisconnectedError(ConnectionError):
    """The client has left."""


class RequestHandler(Protocol):
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
    otherwise, and raise `ClientDisconnectedError` when the client has left. `bare`: to a HEAD, whose answer has no
    body whatever its
    headers say. What is written of a body where none may be is left out.
    """

    __slots__ = ("_chunked", "_connection", "_old", "bare", "brief", "closed", "finished", "last", "started")

    def __init__(self, connection: ServerConnection, *, old: bool, last: bool, bare: bool) -> None:
        self._connection = connection
        self._old = old  # HTTP/1.0 knows no chunks
        self._chunked = False
        self.last = last  # the connection ends with this answer
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
        return self._connection.send(head + self._framed(chunk) if chunk and not self.bare else head)

    def write(self, chunk: bytes) -> asyncio.Future[None] | None:
        """A piece of the body, not empty."""
        if self.closed:
            raise ClientDisconnectedError
        return None if self.bare else self._connection.send(self._framed(chunk))

    def _framed(self, chunk: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk

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
            self.closed = True
            self._connection.close()

    def shorten(self) -> None:
        """Nobody known sent this request: its body gets less time, the connection is kept less long, and where there
        are too many connections it may give way while the body is still to come."""
        self.brief = True
        self._connection.shortened()

    def release(self) -> tuple[asyncio.Transport, bytes]:
        """The connection leaves HTTP: its transport, which reads nothing any more, and what was read beyond the
        request."""
        return self._connection.release()


class ServerConnection(asyncio.Protocol):
    """Belongs to a `HttpServer`, which gives out the takers. `linger` runs while a client that was answered early
    gets to
    read that."""

    __slots__ = (
        "_answer", "_brief", "_closing", "_counted", "_draining", "_front", "_headers", "_left", "_loop", "_next",
        "_parser", "_peer", "_reading", "_since", "_spoke", "_taker", "_target", "_transport", "_whole", "linger",
    )  # fmt: skip

    def __init__(self, front: HttpServer, address: str = "") -> None:
        self._front = front
        self._loop = asyncio.get_running_loop()
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._peer = address
        self._next = b""  # what is not parsed yet: an unfinished head, or requests to come
        self._target = b""
        self._headers: Headers | None = None  # of the head that is being parsed
        self._answer: Response | None = None
        self._taker: RequestHandler | None = None
        self._left: int | None = None  # bytes of its body still to come, None = it is chunked
        self._reading = True
        self._draining: asyncio.Future[None] | None = None  # the client is behind
        self._closing = False  # nothing that comes is looked at any more
        self._since = self._loop.time()  # when what it waits for began
        self._spoke = False  # a byte has come
        self._brief = False  # the request before was nobody's
        self._counted = 0  # bytes of `_next` that count against `LONG_HEADS`
        self._whole = False  # the request under way is all here
        self.linger: asyncio.TimerHandle | None = None
        front.table.opened(self, address)

    def tidy(self, now: float) -> None:
        """Ends a connection that has waited for too long; `now` is the loop's time."""
        waited = now - self._since
        if self._closing:
            if waited > CLOSING_S:
                self.abort()
        elif self._draining is not None:
            answer = self._answer
            if waited > (BRIEF_BODY_S if answer is not None and answer.brief else STALLED_S):
                self.abort()
        elif self._answer is not None:
            if not self._whole and waited > (BRIEF_BODY_S if self._answer.brief else BODY_S):
                self.close()
        elif not self._spoke:
            if waited > self._front.table.limits.first_byte_s:
                self._front.told("silent", "")
                self.close()
        elif waited > (HEAD_S if self._next else BRIEF_IDLE_S if self._brief else IDLE_S):
            self.close()

    # -- what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._closing:  # it has given way to another since
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        taker, answer, whole = self._taker, self._answer, self._whole
        self._forget()
        if answer is not None:
            answer.closed = True
            if taker is not None and not (whole and answer.finished):
                taker.on_connection_close()

    def _forget(self) -> None:
        self._closing = True
        self._front.forget(self)
        self._transport = self._parser = self._taker = self._answer = None
        self._drop_waiting()
        if self.linger is not None:
            self.linger.cancel()
            self.linger = None
        self.resume_writing()

    def pause_writing(self) -> None:
        self._draining = self._loop.create_future()
        self._since = self._loop.time()

    def resume_writing(self) -> None:
        draining, self._draining = self._draining, None
        if draining is not None:
            draining.set_result(None)
            self._since = self._loop.time()
        if self._next:
            self._loop.call_soon(self._go_on)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._answer is not None and not self._whole:
            self._feed_body(data)
            return
        if self._answer is None and not self._next:
            self._spoke, self._since = True, self._loop.time()
        self._next += data
        if self._answer is None and self._draining is None:
            self._read_head()
        if len(self._next) > USUAL_HEAD or self._counted:
            self._bound_waiting()

    def _bound_waiting(self) -> None:
        """Long heads are rare, and whoever sends them may mean harm: all that wait have one budget."""
        waiting, front = len(self._next), self._front
        front.long_heads += (size := waiting if waiting > USUAL_HEAD else 0) - self._counted
        self._counted = size
        much = size > 0 and front.long_heads > LONG_HEADS
        if much and self._answer is None:
            self._refuse(431)
        elif (much or waiting > HEAD_CAP) and self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    # -- requests

    def _read_head(self) -> None:
        """Begins with the next request as soon as its head is whole."""
        data = self._next = self._next.lstrip(b"\r\n") if self._next[:1] in b"\r\n" else self._next
        end = data.find(_END)
        if data and data[0] == _TLS:
            self._front.told("tls", "")
            self.abort()
            return
        if (end if end >= 0 else len(data)) > HEAD_CAP:
            self._refuse(431)
            return
        if end < 0:
            return
        if data.count(b"\n", 0, end) > MOST_FIELDS:
            self._refuse(431)
            return
        head, self._next = data[: end + 4], data[end + 4 :]
        if b"pgrade" in head or b"PGRADE" in head:
            head = _without_foreign_upgrade(head)
        self._whole, self._target, self._headers = False, b"", Headers([])
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
            self._serve_no_more()  # a WebSocket, or nothing
        except HttpParserError as error:
            cause = error.__context__
            if cause is not None and not isinstance(cause, HttpParserError):
                self._refuse(400)
                raise cause from None  # it was ours
            if not self._whole:
                self._refuse(400)
                return False
            self._serve_no_more()  # the request itself was none the worse for what came behind it
        if self._whole and self._taker is not None:
            self._taker.finish()
        return True

    def _serve_no_more(self) -> None:
        """The connection ends with the answer to the request under way."""
        if self._answer is not None:
            self._answer.last = True

    def on_message_begin(self) -> None:
        if self._headers is None:  # bytes behind a chunked request: where that ends only the parser knows
            self._serve_no_more()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headers is not None:  # else a trailer
            self._headers.add(name, value)

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        if parser is None or headers is None:
            return
        self._headers = None
        method, version = parser.get_method().decode("latin-1"), parser.get_http_version()
        host = headers.fields.get("host", "," if version == "1.1" else "")
        if version not in _VERSIONS or "," in host:
            raise HttpParserError("no version this server speaks, or not one Host (RFC 9112 §3.2)")
        request = Request(method, self._target.decode("latin-1"), version, headers, self._peer)
        length = headers.fields.get("content-length")
        self._left = int(length) if length is not None else None
        last = not parser.should_keep_alive()
        response = Response(self, old=version == "1.0", last=last, bare=method == "HEAD")
        self._answer = response
        self._front.table.works(self)
        self._taker = self._front.serve(request, response)
        if version == "1.1" and headers.fields.get("expect", "").lower() == "100-continue":
            self._loop.call_soon(self._invite, response)  # unless the request is turned away at once

    def _invite(self, response: Response) -> None:
        """100 Continue: the client may send its body."""
        if response is self._answer and not (response.started or response.closed or self._whole):
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        if self._taker is not None and not self._whole:
            self._taker.data_received(data)

    def on_message_complete(self) -> None:
        self._whole = True
        if self._answer is not None and self._answer.brief:
            self._front.table.works(self)

    def shortened(self) -> None:
        """See `Response.shorten`."""
        if not self._whole:
            self._front.table.waits(self)

    def _refuse(self, status: int) -> None:
        """What came is no request that can be served."""
        if self._closing:
            return
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

    @property
    def ending(self) -> bool:
        """No request is waited for behind an answer that begins now."""
        return self._front.stopping or not self._whole

    def send(self, data: bytes) -> asyncio.Future[None] | None:
        """Hands bytes to the socket; a future while the client is behind."""
        if self._transport is not None:
            self._transport.write(data)
        # Whoever gives up waiting cancels what is waited for: that must not be what others wait for.
        return None if self._draining is None else asyncio.shield(self._draining)

    def answered(self, response: Response) -> None:
        """The answer is out; on to the next request, or the end."""
        if response is not self._answer:
            return
        response.closed = True
        self._answer = self._taker = None
        self._brief = response.brief
        self._front.table.waits(self)
        if not self._whole or (response.last and self._next):
            self._linger()
        elif response.last:
            self.close()
        else:
            self._since = self._loop.time()
            if self._next:
                self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Looks at what has come meanwhile, as soon as the client has read enough of what went out."""
        if self._answer is not None or self._draining is not None or self._closing:
            return
        self._read_head()
        if self._counted:
            self._bound_waiting()
        if len(self._next) <= HEAD_CAP:
            self._read_on()

    def _drop_waiting(self) -> None:
        self._front.long_heads -= self._counted
        self._next, self._counted = b"", 0

    def _read_on(self) -> None:
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()

    def _linger(self) -> None:
        """Closing while the client still sends would make it lose the answer (a reset)."""
        self._closing, self._since, self._taker = True, self._loop.time(), None
        if self._transport is not None:
            self._drop_waiting()
            self._read_on()
            self.linger = self._loop.call_later(LINGER_S, self.close)
            if self._transport.can_write_eof():
                self._transport.write_eof()

    def close(self) -> None:
        """What was written still goes out, then the connection ends."""
        self._closing, self._since = True, self._loop.time()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """The connection ends at once."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def release(self) -> tuple[asyncio.Transport, bytes]:
        """See `Response.release`."""
        transport, rest = self._transport, self._next
        assert transport is not None
        if self._reading:
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
