"""A Codex conversation over sockets goes on whatever happens to its accounts, and carries nothing of one to another."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import Outcome
from tests.fakes import FakeAccount, Surface, account, faults, key_account, plays
from tests.gateway.sockets import BY_PRIORITY, COUNTED, create, final_id, socket, two
from tests.gateway.stack import Stack, messages, responses, run

LIMIT = {"type": "invalid_request_error", "code": "websocket_connection_limit_reached", "message": "60 minutes"}
SEALED = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed-by-one"}
SAID = {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]}


def history() -> list[dict[str, Any]]:
    """What a client sends in full after a first turn."""
    asked = responses()["input"]
    return [*asked, SEALED, SAID, *asked]


def sent_up(stack: Stack, name: str) -> list[dict[str, Any]]:
    return [frame for call in stack.fakes.made(name, Surface.SOCKET) for frame in call.frames]


def test_a_conversation_that_moves_leaves_what_was_sealed_behind(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two(), **BY_PRIORITY) as stack:
            async with socket(stack) as client:
                final_id(await client.turn(create()))
                final_id(await client.turn(create(input=history())))
                stack.fakes.always("codex:one", faults.codex_usage_limit())
                final_id(await client.turn(create(input=history())))
            kept, moved = sent_up(stack, "codex:one")[1], sent_up(stack, "codex:two")[-1]
            assert [(item["type"], item.get("id")) for item in kept["input"]][1:3] == [
                ("reasoning", "rs_1"),
                ("message", "msg_1"),
            ]
            assert [(item["type"], "id" in item) for item in moved["input"]] == [("message", False)] * 3
            assert stack.records()[-1].account == "codex:two"

    run(test)


def test_reasoning_the_provider_cannot_read_is_left_out_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack, socket(stack) as client:
            stack.fakes.then("codex:one", faults.encrypted_content())
            final_id(await client.turn(create(input=history())))
            first, second = sent_up(stack, "codex:one")
            assert len(first["input"]) == 4 and len(second["input"]) == 3
            (record,) = stack.records()
            assert (record.outcome, record.account) == (Outcome.OK, "codex:one")

    run(test)


def test_a_turn_state_goes_back_to_its_account_and_to_no_other(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two(), **BY_PRIORITY) as stack:
            async with socket(stack) as client:
                state = client.connection._response.headers["x-codex-turn-state"]
                final_id(await client.turn(create()))
            async with socket(stack, x_codex_turn_state=state) as client:
                final_id(await client.turn(create()))
                stack.fakes.always("codex:one", faults.codex_usage_limit())
                final_id(await client.turn(create()))
            async with socket(stack, x_codex_turn_state="of-somebody-else") as client:
                final_id(await client.turn(create()))
            calls = stack.fakes.made(surface=Surface.SOCKET)
            states = [(call.account, call.header("x-codex-turn-state")) for call in calls]
            assert states == [("codex:one", None), ("codex:one", state), ("codex:two", None), ("codex:two", None)]

    run(test)


def test_a_socket_that_lived_too_long_is_dialled_again_unseen(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two(), **BY_PRIORITY) as stack, socket(stack) as client:
            final_id(await client.turn(create()))
            stack.fakes.then("codex:one", plays.status(400, {"error": LIMIT}))
            final_id(await client.turn(create()))
            assert {record.account for record in stack.records()} == {"codex:one"}
            assert len(stack.fakes.made(surface=Surface.SOCKET)) == 2
            assert stack.accounts.describe("codex:one").state == "ready"

    run(test)


def test_a_continued_turn_on_such_a_socket_is_sent_again_in_full(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two(), **BY_PRIORITY) as stack:
            async with socket(stack) as client:
                first = final_id(await client.turn(create()))
                stack.fakes.then("codex:one", plays.status(400, {"error": LIMIT}))
                events = await client.turn(create(previous_response_id=first))
                assert events[-1]["error"]["code"] == "previous_response_not_found"
                assert await client.closed() == 1012
            async with socket(stack) as client:
                final_id(await client.turn(create()))
            assert stack.records()[-1].account == "codex:one"

    run(test)


@pytest.mark.parametrize("continued", [False, True])
def test_a_token_that_ends_under_an_open_socket_is_renewed(tmp_path: Path, continued: bool) -> None:
    async def test() -> None:
        one, other = two()
        async with Stack(tmp_path, [one, other], **BY_PRIORITY) as stack:
            async with socket(stack) as client:
                first = final_id(await client.turn(create()))
                one.revoke()
                stack.fakes.then("codex:one", faults.unauthorized())
                events = await client.turn(create(previous_response_id=first) if continued else create())
                if continued:
                    assert events[-1]["error"]["code"] == "previous_response_not_found"
            async with socket(stack) as client:
                final_id(await client.turn(create()))
            assert one.generation == 1
            assert {record.account for record in stack.records()} == {"codex:one"}

    run(test)


@pytest.mark.parametrize(
    "play",
    [
        plays.cut(at=5, inside=False),
        plays.clean_end(at=5),
        faults.in_stream(faults.responses_failed(), at=5),
        faults.in_stream(faults.responses_error(), at=5),
    ],
    ids=["cut", "clean end", "overload", "error"],
)
def test_an_account_that_fails_in_mid_answer_is_a_1012_and_no_error(tmp_path: Path, play: plays.Play) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two(), **BY_PRIORITY) as stack:
            stack.fakes.then("codex:one", play)
            async with socket(stack) as client:
                events = await client.turn(create())
                assert events[-1]["type"] == "response.output_text.delta"
                assert await client.closed() == 1012
            async with socket(stack) as client:
                final_id(await client.turn(create()))
            cut, good = stack.records()
            assert (cut.outcome, cut.partial, good.outcome) == (Outcome.CUT, True, Outcome.OK)

    run(test)


def test_a_socket_that_died_unnoticed_between_turns_is_dialled_again(tmp_path: Path) -> None:
    """The upstream goes without a word just as the next turn is sent: nobody is blamed, the account stays."""

    async def test() -> None:
        async with Stack(tmp_path, two(), **BY_PRIORITY) as stack, socket(stack) as client:
            final_id(await client.turn(create()))
            stack.fakes.then("codex:one", plays.cut(at=0, inside=False))
            final_id(await client.turn(create()))
            last = stack.records()[-1]
            assert (last.account, last.outcome, len(last.attempts)) == ("codex:one", Outcome.OK, 1)

    run(test)


def test_an_append_is_a_turn_like_any_other(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two(), **BY_PRIORITY) as stack:
            stack.fakes.always("codex:one", plays.ok(COUNTED))
            async with socket(stack) as client:
                final_id(await client.turn(create()))
                final_id(await client.turn({"type": "response.append", "input": []}))
            first, second = stack.records()
            assert (second.usage, second.account, second.model) == (COUNTED, first.account, first.model)

    run(test)


def test_the_bridge_asks_for_everything_when_it_does_not_know_a_response(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account("codex:one")]) as stack, socket(stack) as client:
            final_id(await client.turn(create()))
            assert (await client.turn(create(input=5)))[-1]["status"] == 400
            await client.connection.send_json({"type": "response.processed"})
            events = await client.turn(create(previous_response_id="resp_elsewhere"))
            assert events[-1]["error"]["code"] == "previous_response_not_found"
            assert await client.closed() == 1012

    run(test)


def test_a_compaction_goes_to_its_conversations_account_and_is_counted(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two(), **BY_PRIORITY) as stack:
            path, session = "/backend-api/codex/responses/compact", {"session_id": "s-9"}
            await stack.post("/v1/responses", responses(input=history()), **session)
            await stack.accounts.set_priority("codex:two", 0)  # a new conversation would go there
            status, _ = await stack.post(path, {"model": "gpt-x", "input": history()}, **session)
            assert status == 200
            status, _ = await stack.post(path, {"model": "gpt-x", "input": history()}, session_id="forked")
            assert status == 200
            records = stack.records()
            assert {record.account for record in records} == {"codex:one"}
            assert [record.operation for record in records[1:]] == ["responses_compact"] * 2
            assert all(record.usage.known for record in records)
            stack.fakes.always("codex:one", faults.codex_usage_limit())
            stack.fakes.always("codex:one", faults.codex_usage_limit(), on="compact")
            status, _ = await stack.post(path, {"model": "gpt-x", "input": history()}, **session)
            moved = stack.fakes.made("codex:two", Surface.COMPACT)[-1].json
            assert status == 200 and [item["type"] for item in moved["input"]] == ["message"] * 3

    run(test)


def test_an_in_turn_compaction_passes_over_the_socket_and_the_bridge(tmp_path: Path) -> None:
    trigger = {"type": "compaction_trigger"}

    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack, socket(stack) as client:
            first = final_id(await client.turn(create()))
            final_id(await client.turn(create(previous_response_id=first, input=[trigger])))
            assert sent_up(stack, "codex:one")[-1]["input"] == [trigger]
        async with Stack(tmp_path / "bridged", [key_account("codex:one")]) as stack, socket(stack) as client:
            first = final_id(await client.turn(create()))
            final_id(await client.turn(create(previous_response_id=first, input=[trigger])))
            assert stack.fakes.made(surface=Surface.RESPONSES)[-1].json["input"][-1] == trigger

    run(test)


SIGNED = [
    {"role": "user", "parts": [{"text": "list files"}]},
    {"role": "model", "parts": [{"functionCall": {"name": "ls", "args": {}}, "thoughtSignature": "sealed-by-one"}]},
    {"role": "user", "parts": [{"functionResponse": {"name": "ls", "response": {"output": "a"}}}]},
]
CORRUPTED = {"error": {"code": 400, "message": "Corrupted thought signature.", "status": "INVALID_ARGUMENT"}}
GEMINI_CALLS = [
    ("/v1internal:generateContent", lambda said: {"model": "gemini-3-pro", "request": {"contents": said}}),
    (
        "/v1internal:streamGenerateContent?alt=sse",
        lambda said: {"model": "gemini-3-pro", "request": {"contents": said}},
    ),
    ("/v1beta/models/gemini-3-pro:generateContent", lambda said: {"contents": said}),
]


def signatures(stack: Stack, name: str) -> list[bool]:
    """Whether each call to an account showed it what was sealed."""
    return [b"sealed-by-one" in call.body for call in stack.fakes.made(name)]


def pair(path: str) -> list[FakeAccount]:
    make = key_account if path.startswith("/v1beta") else account
    return [make("gemini:one", priority=1), make("gemini:two", priority=2)]


@pytest.mark.parametrize(("path", "body"), GEMINI_CALLS, ids=[call[0] for call in GEMINI_CALLS])
def test_a_thought_signature_stays_with_its_account_and_is_left_behind_on_a_move(
    tmp_path: Path, path: str, body: Callable[[list[Any]], dict[str, Any]]
) -> None:
    async def test() -> None:
        async with Stack(tmp_path, pair(path), **BY_PRIORITY) as stack:
            for said in (SIGNED[:1], SIGNED, SIGNED):
                assert (await stack.post(path, body(said)))[0] == 200
            assert signatures(stack, "gemini:one") == [False, True, True]
            stack.fakes.always("gemini:one", faults.gemini_exhausted())
            for _ in range(3):
                assert (await stack.post(path, body(SIGNED)))[0] == 200
            assert signatures(stack, "gemini:two") == [False] * 3
            assert b"skip_thought_signature_validator" in stack.fakes.made("gemini:two")[-1].body

    run(test)


@pytest.mark.parametrize(("path", "body"), GEMINI_CALLS[::2], ids=[call[0] for call in GEMINI_CALLS[::2]])
def test_a_signature_the_account_refuses_is_left_out_once_and_from_then_on(
    tmp_path: Path, path: str, body: Callable[[list[Any]], dict[str, Any]]
) -> None:
    """A conversation that was begun elsewhere: nobody knows whose it is."""

    async def test() -> None:
        async with Stack(tmp_path, pair(path)[:1]) as stack:
            stack.fakes.then("gemini:one", plays.status(400, CORRUPTED))
            for _ in range(3):
                assert (await stack.post(path, body(SIGNED)))[0] == 200
            assert signatures(stack, "gemini:one") == [True, False, False, False]
            assert {record.outcome for record in stack.records()} == {Outcome.OK}

    run(test)


def test_thinking_another_vendor_has_signed_is_left_out_once(tmp_path: Path) -> None:
    error = {
        "type": "invalid_request_error",
        "message": "messages.1.content.0: Invalid `signature` in `thinking` block",
    }
    thought = {"type": "thinking", "thinking": "hm", "signature": "of-another-vendor"}
    said = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "a"}]},
        {"role": "user", "content": "and?"},
    ]

    async def test() -> None:
        async with Stack(tmp_path, [account("claude:one")]) as stack:
            stack.fakes.then("claude:one", plays.status(400, {"type": "error", "error": error}))
            status, _ = await stack.post("/v1/messages", messages(messages=said))
            assert status == 200
            assert [b"of-another-vendor" in call.body for call in stack.fakes.made()] == [True, False]

    run(test)


def test_a_move_is_recorded_with_what_was_read_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("claude:one"), account("claude:two")], **BY_PRIORITY) as stack:
            await stack.post("/v1/messages", messages())
            await stack.post("/v1/messages", messages())
            stack.fakes.always("claude:one", faults.claude_limit(time.time() + 7200))
            await stack.post("/v1/messages", messages())
            *stayed, moved = stack.records()
            assert [one.move for one in stayed] == [None, None]
            assert moved.account == "claude:two" and moved.move is not None
            before = stayed[-1].usage
            lost = max(0, min(before.prompt, moved.usage.prompt) - moved.usage.cache_read)
            assert (moved.move.before, moved.move.tokens) == ("claude:one", lost)
            assert moved.move.cost == stack.ledger.prices.reread(moved.model, lost)

    run(test)
