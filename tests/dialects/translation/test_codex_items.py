"""What Codex puts among a conversation's items beside messages and calls, on accounts of other vendors: tools that it
offers there, compactions, other agents' words. A turn that is refused for one of them ends the whole conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects import strip_sealed
from pool_server.dialects.translation import Translated, UpstreamKind
from tests.dialects.translation.kit import answer, events, translate, up

KINDS = (UpstreamKind.CHAT, UpstreamKind.MESSAGES, UpstreamKind.GEMINI, UpstreamKind.CODE_ASSIST)
each_kind = pytest.mark.parametrize("kind", KINDS)
RECORDED = Path(__file__).parents[2] / "fixtures" / "requests.jsonl"
R = Dialect.RESPONSES
SAID = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "When is the ebb?"}]}
TIDE = {"type": "function", "name": "tide", "parameters": {"oneOf": [{"type": "object", "properties": {}}]}}
TOOLS = {"type": "additional_tools", "role": "developer", "tools": [TIDE]}


def asked(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "m", "stream": True, "store": False, "input": [SAID, *items], **more}


def offered(kind: UpstreamKind, body: dict[str, Any]) -> list[str]:
    tools = up(R, kind, body).get("tools", [])
    if kind is UpstreamKind.CHAT:
        return [tool["function"]["name"] for tool in tools]
    return [tool["name"] for tool in (tools if kind is UpstreamKind.MESSAGES else tools[0]["functionDeclarations"])]


@each_kind
def test_what_codex_sends_by_itself_is_taken(kind: UpstreamKind) -> None:
    lines = map(json.loads, RECORDED.read_text(encoding="utf-8").splitlines())
    bodies = [line["body"] for line in lines if line["fixture"] == "codex-a-chatgpt-http" and "input" in line["body"]]
    assert any(item["type"] == "additional_tools" for body in bodies for item in body["input"])
    for body in bodies:
        assert offered(kind, body) == ["functions__exec", "functions__wait", "clock__sleep"]


@each_kind
def test_tools_among_the_items_are_offered_once(kind: UpstreamKind) -> None:
    search = {"type": "tool_search_call", "call_id": "s1", "execution": "client", "arguments": {"query": "sea"}}
    found = {"type": "tool_search_output", "call_id": "s1", "tools": [{**TIDE, "defer_loading": True}]}
    call = {"type": "function_call", "call_id": "c1", "name": "tide", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c1", "output": "at six"}
    assert offered(kind, asked(TOOLS, TOOLS, search, found, call, result, tools=[TIDE])) == ["tide"]
    assert offered(kind, asked(search, found, call, result)) == ["tide"]


@each_kind
def test_other_agents_and_the_local_shell_are_told(kind: UpstreamKind) -> None:
    sealed = {"type": "encrypted_content", "encrypted_content": "gAAAA-sealed"}
    agent = {"type": "agent_message", "author": "lead/one", "recipient": "lead"}
    agent["content"] = [{"type": "input_text", "text": "Low water at six."}, sealed]  # type: ignore[assignment]
    shell = {"type": "local_shell_call", "call_id": "c1", "action": {"type": "exec", "command": ["date"]}}
    output = {"type": "local_shell_call_output", "id": "c1", "output": "Monday"}
    told = json.dumps(up(R, kind, asked(agent, shell, output)))
    assert all(word in told for word in ("Low water at six.", "local_shell", "date", "Monday")) and "sealed" not in told


def compacted(kind: UpstreamKind, *, stream: bool) -> tuple[Translated, list[dict[str, Any]], dict[str, Any]]:
    """(the exchange, the output items that were told, the whole response) of a compaction."""
    blocks = [("think", "Hm.", ""), ("text", "They ask about the ebb."), ("call", "c9", "tide", "{}")]
    body = {**asked(TOOLS, {"type": "compaction_trigger"}), "stream": stream}
    found = translate(R, kind, body, stream=stream)
    if not stream:
        whole = json.loads(found.response.whole(answer(kind, blocks)))
        return found, whole["output"], whole
    raw = b"".join(map(found.response.feed, events(kind, blocks))) + found.response.finish()
    told = [json.loads(block.split("data: ", 1)[1]) for block in raw.decode().split("\n\n") if block]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    return (
        found,
        [event["item"] for event in told if event["type"] == "response.output_item.done"],
        told[-1]["response"],
    )


@each_kind
@pytest.mark.parametrize("stream", [True, False])
def test_a_compaction_is_asked_for_in_words_and_told_as_one_item(kind: UpstreamKind, stream: bool) -> None:
    found, items, response = compacted(kind, stream=stream)
    sent = json.loads(found.body)
    assert "write a summary" in json.dumps(sent) and "compaction" not in json.dumps(sent)
    assert [item["type"] for item in items] == ["compaction"] and response["output"] == items
    assert response["status"] == "completed" and response["usage"]["output_tokens"]
    assert found.response.complete


@each_kind
def test_what_was_compacted_is_read_by_every_vendor_s_model(kind: UpstreamKind) -> None:
    _, (item,), _ = compacted(kind, stream=True)
    for other in KINDS:
        assert "They ask about the ebb." in json.dumps(up(R, other, asked(item, SAID)))
    native = json.loads(strip_sealed(R, json.dumps(asked(item)).encode()) or b"{}")  # on its way to an OpenAI account
    told = native["input"][1]
    assert told["role"] == "user" and "They ask about the ebb." in told["content"][0]["text"]


@each_kind
def test_what_a_vendor_has_compacted_is_said_to_be_unreadable(kind: UpstreamKind) -> None:
    item = {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAAABsealed"}
    told = json.dumps(up(R, kind, asked(item)))
    assert "another provider" in told and "gAAAA" not in told
    assert strip_sealed(R, json.dumps(asked(item)).encode()) is None
