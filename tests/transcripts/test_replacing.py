"""What a bug report shows: the shape of a body and nothing of what it is about."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.transcripts import replacing

SECRET = "My aunt's recipe for plum cake"
BODIES: list[Any] = [
    {"model": "m", "messages": [{"role": "user", "content": SECRET}]},
    {"input": [{"type": "message", "content": [{"type": "input_text", "text": SECRET}]}], "instructions": SECRET},
    {"contents": [{"parts": [{"text": SECRET}, {"executableCode": {"code": SECRET}}]}],
     "systemInstruction": {"parts": [{"text": SECRET}]}},
    {"choices": [{"delta": {"tool_calls": [{"function": {"name": "f", "arguments": SECRET}}]}}]},
    {"type": SECRET, "model": SECRET, "status": SECRET, "id": SECRET},
    {SECRET: SECRET},
    [[SECRET]],
]  # fmt: skip


@pytest.mark.parametrize("value", BODIES)
@pytest.mark.parametrize("frame", [b"%s", b"data: %s\n\n", b"event: x\ndata: %s\r\n\r\n", b"%s cut", b"data: %s"])
def test_no_text_is_shown(value: Any, frame: bytes) -> None:
    data = frame % json.dumps(value).encode()
    for cut in (data, data[:-3], data[3:], SECRET.encode() + data):
        told = json.dumps(replacing.body(cut, texts=False))
        assert not set(re.findall(r"[A-Za-z]+", SECRET)) & set(re.findall(r"[A-Za-z]+", told)) - {"for", "s"}


def test_the_shape_stays() -> None:
    asked = {"model": "gpt-5.5", "stream": True, "max_tokens": 7, "messages": [{"role": "user", "content": "four"}]}
    assert replacing.body(json.dumps(asked).encode(), texts=False) == {
        "model": "gpt-5.5", "stream": True, "max_tokens": 7, "messages": [{"role": "user", "content": "[text of 4]"}],
    }  # fmt: skip
    events = b'event: error\ndata: {"type":"error","error":{"message":"too long","type":"bad"}}\n\ndata: [DONE]\n\n'
    assert replacing.body(events, texts=False) == [
        {"event": "error"},
        {"data": {"type": "error", "error": {"message": "too long", "type": "bad"}}}, {"data": "[DONE]"},
    ]  # fmt: skip


def test_with_texts_only_secrets_are_hidden() -> None:
    data = json.dumps({"text": f"{SECRET}, sk-ant-api03-abcdefgh", "authorization": "Bearer abcdefgh123"}).encode()
    told = json.dumps(replacing.body(data, texts=True))
    assert SECRET in told and "sk-ant" not in told


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_json(data: bytes, texts: bool) -> None:
    json.dumps(replacing.body(data, texts=texts))


@pytest.mark.parametrize("depth", [100, 5_000, 200_000])
def test_deep_nesting_is_no_trouble(depth: int) -> None:
    json.dumps(replacing.body(b"[" * depth + b"]" * depth, texts=False))
