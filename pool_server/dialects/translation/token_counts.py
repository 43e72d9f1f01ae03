"""Counting tokens: by the upstream's own counter, or where it has none by an estimate that is told as one."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.core.enums import ApiFamily, Dialect
from pool_server.dialects.specs import SPECS
from pool_server.dialects.translation import fields
from pool_server.dialects.translation.messages import request_out as messages_request_out
from pool_server.dialects.translation.neutral import (
    GOOGLE,
    Media,
    NeutralRequest,
    Part,
    Reasoning,
    Result,
    Text,
    ToolCall,
    UpstreamKind,
)
from pool_server.dialects.translation.plan import (
    Target,
    TranslationContext,
    headers_of,
    path_of,
    prepare,
    read_request,
    write_body,
)

_COUNTERS = (UpstreamKind.RESPONSES, UpstreamKind.MESSAGES, *GOOGLE)
_PER_MESSAGE = 4  # tokens a turn's frame takes
_PER_TOOL = 12
_IMAGE = 1500  # tokens; vendors count a picture by its size, 85 to 3000
_DOCUMENT_BYTES = 40  # bytes of a document for one token
_ASCII = 4.0  # characters a token in Latin text and code
_OTHER = 1.3  # characters a token in other scripts


class Count(msgspec.Struct):
    """A request to count tokens: `body` and `path` for the upstream's own counter, or `estimate` where it has none."""

    body: bytes = b""
    path: str = ""
    headers: dict[str, str] = {}
    estimate: int | None = None


def translate_count(
    client: Dialect, target: Target, body: bytes | dict[str, Any], context: TranslationContext
) -> Count:
    """Translate a request to count tokens. Raises TranslationError as `translate_request` does."""
    request = read_request(client, body, context)
    request.stream = False
    notes, conversation, names = prepare(request, target)
    upstream = target.upstream
    if upstream not in _COUNTERS:
        return Count(estimate=estimate(request))
    if upstream is UpstreamKind.MESSAGES:
        shape = messages_request_out.write_request(request, conversation, notes, names, count=True)
    else:
        shape = write_body(request, conversation, notes, names, Target(upstream), "", "")
        if upstream is UpstreamKind.RESPONSES:
            shape = {
                k: v for k, v in shape.items() if k in ("model", "input", "instructions", "tools", "text", "reasoning")
            }
        elif upstream is UpstreamKind.CODE_ASSIST:
            shape = {"request": {"model": f"models/{request.model}", "contents": shape["request"]["contents"]}}
        else:
            shape = {"generateContentRequest": {"model": f"models/{request.model}", **shape}}
    return Count(msgspec.json.encode(shape), path_of(upstream, request.model, count=True), headers_of(upstream))


def count_answer(client: Dialect, counted: int | bytes) -> bytes:
    """The count as the client's dialect tells it: an estimate, or the upstream's answer in any dialect."""
    tokens = counted if isinstance(counted, int) else _counted(counted)
    if SPECS[client].family is ApiFamily.GOOGLE:
        return msgspec.json.encode({"totalTokens": tokens})
    shape: dict[str, Any] = {"object": "response.input_tokens"} if SPECS[client].family is ApiFamily.OPENAI else {}
    return msgspec.json.encode({**shape, "input_tokens": tokens})


def _counted(body: bytes) -> int:
    found = fields.decode(body)
    found = found.get("response", found) if isinstance(found, dict) else {}
    for name in ("input_tokens", "totalTokens"):
        value = found.get(name) if isinstance(found, dict) else None
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0


def estimate(request: NeutralRequest) -> int:
    """Input tokens a request comes to, within about a quarter of what vendors count."""
    total = 3.0
    for message in request.messages:
        total += _PER_MESSAGE + sum(_part(part) for part in message.parts)
    for tool in request.tools:
        total += _PER_TOOL + _text(tool.name) + _text(tool.description) + _json(tool.schema or {})
    if request.format is not None:
        total += _json(request.format.schema or {})
    return int(total)


def _part(part: Part) -> float:
    if isinstance(part, (Text, Reasoning)):
        return _text(part.text)
    if isinstance(part, ToolCall):
        return _PER_TOOL + _text(part.name) + _text(part.arguments)
    if isinstance(part, Result):
        return _PER_MESSAGE + sum(_part(each) for each in part.parts)
    return _media(part)


def _media(part: Media) -> float:
    if part.kind == "image" or not part.data:
        return _IMAGE
    return max(_IMAGE, len(part.data) * 3 / 4 / _DOCUMENT_BYTES)


def _text(text: str) -> float:
    if text.isascii():
        return len(text) / _ASCII
    plain = len(text.encode("ascii", "ignore"))
    return plain / _ASCII + (len(text) - plain) / _OTHER


def _json(value: Any) -> float:
    return len(msgspec.json.encode(value)) / _ASCII
