"""Chat requests that spell something as another dialect does: Cursor's, LiteLLM's, OpenRouter's clients', and those
whose conversation another vendor's model began."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import TranslationError, UpstreamKind
from tests.dialects.translation.kit import translate, up

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
PIXEL = "iVBORw0KGgoAAAANSUhEUg=="
ASK = {"role": "user", "content": "?"}


def claude(**more: Any) -> dict[str, Any]:
    return up(Dialect.CHAT, UpstreamKind.MESSAGES, {"model": "m", "messages": [ASK], **more})


def said(*messages: dict[str, Any], **more: Any) -> list[list[dict[str, Any]]]:
    body = up(Dialect.CHAT, UpstreamKind.MESSAGES, {"model": "m", "messages": list(messages), **more})
    return [
        [{k: v for k, v in part.items() if k != "cache_control"} for part in one["content"]] for one in body["messages"]
    ]


FUNCTION = {"name": "moon", "description": "d", "parameters": SCHEMA}
TOOLS: list[dict[str, Any]] = [
    {"function": FUNCTION},
    {"type": "function", **FUNCTION},
    FUNCTION,
    {"name": "moon", "description": "d", "input_schema": SCHEMA},
    {"type": "custom", "name": "moon", "description": "d", "input_schema": SCHEMA},
]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_is_read_in_any_dialect_s_shape(tool: dict[str, Any]) -> None:
    (told,) = claude(tools=[tool])["tools"]
    assert (told["name"], told["description"], told["input_schema"]) == ("moon", "d", SCHEMA)


def test_cursor_s_flat_free_text_tool_keeps_its_grammar() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": 's: "a"'}
    body = {"model": "m", "messages": [ASK], "tools": [{"type": "custom", "name": "ApplyPatch", "format": grammar}]}
    (tool,) = up(Dialect.CHAT, UpstreamKind.RESPONSES, body)["tools"]
    assert (tool["type"], tool["name"], tool["format"]) == ("custom", "ApplyPatch", grammar)


CHOICES = [
    ("any", {"type": "any"}),
    ({"type": "any"}, {"type": "any"}),
    ({"type": "required"}, {"type": "any"}),
    ({"type": "auto"}, {"type": "auto"}),
    ({"type": "none"}, {"type": "none"}),
    ({"type": "tool", "name": "moon"}, {"type": "tool", "name": "moon"}),
]


@pytest.mark.parametrize(("choice", "want"), CHOICES)
def test_a_choice_of_tools_is_read_in_any_dialect_s_words(choice: Any, want: Any) -> None:
    assert claude(tools=TOOLS[:1], tool_choice=choice)["tool_choice"] == want


def test_parts_of_other_dialects_are_what_they_say() -> None:
    parts = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
    ]
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    assert said({"role": "user", "content": parts}) == [[{"type": "text", "text": "look"}, picture, picture]]
    answer = {"role": "assistant", "content": [{"type": "output_text", "text": "Full."}]}
    assert said(ASK, answer, ASK)[1] == [{"type": "text", "text": "Full."}]


def test_calls_and_results_as_claude_has_them_are_told() -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "moon", "input": {"a": 1}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "full"}
    talk: list[dict[str, Any]] = [
        ASK,
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, call]},
    ]
    _, spoken, told = said(
        *talk, {"role": "user", "content": [result, {"type": "text", "text": "so?"}]}, tools=TOOLS[:1]
    )
    assert spoken == [{"type": "text", "text": "I look."}, call]
    assert [part["type"] for part in told] == ["tool_result", "text"] and told[0]["tool_use_id"] == "toolu_1"


@pytest.mark.parametrize(
    "thought",
    [
        {"type": "thinking", "thinking": "Hm."},
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
        {"type": "reasoning", "text": "Hm."},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "reference", "reference_ids": [1]},
    ],
)
def test_another_model_s_thoughts_stand_in_nobody_s_way(thought: dict[str, Any]) -> None:
    answer = {"role": "assistant", "content": [thought, {"type": "text", "text": "Full."}]}
    assert said(ASK, answer, ASK)[1] == [{"type": "text", "text": "Full."}]
    told = translate(Dialect.CHAT, UpstreamKind.RESPONSES, {"model": "m", "messages": [ASK, answer, ASK]})
    assert told.approximated, "nothing is left out in silence"


def test_calls_that_are_no_list_stand_in_no_block_s_way() -> None:
    call = {"type": "tool_use", "id": "c", "name": "moon", "input": {}}
    told = said(ASK, {"role": "assistant", "content": [call], "tool_calls": 5}, ASK)
    assert [part["type"] for part in told[1]] == ["tool_use"]


def test_a_responses_body_at_chat_s_address_is_read_and_answered_as_chat() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "?"}]},
        {"type": "function_call", "call_id": "c1", "name": "moon", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "full"},
    ]
    body = {
        "model": "m",
        "input": items,
        "instructions": "Be brief.",
        "tools": [{"type": "function", **FUNCTION}, {"type": "function", "function": {**FUNCTION, "name": "tide"}}],
        "max_tokens": 99,
        "reasoning_effort": "low",
    }
    told = translate(Dialect.CHAT, UpstreamKind.MESSAGES, body)
    sent = json.loads(told.body)
    assert [tool["name"] for tool in sent["tools"]] == ["moon", "tide"] and sent["max_tokens"] == 99
    assert [one["role"] for one in sent["messages"]] == ["user", "assistant", "user"] and not told.dropped
    answer = {"type": "message", "content": [{"type": "text", "text": "Full."}], "stop_reason": "end_turn"}
    found = json.loads(told.response.whole(json.dumps(answer).encode()))
    assert found["choices"][0]["message"]["content"] == "Full."


@pytest.mark.parametrize(
    ("client", "body", "field"),
    [
        (Dialect.CHAT, {"messages": []}, "messages"),
        (Dialect.CHAT, {"prompt": "?"}, "messages"),
        (Dialect.RESPONSES, {"input": []}, "input"),
        (Dialect.MESSAGES, {"messages": [], "max_tokens": 9}, "messages"),
        (Dialect.GEMINI, {"contents": []}, "contents"),
    ],
)
def test_a_request_without_a_turn_is_refused_and_costs_nothing(client: Dialect, body: Any, field: str) -> None:
    with pytest.raises(TranslationError) as wrong:
        translate(
            client, UpstreamKind.CODEX if client is not Dialect.RESPONSES else UpstreamKind.CHAT, {"model": "m", **body}
        )
    assert wrong.value.field == field


@pytest.mark.parametrize("url", [f"data:;base64,{PIXEL}", f"data:application/octet-stream;base64,{PIXEL}", PIXEL])
def test_a_picture_s_bytes_say_what_it_is(url: str) -> None:
    ((part,),) = said({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})
    assert part["source"] == {"type": "base64", "media_type": "image/png", "data": PIXEL}


def test_blanks_within_base64_are_none_of_it() -> None:
    url = f"data:image/png;base64,{PIXEL[:9]}\n{PIXEL[9:]}"
    ((part,),) = said({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})
    assert part["source"]["data"] == PIXEL


OFF: list[dict[str, Any]] = [
    {"thinking": {"type": "disabled"}},
    {"enable_thinking": False},
    {"reasoning": {"enabled": False}},
    {"reasoning_effort": "none"},
]


@pytest.mark.parametrize("asked", OFF)
def test_thinking_is_turned_off_in_any_vendor_s_words(asked: dict[str, Any]) -> None:
    assert claude(**asked)["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize(
    "asked",
    [{"thinking": {"type": "enabled", "budget_tokens": 2000}}, {"enable_thinking": True, "thinking_budget": 2000}],
)
def test_a_budget_of_thinking_is_one(asked: dict[str, Any]) -> None:
    told = translate(Dialect.CHAT, UpstreamKind.MESSAGES, {"model": "m", "messages": [ASK], **asked})
    assert json.loads(told.body)["thinking"] == {"type": "enabled", "budget_tokens": 2000} and not told.dropped
