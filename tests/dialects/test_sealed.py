"""Reasoning that one account has sealed: named, and left out for another."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Dialect, FaultKind, Operation, Provider
from pool_server.dialects import peek, strip_sealed
from pool_server.providers import provider_module

PLACEHOLDER = "skip_thought_signature_validator"


def test_what_only_another_account_can_read_is_taken_out() -> None:
    items: list[dict[str, Any]] = [
        {"type": "message", "id": "msg_1", "role": "user", "content": [{"type": "input_text", "text": "é"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "n", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "o"},
        {"type": "item_reference", "id": "msg_0"},
        {"type": "compaction", "encrypted_content": "history"},
        {"type": "web_search_call", "id": "ws_1"},
        {"role": "assistant", "id": "msg_2", "content": "no type"},
    ]
    body = json.dumps({"model": "m", "input": items, "store": False}, ensure_ascii=False).encode()
    stripped = strip_sealed(Dialect.RESPONSES, body)
    assert stripped is not None
    assert stripped.startswith(b'{"model": "m", "input": [') and stripped.endswith(b', "store": false}')
    kept = json.loads(stripped)["input"]
    assert kept == [
        {k: v for k, v in items[0].items() if k != "id"},
        {k: v for k, v in items[2].items() if k != "id"},
        items[3],
        items[5],
        items[6],
        {"role": "assistant", "content": "no type"},
    ]
    assert strip_sealed(Dialect.RESPONSES, stripped) is None


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"input":"words"}', b'{"input":[]}', b'{"input":[1]}', b"{}"])
def test_nothing_to_take_out(body: bytes) -> None:
    assert strip_sealed(Dialect.RESPONSES, body) is None


def contents(*signatures: str, name: str = "thoughtSignature") -> dict[str, Any]:
    """A conversation with Gemini, one function call a signature."""
    said: list[dict[str, Any]] = [{"role": "user", "parts": [{"text": 'say "thoughtSignature":"x"'}]}]
    calls = [{"functionCall": {"name": "ls", "args": {}}, name: signature} for signature in signatures]
    return {"contents": said + [{"role": "model", "parts": [call]} for call in calls]}


def chat(*signatures: str) -> dict[str, Any]:
    calls = [{"id": "c", "extra_content": {"google": {"thought_signature": one}}} for one in signatures]
    return {"model": "m", "messages": [{"role": "assistant", "tool_calls": calls}]}


@pytest.mark.parametrize("spelling", ["thoughtSignature", "thought_signature"])
@pytest.mark.parametrize("seal", ["AbC/d+e==", 'with \\ and " in it', "é"])
def test_a_thought_signature_is_replaced_and_nothing_else_changes(spelling: str, seal: str) -> None:
    for dialect, body in (
        (Dialect.GEMINI, contents(seal, "second", name=spelling)),
        (Dialect.CODE_ASSIST, {"model": "m", "request": contents(seal, name=spelling)}),
        (Dialect.CHAT, chat(seal)),
    ):
        for text in (json.dumps(body), json.dumps(body, indent=1), json.dumps(body, ensure_ascii=False)):
            stripped = strip_sealed(dialect, text.encode())
            assert stripped is not None
            wanted = text.replace(json.dumps(seal, ensure_ascii="\\u" in text)[1:-1], PLACEHOLDER)
            assert stripped.decode() == wanted.replace('"second"', f'"{PLACEHOLDER}"')
            assert strip_sealed(dialect, stripped) is None


def test_thinking_leaves_the_assistants_messages_and_those_that_were_nothing_else_go() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "of another vendor"}
    said = {"type": "text", "text": "é"}
    body = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": [thought, said]},
            {"role": "user", "content": [said]},
            {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]},
        ],
        "max_tokens": 9,
    }
    stripped = strip_sealed(Dialect.MESSAGES, json.dumps(body).encode())
    assert stripped is not None and stripped.endswith(b', "max_tokens": 9}')
    assert json.loads(stripped)["messages"] == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": [said]},
        {"role": "user", "content": [said]},
    ]
    assert strip_sealed(Dialect.MESSAGES, stripped) is None


@pytest.mark.parametrize("kind", ["enabled", "adaptive"])
@pytest.mark.parametrize("result", [True, False])
def test_a_turn_that_lost_its_thinking_goes_on_without(kind: str, result: bool) -> None:
    """With a budget for thinking Claude refuses a turn that a tool's result continues and that begins with none."""
    thought = {"type": "thinking", "thinking": "hm", "signature": "of another account"}
    call = {"type": "tool_use", "id": "t1", "name": "ls", "input": {}}
    last = {"type": "tool_result", "tool_use_id": "t1", "content": "a"} if result else {"type": "text", "text": "q"}
    body = {
        "thinking": {"type": kind, "budget_tokens": 9000},
        "context_management": {"edits": [{"type": "clear_thinking_20251015"}, {"type": "clear_tool_uses_20250919"}]},
        "messages": [{"role": "assistant", "content": [thought, call]}, {"role": "user", "content": [last]}],
    }
    stripped = json.loads(strip_sealed(Dialect.MESSAGES, json.dumps(body).encode()) or b"{}")
    assert stripped["messages"][0]["content"] == [call]
    if kind == "enabled" and result:
        assert stripped["thinking"] == {"type": "disabled"}
        assert stripped["context_management"] == {"edits": [{"type": "clear_tool_uses_20250919"}]}
    else:
        assert {name: stripped[name] for name in ("thinking", "context_management")} == {
            name: body[name] for name in ("thinking", "context_management")
        }


