"""A translated stream whose upstream says nothing that can be shown is told as an error, never as an empty success."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.dialects.streams import named
from tests.gateway.sockets import create, final_id, socket
from tests.gateway.stack import run
from tests.gateway.test_relay import Upstream, event, stack_before
from tests.gateway.test_translated import ask

TOO_LONG = {"message": "At most 8192 tokens.", "type": "invalid_request_error", "code": "context_length_exceeded"}
DONE = event(b"[DONE]")


def chunk(choice: object) -> bytes:
    return event({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})


SILENT = {
    "another choice alone": chunk({"index": 1, "delta": {"content": "other"}, "finish_reason": "stop"}) + DONE,
    "an index that is none": chunk({"index": "0", "delta": {"content": "text"}, "finish_reason": "stop"}) + DONE,
    "a delta that is none": chunk({"index": 0, "delta": None, "finish_reason": None}) + DONE,
}


REFUSED = {  # the account's dialect → a stream that begins with the request's own fault, and clients of other dialects
    "chat": (event({"error": TOO_LONG}), ("messages", "responses", "gemini")),
    "messages": (named({"type": "error", "error": TOO_LONG}), ("chat", "responses", "gemini")),
    "responses": (
        named({"type": "response.created", "response": {"id": "resp_1"}})
        + named({"type": "response.failed", "response": {"id": "resp_1", "status": "failed", "error": TOO_LONG}}),
        ("chat", "messages", "gemini"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(
    ("spoken", "client"), [(one, client) for one, (_, others) in REFUSED.items() for client in others]
)
def test_the_request_s_own_fault_at_the_start_is_a_400(spoken: str, client: str, stream: bool, tmp_path: Path) -> None:
    upstream = Upstream(1)
    upstream.body = REFUSED[spoken][0]
    path, body = ask(client, "m", stream=stream)

    async def test() -> None:
        async with stack_before(tmp_path, upstream, dialects=[spoken]) as stack:
            async with stack.client.post(f"{stack.url}/openai{path}", data=json.dumps(body)) as answer:
                raw = await answer.read()
                assert answer.status == 400, raw
                assert answer.headers["Content-Type"].startswith("application/json")
            assert "8192" in json.loads(raw)["error"]["message"]
            await stack.idle()
            assert [(one.outcome, one.status) for one in stack.records()] == [("request_fault", 400)]

    run(test)


@pytest.mark.slow
@pytest.mark.parametrize("name", SILENT)
@pytest.mark.parametrize("client", ["messages", "responses", "gemini"])
def test_a_stream_of_nothing_is_no_success(client: str, name: str, tmp_path: Path) -> None:
    upstream = Upstream(2)
    upstream.body = SILENT[name]
    path, body = ask(client, "m", stream=True)

    async def test() -> None:
        async with stack_before(tmp_path, upstream, dialects=["chat"]) as stack:
            async with stack.client.post(f"{stack.url}/openai{path}", data=json.dumps(body)) as answer:
                raw = await answer.read()
                assert answer.status in (200, 502, 503) and raw
                assert answer.status != 200 or b'"error"' in raw or b"stop" in raw.lower() or b"completed" in raw
            await stack.idle()
            assert len(stack.records()) == 1

    run(test)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (REFUSED["chat"][0], 400, "context_length_exceeded"),
        (SILENT["another choice alone"], 502, "upstream_unreachable"),
    ],
)
def test_on_a_socket_both_are_error_frames_and_the_socket_goes_on(
    body: bytes, status: int, code: str, tmp_path: Path
) -> None:
    upstream = Upstream(3)
    upstream.body = body
    good = chunk({"index": 0, "delta": {"content": "Hello."}, "finish_reason": "stop"}) + DONE

    async def test() -> None:
        async with (
            stack_before(tmp_path, upstream, dialects=["chat"], models=["m"]) as stack,
            socket(stack, "/v1/responses") as client,
        ):
            (error,) = await client.turn(create(model="m"))
            assert (error["type"], error["status"], error["error"]["code"]) == ("error", status, code)
            upstream.body = good
            assert final_id(await client.turn(create(model="m")))

    run(test)
