"""One connection to an upstream: a request goes out, its response comes in as it arrives.

The data path's own client, because every event of every stream passes here: beside a general client it saves a third
of the processor time of an event and more of a request (`docs/benchmarks.md`).

Theory of operation. `exchange` writes a request, a large body at the upstream's pace, and waits for the response's
headers. What comes is fed to the parser (llhttp); the parser's callbacks gather headers and pieces of the body, and
`data_received` hands what one read of the socket brought to the `Answer` in one piece. Where the connection stands is
one of `ClientState`, which changes only by the table in `states.py`. Beside it stand: whether the request is all
out (a response may be whole before that), and whether the connection may serve again. Whoever reads the answer slowly
makes the upstream wait (`FlowControl`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from pool_server.http1.flow import FlowControl
from pool_server.http1.request import BODILESS, HEAD_CAP, USUAL_NAME, head_bytes, spelt, usual
from pool_server.http1.states import CLIENT_NEXT, ClientEvent, ClientState

PIECE = 1 << 20  # bytes of a request body handed to the socket at once: one huge write would hold up everybody else
_AHEAD = 256 << 10  # bytes read ahead of whoever reads the answer, before the upstream has to wait
_USUALLY_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_CHUNKED = re.compile(r"(?:^|[, \t])chunked$", re.IGNORECASE)
_FRAMED = frozenset({"", "chunked", "identity"})
_TARGET = re.compile(r"[!-~\x80-\U0010ffff]+")
_GARBLED = "what came was no HTTP"
_TOO_LATE = "no answer in time"

IDLE, AWAITING, INTERIM, BODY, DONE, CLOSED = map(int, ClientState)
_REQUEST, _INTERIM, _HEAD, _COMPLETE, _REUSE, _CLOSE = map(int, ClientEvent)

Body = bytes | AsyncIterator[bytes]


class UpstreamDisconnectedError(Exception):
    """The connection ended before the answer did. The text names the cause and no address."""


class ResponseTimeoutError(UpstreamDisconnectedError):
    """No answer began in time."""


class Answer:
    """An upstream's answer: `status` and `headers` are here, the body comes by `read`.

    `headers` are pairs in the upstream's order and case, `fields` the same by lower-case name (the last one wins).
    `at_once`, while it is set, is offered each piece that nothing unread stands before, as it comes: True = taken,
    else `read` has it.
    """

    __slots__ = (
        "_broken", "_complete", "_connection", "_loop", "_pieces", "_size", "_waiter", "at_once", "fields", "headers",
        "status",
    )  # fmt: skip

    def __init__(self, connection: ClientConnection) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.fields: dict[str, str] = {}
        self._connection: ClientConnection | None = connection
        self._loop = connection.loop
        self._pieces: list[bytes] = []
        self._size = 0
        self._complete = False
        self._broken: str | None = None  # why nothing more will come
        self._waiter: asyncio.Future[None] | None = None
        self.at_once: Callable[[bytes], bool] | None = None

    async def read(self) -> bytes:
        """What has come of the body, at least one byte; b"" at its end. Raises `UpstreamDisconnectedError`. One
        reader at a time."""
        while not self._pieces:
            if self._complete:
                return b""
            if self._broken is not None:
                raise UpstreamDisconnectedError(self._broken)
            await self._news()
        pieces = self._pieces
        self._pieces = []
        if self._size > _AHEAD and self._connection is not None:
            self._connection.resume_reading()
        self._size = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _news(self) -> asyncio.Future[None]:
        """Is done when something has come. A reader that gives up leaves it behind, which hurts nobody."""
        self._waiter = waiter = self._loop.create_future()
        return waiter

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises `UpstreamDisconnectedError`."""
        while piece := await self.read():
            yield piece

    def close(self, why: str = "the connection was closed here") -> None:
        """Whatever is still to come is not wanted: a reader that waits gets `UpstreamDisconnectedError`. Safe to call
        twice."""
        if self._connection is not None:
            self._connection.fail(why)

    @property
    def ended(self) -> bool:
        """Nothing more will come."""
        return self._complete or self._broken is not None

    def headers_or_end(self) -> asyncio.Future[None]:
        """What to wait for until `status` tells that the headers are here. Raises `UpstreamDisconnectedError` when none
        will come."""
        if self._broken is not None:
            raise (ResponseTimeoutError if self._broken is _TOO_LATE else UpstreamDisconnectedError)(self._broken)
        return self._news()

    # -- the connection's side

    def begin(self, status: int, headers: list[tuple[str, str]], fields: dict[str, str]) -> None:
        """The headers are here."""
        self.status, self.headers, self.fields = status, headers, fields
        self._wake()

    def feed(self, piece: bytes) -> bool:
        """Takes a piece of the body; False when the reader is too far behind."""
        if self.at_once is not None and not self._pieces and self.at_once(piece):
            return True
        self._pieces.append(piece)
        self._size += len(piece)
        self._wake()
        return self._size <= _AHEAD

    def end(self, broken: str | None = None) -> None:
        """Nothing more will come: all is here, or the connection broke off, and why."""
        self._connection = self.at_once = None
        self._complete = broken is None
        self._broken = broken
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)


