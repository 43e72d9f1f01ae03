"""Who asks for events gets events, and who asks for one body gets that, whichever of them the upstream chose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects.forms import Folded, unfolded
from tests.dialects.test_forms import COMPLETION, GENERATED, MESSAGE, RESPONSE
from tests.fakes import FakeAccount, account, key_account, plays
from tests.gateway.stack import Stack, run

ACCOUNTS = [key_account("openai:k"), key_account("claude:k"), key_account("gemini:k")]
ASKED = {"max_tokens": 9, "messages": [{"role": "user", "content": "?"}]}
GOOGLE = {"contents": [{"role": "user", "parts": [{"text": "?"}]}]}
GEMINI = "/v1beta/models/gemini-3.8-flash"
# dialect, account, (path of one body, path of events), request, its answer
CASES: list[tuple[Dialect, str, tuple[str, str], dict[str, Any], dict[str, Any]]] = [
    (Dialect.MESSAGES, "claude:k", ("/v1/messages",) * 2, {"model": "claude-sonnet-4-5", **ASKED}, MESSAGE),
    (Dialect.CHAT, "openai:k", ("/v1/chat/completions",) * 2, {"model": "gpt-4.1", **ASKED}, COMPLETION),
    (Dialect.RESPONSES, "openai:k", ("/v1/responses",) * 2, {"model": "gpt-4.1", "input": "?"}, RESPONSE),
    (
        Dialect.GEMINI,
        "gemini:k",
        (f"{GEMINI}:generateContent", f"{GEMINI}:streamGenerateContent?alt=sse"),
        GOOGLE,
        GENERATED,
    ),
]


async def asked(stack: Stack, path: str, body: dict[str, Any]) -> tuple[int, str, bytes]:
    async with stack.client.post(stack.url + path, json=body) as answer:
        return answer.status, answer.headers["Content-Type"].partition(";")[0], await answer.read()


def folded(dialect: Dialect, raw: bytes) -> Any:
    fold = Folded(dialect)
    fold.feed(raw)
    return json.loads(fold.body() or b"null")


def stream(dialect: Dialect, whole: dict[str, Any]) -> plays.Play:
    raw = unfolded(dialect, json.dumps(whole).encode(), usage=True)
    assert raw is not None
    return events(raw)


def events(raw: bytes) -> plays.Play:
    """Whatever the request asks for."""
    return plays.Play(body=raw, content_type="text/event-stream")


def test_a_client_gets_the_form_it_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stack(tmp_path, ACCOUNTS) as stack:
            for dialect, ident, (one, several), body, whole in CASES:
                for play in (plays.Play(body=whole), stream(dialect, whole)):
                    stack.fakes.then(ident, play)
                    status, kind, raw = await asked(
                        stack, one, {**body, **({} if one != several else {"stream": False})}
                    )
                    assert (status, kind, json.loads(raw)) == (200, "application/json", whole), dialect
                    stack.fakes.then(ident, play)
                    streamed = {**body, "stream": True} if one == several else body
                    status, kind, raw = await asked(stack, several, streamed)
                    assert (status, kind) == (200, "text/event-stream"), dialect
                    told = folded(dialect, raw)
                    assert {**told, "usage": 0} == {**whole, "usage": 0}, dialect
                await stack.idle()
                for record in stack.records()[-4:]:
                    usage = record.usage
                    assert (record.outcome, usage.input, usage.output, usage.estimated) == ("ok", 7, 5, False), dialect

    run(main)


ENVELOPE = {"model": "gemini-3.8-flash", "project": "p", "request": GOOGLE}


@pytest.mark.parametrize(
    ("one", "path", "body", "whole"),
    [
        (key_account("gemini:k"), f"{GEMINI}:streamGenerateContent", GOOGLE, GENERATED),
        (account("gemini:s"), "/v1internal:streamGenerateContent", ENVELOPE, {"response": GENERATED}),
    ],
)
def test_google_s_list_of_events_is_told_to_who_asked_for_it(
    tmp_path: Path, one: FakeAccount, path: str, body: dict[str, Any], whole: dict[str, Any]
) -> None:
    async def main() -> None:
        async with Stack(tmp_path, [one]) as stack:
            await asked(stack, path, body)  # an account's first call sets it up
            for play in (plays.Play(body=[whole]), events(b"data: %b\n\n" % json.dumps(whole).encode())):
                stack.fakes.then(one.id, play)
                status, kind, raw = await asked(stack, path, body)
                assert (status, kind, json.loads(raw)) == (200, "application/json", [whole])

    run(main)


@pytest.mark.parametrize(
    ("one", "path", "body"),
    [
        (key_account("gemini:k"), f"{GEMINI}:generateContent", GOOGLE),
        (account("gemini:s"), "/v1internal:generateContent", ENVELOPE),
    ],
)
def test_a_list_of_events_is_one_body_to_who_asked_for_that(
    tmp_path: Path, one: FakeAccount, path: str, body: dict[str, Any]
) -> None:
    """Some relays stream whatever is asked, and label it as JSON."""
    wrapped = one.id == "gemini:s"

    def play(said: list[str]) -> plays.Play:
        told: list[dict[str, Any]] = [
            {"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": t}]}}]} for t in said
        ]
        told[-1] |= {"usageMetadata": GENERATED["usageMetadata"]}
        told[-1]["candidates"][0] |= {"finishReason": "STOP"}
        return plays.Play(body=[{"response": event} for event in told] if wrapped else told)

    async def main() -> None:
        async with Stack(tmp_path, [one]) as stack:
            await asked(stack, path, body)  # an account's first call sets it up
            for said in (["Full ", "moon."], ["Full moon."]):
                stack.fakes.then(one.id, play(said))
                status, kind, raw = await asked(stack, path, body)
                told = json.loads(raw)
                told = told["response"] if wrapped else told
                assert (status, kind) == (200, "application/json")
                (candidate,) = told["candidates"]
                assert candidate["content"]["parts"] == [{"text": "Full moon."}]
                assert candidate["finishReason"] == "STOP" and told["usageMetadata"]
            stack.fakes.then(one.id, plays.Play(body=[{"error": {"code": 400, "message": "No.", "status": "X"}}]))
            status, _, raw = await asked(stack, path, body)
            assert json.loads(raw)["error"]["message"] == "No."
            await stack.idle()
            assert [record.usage.output for record in stack.records()][1:3] == [5, 5]

    run(main)


def test_a_translated_answer_is_the_only_one_of_the_list(tmp_path: Path) -> None:
    path = "/v1beta/models/claude-sonnet-4-5:streamGenerateContent"

    async def main() -> None:
        async with Stack(tmp_path, ACCOUNTS) as stack:
            for play in (plays.Play(body=MESSAGE), stream(Dialect.MESSAGES, MESSAGE)):
                stack.fakes.then("claude:k", play)
                status, kind, raw = await asked(stack, path, GOOGLE)
                (event,) = json.loads(raw)
                assert (status, kind) == (200, "application/json")
                assert event["usageMetadata"]["promptTokenCount"] == 7 and b"Full moon." in raw

    run(main)


def test_an_error_in_the_other_form_is_told_with_its_status(tmp_path: Path) -> None:
    """What is the request's own fault goes to the client, and nobody else is asked."""
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 3 > 2"}}

    async def main() -> None:
        async with Stack(tmp_path, ACCOUNTS) as stack:
            for flag, play in (
                (True, plays.Play(body=error)),
                (False, events(b"event: error\ndata: %b\n\n" % json.dumps(error).encode())),
            ):
                stack.fakes.then("claude:k", play)
                before = len(stack.fakes.made())
                _, _, raw = await asked(stack, "/v1/messages", {"model": "claude-sonnet-4-5", **ASKED, "stream": flag})
                assert b"prompt is too long" in raw and len(stack.fakes.made()) == before + 1

    run(main)


def test_a_message_without_its_last_event_gets_it(tmp_path: Path) -> None:
    """Some servers end a stream after the stop reason; where that is not told the answer broke off."""
    whole = unfolded(Dialect.MESSAGES, json.dumps(MESSAGE).encode(), usage=False)
    assert whole is not None
    told = whole.split(b"\n\n")
    body = {"model": "claude-sonnet-4-5", **ASKED, "stream": True}

    async def main() -> None:
        async with Stack(tmp_path, ACCOUNTS) as stack:
            for end in (b"\n\n", b""):
                stack.fakes.then("claude:k", events(b"\n\n".join(told[:-2]) + end))
                _, _, raw = await asked(stack, "/v1/messages", body)
                assert folded(Dialect.MESSAGES, raw) == MESSAGE
                assert raw.rstrip().endswith(b'data: {"type":"message_stop"}') and raw.count(b"message_stop") == 2
            await stack.idle()
            assert [record.outcome for record in stack.records()] == ["ok", "ok"]

    run(main)
