"""Meters: they read an answer as it passes, for usage, faults and quota events, and never change a byte."""

from __future__ import annotations

from collections.abc import Callable

from pool_server.core.enums import MODEL_CALLS, Dialect, ObjectKind, Operation, Signal
from pool_server.core.lenient_json import beyond_reading
from pool_server.core.models import Usage
from pool_server.dialects import chat, gemini, messages, responses
from pool_server.dialects.types import FAULT, RENDERED, SIGNALS, TERMINAL, Meter
from pool_server.dialects.usage import Served
from pool_server.dialects.usage.batch import BatchUsage
from pool_server.dialects.wire.media import MediaReader
from pool_server.dialects.wire.sse import Scanner

JSON_CAP = 32 << 20  # bytes; a larger JSON answer passes, its usage stays unknown

_RENDERED = SIGNALS[RENDERED]

_Talk = responses.ResponsesReader | messages.MessagesReader | chat.ChatReader | gemini.GeminiReader
_Reader = _Talk | MediaReader

_READERS: dict[Dialect, type[_Talk]] = {
    Dialect.RESPONSES: responses.ResponsesReader,
    Dialect.MESSAGES: messages.MessagesReader,
    Dialect.CHAT: chat.ChatReader,
    Dialect.GEMINI: gemini.GeminiReader,
    Dialect.CODE_ASSIST: gemini.GeminiReader,
}

_STATUSES = {Dialect.MESSAGES: messages.STATUS, Dialect.GEMINI: gemini.STATUS, Dialect.CODE_ASSIST: gemini.STATUS}
# The streams that end as their dialect's conversations do.
_AS_TOLD = MODEL_CALLS | {Operation.STORED_RESPONSES}


def _no_glance(_: bytes) -> bool:
    return False


class _Meter:
    """What all meters share. `retrieved`: the call only looks something up."""

    body = b""
    glance: Callable[[bytes], bool] = staticmethod(_no_glance)

    def __init__(self, reader: _Reader, *, retrieved: bool = False) -> None:
        self._reader = reader
        self._retrieved = retrieved

    def _judged(self, found: int) -> int:
        """What was found in the answer; an error within an object that was only looked up is no error of this call."""
        if found & FAULT and self._retrieved:
            self._reader.fault = None
            self._reader.complete = True
            return (found & ~FAULT) | RENDERED | TERMINAL
        return found


class _Facts(_Meter):
    """Hands out what the reader has learnt so far."""

    @property
    def usage(self) -> Usage:
        return self._reader.usage

    @property
    def model(self) -> str:
        return self._reader.model

    @property
    def made(self) -> list[tuple[ObjectKind, str]]:
        return self._reader.made

    @property
    def response_id(self) -> str:
        return self._reader.response_id

    @property
    def served(self) -> Served:
        return self._reader.served

    @property
    def complete(self) -> bool:
        return self._reader.complete

    @property
    def pending(self) -> bool:
        return self._reader.pending

    @property
    def fault(self) -> tuple[int, bytes] | None:
        return self._reader.fault

    @property
    def limits(self) -> list[bytes]:
        return self._reader.limits


class StreamMeter(_Facts):
    """Reads server-sent events."""

    def __init__(self, reader: _Reader, *, retrieved: bool = False) -> None:
        super().__init__(reader, retrieved=retrieved)
        self._scanner = Scanner(reader)
        self.glance = reader.glance
        self.at_boundary = True

    def feed(self, chunk: bytes) -> Signal:
        if self.at_boundary and self.glance(chunk):  # nearly every chunk is one plain event: it is not taken apart
            return _RENDERED
        found = self._judged(self._scanner.feed(chunk))
        self.at_boundary = self._scanner.at_boundary
        return SIGNALS[found]

    def finish(self) -> Signal:
        found = self._judged(self._scanner.finish())
        self._reader.end()
        return SIGNALS[found]