class ClientConnection(asyncio.Protocol):
    """Serves one exchange at a time; `idle` is called when it may serve another. `closed`: it can serve no more.

    `untouched`: no byte of a response has come since the request went out.
    """

    __slots__ = (
        "_answer", "_body", "_dry", "_fields", "_flow", "_headers", "_idle", "_parser", "_sending", "_spoilt", "_state",
        "_to_eof", "_without_body", "idle_since", "loop", "untouched",
    )  # fmt: skip

    def __init__(self, idle: Callable[[ClientConnection], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self._idle = idle
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        # Liberties that cannot be mistaken; requests are read strictly.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
        self._flow = FlowControl()
        self._state = IDLE
        self._answer: Answer | None = None
        self._headers: list[tuple[str, str]] = []
        self._fields: dict[str, str] = {}
        self._body: list[bytes] = []
        self._dry = 0  # bytes that have come since the last ones of a body
        self._sending = False  # the request is not all out
        self._spoilt = False  # the connection cannot serve another exchange
        self._to_eof = False  # the response ends with the connection
        self._without_body = False  # the request was a HEAD
        self.idle_since = 0.0
        self.untouched = True

    @property
    def state(self) -> ClientState:
        return ClientState(self._state)

    @property
    def closed(self) -> bool:
        return self._state == CLOSED

    # -- an exchange

    async def exchange(self, head: bytes, body: Body, *, within_s: float, without_body: bool = False) -> Answer:
        """Sends a request and returns its answer once the headers are here.

        Raises `UpstreamDisconnectedError`, and `ResponseTimeoutError` when they do not come within `within_s` seconds.
        `without_body`: the response has none, whatever its headers say (HEAD).
        """
        if self._state == CLOSED:
            raise UpstreamDisconnectedError("the connection is closed")
        self._state = CLIENT_NEXT[self._state][_REQUEST]
        self._sending, self._spoilt, self._to_eof, self._without_body = True, False, False, without_body
        self._dry, self.untouched = 0, True
        answer = self._answer = Answer(self)
        clock = self.loop.call_later(within_s, answer.close, _TOO_LATE)  # a third of what asyncio.timeout costs
        try:
            if isinstance(body, bytes) and len(body) <= PIECE:
                self._flow.write(head + body)
            else:
                self._flow.write(head)
                await self._send(answer, _sliced(body) if isinstance(body, bytes) else body)
            self._sending = False
            while not answer.status:
                await answer.headers_or_end()
        except BaseException:
            answer.close()
            raise
        finally:
            clock.cancel()
        return answer

    async def _send(self, answer: Answer, pieces: AsyncIterator[bytes]) -> None:
        """Sends a large body at the upstream's pace; an upstream that has refused already need not hear the rest."""
        async for piece in pieces:
            if answer.ended or answer.status >= 400:
                self._spoilt = True
                return
            behind = self._flow.write(piece)
            if behind is not None:
                await behind

    def resume_reading(self) -> None:
        """The reader has caught up."""
        self._flow.resume_reading()

    def fail(self, why: str) -> None:
        """Ends the connection and the exchange that is under way."""
        answer, self._answer = self._answer, None
        self._state = CLIENT_NEXT[self._state][_CLOSE]
        transport, self._flow.transport = self._flow.transport, None
        if transport is not None:
            transport.abort()
        self._parser = None  # it refers back to this object
        self._flow.resume_writing()
        if answer is not None:
            answer.end(why)

    # -- what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._flow.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        answer = self._answer
        if answer is not None and self._to_eof and error is None:
            self._answer = None
            answer.end()
        self.fail("the upstream closed the connection")

    def pause_writing(self) -> None:
        self._flow.pause_writing()

    def resume_writing(self) -> None:
        self._flow.resume_writing()

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None or self._parser is None:
            self.fail(_GARBLED)  # bytes that nobody asked for
            return
        self.untouched = False
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            if self._state != DONE:
                self.fail(_GARBLED)
                return
            self._spoilt = True  # the response is none the worse for what stands behind it
        body = self._body
        if body:
            self._dry = 0
            piece = body[0] if len(body) == 1 else b"".join(body)
            body.clear()
            if not answer.feed(piece):
                self._flow.pause_reading()
        else:
            self._dry += len(data)
        if self._state == DONE:
            self._finish(answer)
        elif self._dry > HEAD_CAP:
            self.fail("its headers were too large")

    def _finish(self, answer: Answer) -> None:
        """The response is whole; the connection may serve again, unless one side will not have it."""
        self._answer = None
        answer.end()
        if self._spoilt or self._sending:
            self.fail("")
            return
        self._flow.resume_reading()
        self._state = CLIENT_NEXT[self._state][_REUSE]
        self._idle(self)

    # -- what the parser says

    def on_message_begin(self) -> None:
        if self._state == DONE:
            self._spoilt = True  # a second response to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._state != AWAITING:
            return  # a trailer
        text, lower = usual(name) if len(name) <= USUAL_NAME else spelt(name)
        said = value.decode("latin-1").rstrip(" \t")
        self._headers.append((text, said))
        self._fields[lower] = said

    def on_headers_complete(self) -> None:
        answer, parser = self._answer, self._parser
        if self._state != AWAITING or answer is None or parser is None:
            return
        status = parser.get_status_code()
        if status < 100:
            raise HttpParserError("no status (RFC 9110 §15)")
        headers, fields = self._headers, self._fields
        self._headers, self._fields = [], {}
        if status < 200:
            self._state = CLIENT_NEXT[self._state][_INTERIM]
            return
        if "transfer-encoding" in fields and _coded(headers):
            raise HttpParserError("a coding that was not asked for (RFC 9112 §7.4)")
        self._state = CLIENT_NEXT[self._state][_HEAD]
        answer.begin(status, headers, fields)
        if status >= 400:
            self._flow.resume_writing()  # whoever still sends need not wait until that is read
        self._spoilt |= not parser.should_keep_alive()
        if self._without_body:
            self._spoilt = True
            self._state = CLIENT_NEXT[self._state][_COMPLETE]
        elif status not in BODILESS:
            self._to_eof = "content-length" not in fields and not _CHUNKED.search(fields.get("transfer-encoding", ""))

    def on_body(self, data: bytes) -> None:
        if self._state == BODY:
            self._body.append(data)

    def on_message_complete(self) -> None:
        if self._state in (INTERIM, BODY):
            self._state = CLIENT_NEXT[self._state][_COMPLETE]


def _coded(headers: list[tuple[str, str]]) -> bool:
    """Whether the body on the wire is more than cut into chunks: whoever reads would take the coding for content."""
    said = ",".join(value for name, value in headers if name.lower() == "transfer-encoding")
    return any(coding.strip().lower() not in _FRAMED for coding in said.split(","))


async def _sliced(whole: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(whole), PIECE):
        yield whole[start : start + PIECE]


def request_head(method: str, target: str, host: str, headers: Iterable[tuple[str, str]], length: int) -> bytes:
    """A request's head. `length` of the body in bytes. Raises ValueError for what would not be one request."""
    return with_length(head_start(method, target, host, headers), method, length)


def head_start(method: str, target: str, host: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """A request's head up to the length of its body, which `with_length` adds. Raises ValueError likewise."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if not _TARGET.fullmatch(target):
        raise ValueError("a target with a space or a control character")
    return head_bytes(lines)[:-2]


def with_length(head: bytes, method: str, length: int) -> bytes:
    """The whole head of a request; `length` of its body in bytes."""
    if length or method not in _USUALLY_BODILESS:
        return b"%bContent-Length: %d\r\n\r\n" % (head, length)
    return head + b"\r\n"
