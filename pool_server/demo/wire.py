"""What a provider's good answer looks like on the wire, made from a text and a `Usage`. Pure.

Each function turns the normalised counts of `records.Usage` back into the arithmetic of its vendor: OpenAI and
Gemini count cached tokens as part of the input, Anthropic beside it; Gemini's candidates exclude thoughts.
Streams come as lists of whole SSE events, so that a caller can pace, cut or garble them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from pool_server.core.models import Usage

Json = dict[str, Any]
Event = tuple[str, Json]


def sse(event: str, data: Json) -> bytes:
    """One SSE event; without a name when `event` is empty."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


# ---------------------------------------------------------------- usage, as each vendor counts it


def responses_usage(usage: Usage) -> Json:
    whole = usage.input + usage.cache_read + usage.cache_write
    return {
        "input_tokens": whole,
        "input_tokens_details": {"cached_tokens": usage.cache_read},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": whole + usage.output,
    }


def chat_usage(usage: Usage) -> Json:
    whole = usage.input + usage.cache_read + usage.cache_write
    return {
        "prompt_tokens": whole,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read},
        "completion_tokens": usage.output,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": whole + usage.output,
    }


def messages_usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write - usage.cache_write_1h,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.output,
        "service_tier": "standard",
    }


def gemini_usage(usage: Usage) -> Json:
    whole = usage.input + usage.cache_read + usage.cache_write
    counts: Json = {"promptTokenCount": whole, "candidatesTokenCount": usage.output - usage.reasoning}
    if usage.cache_read:
        counts["cachedContentTokenCount"] = usage.cache_read
    if usage.reasoning:
        counts["thoughtsTokenCount"] = usage.reasoning
    return counts | {"totalTokenCount": whole + usage.output}


# ---------------------------------------------------------------- OpenAI Responses


def response_object(ident: str, model: str, status: str, output: list[Json], usage: Usage | None) -> Json:
    return {
        "id": ident,
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "model": model,
        "output": output,
        "error": None,
        "incomplete_details": None,
        "parallel_tool_calls": True,
        "store": False,
        "service_tier": "default",
        "usage": responses_usage(usage) if usage is not None else None,
        "metadata": {},
    }


def _message_item(ident: str, text: str, status: str) -> Json:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}] if text else []
    return {"id": f"msg_{ident}", "type": "message", "role": "assistant", "status": status, "content": content}


def response_json(ident: str, model: str, pieces: Sequence[str], usage: Usage) -> Json:
    return response_object(ident, model, "completed", [_message_item(ident, "".join(pieces), "completed")], usage)


def responses_frames(ident: str, model: str, pieces: Sequence[str], usage: Usage) -> list[Json]:
    """The event objects of a Responses answer in order, as SSE data or as WebSocket frames."""
    text = "".join(pieces)
    item = _message_item(ident, text, "completed")
    here = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    opening = response_object(ident, model, "in_progress", [], None)
    part = {"type": "output_text", "text": "", "annotations": []}
    events: list[Event] = [
        ("response.created", {"response": opening}),
        ("response.in_progress", {"response": opening}),
        ("response.output_item.added", {"output_index": 0, "item": _message_item(ident, "", "in_progress")}),
        ("response.content_part.added", {**here, "part": part}),
        *(("response.output_text.delta", {**here, "delta": piece}) for piece in pieces),
        ("response.output_text.done", {**here, "text": text}),
        ("response.content_part.done", {**here, "part": {**part, "text": text}}),
        ("response.output_item.done", {"output_index": 0, "item": item}),
        ("response.completed", {"response": response_object(ident, model, "completed", [item], usage)}),
    ]
    return [{"type": name, "sequence_number": number, **data} for number, (name, data) in enumerate(events)]


def responses_events(ident: str, model: str, pieces: Sequence[str], usage: Usage) -> list[bytes]:
    return [sse(frame["type"], frame) for frame in responses_frames(ident, model, pieces, usage)]


