"""Asking a Chat server for a stream's usage, and taking the answer to that out again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Dialect, Operation, Signal
from pool_server.core.models import Peek, Usage
from pool_server.dialects import (
    BadBodyError,
    StreamUsagePolicy,
    ask_usage,
    estimate,
    host_of,
    meter,
    peek,
    without_usage,
)

BODY = '{ "model":"m", "stream":true,\n  "messages":[{"role":"user","content":"\\u00e9 } \\" {"}]%s}\r\n'


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ("", {"include_usage": True}),
        (', "stream_options": null', {"include_usage": True}),
        (', "stream_options": {}', {"include_usage": True}),
        (', "stream_options": {"include_usage": false}', {"include_usage": True}),
        (', "stream_options": {"include_obfuscation": false}', {"include_obfuscation": False, "include_usage": True}),
        (', "stream_options": 7', {"include_usage": True}),
        (', "metadata": {"stream_options": 1}', {"include_usage": True}),
    ],
)
def test_asking_adds_one_field_and_leaves_every_other_byte(options: str, asked: dict[str, Any]) -> None:
    body = (BODY % options).encode()
    made = ask_usage(body)
    found = json.loads(made)
    assert found.pop("stream_options") == asked
    had = json.loads(body)
    had.pop("stream_options", None)
    assert found == had
    head = body[: body.rindex(b"]") + 1]
    assert made.startswith(head), "prompt caches hang on the beginning"


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b'"stream_options"', b'["stream_options"]'])
def test_what_is_no_object_cannot_ask(body: bytes) -> None:
    with pytest.raises(BadBodyError):
        ask_usage(body)


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (None, False),
        ({}, False),
        ({"include_usage": False}, False),
        ({"include_usage": 1}, False),
        ([], False),
        ({"include_usage": True}, True),
    ],
)
def test_a_client_asks_or_does_not(options: Any, asked: bool) -> None:
    body = json.dumps({"model": "m", "stream": True, "stream_options": options, "messages": []}).encode()
    assert peek(Operation.CHAT, Dialect.CHAT, "/", {}, body).usage_asked is asked


def test_who_is_asked() -> None:
    question, peek_ = StreamUsagePolicy(), Peek(stream=True)
    assert question.wanted(Operation.CHAT, peek_, "api.openai.com")
    assert not question.wanted(Operation.CHAT, peek_, "api.mistral.ai"), "tells it unasked"
    assert question.wanted(Operation.CHAT, peek_, "api.mistral.ai.example")
    assert not question.wanted(Operation.CHAT, Peek(), "api.openai.com"), "a whole answer tells it"
    assert not question.wanted(Operation.CHAT, Peek(stream=True, usage_asked=True), "api.openai.com")
    assert not question.wanted(Operation.RESPONSES, peek_, "api.openai.com")
    assert not question.refused("old.example", b"no such model")
    assert question.refused("old.example", b"unknown field stream_options")
    assert not question.wanted(Operation.CHAT, peek_, "old.example")
    for number in range(2000):
        question.refused(f"{number}.example", b"stream_options")
    assert not question.refused("one-more.example", b"stream_options"), "the memory of them is bounded"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://API.openai.com/v1/x?y=1", "api.openai.com"),
        ("http://127.0.0.1:8080", "127.0.0.1"),
        ("ftp://x", ""),
        ("", ""),
        ("https://", ""),
    ],
)
def test_the_host_of_an_address(url: str, host: str) -> None:
    assert host_of(url) == host


ONLY_USAGE = [
    b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7}}',
    b'data: {"usage" : { "prompt_tokens":7}, "choices" : [ ]}',
    b'event: chunk\ndata: {"choices":[],\ndata: "usage":{}}',
]
SHOWN = [
    b'data: {"choices":[{"delta":{"content":"\\"choices\\":[],\\"usage\\":{"}}],"usage":null}',
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":7}}',
    b'data: {"choices":[],"prompt_filter_results":[],"usage":null}',
    b'data: {"choices":[]}',
    b": keep-alive",
    b"data: [DONE]",
]


@given(
    events=st.lists(st.sampled_from(ONLY_USAGE + SHOWN), max_size=9),
    ends=st.lists(st.sampled_from([b"\n\n", b"\r\n\r\n"]), min_size=9, max_size=9),
    head=st.sampled_from([b"", b"\n\n", b"\r\n\r\n"]),
)
def test_only_events_of_nothing_but_usage_are_taken_out(events: list[bytes], ends: list[bytes], head: bytes) -> None:
    sent = [(event, event + end) for event, end in zip(events, ends, strict=False)]
    assert without_usage(head + b"".join(whole for _, whole in sent)) == head + b"".join(
        whole for event, whole in sent if event in SHOWN
    )


@given(st.binary(max_size=200))
def test_other_bytes_stay(data: bytes) -> None:
    assert without_usage(data) == data


@pytest.mark.parametrize("operation", list(Operation))
def test_what_sizes_say_where_nothing_was_told(operation: Operation) -> None:
    reads = {Operation.EMBEDDINGS, Operation.RERANK}
    writes = {Operation.RESPONSES, Operation.RESPONSES_COMPACT, Operation.MESSAGES, Operation.CHAT}
    writes |= {Operation.GENERATE, Operation.COMPLETIONS}
    usage = Usage()
    if operation in reads | writes:
        usage = Usage(input=100, output=10 if operation in writes else 0, estimated=True)
    assert estimate(operation, 400, 1200, streamed=True) == usage
    assert estimate(operation, 400, 40, streamed=False) == usage, "a whole answer has no events around its words"


def test_the_calls_before_chats_stream_and_tell_usage_too() -> None:
    chunks = [
        {"id": "cmpl-1", "choices": [{"text": "Hel", "finish_reason": None}]},
        {"id": "cmpl-1", "choices": [{"text": "", "finish_reason": "stop"}]},
        {
            "id": "cmpl-1",
            "object": "text_completion",
            "choices": [],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2},
        },
    ]
    reading = meter(Dialect.CHAT, Operation.COMPLETIONS, stream=True)
    first = reading.feed(b"data: " + json.dumps(chunks[0]).encode() + b"\n\n")
    assert first == Signal.RENDERED, "it is shown at once"
    for chunk in chunks[1:]:
        reading.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    reading.feed(b"data: [DONE]\n\n")
    assert reading.usage == Usage(input=5, output=2, known=True) and reading.complete
    assert StreamUsagePolicy().wanted(Operation.COMPLETIONS, Peek(stream=True), "api.openai.com")
