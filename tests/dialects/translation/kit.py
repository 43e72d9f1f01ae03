"""Requests and answers of every dialect from one script, for the tests of translation.

A conversation is a list of turns: ("user", text), ("assistant", text), ("call", id, name, arguments) and
("result", id, name, text). An answer is a list of blocks: ("text", t), ("think", t, seal), ("call", id, name, args).
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import Target, Translated, TranslationContext, UpstreamKind, translate_request
from tests.dialects.streams import named, sse

CLIENTS = (Dialect.CHAT, Dialect.RESPONSES, Dialect.MESSAGES, Dialect.GEMINI, Dialect.CODE_ASSIST)
_OWN = {
    Dialect.CHAT: {UpstreamKind.CHAT},
    Dialect.RESPONSES: {UpstreamKind.RESPONSES, UpstreamKind.CODEX},
    Dialect.MESSAGES: {UpstreamKind.MESSAGES},
    Dialect.GEMINI: {UpstreamKind.GEMINI, UpstreamKind.CODE_ASSIST},
    Dialect.CODE_ASSIST: {UpstreamKind.GEMINI, UpstreamKind.CODE_ASSIST},
}
PAIRS = [(client, kind) for client in CLIENTS for kind in UpstreamKind if kind not in _OWN[client]]
MODEL = {
    UpstreamKind.CODEX: "gpt-5.4-codex",
    UpstreamKind.RESPONSES: "gpt-5.4",
    UpstreamKind.CHAT: "kimi-k2",
    UpstreamKind.MESSAGES: "claude-sonnet-4-5",
    UpstreamKind.GEMINI: "gemini-2.5-flash",
    UpstreamKind.CODE_ASSIST: "gemini-2.5-flash",
}
SCHEMA = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
SEALS = {
    UpstreamKind.CODEX: "gAAAAABo-seal_of-openai==",
    UpstreamKind.RESPONSES: "gAAAAABo-other_seal==",
    UpstreamKind.CHAT: "",
    UpstreamKind.MESSAGES: "EsUDCkYIBRgCKkCq7",
    UpstreamKind.GEMINI: "CtcCAdHtim9k",
    UpstreamKind.CODE_ASSIST: "CtcCAdHtim9k",
}


def translate(
    client: Dialect, kind: UpstreamKind, body: dict[str, Any] | bytes, *, stream: bool = False, **target: Any
) -> Translated:
    """The exchange with what a caller adds; a Gemini client's stream stands in its path."""
    context = TranslationContext("x7Kq", 1_795_000_000.5, session="s-1", stream=stream, model="asked")
    return translate_request(client, Target(kind, target.pop("model", MODEL[kind]), **target), body, context)


