"""The OpenAI Chat Completions protocol, as Qwen Code, opencode and every compatible server speak it."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec.json import Decoder

from pool_server.dialects.responses import STATUS as RESPONSES_STATUS
from pool_server.dialects.sse import closes, data_of
from pool_server.dialects.words import (
    FAULT,
    RENDERED,
    TERMINAL,
    Details,
    Facts,
    loads,
    openai_usage,
    status_of,
    text,
)
from pool_server.records import Usage

KEEPALIVE = b": keepalive\n\n"

# DashScope's own codes beside OpenAI's.
STATUS = RESPONSES_STATUS | {
    "invalid_parameter_error": 400,
    "invalid_access_token": 401,
    "limit_requests": 429,
    "limit_burst_rate": 429,
    "quota_exceeded": 429,
    "internal_error": 500,
    "InternalError": 500,
    "Throttling": 429,
}

# What makes a chunk more than a piece of text. Within JSON strings quotes are escaped, so a text never looks like it.
_TELLING = re.compile(rb'"(?:usage": ?\{|error":|finish_reason": ?"[a-z])')
_FINISH = re.compile(rb'"finish_reason": ?"[a-z]')


class _Usage(msgspec.Struct):
    prompt_tokens: Any = 0
    completion_tokens: Any = 0
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None


class _Choice(msgspec.Struct):
    delta: dict[str, Any] | None = None
    finish_reason: Any = None


class _Chunk(msgspec.Struct):
    id: Any = ""
    model: Any = ""
    service_tier: Any = ""
    usage: _Usage | None = None
    choices: list[_Choice] | None = None
    error: Any = None
    code: Any = None
    message: Any = None


class _Answer(msgspec.Struct):
    id: Any = ""
    model: Any = ""
    service_tier: Any = ""
    usage: _Usage | None = None
    error: Any = None


_CHUNK, _ANSWER = Decoder(_Chunk), Decoder(_Answer)


def usage_of(raw: _Usage) -> Usage:
    """Chat names input "prompt" and output "completion"."""
    return openai_usage(
        raw.prompt_tokens, raw.prompt_tokens_details, raw.completion_tokens, raw.completion_tokens_details
    )


class Reader(Facts):
    """Reads the chunks of one streamed completion, or a whole JSON one.

    Some servers repeat the running usage in every chunk: the latest is kept undecoded until someone asks.
    """

    def __init__(self) -> None:
        self._latest: bytes | None = None
        super().__init__()
        self._rendered = False
        self._finished = False

    @property
    def usage(self) -> Usage:
        if self._latest is not None:
            chunk = loads(self._latest, _CHUNK)
            self._latest = None
            if chunk is not None and chunk.usage is not None:
                self._usage = usage_of(chunk.usage)
        return self._usage

    @usage.setter
    def usage(self, value: Usage) -> None:
        self._usage = value

    def glance(self, chunk: bytes) -> bool:
        """Whether this is one whole event that `event` would find to be `RENDERED` and no more."""
        return closes(chunk, 0) and self._flows(chunk)

    def _flows(self, event: bytes) -> bool:
        return self._rendered and event.startswith(b"data: {") and _TELLING.search(event) is None

    def event(self, event: bytes) -> int:
        if self._flows(event):
            return RENDERED
        data = data_of(event)
        if not data:
            return 0
        if data == b"[DONE]":
            self.complete = True
            return RENDERED | TERMINAL
        if b'"usage":{' in data or b'"usage": {' in data:
            self._latest = data
        if self._rendered and b'"error":' not in data:
            self._finished = self._finished or _FINISH.search(data) is not None
            return RENDERED
        return self._decode(data)

    def wanted(self, head: bytes) -> bool:
        return True

    def passed_over(self, head: bytes) -> int:
        self._rendered = True
        return RENDERED

    def end(self) -> None:
        """Some servers never send [DONE]: a stream that ended after its finish reason is whole."""
        self.complete = self.complete or self._finished

    def _decode(self, data: bytes) -> int:
        """A chunk before anything was shown, or one that may be an error."""
        chunk = loads(data, _CHUNK)
        if chunk is None:
            return RENDERED if self._rendered else 0
        if chunk.error is not None or (chunk.choices is None and chunk.code is not None):
            label = chunk.error if isinstance(chunk.error, dict) else {"code": chunk.code}
            self.fault = status_of(STATUS, label.get("code"), label.get("type"), default=500), data
            return FAULT
        self.response_id = self.response_id or text(chunk.id)
        self.model = self.model or text(chunk.model)
        self.tier = text(chunk.service_tier) or self.tier
        for choice in chunk.choices or ():
            self._finished = self._finished or bool(text(choice.finish_reason))
            shown = (value for name, value in (choice.delta or {}).items() if name != "role")
            self._rendered = self._rendered or self._finished or any(shown)
        return RENDERED if self._rendered else 0

    def whole(self, body: bytes) -> int:
        """Read a JSON completion."""
        answer = loads(body, _ANSWER)
        if answer is None:
            return 0
        if answer.error is not None:
            label = answer.error if isinstance(answer.error, dict) else {}
            self.fault = status_of(STATUS, label.get("code"), label.get("type"), default=500), body
            return FAULT
        self.response_id, self.model = text(answer.id), text(answer.model)
        self.tier = text(answer.service_tier)
        if answer.usage is not None:
            self._usage = usage_of(answer.usage)
        self.complete = True
        return TERMINAL
