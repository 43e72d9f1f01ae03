"""An upstream's answer on its way back to the client, in pieces or whole."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from pool_server.core.enums import Dialect
from pool_server.core.lenient_json import beyond_reading, read_answer, why_unread
from pool_server.dialects.chat import error_event, fault_in
from pool_server.dialects.translation.answers.choices import Choices, first_of
from pool_server.dialects.translation.answers.fold import Fold, WholeAnswer
from pool_server.dialects.translation.answers.sequence import HELD, Sequencer, Terms, Writer
from pool_server.dialects.translation.chat import (
    answer as chat_answer,
)
from pool_server.dialects.translation.chat import (
    stream_in as chat_stream_in,
)
from pool_server.dialects.translation.chat import (
    stream_out as chat_stream_out,
)
from pool_server.dialects.translation.conformance import UNTOLD
from pool_server.dialects.translation.errors import error_body, read_error
from pool_server.dialects.translation.fields import JSON
from pool_server.dialects.translation.gemini import (
    answer as gemini_answer,
)
from pool_server.dialects.translation.gemini import (
    stream_in as gemini_stream_in,
)
from pool_server.dialects.translation.gemini import (
    stream_out as gemini_stream_out,
)
from pool_server.dialects.translation.messages import (
    answer as messages_answer,
)
from pool_server.dialects.translation.messages import (
    stream_in as messages_stream_in,
)
from pool_server.dialects.translation.messages import (
    stream_out as messages_stream_out,
)
from pool_server.dialects.translation.neutral import (
    GOOGLE,
    OPENAI,
    ErrorInfo,
    NeutralRequest,
    Sink,
    UpstreamKind,
)
from pool_server.dialects.translation.responses import (
    answer as responses_answer,
)
from pool_server.dialects.translation.responses import (
    compaction,
)
from pool_server.dialects.translation.responses import (
    stream_in as responses_stream_in,
)
from pool_server.dialects.translation.responses import (
    stream_out as responses_stream_out,
)
from pool_server.dialects.types import RENDERED
from pool_server.dialects.wire.sse import Scanner, data_of

_SEVERAL = (Dialect.GEMINI, Dialect.CODE_ASSIST)  # dialects in which an answer may have several choices


class _Reader(Protocol):
    def event(self, name: str, event: Any, /) -> None: ...
    def done(self) -> None: ...
    def end(self) -> None: ...


class _OutWriter(Writer, Protocol):
    out: list[bytes]


class ResponseTranslator:
    """The answer's way back. A streamed one goes through `feed` and `finish`, one in one piece through `whole`; what
    the client asked for decides what comes out: events, or one JSON body.

    Nothing is written before the upstream says something to show. `fault` is set when the upstream failed or broke
    off: where `begun` is False nothing was written, and the client gets `fault_answer`; else the bytes returned end
    with the dialect's error event. `complete` says that the answer was told to its end.
    """

    def __init__(
        self, upstream: UpstreamKind, terms: Terms, request: NeutralRequest, *, stream: bool, now: float
    ) -> None:
        self.stream = stream
        self._client = terms.client
        self._created = int(now)
        self._echo = responses_answer.Echo(self._created, request.echo, request.namespaces)
        self._compacts, self._legacy = request.compacts, request.legacy
        self._folds: dict[int, Fold] = {}
        self._out: list[bytes] = []
        self._upstream = upstream
        sound = request.options.sound
        self._transcribed = sound is None or sound.text
        self._sequencer: Sequencer | Choices
        self._reader: _Reader
        if request.options.choices > 1 and upstream is UpstreamKind.CHAT and terms.client in _SEVERAL:
            choices, self._folds = _choices(
                terms, request.options.choices, self._out if stream else None, transcribed=self._transcribed
            )
            self._sequencer = self._reader = choices
        else:
            writer: Writer
            if stream:
                self._out, writer = _stream_writer(terms.client, self._created, self._echo, request)
            else:
                self._folds[0] = writer = Fold(
                    json_arguments=terms.client not in (Dialect.CHAT, Dialect.RESPONSES), shows=terms.client in _SEVERAL
                )
            self._sequencer = sequencer = Sequencer(writer, terms)
            self._reader = _stream_reader(upstream, sequencer, transcribed=self._transcribed)
        self._scanner = Scanner(self)

    @property
    def content_type(self) -> str:
        return "text/event-stream" if self.stream else "application/json"

    @property
    def begun(self) -> bool:
        """Whether bytes of the answer were returned, or will be."""
        return self.stream and self._sequencer.begun

    @property
    def fault(self) -> ErrorInfo | None:
        return self._sequencer.fault

    @property
    def approximated(self) -> dict[str, str]:
        """What of the answer the client is not told, by the vendor's names for it; for the record."""
        left_out = self._sequencer.left_out.names()
        return {UNTOLD: f"left out: {', '.join(left_out)}"} if left_out else {}

    @property
    def complete(self) -> bool:
        return self._sequencer.closed and self._sequencer.fault is None

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes of the upstream's events, cut anywhere; return what the client gets."""
        self._scanner.feed(piece)
        return self._take()

    def finish(self) -> bytes:
        """The upstream's answer ended, well or not; return the rest, or the whole JSON body."""
        self._scanner.finish()
        self._reader.end()
        return self._take() if self.stream else self._body()

    def whole(self, body: bytes) -> bytes:
        """Take an answer in one piece; return the client's, or all of its events."""
        found = read_answer(body, JSON)
        if isinstance(found, list) and self._upstream in GOOGLE:  # its events, without a stream's frame
            for event in found:
                self._reader.event("", event)
            return self.finish()
        inner = found.get("response", found) if isinstance(found, dict) and self._upstream in GOOGLE else found
        if found is None and beyond_reading(body):
            self._sequencer.fail(ErrorInfo(502, f"{why_unread(body)}.", "api_error"))
        elif not isinstance(inner, dict) or (fault_in(inner) is not None and not inner.get("output")):
            self._sequencer.fail(
                read_error(0 if isinstance(inner, dict) else 502, inner if isinstance(inner, dict) else body)
            )
        elif isinstance(self._sequencer, Choices):
            self._sequencer.whole(inner)
        else:
            if isinstance(found, dict) and self._upstream in GOOGLE:
                inner = found  # its reader opens the envelope itself
            _read_whole(self._upstream, inner, self._sequencer, transcribed=self._transcribed)
        return self._take() if self.stream else self._body()

    def error(self, status: int, body: bytes, *, retry_after: float | None = None) -> tuple[int, ErrorInfo, bytes]:
        """(status, what it says, body) of an upstream's error answer in the client's dialect."""
        info = read_error(status, body)
        if retry_after is not None:
            info.retry_after = retry_after
        return info.status, info, msgspec.json.encode(error_body(self._client, info))

    def fault_answer(self) -> tuple[int, bytes]:
        """(status, body) for a fault before anything was written."""
        fault = self.fault or ErrorInfo(502, "The upstream's answer broke off before its end.", "api_error")
        return fault.status, msgspec.json.encode(error_body(self._client, fault))

    def _take(self) -> bytes:
        if not self._out:
            return b""
        told = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return told

    def _body(self) -> bytes:
        found = first_of({index: fold.answer for index, fold in self._folds.items()})
        if found is None:
            return b""
        answer, others = found
        if self._compacts:
            return msgspec.json.encode(compaction.write_answer(answer, self._echo))
        if self._client is Dialect.CHAT:
            return msgspec.json.encode(chat_answer.write_answer(answer, self._created, legacy=self._legacy))
        return msgspec.json.encode(_write_whole(self._client, answer, others, self._created, self._echo))

    def close(self) -> None:
        """Nothing more is fed: what refers to itself is undone."""
        self.__dict__.pop("_scanner", None)

    # What the scanner asks

    def event(self, event: bytes) -> int:
        data = error_event(event) or data_of(event)
        if data == b"[DONE]":
            self._reader.done()
        elif data:
            found = read_answer(data, JSON)
            if found is not None:
                name = (
                    event[6 : event.find(b"\n")].strip().decode("utf-8", "replace")
                    if event.startswith(b"event:")
                    else ""
                )
                self._reader.event(name, found)
        return RENDERED

    def wanted(self, head: bytes) -> bool:
        return not self._sequencer.closed

    def passed_over(self, head: bytes) -> int:
        self._sequencer.fail(ErrorInfo(502, "An event of the upstream is too large.", "api_error", "too_large"))
        return RENDERED


