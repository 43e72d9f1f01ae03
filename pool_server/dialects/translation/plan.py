"""One translated exchange: the request once, the answer as it comes."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from pool_server.core.enums import Dialect, Operation
from pool_server.dialects.translation.chat import (
    answer as chat_answer,
)
from pool_server.dialects.translation.chat import (
    request as chat_request,
)
from pool_server.dialects.translation.chat import (
    stream_in as chat_stream_in,
)
from pool_server.dialects.translation.chat import (
    stream_out as chat_stream_out,
)
from pool_server.dialects.translation.conformance import RULES, Feature, Notes, TranslationError, Verdict, judge
from pool_server.dialects.translation.conversation import arrange
from pool_server.dialects.translation.errors import error_body, read_error
from pool_server.dialects.translation.fold import Fold, WholeAnswer
from pool_server.dialects.translation.gemini import (
    answer as gemini_answer,
)
from pool_server.dialects.translation.gemini import (
    request as gemini_request,
)
from pool_server.dialects.translation.gemini import (
    request_out as gemini_request_out,
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
    request as messages_request,
)
from pool_server.dialects.translation.messages import (
    request_out as messages_request_out,
)
from pool_server.dialects.translation.messages import (
    stream_in as messages_stream_in,
)
from pool_server.dialects.translation.messages import (
    stream_out as messages_stream_out,
)
from pool_server.dialects.translation.neutral import (
    FAMILY,
    ErrorInfo,
    Message,
    NeutralRequest,
    Reasoning,
    Role,
    Sink,
    UpstreamKind,
)
from pool_server.dialects.translation.responses import (
    answer as responses_answer,
)
from pool_server.dialects.translation.responses import (
    request as responses_request,
)
from pool_server.dialects.translation.responses import (
    request_out as responses_request_out,
)
from pool_server.dialects.translation.responses import (
    stream_in as responses_stream_in,
)
from pool_server.dialects.translation.responses import (
    stream_out as responses_stream_out,
)
from pool_server.dialects.translation.sequence import Sequencer, Terms, Writer
from pool_server.dialects.translation.tools import ToolNames, names_of
from pool_server.dialects.types import RENDERED
from pool_server.dialects.wire.sse import Scanner, data_of

OPENAI = (UpstreamKind.CODEX, UpstreamKind.RESPONSES)
GOOGLE = (UpstreamKind.GEMINI, UpstreamKind.CODE_ASSIST)
_MOST_STOPS = {
    UpstreamKind.CODEX: 0,
    UpstreamKind.RESPONSES: 0,
    UpstreamKind.CHAT: 4,
    UpstreamKind.GEMINI: 5,
    UpstreamKind.CODE_ASSIST: 5,
}
_EVENT = msgspec.json.Decoder()
_OPERATION = {
    UpstreamKind.CODEX: Operation.RESPONSES,
    UpstreamKind.RESPONSES: Operation.RESPONSES,
    UpstreamKind.CHAT: Operation.CHAT,
    UpstreamKind.MESSAGES: Operation.MESSAGES,
    UpstreamKind.GEMINI: Operation.GENERATE,
    UpstreamKind.CODE_ASSIST: Operation.GENERATE,
}
DIALECT = {
    UpstreamKind.CODEX: Dialect.RESPONSES,
    UpstreamKind.RESPONSES: Dialect.RESPONSES,
    UpstreamKind.CHAT: Dialect.CHAT,
    UpstreamKind.MESSAGES: Dialect.MESSAGES,
    UpstreamKind.GEMINI: Dialect.GEMINI,
    UpstreamKind.CODE_ASSIST: Dialect.CODE_ASSIST,
}


class Target(msgspec.Struct, frozen=True):
    """Whom a request goes to. `model` is the name to send up ("" keeps the client's); `stream` whether the upstream
    is asked to stream (None: as the client asks); `project` Code Assist's; `seals` whether sealed reasoning may go,
    False where another account made it."""

    upstream: UpstreamKind
    model: str = ""
    stream: bool | None = None
    project: str = ""
    seals: bool = True


class TranslationContext(msgspec.Struct, frozen=True):
    """What a translation cannot make up itself. `ident` is unlike any other exchange's; `now` is unix seconds;
    `session` names the conversation where the client does not; `model` and `stream` are what a Gemini path says."""

    ident: str
    now: float
    session: str = ""
    model: str = ""
    stream: bool = False


class Translated(msgspec.Struct):
    """A request in the account's dialect. `path` is relative to the account's base address, query included; `headers`
    are to be set on it. `dropped` names the client's fields that were left out, `approximated` says how features were
    told otherwise, both for the record. `seals` are the sealed reasonings sent along."""

    body: bytes
    path: str
    operation: Operation
    stream: bool
    model: str
    headers: dict[str, str]
    dropped: list[str]
    approximated: dict[str, str]
    seals: list[str]
    response: ResponseTranslator


class _Reader(Protocol):
    def event(self, name: str, event: Any, /) -> None: ...
    def done(self) -> None: ...
    def end(self) -> None: ...


class _OutWriter(Writer, Protocol):
    out: list[bytes]


def translate_request(
    client: Dialect, target: Target, body: bytes | dict[str, Any], context: TranslationContext
) -> Translated:
    """Translate a decoded request body. Raises TranslationError: nothing may be sent, the client gets its 400."""
    request = read_request(client, body, context)
    client_stream, upstream = request.stream, target.upstream
    notes, conversation, names = prepare(request, target)
    request.stream = upstream is UpstreamKind.CODEX or (client_stream if target.stream is None else target.stream)
    session = _session(request, context.session)
    shape = write_body(request, conversation, notes, names, target, session, context.ident)
    reasonings = (p for m in conversation for p in m.parts if isinstance(p, Reasoning) and p.seal)
    terms = Terms(
        client=client,
        family=FAMILY[upstream],
        ident=context.ident,
        model=request.model,
        names=names,
        emulated=frozenset(t.name for t in request.tools if t.custom) if upstream not in OPENAI else frozenset(),
        stop=_pool_stops(request, upstream),
    )
    return Translated(
        body=msgspec.json.encode(shape),
        path=path_of(upstream, request.model, stream=request.stream),
        operation=_OPERATION[upstream],
        stream=request.stream,
        model=request.model,
        headers=headers_of(upstream),
        dropped=notes.names(),
        approximated=notes.approximated,
        seals=[part.seal for part in reasonings],
        response=ResponseTranslator(upstream, terms, request, stream=client_stream, now=context.now),
    )


def read_request(client: Dialect, body: bytes | dict[str, Any], context: TranslationContext) -> NeutralRequest:
    """A client's request in neutral form. Raises TranslationError."""
    found = decode(body) if isinstance(body, bytes) else body
    if not isinstance(found, dict):
        raise TranslationError("body", "the request body is not a JSON object")
    if client is Dialect.CHAT:
        return chat_request.read_request(found)
    if client is Dialect.RESPONSES:
        return responses_request.read_request(found)
    if client is Dialect.MESSAGES:
        return messages_request.read_request(found)
    read = gemini_request.read_envelope if client is Dialect.CODE_ASSIST else gemini_request.read_request
    return read(found, model=context.model, stream=context.stream)


def decode(body: bytes) -> Any:
    try:
        return _EVENT.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def prepare(request: NeutralRequest, target: Target) -> tuple[Notes, list[Message], ToolNames]:
    """Judge the features, put the conversation in order, and name its tools."""
    upstream = target.upstream
    request.model = target.model or request.model
    notes = judge(request, upstream)
    if not target.seals:
        for message in request.messages:
            message.parts = [p for p in message.parts if not isinstance(p, Reasoning) or not p.seal]
    conversation = arrange(request.messages, notes, FAMILY[upstream])
    names = ToolNames(names_of(request), upstream)
    if names.changed:
        _note(notes, Feature.ODD_NAMES, upstream)
    spoken = [message for message in conversation if message.role not in (Role.SYSTEM, Role.DEVELOPER)]
    if spoken and spoken[-1].role is Role.ASSISTANT:
        _note(notes, Feature.PREFILL, upstream)
    return notes, conversation, names


def _note(notes: Notes, feature: Feature, upstream: UpstreamKind) -> None:
    rule = RULES[feature][upstream]
    if rule.verdict is not Verdict.EXACT:
        notes.about(feature, rule.how)


def _session(request: NeutralRequest, given: str) -> str:
    """The conversation's name for the vendor: a hash, as the client's own may hold a person's id."""
    name = request.options.session or request.options.cache_key or given
    return blake2b(name.encode("utf-8", "replace"), digest_size=16, person=b"pool-session").hexdigest() if name else ""


def _pool_stops(request: NeutralRequest, upstream: UpstreamKind) -> tuple[str, ...]:
    stop = tuple(request.options.stop)
    return stop if len(stop) > _MOST_STOPS.get(upstream, len(stop)) else ()


def write_body(
    request: NeutralRequest,
    conversation: list[Message],
    notes: Notes,
    names: ToolNames,
    target: Target,
    session: str,
    ident: str,
) -> dict[str, Any]:
    upstream = target.upstream
    if upstream is UpstreamKind.CHAT:
        return chat_request.write_request(request, conversation, notes, names)
    if upstream is UpstreamKind.MESSAGES:
        return messages_request_out.write_request(request, conversation, notes, names, session=session)
    if upstream in OPENAI:
        write = responses_request_out.write_request
        return write(request, conversation, notes, names, upstream=upstream, session=session)
    body = gemini_request_out.write_request(request, conversation, notes, names)
    if upstream is UpstreamKind.GEMINI:
        return body
    envelope = gemini_request_out.write_envelope
    return envelope(body, request.model, project=target.project, prompt_id=ident, session=session)


def path_of(upstream: UpstreamKind, model: str, *, stream: bool = False, count: bool = False) -> str:
    """The path below the account's base address, query included."""
    if upstream in GOOGLE:
        verb = "countTokens" if count else "streamGenerateContent?alt=sse" if stream else "generateContent"
        return (
            f"/v1internal:{verb}"
            if upstream is UpstreamKind.CODE_ASSIST
            else f"/v1beta/models/{quote(model, safe='')}:{verb}"
        )
    if upstream is UpstreamKind.MESSAGES:
        return "/v1/messages/count_tokens" if count else "/v1/messages"
    if upstream is UpstreamKind.CHAT:
        return "/v1/chat/completions"
    return (
        "/v1/responses/input_tokens"
        if count
        else "/v1/responses"
        if upstream is UpstreamKind.RESPONSES
        else "/responses"
    )


def headers_of(upstream: UpstreamKind) -> dict[str, str]:
    version = {"anthropic-version": messages_request_out.VERSION} if upstream is UpstreamKind.MESSAGES else {}
    return {"content-type": "application/json", **version}


def refusal_body(client: Dialect, error: TranslationError) -> bytes:
    """The 400 a client gets for a request that cannot be translated."""
    info = ErrorInfo(400, str(error), "invalid_request_error", "unsupported_value")
    return msgspec.json.encode(error_body(client, info, field=error.field))


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
        self._fold: Fold | None = None
        writer: Writer
        if stream:
            self._out, writer = _stream_writer(terms.client, self._created, self._echo, request)
        else:
            self._out = []
            self._fold = writer = Fold(json_arguments=terms.client not in (Dialect.CHAT, Dialect.RESPONSES))
        self._sequencer = Sequencer(writer, terms)
        self._reader = _stream_reader(upstream, self._sequencer)
        self._upstream = upstream
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
        if self._fold is not None:
            return self._body()
        return self._take()

    def whole(self, body: bytes) -> bytes:
        """Take an answer in one piece; return the client's, or all of its events."""
        found = decode(body)
        inner = found.get("response", found) if isinstance(found, dict) and self._upstream in GOOGLE else found
        if not isinstance(inner, dict) or (inner.get("error") and not inner.get("output")):
            self._sequencer.fail(
                read_error(0 if isinstance(inner, dict) else 502, inner if isinstance(inner, dict) else body)
            )
        else:
            _read_whole(self._upstream, inner, self._sequencer)
        return self._body() if self._fold is not None else self._take()

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
        answer = self._fold.answer if self._fold is not None else None
        return msgspec.json.encode(_write_whole(self._client, answer, self._created, self._echo)) if answer else b""

    def close(self) -> None:
        """Nothing more is fed: what refers to itself is undone."""
        self.__dict__.pop("_scanner", None)

    # What the scanner asks

    def event(self, event: bytes) -> int:
        data = data_of(event)
        if data == b"[DONE]":
            self._reader.done()
        elif data:
            found = decode(data)
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


def _stream_writer(client: Dialect, created: int, echo: Any, request: NeutralRequest) -> tuple[list[bytes], Writer]:
    writer: _OutWriter
    if client is Dialect.CHAT:
        writer = chat_stream_out.ChatStreamWriter(created, include_usage=request.include_usage)
    elif client is Dialect.RESPONSES:
        writer = responses_stream_out.ResponsesStreamWriter(echo)
    elif client is Dialect.MESSAGES:
        writer = messages_stream_out.MessagesStreamWriter()
    else:
        writer = gemini_stream_out.GeminiStreamWriter(wrapped=client is Dialect.CODE_ASSIST)
    return writer.out, writer


def _stream_reader(upstream: UpstreamKind, sink: Sink) -> _Reader:
    if upstream is UpstreamKind.CHAT:
        return chat_stream_in.ChatStreamReader(sink)
    if upstream in OPENAI:
        return responses_stream_in.ResponsesStreamReader(sink)
    return (
        messages_stream_in.MessagesStreamReader(sink)
        if upstream is UpstreamKind.MESSAGES
        else gemini_stream_in.GeminiStreamReader(sink)
    )


def _read_whole(upstream: UpstreamKind, body: dict[str, Any], sink: Sink) -> None:
    if upstream is UpstreamKind.CHAT:
        chat_answer.read_answer(body, sink)
    elif upstream in OPENAI:
        responses_answer.read_answer(body, sink)
    elif upstream is UpstreamKind.MESSAGES:
        messages_answer.read_answer(body, sink)
    else:
        gemini_answer.read_answer(body, sink)


def _write_whole(client: Dialect, answer: WholeAnswer, created: int, echo: Any) -> dict[str, Any]:
    if client is Dialect.CHAT:
        return chat_answer.write_answer(answer, created)
    if client is Dialect.RESPONSES:
        return responses_answer.write_answer(answer, echo)
    if client is Dialect.MESSAGES:
        return messages_answer.write_answer(answer, created)
    shape = gemini_answer.write_answer(answer, created)
    return {"response": shape} if client is Dialect.CODE_ASSIST else shape
