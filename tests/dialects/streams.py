"""Streams as the providers write them, for the tests of this room."""

from __future__ import annotations

import json
from typing import Any

from pool_server.core.enums import Dialect, Operation, Signal
from pool_server.core.models import Usage
from pool_server.dialects import Meter, meter
from pool_server.dialects.types import SIGNALS

OPERATION = {
    Dialect.RESPONSES: Operation.RESPONSES,
    Dialect.MESSAGES: Operation.MESSAGES,
    Dialect.CHAT: Operation.CHAT,
    Dialect.GEMINI: Operation.GENERATE,
    Dialect.CODE_ASSIST: Operation.GENERATE,
}


def sse(data: Any, event: str = "", end: str = "\n") -> bytes:
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    line = f"event: {event}{end}" if event else ""
    return f"{line}data: {text}{end}{end}".encode()


def named(data: dict[str, Any], end: str = "\n") -> bytes:
    """An event whose name is its data's type, as Responses and Messages servers write them."""
    return sse(data, data["type"], end)


RESPONSES_USAGE = {
    "input_tokens": 1200,
    "input_tokens_details": {"cached_tokens": 1024},
    "output_tokens": 70,
    "output_tokens_details": {"reasoning_tokens": 30},
    "total_tokens": 1270,
}


def responses(end: str = "response.completed", **changes: Any) -> list[dict[str, Any]]:
    head = {"id": "resp_1", "object": "response", "status": "in_progress", "model": "gpt-x", "usage": None}
    last = head | {"status": "completed", "usage": RESPONSES_USAGE, "service_tier": "default"} | changes
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": head},
        {"type": "response.in_progress", "response": head},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "content": []}},
        {"type": "response.output_text.delta", "delta": 'Grüße, "error": \n\n', "item_id": "msg_1"},
        {"type": "response.output_text.delta", "delta": "data: [DONE]\n\n", "item_id": "msg_1"},
        {"type": "response.output_item.done", "item": {"type": "message"}},
        {"type": end, "response": last},
    ]
    return [event | {"sequence_number": n} for n, event in enumerate(events)]


def messages() -> list[dict[str, Any]]:
    start = {
        "id": "msg_1",
        "type": "message",
        "model": "claude-x",
        "usage": {
            "input_tokens": 11,
            "cache_creation_input_tokens": 300,
            "cache_read_input_tokens": 900,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
            "output_tokens": 1,
            "service_tier": "standard",
        },
    }
    return [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": '"usage": {'}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 42, "server_tool_use": {"web_search_requests": 3}},
        },
        {"type": "message_stop"},
    ]


CHAT_USAGE = {
    "prompt_tokens": 900,
    "completion_tokens": 50,
    "prompt_tokens_details": {"cached_tokens": 512},
    "completion_tokens_details": {"reasoning_tokens": 20},
}


def chat(*, usage: bool = True) -> list[dict[str, Any]]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {"id": "chatcmpl-1", "model": "qwen-x", "choices": [choice], "usage": None}

    events = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": 'lo "finish_reason":"stop"'}),
        chunk({}, "stop"),
    ]
    if usage:
        events.append({"id": "chatcmpl-1", "model": "qwen-x", "choices": [], "usage": CHAT_USAGE})
    return events


def gemini(*, wrapped: bool = False) -> list[dict[str, Any]]:
    counts = {"promptTokenCount": 800, "cachedContentTokenCount": 256, "toolUsePromptTokenCount": 40}
    chunks = []
    for n, text in enumerate(("Hel", "lo", ".")):
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
        if n == 2:
            candidate["finishReason"] = "STOP"
        usage = counts | {"candidatesTokenCount": n + 1, "thoughtsTokenCount": 10 * n}
        head = {"modelVersion": "gemini-x", "responseId": "r1"}
        chunks.append({"candidates": [candidate], "usageMetadata": usage} | head)
    return [{"response": chunk, "traceId": "t"} for chunk in chunks] if wrapped else chunks


def stream(dialect: Dialect, end: str = "\n") -> bytes:
    """A whole good stream of a dialect."""
    if dialect is Dialect.RESPONSES:
        return b"".join(named(event, end) for event in responses())
    if dialect is Dialect.MESSAGES:
        return b"".join(named(event, end) for event in messages())
    if dialect is Dialect.CHAT:
        return b"".join(sse(event, end=end) for event in chat()) + sse("[DONE]", end=end)
    return b"".join(sse(event, end=end) for event in gemini(wrapped=dialect is Dialect.CODE_ASSIST))


USAGE = {
    Dialect.RESPONSES: Usage(input=176, cache_read=1024, output=70, reasoning=30, known=True),
    Dialect.MESSAGES: Usage(
        input=11, cache_read=900, cache_write=300, cache_write_1h=200, output=42, web_searches=3, known=True
    ),
    Dialect.CHAT: Usage(input=388, cache_read=512, output=50, reasoning=20, known=True),
    Dialect.GEMINI: Usage(input=584, cache_read=256, output=23, reasoning=20, known=True),
    Dialect.CODE_ASSIST: Usage(input=584, cache_read=256, output=23, reasoning=20, known=True),
}
MODEL = {
    Dialect.RESPONSES: ("gpt-x", "resp_1"),
    Dialect.MESSAGES: ("claude-x", "msg_1"),
    Dialect.CHAT: ("qwen-x", "chatcmpl-1"),
    Dialect.GEMINI: ("gemini-x", "r1"),
    Dialect.CODE_ASSIST: ("gemini-x", "r1"),
}


def run(dialect: Dialect, chunks: list[bytes]) -> tuple[Meter, Signal]:
    """Feed chunks to a fresh meter; the signals of all of them together."""
    reading = meter(dialect, OPERATION[dialect], stream=True)
    found = 0
    for chunk in chunks:
        found |= int(reading.feed(chunk))
    return reading, SIGNALS[found | int(reading.finish())]


def signals(dialect: Dialect, chunks: list[bytes]) -> list[Signal]:
    """The signal of each chunk."""
    reading = meter(dialect, OPERATION[dialect], stream=True)
    return [reading.feed(chunk) for chunk in chunks]
