"""Which kind of answer an upstream gives."""

from __future__ import annotations

from pool_server import dialects
from pool_server.core.enums import MODEL_CALLS, Dialect, Operation, Transport
from pool_server.gateway.answer import AnsweringAccount, FrameAnswer, RelayedAnswer, StreamAnswer, Transformer
from pool_server.gateway.attempts.bodies import BufferedAnswer, FoldedAnswer, UndecidedAnswer
from pool_server.gateway.exchange import Exchange
from pool_server.gateway.translation import Reformed
from pool_server.gateway.transports import UpstreamAnswer, content_length

_LOOKS_UP = frozenset({"GET", "HEAD"})
_FORMS = frozenset({Operation.RESPONSES, Operation.MESSAGES, Operation.CHAT, Operation.COMPLETIONS, Operation.GENERATE})


def answer_of(
    x: Exchange,
    source: UpstreamAnswer,
    account: AnsweringAccount,
    transformer: Transformer | None,
    *,
    framed: bool,
    now: float,
) -> RelayedAnswer:
    """The answer that is about to come from `source`, at `now`. Where events were asked for or are announced its first
    bytes decide what it is."""
    if framed:
        x.transport = Transport.WEBSOCKET
        return FrameAnswer(dialects.frame_meter(), account, status=200, now=now)
    translation, status = x.translation, source.status
    labelled = "event-stream" in source.fields.get("content-type", "")
    lists = x.route.operation is Operation.GENERATE  # Google's servers know one more form
    if translation is None and not (labelled or lists or x.peek.stream or x.route.websocket):  # as most
        x.transport = Transport.BUFFERED
        return _body(x, source, account, transformer, x.route.dialect, x.route.operation, now)
    dialect, operation = x.route.dialect, x.route.operation
    if translation is not None:
        dialect, operation = translation.dialect, translation.operation

    def make(stream: bool, first: bytes) -> RelayedAnswer:
        nonlocal translation, transformer
        if translation is None and (reformed := _reformed(x, source, stream, listed=first == b"[")) is not None:
            translation = transformer = x.translation = reformed
        x.transport = _carried(x, stream if translation is None else translation.stream)
        if translation is not None:
            translation.events = stream
        if not stream:
            return _body(x, source, account, transformer, dialect, operation, now)
        meter = dialects.meter(dialect, operation, stream=True, retrieved=x.call.method in _LOOKS_UP)
        if translation is not None and not translation.stream:
            return FoldedAnswer(meter, account, status=status, now=now, transformer=transformer)
        translated = translation is not None
        return StreamAnswer(
            meter,
            account,
            status=status,
            now=now,
            transformer=transformer,
            translated=translated,
            closing=b"" if translated else dialects.SPECS[dialect].closing,
        )

    if labelled or lists or x.peek.stream or (translation is not None and operation in MODEL_CALLS):
        return UndecidedAnswer(make, account, labelled=labelled, now=now)
    return make(False, b"")


def _carried(x: Exchange, stream: bool) -> Transport:
    if x.route.websocket:
        return Transport.WEBSOCKET
    return Transport.SSE if stream else Transport.BUFFERED


def _reformed(x: Exchange, source: UpstreamAnswer, stream: bool, *, listed: bool) -> Reformed | None:
    """What gives the client its answer in the form it asked for, where the upstream chose another one: events
    (`stream`) for one body, one body for events, or a list of events (`listed`) for one body."""
    route, peek = x.route, x.peek
    if route.operation not in _FORMS or route.websocket or x.call.method in _LOOKS_UP or source.status != 200:
        return None
    if listed and route.operation is Operation.GENERATE and not peek.stream:
        return Reformed(route.dialect, x.call, stream=False, listed=False, usage=False)
    listed = dialects.listed(route.dialect, x.call.query, stream=peek.stream)
    if stream is (peek.stream and not listed):
        return None
    return Reformed(route.dialect, x.call, stream=not stream, listed=listed, usage=peek.usage_asked)


def _body(
    x: Exchange,
    source: UpstreamAnswer,
    account: AnsweringAccount,
    transformer: Transformer | None,
    dialect: Dialect,
    operation: Operation,
    now: float,
) -> BufferedAnswer:
    """An answer that is one body."""
    return BufferedAnswer(
        dialects.meter(dialect, operation, stream=False, retrieved=x.call.method in _LOOKS_UP),
        account,
        status=source.status,
        now=now,
        transformer=transformer,
        eager=x.peek.stream,
        any_body=operation not in MODEL_CALLS,
        length=content_length(source),
    )
