"""What upstreams send as JSON is read as their own clients read it, and nothing else is taken for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server import dialects
from pool_server.core.enums import Dialect, Operation
from pool_server.core.lenient_json import read_any, strict_json
from pool_server.core.models import HttpAnswer
from pool_server.providers.evidence.reading import read_error
from pool_server.providers.oauth import token_answer

Shape = Callable[[dict[str, Any]], bytes]


def with_field(text: bytes) -> Shape:
    return lambda answer: json.dumps(answer).encode()[:-1] + b"," + text + b"}"


SHAPES: dict[str, Shape] = {
    "byte order mark": lambda answer: json.dumps(answer).encode("utf-8-sig"),
    "UTF-16": lambda answer: json.dumps(answer).encode("utf-16"),
    "UTF-32": lambda answer: json.dumps(answer).encode("utf-32-be"),
    "something after it": lambda answer: json.dumps(answer).encode() + b"\n<!-- served by a proxy -->",
    "NUL after it": lambda answer: json.dumps(answer).encode() + b"\0",
    "NaN": with_field(b'"score":NaN'),
    "infinities": with_field(b'"scores":[Infinity,-Infinity,1e999]'),
    "half a surrogate pair": with_field(b'"cut":"\\ud83d"'),
    "a raw control character": with_field(b'"tab":"a\tb\x01"'),
    "Latin-1": with_field('"name":"grün"'.encode("latin-1")),
}
ANSWERS: dict[Dialect, dict[str, Any]] = {
    Dialect.CHAT: {
        "id": "c", "model": "m", "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 25, "prompt_tokens_details": {"cached_tokens": 40}},
    },
    Dialect.MESSAGES: {
        "id": "m", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn", "usage": {"input_tokens": 60, "cache_read_input_tokens": 40, "output_tokens": 25},
    },
    Dialect.RESPONSES: {
        "id": "r", "object": "response", "status": "completed", "model": "m", "output": [],
        "usage": {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 40}, "output_tokens": 25},
    },
    Dialect.GEMINI: {
        "candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 100, "cachedContentTokenCount": 40, "candidatesTokenCount": 25},
    },
}  # fmt: skip
OPERATIONS = {
    Dialect.CHAT: Operation.CHAT, Dialect.MESSAGES: Operation.MESSAGES, Dialect.RESPONSES: Operation.RESPONSES,
    Dialect.GEMINI: Operation.GENERATE,
}  # fmt: skip
trees = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dialect", ANSWERS)
def test_a_whole_answer_is_counted(dialect: Dialect, shape: str) -> None:
    meter = dialects.meter(dialect, OPERATIONS[dialect], stream=False)
    meter.feed(SHAPES[shape](ANSWERS[dialect]))
    meter.finish()
    assert meter.complete
    assert (meter.usage.input, meter.usage.cache_read, meter.usage.output) == (60, 40, 25)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dialect", ANSWERS)
def test_an_answer_that_is_cut_off_is_not_whole(dialect: Dialect, shape: str) -> None:
    body = SHAPES[shape](ANSWERS[dialect])
    for size in (len(body) // 2, len(body) * 2 // 3):
        meter = dialects.meter(dialect, OPERATIONS[dialect], stream=False)
        meter.feed(body[:size])
        meter.finish()
        assert not meter.complete


@pytest.mark.parametrize("shape", [name for name in SHAPES if not name.startswith("UTF-")])
def test_errors_and_tokens_are_read(shape: str) -> None:
    body = SHAPES[shape]({"error": {"type": "insufficient_quota", "message": "You exceeded your current quota"}})
    assert read_error({"content-type": "application/json"}, body).says("insufficient_quota")
    answer = HttpAnswer(200, {}, body=SHAPES[shape]({"access_token": "fresh", "refresh_token": "next"}))
    told = token_answer(answer, now=0.0, dead_statuses=frozenset(), rate_cap=60.0)
    assert (told["access_token"], told["refresh_token"]) == ("fresh", "next")


@given(trees)
def test_strict_json_means_the_same(tree: Any) -> None:
    raw = msgspec.json.encode(tree)
    assert read_any(raw) == tree
    strict = strict_json(b"\xef\xbb\xbf" + raw + b" and more")
    assert strict is None if not isinstance(tree, (dict, list)) else msgspec.json.decode(strict or b"0") == tree


@given(st.binary(max_size=80) | st.text('{}[]":,\\ud8ef0NaInfity-1e9 ').map(str.encode))
def test_no_bytes_raise(raw: bytes) -> None:
    strict = strict_json(raw)
    assert strict is None or isinstance(msgspec.json.decode(strict), (dict, list))
    read_any(raw)


@pytest.mark.parametrize("raw", [b"[" * 100_000, b"[" + b"1" * 5000 + b"", b'{"a":' * 5000, b" " * 600_000 + b"{}\0"])
def test_what_is_too_deep_or_large_is_nothing(raw: bytes) -> None:
    assert strict_json(raw) is None
