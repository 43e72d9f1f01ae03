"""The bridge: what a socket's client sends in pieces goes up whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from pool_server.dialects import BadBodyError, ContinuationLostError
from pool_server.gateway.websocket.bridge import Conversation

USER = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
ANSWER = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]}
CALL = {"type": "function_call", "call_id": "c1", "name": "shell", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "ok"}


def create(**fields: Any) -> str:
    return json.dumps({"type": "response.create", "model": "gpt-x", "input": [USER]} | fields)


def body_of(talk: Conversation, frame: str) -> dict[str, Any]:
    body, local = talk.request(frame)
    assert body is not None
    assert local == []
    decoded = json.loads(body)
    assert isinstance(decoded, dict)
    return decoded


def stream(*output: dict[str, Any], response: str = "resp_1") -> bytes:
    events: list[dict[str, Any]] = [{"type": "response.created", "response": {"id": response}}]
    events += [
        {"type": "response.output_item.done", "output_index": index, "item": item} for index, item in enumerate(output)
    ]
    events.append({"type": "response.completed", "response": {"id": response, "output": []}})
    return b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)


async def _chunks(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def answer(talk: Conversation, data: bytes, size: int = 1 << 20) -> list[dict[str, Any]]:
    async def collect() -> list[dict[str, Any]]:
        return [json.loads(frame) async for frame in talk.frames(_chunks(data, size))]

    return asyncio.run(collect())


def test_a_first_frame_is_a_whole_streamed_request() -> None:
    body = body_of(Conversation(), create(store=False))
    assert body == {"model": "gpt-x", "input": [USER], "store": False, "stream": True}


@given(st.integers(1, 300))
def test_a_follow_up_carries_all_that_was_said(size: int) -> None:
    talk = Conversation()
    body_of(talk, create(instructions="be kind"))
    frames = answer(talk, stream(ANSWER), size)
    assert [frame["type"] for frame in frames] == [
        "response.created",
        "response.output_item.done",
        "response.completed",
    ]
    body = body_of(talk, create(previous_response_id="resp_1"))
    assert body["input"] == [USER, ANSWER, USER]
    assert body["instructions"] == "be kind"
    assert "previous_response_id" not in body


def test_a_tool_call_keeps_its_output_and_half_a_call_is_left_out() -> None:
    talk = Conversation()
    body_of(talk, create())
    answer(talk, stream(CALL, CALL | {"call_id": "c2"}))
    body = body_of(talk, create(previous_response_id="resp_1", input=[OUTPUT, OUTPUT]))
    assert body["input"] == [USER, CALL, OUTPUT]


def test_a_compacted_transcript_replaces_what_came_before() -> None:
    talk = Conversation()
    body_of(talk, create())
    answer(talk, stream(ANSWER))
    compacted = {"type": "compaction", "encrypted_content": "x"}
    body = body_of(talk, create(previous_response_id="resp_1", input=[compacted, USER]))
    assert body["input"] == [compacted, USER]


def test_a_prewarm_is_answered_here_and_continued() -> None:
    talk = Conversation()
    body, local = talk.request(create(generate=False, input=[ANSWER]))
    assert body is None
    created, completed = (json.loads(frame) for frame in local)
    assert (created["type"], completed["type"]) == ("response.created", "response.completed")
    assert completed["response"]["usage"]["total_tokens"] == 0
    follow = body_of(talk, create(previous_response_id=completed["response"]["id"]))
    assert follow["input"] == [ANSWER, USER]


def test_what_is_not_known_must_be_sent_again() -> None:
    with pytest.raises(ContinuationLostError):
        Conversation().request(create(previous_response_id="resp_elsewhere"))


@pytest.mark.parametrize(
    "frame", ["", "[]", '{"input":5}', '{"input":[], "previous_response_id":5}', "{", '{"input":' + "[" * 99_999]
)
def test_a_frame_that_is_none_is_refused(frame: str) -> None:
    with pytest.raises(BadBodyError):
        Conversation().request(frame)


def test_a_text_is_short_for_a_message_of_the_user() -> None:
    assert body_of(Conversation(), create(input="hi"))["input"] == [USER]


def test_an_append_continues_what_was_answered_last() -> None:
    talk = Conversation()
    body_of(talk, create(instructions="be kind"))
    answer(talk, stream(ANSWER))
    body = body_of(talk, json.dumps({"type": "response.append", "input": [USER]}))
    assert (body["input"], body["model"], body["instructions"]) == ([USER, ANSWER, USER], "gpt-x", "be kind")


def test_a_stream_that_breaks_off_leaves_nothing_to_continue() -> None:
    talk = Conversation()
    body_of(talk, create())
    answer(talk, stream(ANSWER).rpartition(b"event: ")[0])
    assert not talk.known
    assert not talk.finished


def test_a_prewarm_is_answered_with_events_of_the_vendors_types() -> None:
    _, told = Conversation().request(create(generate=False))
    for number, text in enumerate(told):
        event = json.loads(text)
        TypeAdapter(ResponseStreamEvent).validate_python(event)
        Response.model_validate(event["response"])
        assert (event["sequence_number"], event["response"]["model"]) == (number, "gpt-x")
