"""One client's connection to the server.

Theory of operation. The transport hands over bytes (`data_received`). They gather in `_next` until a head is whole;
then the parser (llhttp, strictly: what two servers read differently is how requests are smuggled) is fed exactly that
head, and the server's `serve` makes a handler for the request. Of what follows, the parser gets what belongs to the
request's body, the handler gets that from the parser, and all else waits in `_next`: the next request of a connection
is looked at when the response before it is out (`responded`) and read. The connection's state is one of
`ServerState`, and changes only by the table in `states.py`. How far the client is behind with reading is
`FlowControl`'s to know. Nothing waits without an end: `tidy` is called every few seconds, and asks only the state.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from http.client import responses as _REASONS
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from pool_server.http1.admission import ConnectionTable
from pool_server.http1.flow import FlowControl
from pool_server.http1.request import HEAD_CAP, MOST_FIELDS, TARGET_CAP, Headers, HeadMemory, KnownHead, Request
from pool_server.http1.response import ClientDisconnectedError, RequestHandler, Response
from pool_server.http1.states import SERVER_NEXT, ServerEvent, ServerState

IDLE_S = 3600.0  # how long a connection may wait for its next request
HEAD_S = 20.0  # how long a head may take from its first byte to its last
BODY_S = 900.0  # how long a whole request may take
BRIEF_IDLE_S = 75.0  # both, after and in a request that nobody known sent
BRIEF_BODY_S = 30.0
FRAMING_CAP = 64 << 10  # bytes of a chunked body that are no content (extensions, trailers), beside …
FRAMING_SHARE = 8  # … so many for each byte that is: pieces of one byte take five
STALLED_S = 600.0  # how long a client that is behind may read next to nothing
CLOSING_S = 60.0  # how long a client may take to read what was written before the end
LINGER_S = 2.0  # how long a client that was answered early may go on sending, so that it gets to read the response
USUAL_HEAD = 16 << 10  # bytes; what is kept of longer ones that are not whole yet counts against `LONG_HEADS`
LONG_HEADS = 4 << 20  # bytes of all connections together
_VERSIONS = frozenset({"1.0", "1.1"})
_NO_HOST = re.compile(r"[^!-~]|[,@/\\?#\"<>^`{|}]")  # several Hosts, or what is no authority (RFC 9110 §7.2)
_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:([^\r\n]*)", re.IGNORECASE)
_END = b"\r\n\r\n"
_TLS = 0x16  # a TLS handshake record begins so (RFC 8446 §5.1), and no request does

NEW, HEAD, BODY, RESPONSE, IDLE, LINGER, CLOSING, CLOSED = map(int, ServerState)
_BYTES, _REQUEST, _COMPLETE, _RESPONDED, _TURN_AWAY, _CLOSE, _SWITCH, _LOST = map(int, ServerEvent)


class ConnectionOwner(Protocol):
    """What a connection asks of its server. `told` hears of one that ends and why, `long_heads` are the bytes of long
    heads that are not whole yet."""

    table: ConnectionTable[ServerConnection]
    heads: HeadMemory
    long_heads: int
    stopping: bool

    @property
    def told(self) -> Callable[[str, str], object]: ...

    @property
    def serve(self) -> Callable[[Request, Response], RequestHandler]: ...

    def forget(self, connection: ServerConnection) -> None: ...


class ServerConnection(asyncio.Protocol):
    """Belongs to a `HttpServer`, which gives out the handlers. `linger` runs while a client that was answered early
    gets to read that."""

    __slots__ = (
        "_brief", "_counted", "_flow", "_framing", "_handler", "_head", "_headers", "_left", "_loop", "_next",
        "_parser", "_peer", "_response", "_server", "_since", "_state", "_target", "_unparsed", "linger", "send",
    )  # fmt: skip

    def __init__(self, server: ConnectionOwner, address: str = "") -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._flow = FlowControl()
        self.send = self._flow.write  # bytes to the socket; a future while the client is behind
        self._peer = address
        self._state = NEW
        self._next = b""  # what is not parsed yet: an unfinished head, or requests to come
        self._target = b""
        self._head = b""  # that is being parsed, …
        self._headers: Headers | None = None  # … and its header pairs
        self._unparsed = False  # the head is known: the body is counted, the parser is not asked
        self._response: Response | None = None  # of the request under way
        self._handler: RequestHandler | None = None
        self._left: int | None = None  # bytes of its body still to come, None = it is chunked
        self._framing = 0  # bytes of a chunked body that may still come without being content
        self._since = self._loop.time()  # when what it waits for began
        self._brief = False  # the request before was nobody's
        self._counted = 0  # bytes of `_next` that count against `LONG_HEADS`
        self.linger: asyncio.TimerHandle | None = None
        server.table.opened(self, address)

    @property
    def state(self) -> ServerState:
        return ServerState(self._state)

    def _move(self, event: int) -> None:
        self._state = SERVER_NEXT[self._state][event]

    @property
    def since(self) -> float:
        """When what it waits for began, by the loop's clock."""
        return self._since

    def went_on(self) -> None:
        """A handshake has come a step further: the client is slow, not silent."""
        self._since = self._loop.time()

    def waited(self, now: float) -> float:
        """How long nothing has been under way here, in seconds; `now` is the loop's time."""
        return now - self._since if self._state in (NEW, IDLE) else 0.0

    def tidy(self, now: float) -> None:
        """Ends a connection that has waited for too long; `now` is the loop's time."""
        waited, state, response = now - self._since, self._state, self._response
        brief = response.brief if response is not None else self._brief
        if state >= LINGER:
            if waited > CLOSING_S:
                self.abort()
        elif self._flow.behind is not None:
            if waited > (BRIEF_BODY_S if brief and response is not None else STALLED_S):
                self.abort()
        elif state == NEW:
            if waited > self._server.table.limits.first_byte_s:
                self._server.told("silent", "")
                self.close()
        elif waited > self._patience(state, brief):
            self.close()

    @staticmethod
    def _patience(state: int, brief: bool) -> float:
        """How long a connection may stay in a state, in seconds. A response takes as long as it takes."""
        if state == HEAD:
            return HEAD_S
        if state == BODY:
            return BRIEF_BODY_S if brief else BODY_S
        if state == IDLE:
            return BRIEF_IDLE_S if brief else IDLE_S
        return float("inf")

    # -- what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._flow.transport = cast(asyncio.Transport, transport)
        if self._state == CLOSING:  # it has given way to another since
            self._flow.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        handler, response, whole = self._handler, self._response, self._state == RESPONSE
        self._move(_LOST)
        self._forget()
        if response is not None:
            response.closed = True
            if handler is not None and not (whole and response.finished):
                handler.on_connection_close()

    def _forget(self) -> None:
        self._server.forget(self)
        self._flow.transport = self._parser = self._handler = self._response = None
        self._drop_waiting()
        if self.linger is not None:
            self.linger.cancel()
            self.linger = None
        self._flow.resume_writing()

    def pause_writing(self) -> None:
        self._flow.pause_writing()
        self._since = self._loop.time()

    def resume_writing(self) -> None:
        self._flow.resume_writing()
        self._since = self._loop.time()
        if self._next:
            self._loop.call_soon(self._go_on)

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state >= LINGER:
            return
        if state == BODY:
            self._feed_body(data)
            return
        self._next += data
        if state != RESPONSE and self._flow.behind is None:
            self._read_head()
        if len(self._next) > USUAL_HEAD or self._counted:
            self._bound_waiting()

    def _bound_waiting(self) -> None:
        """Long heads are rare, and whoever sends them may mean harm: all that wait have one budget."""
        waiting, server = len(self._next), self._server
        server.long_heads += (size := waiting if waiting > USUAL_HEAD else 0) - self._counted
        self._counted = size
        much = size > 0 and server.long_heads > LONG_HEADS
        if much and self._state == HEAD:
            self._refuse(431)
        elif much or waiting > HEAD_CAP:
            self._flow.pause_reading()

    # -- requests

    def _read_head(self) -> None:
        """Begins with the next request as soon as its head is whole."""
        data = self._next = self._next.lstrip(b"\r\n") if self._next[:1] in b"\r\n" else self._next
        if not data:
            return
        if self._state != HEAD:
            self._since = self._loop.time()
            self._state = SERVER_NEXT[self._state][_BYTES]
        if data[0] == _TLS:
            self._server.told("tls", "")
            self.abort()
            return
        end = data.find(_END)
        if (end if end >= 0 else len(data)) > HEAD_CAP or data.count(b"\n", 0, max(end, 0)) > MOST_FIELDS:
            self._refuse(431)
        elif end >= 0:
            self._take_head(data[: end + 4], data[end + 4 :])

    def _take_head(self, head: bytes, rest: bytes) -> None:
        self._next = rest
        known = self._server.heads.find(head)
        if known is not None:
            self._take_known(*known)
        else:
            if b"pgrade" in head or b"PGRADE" in head:
                head = _without_foreign_upgrade(head)
            self._head, self._target, self._headers, self._unparsed = head, b"", Headers([]), False
            self._feed(head)
        if self._state == HEAD:
            self._refuse(400)  # HTTP/2 begins so
        elif self._state == BODY and self._next:
            rest, self._next = self._next, b""
            self._feed_body(rest)

    def _take_known(self, known: KnownHead, length: str) -> None:
        """A head that was parsed before: a request with a body of known length, which needs no parser."""
        self._unparsed = True
        try:
            self._begin(known.request(length, self._peer), int(length), last=known.last)
            self._count(b"")
        except Exception:
            self._refuse(400)
            raise

    def _count(self, data: bytes) -> None:
        """Hands on a piece of a body whose head was known, and tells the handler when that is whole."""
        if data and self._handler is not None and self._state == BODY:
            self._handler.data_received(data)
        if not self._left:
            self.on_message_complete()
            if self._state == RESPONSE and self._handler is not None:
                self._handler.finish()

    def _feed_body(self, data: bytes) -> None:
        """Parses what belongs to the request under way; what lies behind it waits."""
        if self._left is not None:
            data, self._next = data[: self._left], data[self._left :]
            self._left -= len(data)
        if not self._unparsed:
            self._feed(data)
            if self._left is None:
                self._bound_framing(len(data))
            return
        try:
            self._count(data)
        except Exception:
            self._refuse(400)
            raise

    def _bound_framing(self, came: int) -> None:
        """Extensions and trailers are thrown away here, and counted by nobody who counts a body."""
        self._framing -= came
        if self._framing < 0 and self._state == BODY:
            self._refuse(400)

    def _feed(self, data: bytes) -> None:
        """Parses, and tells the handler when the request is whole."""
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
            if self._state != RESPONSE:
                self._refuse(400)
                return
            self._serve_no_more()  # the request itself was none the worse for what came behind it
        if self._state == RESPONSE and self._handler is not None:
            self._handler.finish()

    def _serve_no_more(self) -> None:
        """The connection ends with the response to the request under way."""
        if self._response is not None:
            self._response.last = True

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
        if len(self._target) > TARGET_CAP:  # whoever routes it would take it apart
            self._refuse(414)
            return
        method, version = parser.get_method().decode("latin-1"), parser.get_http_version()
        host = headers.fields.get("host", "," if version == "1.1" else "")
        if version not in _VERSIONS or _NO_HOST.search(host) is not None:
            raise HttpParserError("no version this server speaks, or not one Host (RFC 9112 §3.2)")
        if headers.fields.get("transfer-encoding", "chunked").lower() != "chunked":
            raise HttpParserError("a coding within the chunks, which nobody here would undo (RFC 9112 §6.1)")
        request = Request(method, self._target.decode("latin-1"), version, headers, self._peer)
        length = headers.fields.get("content-length")
        head, self._head, last = self._head, b"", not parser.should_keep_alive()
        self._begin(request, int(length) if length is not None else None, last=last)
        if version == "1.1" and self._response is not None and not self._response.brief:  # of somebody known
            self._server.heads.keep(head, request, last=last)

    def _begin(self, request: Request, length: int | None, *, last: bool) -> None:
        """A request's head is whole. `length` of its body in bytes, None = it is chunked."""
        self._left, self._framing = length, FRAMING_CAP
        old = request.version == "1.0"
        response = Response(self, old=old, last=last, bare=request.method == "HEAD")
        self._response = response
        self._state = SERVER_NEXT[self._state][_REQUEST]
        self._server.table.works(self)
        self._handler = self._server.serve(request, response)
        if not old and request.headers.fields.get("expect", "").lower() == "100-continue":
            self._loop.call_soon(self._invite, response)  # unless the request is turned away at once

    def _invite(self, response: Response) -> None:
        """100 Continue: the client may send its body."""
        if response is self._response and self._state == BODY and not response.started:
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self._framing += (FRAMING_SHARE + 1) * len(data)
        if self._handler is not None and self._state == BODY:
            self._handler.data_received(data)

    def on_message_complete(self) -> None:
        if self._state == BODY:
            self._state = SERVER_NEXT[self._state][_COMPLETE]
            assert self._response is not None
            if self._response.brief:
                self._server.table.works(self)

    def shortened(self) -> None:
        """See `Response.shorten`."""
        if self._state == BODY:
            self._server.table.waits(self)

    def _refuse(self, status: int) -> None:
        """What came is no request that can be served."""
        if self._state >= LINGER:
            return
        handler, response = self._handler, self._response
        if response is None or not response.started:
            line = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            self.send(line.encode())
        if response is not None:
            response.closed = True
        self._turn_away()
        if handler is not None:
            handler.on_connection_close()

    # -- responses

    @property
    def ending(self) -> bool:
        """No request is waited for behind a response that begins now."""
        return self._server.stopping or self._state != RESPONSE

    def responded(self, response: Response) -> None:
        """The response is out; on to the next request, or the end."""
        response.closed = True
        self._response = self._handler = None
        self._brief = response.brief
        if self._state == CLOSING:
            return
        if self._state == BODY or (response.last and self._next):
            self._turn_away()
        elif response.last:
            self.close()
        else:
            self._state = SERVER_NEXT[self._state][_RESPONDED]
            self._server.table.waits(self)
            self._since = self._loop.time()
            if self._next:
                self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Looks at what has come meanwhile, as soon as the client has read enough of what went out."""
        if self._state not in (IDLE, HEAD) or self._flow.behind is not None:
            return
        self._read_head()
        if self._counted:
            self._bound_waiting()
        if len(self._next) <= HEAD_CAP:
            self._flow.resume_reading()

    def _drop_waiting(self) -> None:
        self._server.long_heads -= self._counted
        self._next, self._counted = b"", 0

    def _turn_away(self) -> None:
        """Closing while the client still sends would make it lose the response (a reset)."""
        self._move(_TURN_AWAY)
        self._server.table.waits(self)
        self._since, self._handler = self._loop.time(), None
        self._drop_waiting()
        transport = self._flow.transport
        assert transport is not None
        self._flow.resume_reading()
        self.linger = self._loop.call_later(LINGER_S, self.close)
        transport.write_eof()

    def close(self) -> None:
        """What was written still goes out, then the connection ends."""
        self._move(_CLOSE)
        self._since = self._loop.time()
        if self._flow.transport is not None:
            self._flow.transport.close()

    def abort(self) -> None:
        """The connection ends at once."""
        self._move(_CLOSE)
        if self._flow.transport is not None:
            self._flow.transport.abort()

    def release(self) -> tuple[asyncio.Transport, bytes]:
        """See `Response.release`."""
        transport, rest, response = self._flow.transport, self._next, self._response
        if self._state != RESPONSE or transport is None or response is None:
            raise ClientDisconnectedError
        self._flow.pause_reading()
        response.closed = True
        self._move(_SWITCH)
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
