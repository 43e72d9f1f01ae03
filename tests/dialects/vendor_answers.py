"""Answers with tool calls and caches as each vendor frames them: where the usage stands, what stands between events."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pool_server.core.enums import Dialect
from pool_server.core.models import Usage
from tests.dialects.streams import named, sse

Json = dict[str, Any]
CHAT, RESPONSES, MESSAGES, GEMINI = Dialect.CHAT, Dialect.RESPONSES, Dialect.MESSAGES, Dialect.GEMINI
ARGUMENTS = json.dumps({"path": 'a "quoted" usage":{ name.py', "n": 7})


@dataclass(frozen=True)
class VendorAnswer:
    """`pieces` are the server-sent events of the streamed answer, `told` how many of them have come when its usage is
    told; `before` is the usage known when none of its own was, None = nothing. `cost` is a price that it tells."""

    name: str
    dialect: Dialect
    body: bytes
    pieces: list[bytes]
    told: int
    meant: Usage
    before: Usage | None = None
    cost: float | None = None


def known(**counts: Any) -> Usage:
    return Usage(known=True, **counts)


def chat(
    name: str,
    usage: Json,
    meant: Usage,
    *,
    place: str = "own",
    thinking: str = "",
    comment: bytes = b"",
    prefix: bytes = b"",
    tight: bool = False,
    done: bool = True,
    first: Json | None = None,
    cost: float | None = None,
) -> VendorAnswer:
    """`place`: the usage in a chunk of its `own`, with the `finish` reason, within the `choice`, or in `x_groq`.
    `tight`: no blank after "data:". `done`: "[DONE]" ends the stream."""
    head: Json = {"id": "c1", "object": "chat.completion.chunk", "model": "m"}
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "edit", "arguments": ""}}
    rest = {"index": 0, "function": {"arguments": ARGUMENTS}}
    deltas: list[Json] = [{"role": "assistant", "content": "" if thinking else "hi"}]
    if thinking:
        deltas.append({thinking: "the usage is"})
    deltas += [{"tool_calls": [call]}, {"tool_calls": [rest]}]
    chunks: list[Json] = [first] if first else []
    chunks += [head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    choice: Json = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    end = head | {"choices": [choice]}
    last = {
        "own": [end, head | {"choices": [], "usage": usage}],
        "finish": [end | {"usage": usage}],
        "choice": [head | {"choices": [choice | {"usage": usage}]}],
        "x_groq": [end | {"x_groq": {"id": "req_1", "usage": usage}}],
    }[place]
    pieces = [sse(chunk) for chunk in (*chunks, *last)]
    told = len(pieces)
    if done:
        pieces.append(sse("[DONE]"))
    if tight:
        pieces = [piece.replace(b"data: ", b"data:") for piece in pieces]
    pieces = [comment + piece for piece in pieces]
    message: Json = {
        "role": "assistant",
        "content": None,
        "tool_calls": [call | {"function": {"arguments": ARGUMENTS}}],
    }
    whole: Json = {"id": "c1", "object": "chat.completion", "model": "m"}
    answered: Json = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    if place == "choice":
        whole |= {"choices": [answered | {"usage": usage}]}
    elif place == "x_groq":
        whole |= {"choices": [answered], "usage": usage, "x_groq": {"id": "req_1"}}
    else:
        whole |= {"choices": [answered], "usage": usage}
    return VendorAnswer(name, CHAT, prefix + json.dumps(whole).encode(), pieces, told, meant, cost=cost)


def responses(name: str, usage: Json, meant: Usage, *, cost: float | None = None) -> VendorAnswer:
    item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "edit", "arguments": ARGUMENTS}
    started: Json = {"id": "resp_1", "object": "response", "model": "m", "status": "in_progress", "output": []}
    whole = started | {"status": "completed", "output": [item], "usage": usage}
    pieces = [
        named({"type": "response.created", "response": started}),
        named({"type": "response.output_item.added", "output_index": 0, "item": item | {"arguments": ""}}),
        named({"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": ARGUMENTS}),
        named({"type": "response.output_item.done", "output_index": 0, "item": item}),
        named({"type": "response.completed", "response": whole}),
    ]
    return VendorAnswer(name, RESPONSES, json.dumps(whole).encode(), pieces, len(pieces), meant, cost=cost)


def messages(name: str, usage: Json, meant: Usage, *, start: Json | None = None, comment: bytes = b"") -> VendorAnswer:
    """`start` is what the first event tells, nothing but zeros where it is None."""
    tool = {"type": "tool_use", "id": "toolu_1", "name": "edit", "input": {}}
    opening = start or {"input_tokens": 0, "output_tokens": 0}
    message: Json = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    partial = {"type": "input_json_delta", "partial_json": ARGUMENTS}
    pieces = [
        named({"type": "message_start", "message": message | {"usage": opening}}),
        named({"type": "content_block_start", "index": 0, "content_block": tool}),
        named({"type": "ping"}),
        named({"type": "content_block_delta", "index": 0, "delta": partial}),
        named({"type": "content_block_stop", "index": 0}),
        named({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": usage}),
        named({"type": "message_stop"}),
    ]
    pieces = [comment + piece for piece in pieces]
    whole = message | {"content": [tool | {"input": json.loads(ARGUMENTS)}], "stop_reason": "tool_use"}
    body = json.dumps(whole | {"usage": (start or {}) | usage}).encode()
    before = known(input=opening["input_tokens"], output=opening["output_tokens"])
    for theirs, ours in (("cache_read_input_tokens", "cache_read"), ("cache_creation_input_tokens", "cache_write")):
        setattr(before, ours, opening.get(theirs, 0))
    return VendorAnswer(name, MESSAGES, body, pieces, 6, meant, before)


def gemini(name: str, usage: Json, meant: Usage) -> VendorAnswer:
    call = {"functionCall": {"name": "edit", "args": json.loads(ARGUMENTS)}}
    running = {"promptTokenCount": usage["promptTokenCount"], "totalTokenCount": usage["promptTokenCount"]}

    def chunk(part: Json, told: Json, **more: Any) -> Json:
        return {"candidates": [{"content": {"parts": [part]}, "index": 0} | more], "usageMetadata": told}

    end = chunk(call, usage, finishReason="STOP")
    pieces = [sse(chunk({"text": "h"}, running)), sse(chunk({"text": "i"}, running)), sse(end)]
    before = known(input=usage["promptTokenCount"])
    return VendorAnswer(name, GEMINI, json.dumps(end).encode(), pieces, 3, meant, before)


def openai_form(prompt: int, completion: int, cached: int = 0, **more: Any) -> Json:
    told = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return told | {"prompt_tokens_details": {"cached_tokens": cached}} | more


PLAIN = known(input=20, cache_read=80, output=10)
THOUGHT = {"completion_tokens_details": {"reasoning_tokens": 6}}
CLAUDE = {"input_tokens": 20, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 0, "output_tokens": 10}
COUNTS = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
INPUT = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110, "input_tokens_details": {"cached_tokens": 80}}

# Sources: the vendors' API references; DeepSeek "Rate limit" (keep-alive), OpenRouter "Streaming" (comments).
ANSWERS: list[VendorAnswer] = [
    chat("OpenAI", openai_form(100, 10, 80, **THOUGHT), known(input=20, cache_read=80, output=10, reasoning=6)),
    chat("Azure", openai_form(100, 10, 80), PLAIN, first={"choices": [], "prompt_filter_results": [{}]}),
    chat("Z.ai", openai_form(100, 10, 80), PLAIN, place="finish", thinking="reasoning_content"),
    chat("Kimi Code", COUNTS | {"cached_tokens": 80}, PLAIN, place="choice", thinking="reasoning_content"),
    chat("Moonshot", COUNTS | {"cached_tokens": 80}, PLAIN, place="own"),
    chat("MiniMax", openai_form(100, 10), known(input=100, output=10), thinking="content"),
    chat(
        "DeepSeek",
        COUNTS | {"prompt_cache_hit_tokens": 80, "prompt_cache_miss_tokens": 20},
        PLAIN,
        place="finish",
        comment=b": keep-alive\n\n",
        prefix=b"\n\n\n\n",
        thinking="reasoning_content",
    ),
    chat(
        "OpenRouter",
        openai_form(100, 10, 80, cost=0.00125, is_byok=False),
        PLAIN,
        comment=b": OPENROUTER PROCESSING\n\n",
        thinking="reasoning",
        cost=0.00125,
    ),
    chat("Groq", COUNTS | {"queue_time": 0.1}, known(input=100, output=10), place="x_groq", thinking="reasoning"),
    chat("Mistral", COUNTS | {"num_cached_tokens": 80}, PLAIN, place="finish"),
    chat("Codestral", COUNTS | {"prompt_token_details": {"cached_tokens": 80}}, PLAIN, place="finish"),
    chat(
        "xAI",
        openai_form(100, 10, 80, total_tokens=150, cost_in_usd_ticks=12_500_000)
        | {"completion_tokens_details": {"reasoning_tokens": 40}},
        known(input=20, cache_read=80, output=50, reasoning=40),
        thinking="reasoning_content",
        cost=0.00125,
    ),
    chat("Together", COUNTS, known(input=100, output=10), place="finish"),
    chat("Fireworks", openai_form(100, 10, 80), PLAIN, place="finish"),
    chat("Cerebras", openai_form(100, 10, 80), PLAIN),
    chat("NVIDIA", COUNTS, known(input=100, output=10)),
    chat("Hugging Face", COUNTS, known(input=100, output=10)),
    chat(
        "DashScope",
        openai_form(100, 10)
        | {
            "prompt_tokens_details": {"cached_tokens": 60, "cache_creation_input_tokens": 30, "cache_type": "ephemeral"}
        },
        known(input=10, cache_read=60, cache_read_explicit=60, cache_write=30, output=10),
        thinking="reasoning_content",
    ),
    chat("MiMo", openai_form(100, 10, 80, **THOUGHT), known(input=20, cache_read=80, output=10, reasoning=6)),
    chat("Ark", openai_form(100, 10, 80, **THOUGHT), known(input=20, cache_read=80, output=10, reasoning=6)),
    chat("SiliconFlow", openai_form(100, 10), known(input=100, output=10), thinking="reasoning_content"),
    chat("GitHub Models", openai_form(100, 10, 80), PLAIN),
    chat("Ollama", COUNTS, known(input=100, output=10)),
    chat("llama.cpp", COUNTS, known(input=100, output=10), tight=True, done=False),
    chat("vLLM", openai_form(100, 10, 80), PLAIN, tight=True),
    responses(
        "OpenAI Responses",
        INPUT | {"output_tokens_details": {"reasoning_tokens": 6}},
        known(input=20, cache_read=80, output=10, reasoning=6),
    ),
    responses(
        "xAI Responses",
        INPUT | {"output_tokens_details": {"reasoning_tokens": 6}, "cost_in_usd_ticks": 12_500_000},
        known(input=20, cache_read=80, output=10, reasoning=6),
        cost=0.00125,
    ),
    responses("OpenRouter Responses", INPUT | {"cost": 0.00125}, PLAIN, cost=0.00125),
    messages(
        "Anthropic",
        {"output_tokens": 10, "output_tokens_details": {"thinking_tokens": 6}},
        known(input=20, cache_read=80, cache_write=7, output=10, reasoning=6),
        start=CLAUDE | {"cache_creation_input_tokens": 7, "output_tokens": 1},
    ),
    messages("Z.ai Messages", CLAUDE, PLAIN),
    messages("Kimi Messages", CLAUDE, PLAIN, start={"input_tokens": 100, "output_tokens": 0}),
    messages("MiniMax Messages", CLAUDE, PLAIN),
    messages("DeepSeek Messages", CLAUDE, PLAIN, start=CLAUDE | {"output_tokens": 0}, comment=b": keep-alive\n\n"),
    messages("Bedrock Messages", {"output_tokens": 10}, PLAIN, start=CLAUDE | {"output_tokens": 3}),
    gemini(
        "Gemini",
        {
            "promptTokenCount": 100,
            "cachedContentTokenCount": 80,
            "candidatesTokenCount": 4,
            "thoughtsTokenCount": 6,
            "totalTokenCount": 110,
        },
        known(input=20, cache_read=80, output=10, reasoning=6),
    ),
    gemini(
        "Vertex",
        {"promptTokenCount": 100, "candidatesTokenCount": 10, "totalTokenCount": 110, "trafficType": "ON_DEMAND"},
        known(input=100, output=10),
    ),
]
NAMES = [one.name for one in ANSWERS]
