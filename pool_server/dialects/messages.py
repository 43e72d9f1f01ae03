"""The Anthropic Messages protocol, as Claude Code speaks it."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec.json import Decoder

from pool_server.core.enums import Dialect, ObjectKind
from pool_server.core.lenient_json import read_answer
from pool_server.dialects.references import references
from pool_server.dialects.types import FAULT, RENDERED, TERMINAL, AnswerFacts, status_of, text
from pool_server.dialects.usage import anthropic
from pool_server.dialects.wire.sse import closes, data_of

_SSE_TYPE = re.compile(rb'(?:event:[^\n]*\n)?data: ?\{"type": ?"(\w+)"')
_EVENT_LINE = re.compile(rb"(?:^|\n)event: ?(\w+)")
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta"'
_HELD = frozenset({b"message_start", b"ping", b"keepalive"})
_READ = frozenset({b"message_start", b"message_delta", b"message_stop", b"error"})
_BLOCK = b"content_block_start"
_CODE_RAN = b"code_execution"  # in the type of the blocks that name files a sandbox wrote

# Anthropic's error types and the status each is sent with.
STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class _Message(msgspec.Struct):
    id: Any = ""
    type: Any = ""
    model: Any = ""
    usage: Any = None
    error: Any = None
    container: Any = None
    content: Any = ""
    code: Any = None
    base_resp: Any = None


class _Event(msgspec.Struct):
    type: Any = ""
    message: Any = None
    usage: Any = None
    error: Any = None
    delta: Any = None


class _Start(msgspec.Struct):
    message: _Message | None = None


class _Error(msgspec.Struct):
    error: Any = None


_EVENT, _START, _ERROR, _MESSAGE = Decoder(_Event), Decoder(_Start), Decoder(_Error), Decoder(_Message)


class MessagesReader(AnswerFacts):
    """Reads the events of one streamed message, or a whole JSON one."""

    def __init__(self) -> None:
        super().__init__()
        self._told = anthropic.MessageUsage()
        self._stopped = False  # why the message ends was told

    def glance(self, chunk: bytes) -> bool:
        """Whether this is one whole event that `event` would find to be `RENDERED` and no more."""
        return chunk.startswith(_DELTA) and closes(chunk, len(_DELTA))

    def event(self, event: bytes) -> int:
        if event.startswith(_DELTA):
            return RENDERED
        match = _SSE_TYPE.match(event)
        if match is not None:
            kind = match[1]
            if kind == _BLOCK and _CODE_RAN in event:
                self.made += references(Dialect.MESSAGES, data_of(event))
            return self._read(kind, data_of(event)) if kind in _READ else self._plain(kind)
        data = data_of(event)
        if not data:
            return 0
        found = read_answer(data, _EVENT)
        kind = text(found.type).encode() if found else b""
        if not kind and (line := _EVENT_LINE.search(event)):
            kind = line[1]
        if not kind and found is not None and found.error is not None:
            kind = b"error"  # as gateways and compatible endpoints tell one
        return self._read(kind, data) if kind in _READ else self._plain(kind)

    def wanted(self, head: bytes) -> bool:
        match = _SSE_TYPE.match(head)
        return match is None or match[1] in _READ or (match[1] == _BLOCK and _CODE_RAN in head)

    def passed_over(self, head: bytes) -> int:
        match = _SSE_TYPE.match(head)
        return self._plain(match[1]) if match else RENDERED

    def end(self) -> None:
        """Some servers never send `message_stop`: a stream that ended after its stop reason is whole."""
        self.complete = self.complete or self._stopped

    def _plain(self, kind: bytes) -> int:
        return 0 if kind in _HELD else RENDERED

    def _read(self, kind: bytes, data: bytes) -> int:
        if kind == b"message_stop":
            self.complete = True
            return RENDERED | TERMINAL
        if kind == b"message_start":
            start = read_answer(data, _START)
            if start is not None and start.message is not None:
                self._message(start.message)
            return 0
        if kind == b"error":
            self._fault(data)
            return FAULT
        event = read_answer(data, _EVENT)
        if event is not None and event.usage is not None:
            self._count(event.usage, anthropic.DELTA)
        if event is not None and isinstance(event.delta, dict):
            self._stopped = self._stopped or bool(text(event.delta.get("stop_reason")))
            self._contained(event.delta.get("container"))
        return RENDERED

    def _contained(self, container: Any) -> None:
        """The sandbox the vendor's tools ran in; a later request may name it."""
        if isinstance(container, dict):
            self.made.append((ObjectKind.CONTAINER, text(container.get("id"))))

    def _message(self, message: _Message) -> None:
        self.response_id = text(message.id) or self.response_id
        self.model = text(message.model) or self.model
        if message.usage is not None:
            self._count(message.usage, anthropic.START)
        self._contained(message.container)

    def _count(self, raw: Any, stage: int) -> None:
        if self._told.take(raw, stage):
            self._served.read(raw)
        self._usage = self._told.usage()

    def _fault(self, data: bytes) -> None:
        found = read_answer(data, _ERROR)
        error = found.error if found else None
        labels = (error.get("type"), error.get("code")) if isinstance(error, dict) else ()
        self.fault = status_of(STATUS, *labels, default=500), data

    def whole(self, body: bytes) -> int:
        """Read a JSON message; one without content is none."""
        message = read_answer(body, _MESSAGE)
        if message is None:
            return 0
        if message.type == "error" or message.error is not None:
            self._fault(body)
            return FAULT
        refused = message.base_resp.get("status_code") if isinstance(message.base_resp, dict) else message.code
        if refused and not message.content:  # MiniMax's and Z.ai's error in a 200
            self.fault = 200, body
            return FAULT
        self._message(message)
        if _CODE_RAN in body:
            self.made += references(Dialect.MESSAGES, body)
        told = isinstance(message.content, list | str)
        self.complete = told and (bool(self.response_id) or message.type == "message")
        return TERMINAL if self.complete else 0