@given(st.binary(max_size=80) | st.text(max_size=80).map(lambda t: json.dumps({"messages": t, "input": t}).encode()))
def test_any_body_is_left_alone_where_nothing_is_sealed(body: bytes) -> None:
    for dialect in Dialect:
        assert strip_sealed(dialect, body) is None


def test_a_conversation_is_named_by_its_first_seal_and_never_by_the_placeholder() -> None:
    def seals(dialect: Dialect, operation: Operation, body: dict[str, Any]) -> list[str]:
        found = peek(operation, dialect, "/v1beta/models/m:generateContent", {}, json.dumps(body).encode())
        return [thing for kind, thing in found.hard if kind == "encrypted"]

    one = seals(Dialect.GEMINI, Operation.GENERATE, contents("AAA"))
    assert len(one) == 1 and "AAA" not in one[0]
    assert seals(Dialect.GEMINI, Operation.GENERATE, contents(PLACEHOLDER, "AAA", "BBB")) == one
    assert seals(Dialect.CODE_ASSIST, Operation.GENERATE, {"model": "m", "request": contents("AAA")}) == one
    assert seals(Dialect.CHAT, Operation.CHAT, chat("AAA")) == one
    assert seals(Dialect.GEMINI, Operation.GENERATE, contents()) == []
    assert seals(Dialect.GEMINI, Operation.GENERATE, contents(PLACEHOLDER)) == []


@pytest.mark.parametrize(
    ("provider", "message", "kind"),
    [
        (Provider.GEMINI, "Corrupted thought signature.", FaultKind.ENCRYPTED_CONTENT),
        (Provider.GEMINI, "Thought signature is not valid", FaultKind.ENCRYPTED_CONTENT),
        (Provider.OPENAI, "Invalid thought_signature in tool call", FaultKind.ENCRYPTED_CONTENT),
        (Provider.CLAUDE, "messages.1.content.0: Invalid `signature` in `thinking` block", FaultKind.ENCRYPTED_CONTENT),
        (Provider.GEMINI, "Function call is missing a thought_signature in functionCall parts.", FaultKind.REQUEST),
        (Provider.CLAUDE, "messages.1: Expected `thinking`, but found `text`", FaultKind.REQUEST),
    ],
)
def test_a_refused_seal_is_told_from_a_request_without_one(provider: Provider, message: str, kind: FaultKind) -> None:
    error = {"code": 400, "type": "invalid_request_error", "status": "INVALID_ARGUMENT", "message": message}
    fault = provider_module(provider).classify(400, {}, json.dumps({"error": error}).encode(), now=0.0, model="m")
    assert fault.kind is kind