class JsonMeter(_Meter):
    """Collects a JSON answer, up to `JSON_CAP` bytes, and reads it when it is whole; what is beyond reading passes, its
    usage unknown.

    `any_body` says that the answer need not be JSON to be whole (images, audio, lists of another shape) and may be the
    results of a batch, which are read line by line, however many there are. With `results_only` nothing else counts: a
    batch job tells the sum of its results each time it is looked at.
    """

    at_boundary = False
    # What the reader has learnt, once the answer is whole: it is asked for many times.
    model = ""
    response_id = ""
    complete = pending = False
    fault: tuple[int, bytes] | None = None

    def __init__(
        self, reader: _Talk, *, any_body: bool = False, retrieved: bool = False, results_only: bool = False
    ) -> None:
        super().__init__(reader, retrieved=retrieved)
        self._read = reader.whole
        self._any_body = any_body
        self._unread = results_only  # no results have come yet, and nothing else counts
        self._parts: list[bytes] | None = []
        self._size = 0
        self._lines: BatchUsage | None = None
        self._asked = not any_body  # whether these are a batch's results has been looked at
        self.usage, self.served, self.made, self.limits = reader.usage, reader.served, reader.made, reader.limits

    def feed(self, chunk: bytes) -> Signal:
        if not chunk:
            return Signal.NONE
        if self._lines is not None:
            self._lines.feed(chunk)
            return _RENDERED
        self._size += len(chunk)
        if self._size > JSON_CAP:
            self._parts = None
        if self._parts is not None:
            self._parts.append(bytes(chunk))
            if not self._asked and b"\n" in chunk:
                self._ask(self._parts)
        return _RENDERED

    def _ask(self, parts: list[bytes]) -> None:
        """A line ended: if it is the first result of a batch, the rest is read as its other results."""
        body = b"".join(parts)
        line, end, _ = body.lstrip(b"\r\n").partition(b"\n")
        if not end:
            return
        self._asked = True
        if BatchUsage.begins(line):
            self._lines, self._parts = BatchUsage(), []
            self._lines.feed(body)

    def finish(self) -> Signal:
        found, reader = self._finish(), self._reader
        self.model, self.response_id, self.served = reader.model, reader.response_id, reader.served
        self.complete, self.pending, self.fault = reader.complete, reader.pending, reader.fault
        self.made, self.limits = reader.made, reader.limits
        self.usage = Usage() if self._unread else reader.usage
        return found

    def _finish(self) -> Signal:
        if self._parts is None:
            self._reader.complete = True
            return Signal.TERMINAL
        if self._lines is not None:
            return self._results(self._lines)
        body, self._parts = b"".join(self._parts), []
        self.body = body
        if self._any_body:
            lines = BatchUsage()
            if lines.job(body):
                return self._results(lines)
            if BatchUsage.begins(body):
                lines.feed(body)
                return self._results(lines)
        found = self._judged(self._read(body)) if body else 0
        if not found and (self._any_body or beyond_reading(body)):
            self._reader.complete = True
            return Signal.TERMINAL
        return SIGNALS[found]

    def _results(self, lines: BatchUsage) -> Signal:
        lines.finish()
        self._reader.batch(lines)
        self._unread = False
        self._reader.complete = True
        return Signal.TERMINAL


class OpaqueMeter(_Facts):
    """For answers that carry no billed usage (token counts): the bytes are not read at all."""

    at_boundary = False

    def feed(self, chunk: bytes) -> Signal:
        return _RENDERED if chunk else Signal.NONE

    def finish(self) -> Signal:
        self._reader.complete = True
        return Signal.TERMINAL


class FrameMeter(_Facts):
    """Reads the server's WebSocket frames of one Responses turn, one JSON text frame a call."""

    at_boundary = True

    def __init__(self) -> None:
        self._events = responses.ResponsesReader()
        super().__init__(self._events)

    def feed(self, frame: bytes | str) -> Signal:
        return SIGNALS[self._events.frame(frame.encode() if isinstance(frame, str) else frame)]

    def finish(self) -> Signal:
        return Signal.NONE


def meter(dialect: Dialect, operation: Operation, *, stream: bool, retrieved: bool = False) -> Meter:
    """A meter for one answer; `stream` says that it comes as server-sent events (its Content-Type tells), `retrieved`
    that the call only looks something up: what failed earlier is no fault of it."""
    reader = _READERS[dialect]()
    if isinstance(reader, chat.ChatReader):
        reader.answers = operation is Operation.CHAT
    if operation is Operation.COUNT_TOKENS:
        return OpaqueMeter(reader)
    if stream:
        talk = operation in _AS_TOLD or (operation is Operation.COMPLETIONS and dialect is Dialect.CHAT)
        reading = reader if talk else MediaReader(_STATUSES.get(dialect, chat.STATUS))
        return StreamMeter(reading, retrieved=retrieved)
    batches = operation is Operation.BATCHES
    return JsonMeter(reader, any_body=operation not in MODEL_CALLS, retrieved=retrieved, results_only=batches)


def frame_meter() -> FrameMeter:
    """A meter for one turn of a Responses WebSocket."""
    return FrameMeter()