def _choices(terms: Terms, most: int, out: list[bytes] | None, *, transcribed: bool) -> tuple[Choices, dict[int, Fold]]:
    """Several choices as a Gemini client gets them: events in `out`, or whole in the folds."""
    folds: dict[int, Fold] = {}
    writers: dict[int, gemini_stream_out.GeminiChoiceWriter] = {}
    wrapped = terms.client is Dialect.CODE_ASSIST

    def begin(index: int) -> Sequencer:
        writer: Writer
        if out is None:
            writer = folds[index] = Fold(json_arguments=True, shows=True)
        else:
            writer = writers[index] = gemini_stream_out.GeminiChoiceWriter(out, wrapped=wrapped, index=index)
        return Sequencer(writer, terms, most=HELD // most)

    def last(index: int) -> None:
        if out is not None:
            writers[index].last = True

    def tell(error: ErrorInfo) -> None:
        if out is not None:
            out.append(gemini_stream_out.error_event(error))

    return Choices(most, begin, last=last, tell=tell, transcribed=transcribed), folds


def _stream_writer(client: Dialect, created: int, echo: Any, request: NeutralRequest) -> tuple[list[bytes], Writer]:
    writer: _OutWriter
    if client is Dialect.CHAT:
        writer = chat_stream_out.ChatStreamWriter(created, include_usage=request.include_usage, legacy=request.legacy)
    elif client is Dialect.RESPONSES:
        writing = compaction.CompactionWriter if request.compacts else responses_stream_out.ResponsesStreamWriter
        writer = writing(echo)
    elif client is Dialect.MESSAGES:
        writer = messages_stream_out.MessagesStreamWriter()
    else:
        writer = gemini_stream_out.GeminiStreamWriter(wrapped=client is Dialect.CODE_ASSIST)
    return writer.out, writer


def _stream_reader(upstream: UpstreamKind, sink: Sink, *, transcribed: bool) -> _Reader:
    if upstream is UpstreamKind.CHAT:
        return chat_stream_in.ChatStreamReader(sink, transcribed=transcribed)
    if upstream in OPENAI:
        return responses_stream_in.ResponsesStreamReader(sink)
    return (
        messages_stream_in.MessagesStreamReader(sink)
        if upstream is UpstreamKind.MESSAGES
        else gemini_stream_in.GeminiStreamReader(sink)
    )


def _read_whole(upstream: UpstreamKind, body: dict[str, Any], sink: Sink, *, transcribed: bool) -> None:
    if upstream is UpstreamKind.CHAT:
        chat_answer.read_answer(body, sink, transcribed=transcribed)
    elif upstream in OPENAI:
        responses_answer.read_answer(body, sink)
    elif upstream is UpstreamKind.MESSAGES:
        messages_answer.read_answer(body, sink)
    else:
        gemini_answer.read_answer(body, sink)


def _write_whole(
    client: Dialect, answer: WholeAnswer, others: dict[int, WholeAnswer], created: int, echo: Any
) -> dict[str, Any]:
    if client is Dialect.RESPONSES:
        return responses_answer.write_answer(answer, echo)
    if client is Dialect.MESSAGES:
        return messages_answer.write_answer(answer, created)
    shape = gemini_answer.write_answer(answer, created, others)
    return {"response": shape} if client is Dialect.CODE_ASSIST else shape
