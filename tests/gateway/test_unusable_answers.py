"""An answer that came and of which nothing can be made is told as what it is, in every client's dialect."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from pool_server.core.lenient_json import why_unread
from tests.gateway.stack import run
from tests.gateway.test_relay import stack_before
from tests.gateway.test_translated import ask
from tests.http1.wire import Talk, read_request

CLIENTS = ["chat", "messages", "responses", "gemini"]
GOOD = {
    "id": "c",
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}
LARGE = json.dumps(GOOD)[:-1].encode() + b',"pad":"' + b"x" * (600 << 10) + b'","score":NaN}'


def says(body: bytes, *headers: str, status: str = "200 OK") -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
            writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    return talk


JSON = "Content-Type: application/json"
EVENTS = "Content-Type: text/event-stream"


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("coding", ["br", "compress", "gzip, br", "x-unheard-of"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_content_coding_nobody_asked_for_is_named(tmp_path: Path, client: str, coding: str, stream: bool) -> None:
    path, body = ask(client, "m", stream=stream)

    async def test() -> None:
        talk = says(b"\x1b\x08\x00xyz", EVENTS if stream else JSON, f"Content-Encoding: {coding}")
        async with stack_before(tmp_path, talk, dialects=["chat"]) as stack:
            status, raw = await stack.post(f"/openai{path}", body)
            assert status == 502, raw
            message = json.loads(raw)["error"]["message"]
            named = f"the content coding '{coding}', which was not asked for and cannot be read."
            assert message == f"openai gave no answer that can be passed on: the answer came in {named}"
            await stack.idle()
            (record,) = stack.records()
            assert f"'{coding}'" in record.attempts[-1].message and record.usage.total == 0

    run(test)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("status", "wanted"), [("400 Bad Request", 400), ("422 Unprocessable", 422)])
def test_a_refusal_in_such_a_coding_says_why_its_words_are_not_known(
    tmp_path: Path, client: str, status: str, wanted: int
) -> None:
    path, body = ask(client, "m", stream=False)

    async def test() -> None:
        talk = says(b"\x1b\x08\x00xyz", JSON, "Content-Encoding: br", status=status)
        async with stack_before(tmp_path, talk, dialects=["chat"]) as stack:
            found, raw = await stack.post(f"/openai{path}", body)
            assert found == wanted, raw
            message = json.loads(raw)["error"]["message"]
            assert message == (
                f"openai refused this call (status {wanted}), "
                "in the content coding 'br', which was not asked for and cannot be read."
            )

    run(test)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (json.dumps(GOOD).encode()[:-9], "the answer ended before it was complete"),
        (b'{"id": 1,, "choices": []}', "the answer is not valid JSON"),
        (b"<html>maintenance</html>", "the answer is not valid JSON"),
        (b"[1, 2]", "the answer is JSON of no known form"),
        (b" \r\n", "the answer is empty"),
        (b"", "the answer is empty"),
    ],
    ids=["cut", "two commas", "html", "list", "blank", "nothing"],
)
def test_a_whole_answer_that_is_none_is_told_as_what_it_is(tmp_path: Path, client: str, sent: bytes, why: str) -> None:
    path, body = ask(client, "m", stream=False)

    async def test() -> None:
        async with stack_before(tmp_path, says(sent, JSON), dialects=["chat"]) as stack:
            status, raw = await stack.post(f"/openai{path}", body)
            assert status == 502, raw
            assert json.loads(raw)["error"]["message"] == f"openai gave no answer that can be passed on: {why}."

    run(test)


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
def test_a_large_answer_that_only_a_lenient_reader_takes_passes_or_says_so(tmp_path: Path, client: str) -> None:
    """To a client of its dialect it goes as it came, and is charged by an estimate; nobody translates it."""
    path, body = ask(client, "m", stream=False)

    async def test() -> None:
        async with stack_before(tmp_path, says(LARGE, JSON), dialects=["chat"]) as stack:
            status, raw = await stack.post(f"/openai{path}", body)
            await stack.idle()
            (record,) = stack.records()
            if client == "chat":
                assert (status, raw, record.outcome) == (200, LARGE, "ok")
                assert record.usage.output > 0 and not record.usage.known
            else:
                why = f"the answer is not valid JSON, and with {len(LARGE)} bytes too large to be read all the same"
                told = f"openai gave no answer that can be passed on: {why}."
                assert (status, json.loads(raw)["error"]["message"]) == (502, told)

    run(test)


@pytest.mark.parametrize("at", range(0, 60, 7))
def test_json_that_was_cut_is_told_as_cut_wherever_it_was(at: int) -> None:
    whole = json.dumps(GOOD).encode()
    assert why_unread(whole[: at + 1]) == "the answer ended before it was complete"
