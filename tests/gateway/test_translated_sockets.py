"""The Responses WebSocket on accounts that speak another dialect: the same turns, told in the same frames."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from pool_server.core.enums import Outcome, Transport
from pool_server.core.models import Usage
from pool_server.core.settings import Fallback, Models
from tests.fakes import FakeAccount, account, faults, key_account, plays
from tests.gateway.sockets import BY_PRIORITY, create, final_id, socket
from tests.gateway.stack import Stack, run

USAGE = Usage(input=37, cache_read=1100, output=11, known=True)
CLAUDE, GPT, GEMINI, OTHER = "claude-sonnet-5-5", "gpt-6.1-sol", "gemini-3.8-flash", "house-model-1"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}
KINDS: dict[str, tuple[str, Callable[[str], FakeAccount]]] = {
    "claude": (CLAUDE, lambda name: account(f"claude:{name}")),
    "claude-key": (CLAUDE, lambda name: key_account(f"claude:{name}")),
    "code-assist": (GEMINI, lambda name: account(f"gemini:{name}")),
    "gemini-key": (GEMINI, lambda name: key_account(f"gemini:{name}")),
    "qwen": ("qwen3-coder-plus", lambda name: account(f"qwen:{name}")),
    "chat": (OTHER, lambda name: key_account(f"openai:{name}", models=[OTHER], dialects=["chat"])),
}


def two(kind: str) -> tuple[str, list[FakeAccount]]:
    model, make = KINDS[kind]
    first, second = make("one"), make("two")
    first.extra["priority"], second.extra["priority"] = 1, 2
    return model, [first, second]


def said(events: list[dict[str, Any]]) -> str:
    for event in events:
        if event["type"] != "keepalive":
            EVENT.validate_python(event)
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


def item(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_with_a_tool_goes_up_whole_each_time(tmp_path: Path, kind: str) -> None:
    model, (one, _) = two(kind)

    async def main() -> None:
        async with Stack(tmp_path, [one]) as stack:
            stack.fakes.always(one.id, plays.ok(USAGE, ["Hel", "lo."]).but(tools={"look": {"at": "it"}}))
            async with socket(stack) as client:
                warm = await client.turn(create(model=model, tools=[TOOL], input=[], generate=False))
                assert not stack.fakes.made(), "a prewarm is answered here"
                first = await client.turn(
                    create(model=model, input=[item("look")], previous_response_id=final_id(warm))
                )
                (call,) = [e["item"] for e in first if e["type"] == "response.output_item.done"]
                assert (call["type"], call["name"], json.loads(call["arguments"])) == (
                    "function_call",
                    "look",
                    {"at": "it"},
                )
                result = {"type": "function_call_output", "call_id": call["call_id"], "output": "seen"}
                second = await client.turn(create(model=model, input=[result], previous_response_id=final_id(first)))
                assert said(second) == "Hello."
                third = await client.turn(
                    create(model=model, input=[item("more")], previous_response_id=final_id(second))
                )
                assert third[-1]["type"] == "response.completed"
            await stack.idle()
            up = stack.fakes.made()
            assert len(up) == 3
            text = json.dumps(up[-1].json)
            at = [text.index(word) for word in ("look", "seen", "Hello.", "more")]
            assert at == sorted(at)
            records = [one for one in stack.records() if one.usage != Usage(known=True)]
            assert [one.transport for one in records] == [Transport.WEBSOCKET] * 3
            assert {one.outcome for one in records} == {Outcome.OK}
            assert [one.usage for one in records] == [USAGE] * 3
            assert all(one.decision["translation"].startswith("responses>") for one in records)

    run(main)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trouble", ["status", "cut", "event"])
def test_another_account_steps_in_before_anything_is_shown(tmp_path: Path, kind: str, trouble: str) -> None:
    model, accounts = two(kind)
    events = {
        "claude": faults.messages_error(),
        "claude-key": faults.messages_error(),
        "code-assist": faults.gemini_error(),
        "gemini-key": faults.gemini_error(),
    }
    play = {
        "status": plays.status(500, {"error": {"message": "down"}}),
        "cut": plays.cut(0),
        "event": faults.in_stream(events.get(kind, faults.chat_error()), at=0),
    }[trouble]

    async def main() -> None:
        async with Stack(tmp_path, accounts, **BY_PRIORITY) as stack:
            stack.fakes.always(accounts[0].id, play)
            stack.fakes.always(accounts[1].id, plays.ok(USAGE, ["Hello."]))
            async with socket(stack) as client:
                assert said(await client.turn(create(model=model))) == "Hello."
            await stack.idle()
            (record,) = stack.records()
            assert (record.outcome, record.account) == (Outcome.OK, accounts[1].id)
            assert [one.account for one in record.attempts] == [one.id for one in accounts]

    run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_breaks_off_ends_the_socket_so_that_all_is_sent_again(tmp_path: Path, kind: str) -> None:
    model, (one, _) = two(kind)

    async def main() -> None:
        async with Stack(tmp_path, [one]) as stack:
            pieces = ["Hello"] * 40
            stack.fakes.always(one.id, plays.ok(USAGE, pieces).but(cut_at=20, cut_inside=True))
            async with socket(stack) as client:
                await client.connection.send_json(create(model=model))
                assert await client.closed() == 1012
            await stack.idle()
            (record,) = stack.records()
            assert record.outcome == Outcome.CUT

    run(main)


def test_what_cannot_be_carried_is_an_error_frame_and_the_socket_goes_on(tmp_path: Path) -> None:
    model, (one, _) = two("claude")

    async def main() -> None:
        async with Stack(tmp_path, [one]) as stack:
            stack.fakes.always(one.id, plays.ok(USAGE, ["Hello."]))
            async with socket(stack) as client:
                odd = {"type": "message", "role": "user", "content": [{"type": "hologram", "x": 1}]}
                events = await client.turn(create(model=model, input=[odd]))
                assert events[-1]["type"] == "error" and events[-1]["status"] == 400
                assert "hologram" in json.dumps(events[-1])
                assert not stack.fakes.made()
                assert said(await client.turn(create(model=model))) == "Hello."

    run(main)


def test_the_upstream_s_own_refusal_is_told_in_the_client_s_form(tmp_path: Path) -> None:
    model, (one, _) = two("claude")
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": "too many cooks"}}

    async def main() -> None:
        async with Stack(tmp_path, [one]) as stack:
            stack.fakes.always(one.id, plays.status(400, body))
            async with socket(stack) as client:
                events = await client.turn(create(model=model))
                assert events[-1]["type"] == "error" and events[-1]["status"] == 400
                assert "too many cooks" in events[-1]["error"]["message"]

    run(main)


def test_models_of_two_vendors_on_one_socket(tmp_path: Path) -> None:
    """A client that changes the model in mid-conversation is asked to send it again, and is served by the other."""
    codex, claude = account("codex:a"), account("claude:a")

    async def main() -> None:
        async with Stack(tmp_path, [codex, claude]) as stack:
            stack.fakes.always(codex.id, plays.ok(USAGE, ["from codex"]))
            stack.fakes.always(claude.id, plays.ok(USAGE, ["from claude"]))
            async with socket(stack) as client:
                assert "from codex" in str(await client.turn(create(model=GPT)))
                assert said(await client.turn(create(model=CLAUDE))) == "from claude"
                back = await client.turn(create(model=GPT))
                assert "from codex" in str(back)
                moved = await client.turn(create(model=CLAUDE, previous_response_id=final_id(back)))
                assert moved[-1]["type"] == "error"
                assert moved[-1]["error"]["code"] == "previous_response_not_found"
            async with socket(stack) as client:
                assert said(await client.turn(create(model=CLAUDE, input=[item("again")]))) == "from claude"

    run(main)


@pytest.mark.slow
@pytest.mark.parametrize("hint", ["", CLAUDE])
def test_a_vendor_without_room_does_not_keep_others_from_the_socket(tmp_path: Path, hint: str) -> None:
    codex, claude = account("codex:a"), account("claude:a")

    async def main() -> None:
        async with Stack(tmp_path, [codex, claude]) as stack:
            stack.fakes.always(codex.id, faults.codex_usage_limit(resets_in=3600), on="handshake")
            stack.fakes.always(claude.id, plays.ok(USAGE, ["from claude"]))
            async with socket(stack, x_codex_routing_hint=f"model={hint}") as client:
                assert said(await client.turn(create(model=CLAUDE))) == "from claude"
                told = await client.turn(create(model=GPT))
                assert told[-1]["type"] == "error" and told[-1]["status"] == 429

    run(main)


def test_without_translation_only_the_vendor_s_own_accounts_are_tied(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stack(tmp_path, [account("claude:a")], models=Models(translate=False)) as stack:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with socket(stack):
                    pass
            assert refused.value.status == 503
            assert not stack.fakes.calls

    run(main)


def test_an_alias_and_a_fallback_hold_on_a_socket(tmp_path: Path) -> None:
    codex, claude = account("codex:a"), account("claude:a")
    chain = {GPT: [Fallback(CLAUDE, ("quota",))]}
    models = Models(aliases={"house": CLAUDE}, fallbacks=chain)

    async def main() -> None:
        async with Stack(tmp_path, [codex, claude], models=models) as stack:
            stack.fakes.always(codex.id, faults.codex_usage_limit(resets_in=3600))
            stack.fakes.always(claude.id, plays.ok(USAGE, ["from claude"]))
            async with socket(stack) as client:
                assert said(await client.turn(create(model="house"))) == "from claude"
                assert said(await client.turn(create(model=GPT))) == "from claude"
            await stack.idle()
            assert [one.model for one in stack.records()] == [CLAUDE, CLAUDE]

    run(main)
