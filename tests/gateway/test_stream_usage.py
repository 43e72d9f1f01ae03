"""The usage of streamed completions whose client did not ask for it: asked for, counted, and taken out again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import Outcome
from pool_server.core.models import Usage
from tests.fakes import key_account, plays
from tests.gateway.stack import Stack, chat, run

COUNTED = Usage(input=7, cache_read=30, output=5, known=True)
ONE = key_account("openai:key")
PATH = "/openai/v1/chat/completions"
REFUSED = {"error": {"message": "Unknown parameter: 'stream_options'.", "type": "invalid_request_error"}}


def asked(body: bytes) -> Any:
    return json.loads(body).get("stream_options")


@pytest.mark.parametrize("options", [None, {"include_usage": False}])
def test_usage_is_asked_for_and_its_chunk_kept_back(tmp_path: Path, options: dict[str, bool] | None) -> None:
    more: dict[str, Any] = {} if options is None else {"stream_options": options}

    async def test() -> None:
        async with Stack(tmp_path, [ONE]) as stack:
            stack.fakes.then(ONE.id, plays.ok(COUNTED))
            status, answer = await stack.post(PATH, chat(model="m", stream=True, **more))
            assert status == 200 and b"[DONE]" in answer and b'"usage":{' not in answer
            assert all(json.loads(line[6:])["choices"] for line in answer.split(b"\n\n")[:-2])
            (call,) = stack.fakes.made()
            assert asked(call.body) == {"include_usage": True}
            (record,) = stack.records()
            assert record.usage == COUNTED

    run(test)


def test_a_client_that_asks_gets_every_byte(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [ONE]) as stack:
            stack.fakes.then(ONE.id, plays.ok(COUNTED))
            _, answer = await stack.post(PATH, chat(model="m", stream=True, stream_options={"include_usage": True}))
            assert b'"usage":{' in answer.replace(b'"usage": {', b'"usage":{')
            _, answer = await stack.post(PATH, chat(model="m"))
            assert asked(stack.fakes.made()[-1].body) is None, "a whole answer tells its usage unasked"

    run(test)


def test_a_server_that_refuses_the_question_is_not_asked_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [ONE]) as stack:
            stack.fakes.then(ONE.id, plays.Play(status=400, body=REFUSED))
            for _ in range(2):
                status, answer = await stack.post(PATH, chat(model="m", stream=True))
                assert status == 200 and b"[DONE]" in answer
            assert [asked(call.body) for call in stack.fakes.made()] == [{"include_usage": True}, None, None]
            for record in stack.records():
                assert record.usage.estimated and not record.usage.known and record.usage.output > 0
                assert (record.outcome, len(record.attempts)) == (Outcome.OK, 1)

    run(test)


def test_a_refusal_of_something_else_goes_to_the_client(tmp_path: Path) -> None:
    error = {"error": {"message": "Unknown parameter: 'wish'.", "type": "invalid_request_error"}}

    async def test() -> None:
        async with Stack(tmp_path, [ONE]) as stack:
            stack.fakes.then(ONE.id, plays.Play(status=400, body=error))
            status, answer = await stack.post(PATH, chat(model="m", stream=True))
            assert (status, json.loads(answer)) == (400, error) and len(stack.fakes.made()) == 1
            stack.fakes.then(ONE.id, plays.Play(status=400, body=REFUSED))
            mine = chat(model="m", stream=True, stream_options={"include_usage": True})
            status, answer = await stack.post(PATH, mine)
            assert (status, json.loads(answer)) == (400, REFUSED), "the client's own question"

    run(test)


@pytest.mark.parametrize(
    "told",
    [
        {"prompt_tokens": 0, "completion_tokens": 9},
        {"completion_tokens": 9},
        {"prompt_tokens": -1, "completion_tokens": 9},
    ],
)
def test_a_prompt_of_no_tokens_is_estimated_beside_the_answer_that_was_told(
    tmp_path: Path, told: dict[str, int]
) -> None:
    body = {"id": "c", "choices": [{"index": 0, "message": {"content": "Hi."}, "finish_reason": "stop"}], "usage": told}

    async def test() -> None:
        async with Stack(tmp_path, [ONE]) as stack:
            stack.fakes.then(ONE.id, plays.Play(body=body))
            assert (await stack.post(PATH, chat(model="gpt-4.1", text="x" * 4000)))[0] == 200
            (record,) = stack.records()
            assert 1000 <= record.usage.input <= 1100 and record.usage.output == 9
            assert record.usage.known and record.usage.estimated

    run(test)


@pytest.mark.parametrize("told", [None, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}])
def test_an_estimate_is_charged_and_recorded_as_one(tmp_path: Path, told: dict[str, int] | None) -> None:
    """A server that tells no usage whatever it is asked, or one of nothing."""
    chunks: list[dict[str, Any]] = [
        {"id": "c", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "word " * 40}}]},
        {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": told},
    ]
    silent = plays.Play(events=[*(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks), b"data: [DONE]\n\n"])

    async def test() -> None:
        async with Stack(tmp_path, [ONE], friend_code="c") as stack:
            token = await stack.key()
            stack.fakes.then(ONE.id, silent)
            body = chat(model="gpt-4.1", stream=True, text="x" * 4000)
            status, _ = await stack.post(PATH, body, token=token)
            assert status == 200
            (record,) = stack.records()
            usage = record.usage
            assert usage.estimated and not usage.known and usage.counted
            assert 1000 <= usage.input <= 1100 and usage.output > 0
            assert record.cost == pytest.approx((usage.input * 2.0 + usage.output * 8.0) / 1e6)
            used = stack.users.limits.of(record.user)["used"]
            assert used["tokens_day"] == usage.total

    run(test)
