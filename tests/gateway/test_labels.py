"""Answers whose label is wrong, missing, or that answer nothing: told by what they are."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import Outcome
from tests.fakes import key_account, plays
from tests.gateway.sockets import BY_PRIORITY
from tests.gateway.stack import Stack, chat, run
from tests.gateway.test_relay import ASKED, PATH, USAGE, delta, event, stack_before
from tests.http1.wire import read_request

EVENTS = [delta("a"), delta("b"), USAGE, event(b"[DONE]")]


@pytest.mark.slow
@pytest.mark.parametrize("label", ["text/plain; charset=utf-8", "application/json", "application/octet-stream", ""])
def test_a_stream_under_another_label_passes_as_it_comes_and_is_counted(tmp_path: Path, label: str) -> None:
    got = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        kind = f"Content-Type: {label}\r\n" if label else ""
        writer.write(f"HTTP/1.1 200 OK\r\n{kind}\r\n".encode() + EVENTS[0])
        for piece in EVENTS[1:]:
            await got.wait()  # what was sent is with the client before anything more comes
            got.clear()
            writer.write(piece)

    async def test() -> None:
        async with stack_before(tmp_path, talk) as stack:
            async with stack.client.post(stack.url + PATH, json=ASKED) as answer:
                said = b""
                while piece := await answer.content.readany():
                    said += piece
                    got.set()
            assert said == b"".join(EVENTS)
            (record,) = stack.records()
            assert (record.outcome, record.usage.output) == (Outcome.OK, 5)

    run(test)


NOTHING: list[tuple[bool, str, bytes]] = [
    (False, "application/json", b'{"id":null,"object":"chat.completion","choices":null,"usage":null}'),
    (False, "application/json", b""),
    (True, "text/event-stream", json.dumps({"error": {"message": "overloaded", "code": 503}}).encode()),
    (True, "text/event-stream", b"\n\n"),
    (True, "text/event-stream", event({"choices": None}) + event(b"[DONE]")),
    (True, "text/html", b"<html>who are you?</html>"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("stream", "label", "body"), NOTHING)
def test_an_answer_that_is_none_is_another_accounts_chance(
    tmp_path: Path, stream: bool, label: str, body: bytes
) -> None:
    two = [key_account("openai:one", priority=1), key_account("openai:two", priority=2)]
    asked: dict[str, Any] = chat(model="m", stream=stream)

    async def test() -> None:
        async with Stack(tmp_path, two, **BY_PRIORITY) as stack:
            stack.fakes.then("openai:one", plays.Play(body=body, content_type=label))
            status, answer = await stack.post("/openai/v1/chat/completions", asked)
            assert status == 200 and b"Hello" in answer
            (record,) = stack.records()
            assert [attempt.account for attempt in record.attempts] == ["openai:one", "openai:two"]

    run(test)


@pytest.mark.parametrize("label", ["text/event-stream", "application/json"])
@pytest.mark.parametrize("extra", [b"", b',"logprobs":[-Infinity,NaN]', b',"cut":"\\ud83d"'])
def test_a_body_passes_as_it_came_and_is_counted(tmp_path: Path, label: str, extra: bytes) -> None:
    whole = (
        b'\xef\xbb\xbf{"id":"c","model":"m","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":7,"completion_tokens":5}' + extra + b"}\n<!-- relay -->"
    )

    async def test() -> None:
        async with Stack(tmp_path, [key_account("openai:one")]) as stack:
            stack.fakes.then("openai:one", plays.Play(body=whole, content_type=label))
            assert await stack.post("/openai/v1/chat/completions", chat(model="m")) == (200, whole)
            (record,) = stack.records()
            assert (record.outcome, record.usage.output, len(record.attempts)) == (Outcome.OK, 5, 1)

    run(test)
