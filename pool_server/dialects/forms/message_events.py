"""A message of the Messages API: from its events, and as them."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.dialects.forms.growing import GrowingText, longer
from pool_server.dialects.translation.tools import arguments_object

# What a delta adds to its block, by the delta's type.
_GROWS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "compaction_delta": "content",
}
_BEGINS = {"text_delta": "text", "thinking_delta": "thinking"}


class MessageFold:
    """Blocks in the order they began; usage in its last word."""

    def __init__(self) -> None:
        self._message: dict[str, Any] | None = None
        self._blocks: list[dict[str, Any]] = []
        self._open: dict[Any, dict[str, Any]] = {}
        self._arguments: dict[int, list[str]] = {}  # by the identity of their block

    def take(self, event: dict[str, Any]) -> None:
        kind, index = event.get("type"), event.get("index")
        if kind == "message_start" and self._message is None:
            self._message = dict(_object(event.get("message")))
        elif kind == "content_block_start":
            self._begin(index, dict(_object(event.get("content_block"))))
        elif kind == "content_block_delta":
            self._grow(index, _object(event.get("delta")))
        elif kind == "message_delta":
            message = self._message = self._message or {}
            message.update(_object(event.get("delta")))
            usage = message["usage"] = _object(message.get("usage"))
            usage |= {name: count for name, count in _object(event.get("usage")).items() if count is not None}

    def _begin(self, index: Any, block: dict[str, Any]) -> dict[str, Any]:
        self._blocks.append(block)
        self._open[index if isinstance(index, int) else 0] = block
        return block

    def _grow(self, index: Any, delta: dict[str, Any]) -> None:
        kind = delta.get("type")
        block = self._open.get(index if isinstance(index, int) else 0)
        if block is None and kind in _BEGINS:
            block = self._begin(index, {"type": _BEGINS[kind]})
        if block is None:
            return
        if kind == "input_json_delta":
            self._arguments.setdefault(id(block), []).append(str(delta.get("partial_json") or ""))
        elif kind == "citations_delta":
            if not isinstance(block.get("citations"), list):
                block["citations"] = []
            block["citations"].append(delta.get("citation"))
        elif kind in _GROWS:
            name = _GROWS[kind]
            before, more = block.get(name), delta.get(name)
            if isinstance(more, str):
                block[name] = longer(before, more) if isinstance(before, (str, GrowingText)) else more

    def answer(self) -> dict[str, Any] | None:
        if self._message is None:
            return None
        for block in self._blocks:
            told = "".join(self._arguments.get(id(block), ()))
            if told:
                block["input"] = arguments_object(told)[0]
        return {**self._message, "content": self._blocks}


def events(message: dict[str, Any]) -> bytes | None:
    content = message.get("content")
    if not isinstance(content, list):
        return None
    end = {"stop_reason": message.get("stop_reason"), "stop_sequence": message.get("stop_sequence")}
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    told: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(block for block in content if isinstance(block, dict)):
        told += _block(index, block)
    told.append({"type": "message_delta", "delta": end, "usage": message.get("usage")})
    told.append({"type": "message_stop"})
    return b"".join(b"event: %b\ndata: %b\n\n" % (one["type"].encode(), msgspec.json.encode(one)) for one in told)


def _block(index: int, block: dict[str, Any]) -> list[dict[str, Any]]:
    """A block's start, its pieces and its end."""
    deltas: list[dict[str, Any]] = []
    start = dict(block)
    if isinstance(block.get("input"), dict):
        start["input"] = {}
        deltas.append({"type": "input_json_delta", "partial_json": msgspec.json.encode(block["input"]).decode()})
    elif block.get("type") in ("text", "thinking"):
        citations = block.get("citations")
        if isinstance(citations, list) and citations:
            start["citations"] = []
            deltas += [{"type": "citations_delta", "citation": one} for one in citations]
        for kind, name in _GROWS.items():
            if name != "content" and isinstance(block.get(name), str):
                start[name] = ""
                deltas.append({"type": kind, name: block[name]})
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
