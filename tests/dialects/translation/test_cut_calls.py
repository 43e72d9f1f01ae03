"""An answer that ends within a call's arguments: no client gets a call that it could run, nor an end that hides it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import UpstreamKind
from tests.dialects.streams import named, sse
from tests.dialects.translation.grammar import Heard, hear, hear_whole
from tests.dialects.translation.kit import PAIRS, Blocks, events, request, translate

CUT = ['{"a": "b', '{"a', '{"a": [1, {"b": tr', '{"a": "\\', '{"a": "\\u00', "{", '{"a": 1,', '{"a":', ""]
GOOGLE = (Dialect.GEMINI, Dialect.CODE_ASSIST)
LENGTH = {Dialect.CHAT: "length", Dialect.RESPONSES: "max_output_tokens", Dialect.MESSAGES: "max_tokens"}
WORDS = {UpstreamKind.CHAT: "length", UpstreamKind.CODEX: "max_output_tokens"}
CASES = [(client, kind) for client, kind in PAIRS if kind in WORDS]
CALLS: Blocks = [("call", "c0", "moon", '{"a": 1}'), ("call", "c1", "moon", "")]


def told(client: Dialect, kind: UpstreamKind, blocks: Blocks, *, stream: bool = True) -> bytes:
    body = request(client, [("user", "?")], tools=("moon",), stream=stream)
    response = translate(client, kind, body, stream=stream).response
    raw = b"".join(map(response.feed, events(kind, blocks, finish=WORDS[kind]))) + response.finish()
    assert response.complete, response.fault
    return raw


def calls(heard: Heard) -> list[str]:
    return [block[3] for block in heard.blocks if block[0] == "call"]


@pytest.mark.parametrize(("client", "kind"), CASES)
@pytest.mark.parametrize("arguments", CUT)
def test_a_call_that_was_cut_cannot_be_run(client: Dialect, kind: UpstreamKind, arguments: str) -> None:
    """Chat, Responses and Claude tell its arguments as they were cut, as their own vendors do; Google has no word for
    it. The call before it stands."""
    raw = told(client, kind, [("text", "Now."), *CALLS[:1], ("call", "c1", "moon", arguments)])
    heard = hear(client, raw)
    assert heard.finish == LENGTH.get(client, "MAX_TOKENS") and heard.error is None
    first, *rest = calls(heard)
    assert json.loads(first) == {"a": 1}
    if client in GOOGLE:
        assert not rest and heard.texts() == "Now."
    elif arguments:
        assert rest == [arguments]
    if client is Dialect.RESPONSES:
        done = [json.loads(line[6:]) for line in raw.decode().split("\n") if '"response.output_item.done"' in line[:80]]
        items = [event["item"] for event in done if event.get("item", {}).get("type") == "function_call"]
        assert [item["status"] for item in items] == ["completed", "incomplete"]


@pytest.mark.parametrize(("client", "kind"), CASES)
@pytest.mark.parametrize("arguments", ['{"a": "b', ""])
def test_a_whole_answer_that_was_cut_holds_no_such_call(client: Dialect, kind: UpstreamKind, arguments: str) -> None:
    blocks: Blocks = [*CALLS[:1], ("call", "c1", "moon", arguments)]
    body = json.loads(told(client, kind, blocks, stream=False))
    heard = hear_whole(client, json.dumps(body).encode())
    assert heard.finish == LENGTH.get(client, "MAX_TOKENS")
    if client is Dialect.RESPONSES:
        assert [item["status"] for item in body["output"]] == ["completed", "incomplete"]
    elif client is not Dialect.CHAT:
        assert heard.calls() == [("moon", {"a": 1})]


@pytest.mark.parametrize("client", GOOGLE)
def test_a_call_without_arguments_that_others_follow_is_whole(client: Dialect) -> None:
    blocks: Blocks = [("call", "c0", "moon", ""), ("call", "c1", "moon", '{"a": "b')]
    assert hear(client, told(client, UpstreamKind.CHAT, blocks)).calls() == [("moon", {})]


def chunk(delta: dict[str, Any]) -> bytes:
    return sse({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


@pytest.mark.parametrize("client", [Dialect.RESPONSES, Dialect.MESSAGES, *GOOGLE])
def test_a_call_without_an_end_under_a_done_was_cut(client: Dialect) -> None:
    """`[DONE]` with no reason ends an answer of words well; a call that is open by then was never made."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "moon", "arguments": '{"a": "b'}}
    response = translate(
        client, UpstreamKind.CHAT, request(client, [("user", "?")], tools=("moon",), stream=True), stream=True
    ).response
    raw = response.feed(chunk({"content": "Now."}) + chunk({"tool_calls": [call]}) + sse("[DONE]")) + response.finish()
    assert hear(client, raw).error is not None
    assert response.fault is not None and "broke off" in response.fault.message


@pytest.mark.parametrize("client", [Dialect.CHAT, Dialect.RESPONSES, *GOOGLE])
@pytest.mark.parametrize("reason", ["max_tokens", None])
@pytest.mark.parametrize("piece", ['{"a": "b', ""])
def test_a_message_that_stops_within_a_call_was_cut(client: Dialect, reason: str | None, piece: str) -> None:
    """Claude closes the block it was cut in."""
    body = request(client, [("user", "?")], tools=("moon",), stream=True)
    response = translate(client, UpstreamKind.MESSAGES, body, stream=True).response
    block = {"type": "tool_use", "id": "t", "name": "moon", "input": {}}
    delta = {"type": "input_json_delta", "partial_json": piece}
    told: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "model": "c", "usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        *([{"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {}}] if reason else []),
        {"type": "message_stop"},
    ]
    heard = hear(client, b"".join(response.feed(named(event)) for event in told) + response.finish())
    if reason is None and piece:
        assert heard.error is not None
    elif reason is not None:
        assert heard.finish == LENGTH.get(client, "MAX_TOKENS")
        assert client not in GOOGLE or not calls(heard)
