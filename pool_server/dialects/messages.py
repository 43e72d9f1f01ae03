"""The Anthropic Messages protocol, as Claude Code speaks it."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec.json import Decoder

from pool_server.dialects.sse import closes, data_of
from pool_server.dialects.words import FAULT, RENDERED, TERMINAL, Facts, loads, status_of, text, whole
from pool_server.records import Usage

KEEPALIVE = b'event: ping\ndata: {"type":"ping"}\n\n'

_SSE_TYPE = re.compile(rb'(?:event:[^\n]*\n)?data: ?\{"type": ?"(\w+)"')
_EVENT_LINE = re.compile(rb"(?:^|\n)event: ?(\w+)")
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta"'
_HELD = frozenset({b"message_start", b"ping", b"keepalive"})
_READ = frozenset({b"message_start", b"message_delta", b"message_stop", b"error"})

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


class _Creation(msgspec.Struct):
    ephemeral_5m_input_tokens: Any = 0
    ephemeral_1h_input_tokens: Any = 0


class _Tools(msgspec.Struct):
    web_search_requests: Any = 0


class _Usage(msgspec.Struct):
    input_tokens: Any = 0
    cache_read_input_tokens: Any = 0
    cache_creation_input_tokens: Any = 0
    output_tokens: Any = 0
    thinking_token_count: Any = 0
    service_tier: Any = ""
    cache_creation: _Creation | None = None
    server_tool_use: _Tools | None = None


class _Message(msgspec.Struct):
    id: Any = ""
    type: Any = ""
    model: Any = ""
    usage: _Usage | None = None
    error: Any = None


class _Event(msgspec.Struct):
    type: Any = ""
    message: Any = None
    usage: _Usage | None = None
    error: Any = None


class _Start(msgspec.Struct):
    message: _Message | None = None


class _Error(msgspec.Struct):
    error: Any = None


_EVENT, _START, _ERROR, _MESSAGE = Decoder(_Event), Decoder(_Start), Decoder(_Error), Decoder(_Message)


def usage_of(raw: _Usage) -> Usage:
    """Anthropic's input excludes what touched a cache; its output includes thinking."""
    made, tools = raw.cache_creation, raw.server_tool_use
    hour = whole(made.ephemeral_1h_input_tokens) if made else 0
    minutes = whole(made.ephemeral_5m_input_tokens) if made else 0
    output = whole(raw.output_tokens)
    return Usage(
        input=whole(raw.input_tokens),
        cache_read=whole(raw.cache_read_input_tokens),
        cache_write=max(whole(raw.cache_creation_input_tokens), minutes + hour),
        cache_write_1h=hour,
        output=output,
        reasoning=min(whole(raw.thinking_token_count), output),
        web_searches=whole(tools.web_search_requests) if tools else 0,
        known=True,
    )


def merge(a: Usage, b: Usage) -> Usage:
    """`message_start` and `message_delta` each report a part, cumulatively: the larger of each field counts."""
    return Usage(
        input=max(a.input, b.input),
        cache_read=max(a.cache_read, b.cache_read),
        cache_write=max(a.cache_write, b.cache_write),
        cache_write_1h=max(a.cache_write_1h, b.cache_write_1h),
        output=max(a.output, b.output),
        reasoning=max(a.reasoning, b.reasoning),
        web_searches=max(a.web_searches, b.web_searches),
        known=a.known or b.known,
    )


class Reader(Facts):
    """Reads the events of one streamed message, or a whole JSON one."""

    def glance(self, chunk: bytes) -> bool:
        """Whether this is one whole event that `event` would find to be `RENDERED` and no more."""
        return chunk.startswith(_DELTA) and closes(chunk, len(_DELTA))

    def event(self, event: bytes) -> int:
        if event.startswith(_DELTA):
            return RENDERED
        match = _SSE_TYPE.match(event)
        if match is not None:
            kind = match[1]
            return self._read(kind, data_of(event)) if kind in _READ else self._plain(kind)
        data = data_of(event)
        if not data:
            return 0
        found = loads(data, _EVENT)
        kind = text(found.type).encode() if found else b""
        if not kind and (line := _EVENT_LINE.search(event)):
            kind = line[1]
        return self._read(kind, data) if kind in _READ else self._plain(kind)

    def wanted(self, head: bytes) -> bool:
        match = _SSE_TYPE.match(head)
        return match is None or match[1] in _READ

    def passed_over(self, head: bytes) -> int:
        match = _SSE_TYPE.match(head)
        return self._plain(match[1]) if match else RENDERED

    def _plain(self, kind: bytes) -> int:
        return 0 if kind in _HELD else RENDERED

    def _read(self, kind: bytes, data: bytes) -> int:
        if kind == b"message_stop":
            self.complete = True
            return RENDERED | TERMINAL
        if kind == b"message_start":
            start = loads(data, _START)
            if start is not None and start.message is not None:
                self._message(start.message)
            return 0
        if kind == b"error":
            self._fault(data)
            return FAULT
        event = loads(data, _EVENT)
        if event is not None and event.usage is not None:
            self._count(event.usage)
        return RENDERED

    def _message(self, message: _Message) -> None:
        self.response_id = text(message.id) or self.response_id
        self.model = text(message.model) or self.model
        if message.usage is not None:
            self._count(message.usage)

    def _count(self, usage: _Usage) -> None:
        self.usage = merge(self.usage, usage_of(usage)) if self.usage.known else usage_of(usage)
        self.tier = text(usage.service_tier) or self.tier

    def _fault(self, data: bytes) -> None:
        found = loads(data, _ERROR)
        error = found.error if found else None
        label = error.get("type") if isinstance(error, dict) else None
        self.fault = status_of(STATUS, label, default=500), data

    def whole(self, body: bytes) -> int:
        """Read a JSON message."""
        message = loads(body, _MESSAGE)
        if message is None:
            return 0
        if message.type == "error" or message.error is not None:
            self._fault(body)
            return FAULT
        self._message(message)
        self.complete = True
        return TERMINAL