# ---------------------------------------------------------------- OpenAI Chat Completions


def chat_json(ident: str, model: str, pieces: Sequence[str], usage: Usage) -> Json:
    message = {"role": "assistant", "content": "".join(pieces)}
    return {
        "id": f"chatcmpl-{ident}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": chat_usage(usage),
    }


def chat_events(
    ident: str, model: str, pieces: Sequence[str], usage: Usage, *, include_usage: bool = True
) -> list[bytes]:
    """`include_usage` is the client's `stream_options.include_usage`: one more chunk, with no choices."""
    base = {
        "id": f"chatcmpl-{ident}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
    }

    def chunk(delta: Json, finish: str | None = None) -> bytes:
        return sse("", {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    events = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"content": piece}) for piece in pieces]
    events.append(chunk({}, "stop"))
    if include_usage:
        events.append(sse("", {**base, "choices": [], "usage": chat_usage(usage)}))
    events.append(b"data: [DONE]\n\n")
    return events


# ---------------------------------------------------------------- Anthropic Messages


def message_json(ident: str, model: str, pieces: Sequence[str], usage: Usage) -> Json:
    return {
        "id": f"msg_{ident}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": "".join(pieces)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": messages_usage(usage),
    }


def messages_events(ident: str, model: str, pieces: Sequence[str], usage: Usage) -> list[bytes]:
    whole = message_json(ident, model, [], usage)
    opening = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
    events: list[Event] = [
        ("message_start", {"message": opening}),
        ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        ("ping", {}),
        *(("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": piece}}) for piece in pieces),
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": whole["usage"]}),
        ("message_stop", {}),
    ]
    return [sse(name, {"type": name, **data}) for name, data in events]


# ---------------------------------------------------------------- Gemini, plain and wrapped for Code Assist


def gemini_json(ident: str, model: str, pieces: Sequence[str], usage: Usage, *, wrapped: bool = False) -> Json:
    return gemini_chunks(ident, model, ["".join(pieces)], usage, wrapped=wrapped)[0]


def gemini_chunks(ident: str, model: str, pieces: Sequence[str], usage: Usage, *, wrapped: bool = False) -> list[Json]:
    """One `GenerateContentResponse` a piece; only the last one has the finish reason and the final counts."""
    chunks: list[Json] = []
    for number, piece in enumerate(pieces):
        candidate: Json = {"content": {"role": "model", "parts": [{"text": piece}]}, "index": 0}
        chunk: Json = {"candidates": [candidate], "modelVersion": model, "responseId": ident}
        if number == len(pieces) - 1:
            candidate["finishReason"] = "STOP"
            chunk["usageMetadata"] = gemini_usage(usage)
        chunks.append({"response": chunk, "traceId": f"trace-{ident}"} if wrapped else chunk)
    return chunks


def gemini_events(ident: str, model: str, pieces: Sequence[str], usage: Usage, *, wrapped: bool = False) -> list[bytes]:
    return [sse("", chunk) for chunk in gemini_chunks(ident, model, pieces, usage, wrapped=wrapped)]


def gemini_array(ident: str, model: str, pieces: Sequence[str], usage: Usage) -> list[bytes]:
    """The stream without `alt=sse`: one JSON array that grows."""
    chunks = [json.dumps(chunk).encode() for chunk in gemini_chunks(ident, model, pieces, usage)]
    return [(b"[" if number == 0 else b",\n") + chunk for number, chunk in enumerate(chunks)] + [b"]"]


def json_for_schema(schema: Json) -> Any:
    """A small value that fits a JSON schema: Gemini CLI's router asks for one before each turn."""
    if schema.get("enum"):
        return schema["enum"][0]
    kind = str(schema.get("type", "object")).lower()
    if kind == "object":
        return {name: json_for_schema(part) for name, part in schema.get("properties", {}).items()}
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    return {"boolean": False, "array": [], "string": "demo"}.get(kind)
