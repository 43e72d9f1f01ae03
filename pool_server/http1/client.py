"""One HTTP/1.1 connection to an upstream: a request goes out, its answer comes in as it arrives.

The data path's own client, because every event of every stream passes here: beside a general client it saves a third
of the processor time of an event and more of a request (`docs/benchmarks.md`). Parsing is llhttp's, by httptools.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from pool_server.http1.request import BODILESS, HEAD_CAP, head_bytes

PIECE = 1 << 20  # bytes of a request body handed to the socket at once: one huge write would hold up everybody else
_AHEAD = 256 << 10  # bytes read ahead of whoever reads the answer, before the upstream has to wait
_USUALLY_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_CHUNKED = re.compile(r"(?:^|[, \t])chunked$", re.IGNORECASE)
_TARGET = re.compile(r"[!-~\x80-\U0010ffff]+")
_GARBLED = "what came was no HTTP"
_TOO_LATE = "no answer in time"

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
        "_broken", "_complete", "_connection", "_pieces", "_size", "_waiter", "at_once", "fields", "headers", "status",
    )  # fmt: skip

    def __init__(self, connection: Connection) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.fields: dict[str, str] = {}
        self._connection: Connection | None = connection
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

    async def _news(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

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

    async def heard(self) -> None:
        """Returns when the headers are here. Raises `UpstreamDisconnectedError` when none came."""
        while not self.status:
            if self._broken is not None:
                raise (ResponseTimeoutError if self._broken is _TOO_LATE else UpstreamDisconnectedError)(self._broken)
            await self._news()

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
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Connection(asyncio.Protocol):
    """Serves one exchange at a time; `idle` is called when it may serve another. `closed`: it can serve no more.

    `untouched`: no byte of an answer has come since the request went out.
    """

    __slots__ = (
        "_answer", "_body", "_draining", "_dry", "_fields", "_headers", "_idle", "_interim", "_loop", "_over",
        "_parser", "_reading", "_sending", "_spoilt", "_to_eof", "_transport", "_without_body", "closed",
        "idle_since", "untouched",
    )  # fmt: skip

    def __init__(self, idle: Callable[[Connection], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle = idle
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        # Liberties that cannot be mistaken; requests are read strictly.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._draining: asyncio.Future[None] | None = None
        self._headers: list[tuple[str, str]] = []
        self._fields: dict[str, str] = {}
        self._body: list[bytes] = []
        self._reading = True
        self._forget()
        self.closed = False
        self.idle_since = 0.0
        self.untouched = True

    def _forget(self) -> None:
        """Ready for the next exchange."""
        self._dry = 0  # bytes that have come since the last ones of a body
        self._interim = False  # the headers that come are those of a 1xx answer
        self._sending = True  # the request is not all out
        self._over = False  # the answer is whole
        self._spoilt = False  # the connection cannot serve another exchange
        self._to_eof = False  # the answer ends with the connection
        self._without_body = False  # the request was a HEAD

    # -- an exchange

    async def exchange(self, head: bytes, body: Body, *, within_s: float, without_body: bool = False) -> Answer:
        """Sends a request and returns its answer once the headers are here.

        Raises `UpstreamDisconnectedError`, and `ResponseTimeoutError` when they do not come `within_s` seconds.
        `without_body`: the answer has none,
        whatever its headers say (HEAD).
        """
        assert self._answer is None
        self._forget()
        self._without_body = without_body
        self.untouched = True
        answer = self._answer = Answer(self)
        clock = self._loop.call_later(within_s, answer.close, _TOO_LATE)  # a third of what asyncio.timeout costs
        try:
            if isinstance(body, bytes) and len(body) <= PIECE:
                self._write(head + body)
            else:
                self._write(head)
                await self._send(answer, _sliced(body) if isinstance(body, bytes) else body)
            self._sending = False
            await answer.heard()
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
            self._write(piece)
            if self._draining is not None:
                await self._draining

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            raise UpstreamDisconnectedError("the connection is closed")
        self._transport.write(data)

    def resume_reading(self) -> None:
        """The reader has caught up."""
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()

    def fail(self, why: str) -> None:
        """Ends the connection and the exchange that is under way."""
        answer, self._answer = self._answer, None
        if self._transport is not None:
            self._transport.abort()
        self._close()
        if answer is not None:
            answer.end(why)

    def _close(self) -> None:
        self.closed = True
        self._transport = None
        self._parser = None  # it refers back to this object
        if self._draining is not None and not self._draining.done():
            self._draining.set_result(None)

    # -- what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        answer = self._answer
        if answer is not None and self._to_eof and error is None:
            self._answer = None
            answer.end()
        self.fail("the upstream closed the connection")

    def pause_writing(self) -> None:
        self._draining = self._loop.create_future()

    def resume_writing(self) -> None:
        draining, self._draining = self._draining, None
        if draining is not None and not draining.done():
            draining.set_result(None)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None or self._parser is None:
            self.fail(_GARBLED)  # bytes that nobody asked for
            return
        self.untouched = False
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            if not self._over:
                self.fail(_GARBLED)
                return
            self._spoilt = True  # the answer is none the worse for what stands behind it
        if self._body:
            self._deliver(answer)
        else:
            self._dry += len(data)
        if self._over:
            self._finish(answer)
        elif self._dry > HEAD_CAP:
            self.fail("its headers were too large")

    def _deliver(self, answer: Answer) -> None:
        self._dry = 0
        piece = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        if not answer.feed(piece) and self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _finish(self, answer: Answer) -> None:
        """The answer is whole; the connection may serve again, unless one side will not have it."""
        self._answer = None
        answer.end()
        if self._spoilt or self._sending:
            self.fail("")
            return
        self.resume_reading()
        self._idle(self)

    # -- what the parser says

    def on_message_begin(self) -> None:
        if self._over:
            self._spoilt = True  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._answer is None or self._answer.status:
            return  # a trailer
        text, said = name.decode("latin-1"), value.decode("latin-1").rstrip(" \t")
        self._headers.append((text, said))
        self._fields[text.lower()] = said

    def on_headers_complete(self) -> None:
        answer, parser = self._answer, self._parser
        assert answer is not None and parser is not None
        if answer.status:
            return
        status = parser.get_status_code()
        headers, fields = self._headers, self._fields
        self._headers, self._fields = [], {}
        self._interim = 100 <= status < 200
        if self._interim:
            return
        answer.begin(status, headers, fields)
        if status >= 400 and self._draining is not None and not self._draining.done():
            self._draining.set_result(None)  # whoever still sends need not wait until that is read
        self._spoilt |= not parser.should_keep_alive()
        if self._without_body:
            self._over = self._spoilt = True
        elif status not in BODILESS:
            self._to_eof = "content-length" not in fields and not _CHUNKED.search(fields.get("transfer-encoding", ""))

    def on_body(self, data: bytes) -> None:
        if not self._over:
            self._body.append(data)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        else:
            self._over = True


async def _sliced(whole: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(whole), PIECE):
        yield whole[start : start + PIECE]


def request_head(method: str, target: str, host: str, headers: Iterable[tuple[str, str]], length: int) -> bytes:
    """A request's head. `length` of the body in bytes. Raises ValueError for what would not be one request."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if length or method not in _USUALLY_BODILESS:
        lines.append(f"Content-Length: {length}")
    if not _TARGET.fullmatch(target):
        raise ValueError("a target with a space or a control character")
    return head_bytes(lines)
