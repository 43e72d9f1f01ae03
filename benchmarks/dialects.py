"""Microseconds of CPU the dialects cost: an event of each protocol, a peek into bodies of several sizes.

python benchmarks/dialects.py
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import zstandard

from pool_server.core.enums import Dialect, Operation
from pool_server.dialects import decode_body, frame_meter, meter, peek
from pool_server.dialects.wire.splice import splice

DELTA: dict[str, tuple[Dialect, Operation, dict[str, Any], str]] = {
    "responses": (
        Dialect.RESPONSES,
        Operation.RESPONSES,
        {
            "type": "response.output_text.delta",
            "item_id": "msg_" + "0" * 40,
            "output_index": 0,
            "delta": "a few words",
        },
        "response.output_text.delta",
    ),
    "messages": (
        Dialect.MESSAGES,
        Operation.MESSAGES,
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a few words"}},
        "content_block_delta",
    ),
    "chat": (
        Dialect.CHAT,
        Operation.CHAT,
        {
            "id": "chatcmpl-" + "0" * 30,
            "object": "chat.completion.chunk",
            "model": "m",
            "choices": [{"index": 0, "delta": {"content": "a few words"}, "finish_reason": None}],
            "usage": None,
        },
        "",
    ),
    "gemini": (
        Dialect.GEMINI,
        Operation.GENERATE,
        {
            "candidates": [{"content": {"role": "model", "parts": [{"text": "a few words"}]}, "index": 0}],
            "usageMetadata": {"promptTokenCount": 800, "candidatesTokenCount": 4, "totalTokenCount": 804},
            "modelVersion": "gemini-x",
        },
        "",
    ),
}


def microseconds(call: Callable[[], object], times: int) -> float:
    """The best of five rounds, CPU time of one call."""
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(times):
            call()
        best = min(best, (time.process_time() - began) / times * 1e6)
    return best


def events() -> None:
    for name, (dialect, operation, data, event) in DELTA.items():
        text = json.dumps(data, separators=(",", ":"))
        chunk = (f"event: {event}\n" if event else "").encode() + f"data: {text}\n\n".encode()
        one = meter(dialect, operation, stream=True)
        print(f"{name:10} event, alone in its chunk  {microseconds(partial(one.feed, chunk), 20000):8.2f} µs")
        many = meter(dialect, operation, stream=True)
        cost = microseconds(partial(many.feed, chunk * 64), 500) / 64
        print(f"{name:10} event, 64 to a chunk       {cost:8.2f} µs")
    cost = microseconds(partial(frame_meter().feed, json.dumps(DELTA["responses"][2])), 20000)
    print(f"{'responses':10} socket frame               {cost:8.2f} µs")


def bodies() -> None:
    for size in (10_000, 100_000, 1_000_000):
        words = 'a line of a file with "quotes"\n' * 50
        turns = max(1, size // (len(words) + 120))
        items = [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": words}]}
            for _ in range(turns)
        ]
        responses = json.dumps({"model": "m", "input": items, "stream": True, "prompt_cache_key": "k"}).encode()
        chat = json.dumps({"model": "m", "messages": items, "stream": True}).encode()
        for name, dialect, operation, body in (
            ("responses", Dialect.RESPONSES, Operation.RESPONSES, responses),
            ("chat", Dialect.CHAT, Operation.CHAT, chat),
        ):
            cost = microseconds(partial(peek, operation, dialect, "/", {}, body, credential="c"), 50)
            print(f"{name:10} peek into {len(body):9,} bytes {cost:8.1f} µs")
        cost = microseconds(partial(splice, chat, {"model": "other"}), 50)
        print(f"{'splice':10} a field of {len(chat):8,} bytes {cost:8.1f} µs")
    body = json.dumps({"model": "m", "input": random.Random(0).randbytes(500_000).hex()}).encode()
    packer = zstandard.ZstdCompressor().compressobj()
    packed = packer.compress(body) + packer.flush()
    cost = microseconds(partial(decode_body, packed, "zstd", cap=1 << 24), 20)
    print(f"{'zstd':10} {len(packed):,} to {len(body):,} bytes {cost:8.1f} µs")


if __name__ == "__main__":
    events()
    bodies()
