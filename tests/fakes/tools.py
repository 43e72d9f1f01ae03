"""Answers in which the model asks for a tool, in each dialect. Pure."""

from __future__ import annotations

import json
from typing import Any

from pool_server.core.models import Usage
from pool_server.demo import wire
from pool_server.demo.surfaces import Surface

Json = dict[str, Any]


def offered(surface: Surface, body: Json) -> set[str]:
    """The names of the tools a request offers."""
    request = body.get("request", body)
    tools = request.get("tools") or []
    if surface is Surface.GENERATE:
        return {one["name"] for tool in tools for one in tool.get("functionDeclarations", [])}
    if surface is Surface.CHAT:
        return {tool["function"]["name"] for tool in tools if "function" in tool}
    return {tool["name"] for tool in tools if "name" in tool}


def returns_result(surface: Surface, body: Json) -> bool:
    """Does the request bring a tool's result, so that a text is due?"""
    request = body.get("request", body)
    last = (request.get("input") or request.get("messages") or request.get("contents") or [{}])[-1]
    if surface is Surface.GENERATE:
        return any("functionResponse" in part for part in last.get("parts", []))
    if surface is Surface.CHAT:
        return bool(last.get("role") == "tool")
    if surface is Surface.MESSAGES:
        content = last.get("content")
        return isinstance(content, list) and any(block.get("type") == "tool_result" for block in content)
    return str(last.get("type", "")).endswith("_output")


def tool_frames(ident: str, model: str, name: str, arguments: Json, usage: Usage) -> list[Json]:
    """The events of a Responses answer that calls the tool."""
    item = {"id": f"fc_{ident}", "type": "function_call", "name": name, "call_id": f"call_{ident}"}
    done = {**item, "status": "completed", "arguments": json.dumps(arguments)}
    opening = wire.response_object(ident, model, "in_progress", [], None)
    closing = wire.response_object(ident, model, "completed", [done], usage)
    started = {**item, "status": "in_progress", "arguments": ""}
    spoken = {"output_index": 0, "item_id": item["id"], "arguments": done["arguments"]}
    events: list[tuple[str, Json]] = [
        ("response.created", {"response": opening}),
        ("response.in_progress", {"response": opening}),
        ("response.output_item.added", {"output_index": 0, "item": started}),
        ("response.function_call_arguments.done", spoken),
        ("response.output_item.done", {"output_index": 0, "item": done}),
        ("response.completed", {"response": closing}),
    ]
    return [{"type": kind, "sequence_number": number, **data} for number, (kind, data) in enumerate(events)]


def tool_events(
    surface: Surface, body: Json, ident: str, name: str, arguments: Json, usage: Usage, *, wrapped: bool
) -> list[bytes]:
    """The SSE events of an answer that calls the tool."""
    model = str(body.get("model", ""))
    if surface is Surface.MESSAGES:
        return _messages(ident, model, name, arguments, usage)
    if surface is Surface.CHAT:
        return _chat(ident, model, name, arguments, usage)
    if surface is Surface.GENERATE:
        chunk = _gemini_chunk(name, arguments, usage)
        return [wire.sse("", {"response": chunk} if wrapped else chunk)]
    return [wire.sse(one["type"], one) for one in tool_frames(f"resp_{ident}", model, name, arguments, usage)]


def tool_answer(
    surface: Surface, body: Json, ident: str, name: str, arguments: Json, usage: Usage, *, wrapped: bool
) -> Json:
    """The whole answer that calls the tool."""
    model = str(body.get("model", ""))
    if surface is Surface.MESSAGES:
        block = {"type": "tool_use", "id": f"toolu_{ident}", "name": name, "input": arguments}
        return {**wire.message_json(ident, model, [], usage), "content": [block], "stop_reason": "tool_use"}
    if surface is Surface.CHAT:
        function = {"name": name, "arguments": json.dumps(arguments)}
        call = {"id": f"call_{ident}", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        return {**wire.chat_json(ident, model, [], usage), "choices": [choice]}
    if surface is Surface.GENERATE:
        chunk = _gemini_chunk(name, arguments, usage)
        return {"response": chunk} if wrapped else chunk
    closing: Json = tool_frames(f"resp_{ident}", model, name, arguments, usage)[-1]["response"]
    return closing


def _gemini_chunk(name: str, arguments: Json, usage: Usage) -> Json:
    content = {"role": "model", "parts": [{"functionCall": {"name": name, "args": arguments}}]}
    candidate = {"content": content, "index": 0, "finishReason": "STOP"}
    return {"candidates": [candidate], "usageMetadata": wire.gemini_usage(usage)}


def _messages(ident: str, model: str, name: str, arguments: Json, usage: Usage) -> list[bytes]:
    block = {"type": "tool_use", "id": f"toolu_{ident}", "name": name, "input": {}}
    spoken = {"type": "input_json_delta", "partial_json": json.dumps(arguments)}
    start = {**wire.message_json(ident, model, [], usage), "content": [], "stop_reason": None}
    counts = wire.messages_usage(usage)
    events: list[tuple[str, Json]] = [
        ("message_start", {"message": start}),
        ("content_block_start", {"index": 0, "content_block": block}),
        ("content_block_delta", {"index": 0, "delta": spoken}),
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": counts}),
        ("message_stop", {}),
    ]
    return [wire.sse(kind, {"type": kind, **data}) for kind, data in events]


def _chat(ident: str, model: str, name: str, arguments: Json, usage: Usage) -> list[bytes]:
    base = {"id": f"chatcmpl-{ident}", "object": "chat.completion.chunk", "created": 1, "model": model}
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"index": 0, "id": f"call_{ident}", "type": "function", "function": function}
    delta = {"role": "assistant", "content": None, "tool_calls": [call]}
    return [
        wire.sse("", {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}),
        wire.sse("", {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}),
        wire.sse("", {**base, "choices": [], "usage": wire.chat_usage(usage)}),
        b"data: [DONE]\n\n",
    ]