def up(client: Dialect, kind: UpstreamKind, body: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The body that goes up, out of Code Assist's envelope."""
    found: dict[str, Any] = json.loads(translate(client, kind, body, **more).body)
    return dict(found["request"]) if kind is UpstreamKind.CODE_ASSIST else found


# ---------------------------------------------------------------- requests


def request(
    client: Dialect,
    turns: list[tuple[str, ...]],
    *,
    tools: tuple[str, ...] = (),
    stream: bool = False,
    system: str = "",
) -> dict[str, Any]:
    if client is Dialect.CHAT:
        head = [{"role": "system", "content": system}] if system else []
        body: dict[str, Any] = {"model": "m", "messages": head + [_chat(turn) for turn in turns]}
        if tools:
            body["tools"] = [{"type": "function", "function": {"name": n, "parameters": SCHEMA}} for n in tools]
    elif client is Dialect.RESPONSES:
        body = {"model": "m", "input": [_item(turn) for turn in turns]} | ({"instructions": system} if system else {})
        if tools:
            body["tools"] = [{"type": "function", "name": n, "parameters": SCHEMA, "strict": False} for n in tools]
    elif client is Dialect.MESSAGES:
        body = {"model": "m", "max_tokens": 4000, "messages": [_claude(turn) for turn in turns]}
        body |= {"system": system} if system else {}
        if tools:
            body["tools"] = [{"name": n, "input_schema": SCHEMA} for n in tools]
    else:
        body = {"contents": [_content(turn) for turn in turns]}
        body |= {"systemInstruction": {"parts": [{"text": system}]}} if system else {}
        if tools:
            body["tools"] = [{"functionDeclarations": [{"name": n, "parametersJsonSchema": SCHEMA} for n in tools]}]
        return {"model": "m", "request": body} if client is Dialect.CODE_ASSIST else body
    return body | ({"stream": True} if stream else {})


def _chat(turn: tuple[str, ...]) -> dict[str, Any]:
    if turn[0] == "call":
        call = {"id": turn[1], "type": "function", "function": {"name": turn[2], "arguments": turn[3]}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if turn[0] == "result":
        return {"role": "tool", "tool_call_id": turn[1], "content": turn[3]}
    return {"role": turn[0], "content": turn[1]}


def _item(turn: tuple[str, ...]) -> dict[str, Any]:
    if turn[0] == "call":
        return {"type": "function_call", "call_id": turn[1], "name": turn[2], "arguments": turn[3]}
    if turn[0] == "result":
        return {"type": "function_call_output", "call_id": turn[1], "output": turn[3]}
    kind = "output_text" if turn[0] == "assistant" else "input_text"
    return {"type": "message", "role": turn[0], "content": [{"type": kind, "text": turn[1]}]}


def _claude(turn: tuple[str, ...]) -> dict[str, Any]:
    if turn[0] == "call":
        block = {"type": "tool_use", "id": turn[1], "name": turn[2], "input": json.loads(turn[3])}
        return {"role": "assistant", "content": [block]}
    if turn[0] == "result":
        return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": turn[1], "content": turn[3]}]}
    return {"role": turn[0], "content": turn[1]}


def _content(turn: tuple[str, ...]) -> dict[str, Any]:
    if turn[0] == "call":
        call = {"id": turn[1], "name": turn[2], "args": json.loads(turn[3])}
        return {"role": "model", "parts": [{"functionCall": call}]}
    if turn[0] == "result":
        answer = {"id": turn[1], "name": turn[2], "response": {"output": turn[3]}}
        return {"role": "user", "parts": [{"functionResponse": answer}]}
    return {"role": "model" if turn[0] == "assistant" else "user", "parts": [{"text": turn[1]}]}


# ---------------------------------------------------------------- answers

Blocks = list[tuple[str, ...]]


def events(kind: UpstreamKind, blocks: Blocks, *, finish: str = "") -> list[bytes]:
    """The stream of an upstream, in pieces of five characters; `finish` is the vendor's own word."""
    if kind is UpstreamKind.CHAT:
        return _chat_events(blocks, finish)
    if kind in (UpstreamKind.CODEX, UpstreamKind.RESPONSES):
        return _response_events(blocks, finish)
    if kind is UpstreamKind.MESSAGES:
        return _message_events(blocks, finish)
    return _gemini_events(blocks, finish, wrapped=kind is UpstreamKind.CODE_ASSIST)


def cut(text: str) -> list[str]:
    return [text[i : i + 5] for i in range(0, len(text), 5)]


def calls_of(blocks: Blocks) -> bool:
    return any(block[0] == "call" for block in blocks)


def _chat_events(blocks: Blocks, finish: str) -> list[bytes]:
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 3, "model": "kimi-k2"}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    number = 0
    for block in blocks:
        if block[0] == "call":
            function: dict[str, Any] = {"name": block[2], "arguments": ""}
            deltas.append({"tool_calls": [{"index": number, "id": block[1], "type": "function", "function": function}]})
            deltas += [{"tool_calls": [{"index": number, "function": {"arguments": p}}]} for p in cut(block[3])]
            number += 1
        else:
            deltas += [{"content" if block[0] == "text" else "reasoning_content": p} for p in cut(block[1])]
    word = finish or ("tool_calls" if calls_of(blocks) else "stop")
    found = [sse({**head, "choices": [{"index": 0, "delta": d, "finish_reason": None}]}) for d in deltas]
    usage = {
        "prompt_tokens": 50,
        "completion_tokens": 9,
        "total_tokens": 59,
        "prompt_tokens_details": {"cached_tokens": 20},
    }
    found.append(sse({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": word}]}))
    return [*found, sse({**head, "choices": [], "usage": usage}), sse("[DONE]")]


def response_items(blocks: Blocks) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for number, block in enumerate(blocks):
        if block[0] == "call":
            item = {"type": "function_call", "call_id": block[1], "name": block[2], "arguments": block[3]}
            items.append({"id": f"fc_{number}", "status": "completed", **item})
        elif block[0] == "text":
            content = [{"type": "output_text", "text": block[1], "annotations": []}]
            message = {"type": "message", "role": "assistant", "status": "completed", "content": content}
            items.append({"id": f"msg_{number}", **message})
        else:
            summary = [{"type": "summary_text", "text": block[1]}] if block[1] else []
            items.append({"id": f"rs_{number}", "type": "reasoning", "summary": summary, "encrypted_content": block[2]})
    return items


def _response(blocks: Blocks, finish: str) -> dict[str, Any]:
    usage = {"input_tokens": 50, "input_tokens_details": {"cached_tokens": 20}, "output_tokens": 9, "total_tokens": 59}
    shape: dict[str, Any] = {"id": "resp_q", "object": "response", "model": "gpt-5.4", "output": response_items(blocks)}
    shape |= {"status": "incomplete" if finish else "completed", "usage": usage}
    return shape | ({"incomplete_details": {"reason": finish}} if finish else {})


def _response_events(blocks: Blocks, finish: str) -> list[bytes]:
    found: list[dict[str, Any]] = [{"type": "response.created", "response": {"id": "resp_q", "model": "gpt-5.4"}}]
    for number, item in enumerate(response_items(blocks)):
        at = {"output_index": number, "item_id": item["id"]}
        empty = {k: v for k, v in item.items() if k not in ("encrypted_content",)} | {"status": "in_progress"}
        empty |= {"arguments": ""} if "arguments" in item else {}
        found.append({"type": "response.output_item.added", **at, "item": empty})
        if item["type"] == "function_call":
            kind, pieces = "response.function_call_arguments", cut(item["arguments"])
            done: dict[str, Any] = {"arguments": item["arguments"]}
        elif item["type"] == "message":
            kind, pieces = "response.output_text", cut(item["content"][0]["text"])
            done = {"text": item["content"][0]["text"]}
            at["content_index"] = 0
        else:
            kind, pieces = "response.reasoning_summary_text", cut(item["summary"][0]["text"]) if item["summary"] else []
            done = {}
            at["summary_index"] = 0
        found += [{"type": f"{kind}.delta", **at, "delta": piece} for piece in pieces]
        found.append({"type": f"{kind}.done", **at, **done})
        found.append({"type": "response.output_item.done", "output_index": number, "item": item})
    found.append({"type": f"response.{'incomplete' if finish else 'completed'}", "response": _response(blocks, finish)})
    return [named({**event, "sequence_number": number}) for number, event in enumerate(found)]


def _message_blocks(blocks: Blocks) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for block in blocks:
        if block[0] == "call":
            found.append({"type": "tool_use", "id": block[1], "name": block[2], "input": json.loads(block[3] or "{}")})
        elif block[0] == "text":
            found.append({"type": "text", "text": block[1]})
        else:
            found.append({"type": "thinking", "thinking": block[1], "signature": block[2]})
    return found


def _message(blocks: Blocks, finish: str) -> dict[str, Any]:
    word = finish or ("tool_use" if calls_of(blocks) else "end_turn")
    usage = {"input_tokens": 30, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 0, "output_tokens": 9}
    shape = {"id": "msg_q", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
    return shape | {"content": _message_blocks(blocks), "stop_reason": word, "stop_sequence": None, "usage": usage}


def _message_events(blocks: Blocks, finish: str) -> list[bytes]:
    whole = _message(blocks, finish)
    start = whole | {"content": [], "stop_reason": None, "usage": whole["usage"] | {"output_tokens": 1}}
    found: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(whole["content"]):
        empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}
        found.append({"type": "content_block_start", "index": index, "content_block": block | empty[block["type"]]})
        if block["type"] == "tool_use":
            deltas: list[dict[str, Any]] = [
                {"type": "input_json_delta", "partial_json": p} for p in cut(json.dumps(block["input"]))
            ]
        elif block["type"] == "text":
            deltas = [{"type": "text_delta", "text": p} for p in cut(block["text"])]
        else:
            deltas = [{"type": "thinking_delta", "thinking": p} for p in cut(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        found.append({"type": "content_block_stop", "index": index})
    last = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    found.append({"type": "message_delta", "delta": last, "usage": {"output_tokens": 9}})
    return [named(event) for event in [*found, {"type": "message_stop"}]]


def _gemini_parts(block: tuple[str, ...]) -> list[dict[str, Any]]:
    if block[0] == "call":
        return [{"functionCall": {"name": block[2], "args": json.loads(block[3] or "{}")}}]
    if block[0] == "text":
        return [{"text": piece} for piece in cut(block[1])]
    return [{"text": piece, "thought": True} for piece in cut(block[1])]


def _gemini(parts: list[dict[str, Any]], finish: str) -> dict[str, Any]:
    usage = {"promptTokenCount": 50, "cachedContentTokenCount": 20, "candidatesTokenCount": 9, "totalTokenCount": 59}
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": parts}}
    candidate |= {"finishReason": finish} if finish else {}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash", "responseId": "g-1"}


def _gemini_events(blocks: Blocks, finish: str, *, wrapped: bool) -> list[bytes]:
    found = []
    seal = ""
    for block in blocks:
        parts = _gemini_parts(block)
        if seal and parts:
            parts[0]["thoughtSignature"] = seal
        seal = block[2] if block[0] == "think" else ""
        found += [_gemini([part], "") for part in parts]
    found.append(_gemini([{"text": ""}], finish or "STOP"))
    return [sse({"response": event} if wrapped else event, end="\r\n") for event in found]


def answer(kind: UpstreamKind, blocks: Blocks, *, finish: str = "") -> bytes:
    """The same answer in one piece."""
    if kind in (UpstreamKind.CODEX, UpstreamKind.RESPONSES):
        shape = _response(blocks, finish)
    elif kind is UpstreamKind.MESSAGES:
        shape = _message(blocks, finish)
    elif kind is UpstreamKind.CHAT:
        calls = [
            {"id": b[1], "type": "function", "function": {"name": b[2], "arguments": b[3]}}
            for b in blocks
            if b[0] == "call"
        ]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(b[1] for b in blocks if b[0] == "text") or None,
        }
        message["reasoning_content"] = "".join(b[1] for b in blocks if b[0] == "think")
        message |= {"tool_calls": calls} if calls else {}
        choice = {"index": 0, "message": message, "finish_reason": finish or ("tool_calls" if calls else "stop")}
        usage = {"prompt_tokens": 50, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 20}}
        shape = {"id": "c-1", "object": "chat.completion", "model": "kimi-k2", "choices": [choice], "usage": usage}
    else:
        parts = [part for block in blocks for part in _gemini_parts(block)]
        for before, block in pairwise(blocks):
            if before[0] == "think":
                first = sum(len(_gemini_parts(b)) for b in blocks[: blocks.index(block)])
                parts[first]["thoughtSignature"] = before[2]
        shape = _gemini(parts, finish or "STOP")
        shape = {"response": shape} if kind is UpstreamKind.CODE_ASSIST else shape
    return json.dumps(shape).encode()
