"""What a bug report shows of a body: its shape, with secrets hidden and texts replaced by their length. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from pool_server.providers.redact import redact

# Names whose values say how a request or an answer is built, and nothing of what it is about. Only short words.
_STRUCTURE = frozenset(
    {
        "anthropic_version", "effort", "encoding", "event", "finish_reason", "finishReason", "format", "id",
        "index", "item_id", "media_type", "mime_type", "mimeType", "mode", "model", "modelVersion", "object",
        "phase", "reason", "response_id", "role", "service_tier", "status", "stop_reason", "strict", "truncation",
        "type", "verbosity",
    }
)  # fmt: skip
_WORD = re.compile(r"[\w.:/+-]{1,80}")
_DATA = re.compile(rb"^data: ?(.*?)(\r?)$", re.M | re.S)
_DEEPEST = 200


def body(data: bytes, *, texts: bool) -> Any:
    """A body as it may be shown: JSON as JSON, server-sent events as a list of their lines, all else by its size.
    `texts`: strings stay, without what looks like a secret."""
    found = _json(data)
    if found is not _NONE:
        return shown(found, texts=texts)
    if data.lstrip().startswith((b"data:", b"event:", b":", b"id:", b"retry:")):
        return [_event_line(line, texts=texts) for line in data.splitlines() if line.strip()]
    return f"[{len(data)} bytes]"


def _event_line(line: bytes, *, texts: bool) -> Any:
    name, colon, value = line.partition(b":")
    value = value.strip()
    if name == b"data" and colon:
        found = _json(value)
        if found is not _NONE:
            return {"data": shown(found, texts=texts)}
        return {"data": "[DONE]" if value == b"[DONE]" else f"[{len(value)} bytes]"}
    if name == b"event" and _WORD.fullmatch(text := value.decode("utf-8", "replace")):
        return {"event": text}
    return f"[{len(line)} bytes]"


def shown(value: Any, *, texts: bool, name: str = "", within_error: bool = False, depth: int = 0) -> Any:
    """A decoded value: names of fields, numbers and what tells the structure stay."""
    if isinstance(value, str):
        return _string(value, name, texts=texts, within_error=within_error)
    if depth > _DEEPEST:
        return "[nested deeper]"
    if isinstance(value, list):
        return [shown(one, texts=texts, name=name, within_error=within_error, depth=depth + 1) for one in value]
    if isinstance(value, dict):
        return {
            _field(key, texts=texts): shown(
                one, texts=texts, name=key, within_error=within_error or key == "error", depth=depth + 1
            )
            for key, one in value.items()
        }
    return value


def _string(value: str, name: str, *, texts: bool, within_error: bool) -> str:
    if texts or (within_error and name in ("message", "type", "code")):
        return redact(value)
    if name in _STRUCTURE and _WORD.fullmatch(value):
        return redact(value)
    return f"[text of {len(value)}]"


def _field(name: str, *, texts: bool) -> str:
    """A field's name, which in the arguments of a tool may be anything."""
    return redact(name) if texts or _WORD.fullmatch(name) else f"[name of {len(name)}]"


_NONE = object()


def _json(data: bytes) -> Any:
    if data.lstrip()[:1] not in (b"{", b"["):
        return _NONE
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NONE
