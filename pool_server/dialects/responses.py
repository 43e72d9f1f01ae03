"""The OpenAI Responses protocol: HTTP with server-sent events, plain JSON, and WebSocket frames.

Codex speaks it; its chatgpt.com backend adds `codex.*` events. An SSE event's data and a server's WebSocket frame
are the same JSON object.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec.json import Decoder

from pool_server.core.enums import ObjectKind
from pool_server.core.lenient_json import read_answer
from pool_server.dialects.types import FAULT, LIMITS, RENDERED, TERMINAL, AnswerFacts, dumps, says, status_of, text
from pool_server.dialects.usage import openai
from pool_server.dialects.usage.served import word
from pool_server.dialects.wire.sse import closes, data_of

# An event's own type, where it comes first in the data, as every known server writes it.
_SSE_TYPE = re.compile(rb'(?:event:[^\n]*\n)?data: ?\{"type": ?"([\w.-]+)"')
_FRAME_TYPE = re.compile(rb'\s*\{\s*"type"\s*:\s*"([\w.-]+)"')
_EVENT_LINE = re.compile(rb"(?:^|\n)event: ?([\w.-]+)")

# The deltas an answer mostly consists of, as events and as frames.
_DELTA_TYPES = tuple(
    b'{"type":"response.%b.delta"' % kind
    for kind in (
        b"output_text",
        b"function_call_arguments",
        b"custom_tool_call_input",
        b"reasoning_summary_text",
        b"reasoning_text",
    )
)
_DELTAS = tuple(b"event: %b\ndata: %b" % (kind[9:-1], kind) for kind in _DELTA_TYPES)
_HELD = frozenset(
    {
        b"response.created",
        b"response.in_progress",
        b"response.queued",
        b"response.metadata",
        b"codex.response.metadata",
        b"keepalive",
        b"ping",
    }
)
_ENDS = frozenset({b"response.completed", b"response.incomplete", b"response.done", b"response.cancelled"})
_FAULTS = frozenset({b"response.failed", b"error"})
_RATE_LIMITS = b"codex.rate_limits"
_SEARCHED = b"response.web_search_call.completed"
_READ = _ENDS | _FAULTS | {_RATE_LIMITS, b"response.created"}

# Error codes and types of the Responses API and the ChatGPT backend, as the HTTP status they stand for.
STATUS = {
    "usage_limit_reached": 429,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "usage_not_included": 403,
    "server_is_overloaded": 503,
    "slow_down": 503,
    "service_unavailable_error": 503,
    "overloaded_error": 529,
    "server_error": 500,
    "internal_server_error": 500,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "token_invalidated": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found": 404,
    "not_found_error": 404,
    "model_not_found": 404,
    "previous_response_not_found": 400,
    "context_length_exceeded": 400,
    "invalid_encrypted_content": 400,
    "invalid_prompt": 400,
    "invalid_request": 400,
    "invalid_request_error": 400,
    "cyber_policy": 400,
    "message_too_big": 413,
    "websocket_connection_limit_reached": 503,
}


_SEQUENCE = re.compile(rb'"sequence_number"\s*:\s*(\d{1,15})')


def next_sequence(piece: bytes) -> int:
    """The number of the event after those in `piece`, 0 where they have none."""
    numbers = _SEQUENCE.findall(piece)
    return int(numbers[-1]) + 1 if numbers else 0


def unasked() -> dict[str, Any]:
    """The fields of a request that a response repeats, where the request has none of them."""
    return {
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
    }


def response_object(now: float, status: str, ident: str = "", model: str = "", **more: Any) -> dict[str, Any]:
    """A response of the pool's own, with every field its type has (OpenAI's API reference, "The response object");
    `now` in unix seconds."""
    return {
        "id": ident,
        "object": "response",
        "created_at": int(now),
        "status": status,
        "model": model,
        "output": [],
        "error": None,
        "incomplete_details": None,
        **unasked(),
    } | more


class _Item(msgspec.Struct):
    type: Any = ""
    id: Any = ""
    container_id: Any = ""


class _Response(msgspec.Struct):
    id: Any = ""
    model: Any = ""
    status: Any = ""
    service_tier: Any = ""
    usage: Any = None
    error: Any = None
    output: list[_Item] | None = None


class _Event(msgspec.Struct):
    type: Any = ""
    response: _Response | None = None
    error: Any = None
    body: Any = None
    code: Any = None
    message: Any = None
    param: Any = None
    status: Any = None
    status_code: Any = None


class _Type(msgspec.Struct):
    type: Any = ""
    error: Any = None
    object: Any = None


_EVENT, _TYPE, _RESPONSE = Decoder(_Event), Decoder(_Type), Decoder(_Response)


class ResponsesReader(AnswerFacts):
    """Reads the events of one answer (SSE events or WebSocket frames), or a whole JSON answer."""

    def __init__(self) -> None:
        super().__init__()
        self._told = openai.told()
        self._searches = 0

    def glance(self, chunk: bytes) -> bool:
        """Whether this is one whole event that `event` would find to be `RENDERED` and no more."""
        return chunk.startswith(_DELTAS) and closes(chunk, chunk.find(b"\n") + 1)

    def event(self, event: bytes) -> int:
        if event.startswith(_DELTAS):
            return RENDERED
        match = _SSE_TYPE.match(event)
        if match is not None:
            kind = match[1]
            if kind not in _READ:
                return self._plain(kind)
            return self._read(kind, data_of(event))
        return self._unusual(data_of(event), _EVENT_LINE.search(event))

    def frame(self, frame: bytes) -> int:
        """Read one server-to-client WebSocket frame."""
        if frame.startswith(_DELTA_TYPES):
            return RENDERED
        match = _FRAME_TYPE.match(frame)
        if match is None:
            return self._unusual(frame, None)
        kind = match[1]
        return self._read(kind, frame) if kind in _READ else self._plain(kind)

    def wanted(self, head: bytes) -> bool:
        match = _SSE_TYPE.match(head)
        return match is None or match[1] in _READ

    def passed_over(self, head: bytes) -> int:
        match = _SSE_TYPE.match(head)
        if match is None:
            return RENDERED
        kind = match[1]
        if kind in _ENDS:
            self.complete = True
            return RENDERED | TERMINAL
        return self._plain(kind)

    def _plain(self, kind: bytes) -> int:
        """An event that needs no decoding."""
        if kind in _HELD:
            return 0
        if kind == _SEARCHED:
            self._searches += 1
            self._usage.web_searches = max(self._usage.web_searches, self._searches)
        return 0 if kind.startswith(b"codex.") else RENDERED

    def _unusual(self, data: bytes, line: re.Match[bytes] | None) -> int:
        """An event whose type is not the first thing in its data."""
        if not data or data == b"[DONE]":
            return 0
        found = read_answer(data, _TYPE)
        kind = text(found.type).encode() if found else b""
        if not kind and line is not None:
            kind = line[1]
        elif not kind and found is not None and not self.response_id and (says(found.error) or found.object == "error"):
            kind = b"error"  # before anything else; within an answer no client reads it
        return self._read(kind, data) if kind in _READ else self._plain(kind)

    def _read(self, kind: bytes, data: bytes) -> int:
        """An event that carries usage, limits or a fault."""
        if kind == _RATE_LIMITS:
            self.limits.append(data)
            return LIMITS
        event = read_answer(data, _EVENT)
        if event is None:
            if kind == b"response.created" or read_answer(data, _TYPE) is None:
                return 0 if kind == b"response.created" else RENDERED
            event = _Event()  # fields of another shape do not unsay what the event is
        response = event.response
        if response is not None:
            self._response(response)
        if kind == b"response.created":
            return 0
        if kind in _FAULTS or (response is not None and response.status == "failed"):
            self.fault = _fault(event)
            return FAULT
        self.complete = True
        return RENDERED | TERMINAL

    def _response(self, response: _Response) -> None:
        self.response_id = text(response.id) or self.response_id
        self.model = text(response.model) or self.model
        self._served.tier = word(response.service_tier) or self._served.tier
        output = response.output or ()
        self._searches = max(self._searches, sum(item.type == "web_search_call" for item in output))
        for item in output:
            self.made += [(ObjectKind.ITEM, text(item.id)), (ObjectKind.CONTAINER, text(item.container_id))]
        if response.usage is not None and openai.take(self._told, response.usage):
            self._served.read(response.usage)
            self._usage = openai.usage(self._told.figures)
        self._usage.web_searches = max(self._usage.web_searches, self._searches)

    def whole(self, body: bytes) -> int:
        """Read a JSON answer (`stream` false, or `/responses/compact`)."""
        response = read_answer(body, _RESPONSE)
        if response is None:
            return 0
        self._response(response)
        self.pending = response.status in ("queued", "in_progress")
        if says(response.error) and response.status in ("failed", ""):
            self.fault = _fault(_Event(error=response.error))
            return FAULT
        self.complete = bool(self.response_id) or response.output is not None  # else it is none
        return TERMINAL if self.complete else 0


def _fault(event: _Event) -> tuple[int, bytes]:
    """The status and HTTP error body an in-stream error stands for.

    Shapes: `response.failed` with `response.error{code,message}`; SSE `error` with `code`, `message` on top or
    `error{}`; WebSocket `error` with `status`|`status_code` and `error{}` or `body.error{}`.
    """
    error = event.error
    if event.response is not None and event.response.error is not None:
        error = event.response.error
    if error is None and isinstance(event.body, dict):
        error = event.body.get("error", event.body)
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        error = {"code": event.code, "message": text(event.message), "param": event.param}
    for told in (event.status, event.status_code):
        if isinstance(told, int):
            error = {"status_code": told, **error}
            break
    status = status_of(STATUS, event.status, event.status_code, error.get("code"), error.get("type"))
    return status, dumps({"error": error})
