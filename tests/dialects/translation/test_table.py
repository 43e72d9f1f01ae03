"""The one table: what it says is what the code does and what the page says."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import TranslationError, UpstreamKind, conformance, refusal_body
from pool_server.dialects.translation.conformance import RULES, Feature, Verdict
from tests.dialects.translation.kit import PAIRS, request, translate

PAGE = Path(__file__).resolve().parents[3] / "docs" / "conformance.md"


def test_the_page_is_the_table_s() -> None:
    assert PAGE.read_text(encoding="utf-8") == conformance(), "run scripts/conformance"


def test_every_feature_has_a_rule_for_every_upstream() -> None:
    assert set(RULES) == set(Feature)
    assert all(set(rules) == set(UpstreamKind) for rules in RULES.values())
    told = [rule for rules in RULES.values() for rule in rules.values() if rule.verdict is not Verdict.EXACT]
    assert all(rule.how for rule in told)


def with_part(client: Dialect, part: dict[str, Any]) -> dict[str, Any]:
    body = request(client, [("user", "?")])
    if client is Dialect.CHAT:
        body["messages"][0]["content"] = [part]
    elif client is Dialect.RESPONSES:
        body["input"][0]["content"] = [part]
    elif client is Dialect.MESSAGES:
        body["messages"][0]["content"] = [part]
    else:
        body["contents"][0]["parts"] = [part]
    return body


WAV = "UklGRiQAAABXQVZF"
REFUSED: list[tuple[Dialect, dict[str, Any], str]] = [
    (Dialect.CHAT, with_part(Dialect.CHAT, {"type": "file", "file": {"file_id": "file-9"}}), "file_id"),
    (Dialect.CHAT, with_part(Dialect.CHAT, {"type": "scent", "scent": "rose"}), "scent"),
    (Dialect.CHAT, request(Dialect.CHAT, [("oracle", "x")]), "oracle"),
    (Dialect.CHAT, request(Dialect.CHAT, [("user", "x")]) | {"n": 3}, "n: "),
    (Dialect.CHAT, request(Dialect.CHAT, [("user", "x")]) | {"top_logprobs": 2}, "top_logprobs"),
    (Dialect.CHAT, request(Dialect.CHAT, [("user", "x")]) | {"modalities": ["text", "audio"]}, "modalities audio"),
    (Dialect.RESPONSES, with_part(Dialect.RESPONSES, {"type": "input_image", "file_id": "file-1"}), "file_id"),
    (Dialect.RESPONSES, request(Dialect.RESPONSES, []) | {"conversation": "conv_1", "input": "x"}, "conversation"),
    (Dialect.RESPONSES, request(Dialect.RESPONSES, []) | {"background": True, "input": "x"}, "background"),
    (Dialect.RESPONSES, request(Dialect.RESPONSES, []) | {"prompt": {"id": "pmpt_1"}, "input": "x"}, "prompt"),
    (Dialect.RESPONSES, {"input": [{"type": "item_reference", "id": "msg_1"}]}, "item_reference"),
    (Dialect.RESPONSES, {"input": [{"type": "hologram", "encrypted_content": "gAAAAAx"}]}, "hologram"),
    (Dialect.RESPONSES, {"input": "x", "tools": [{"type": "code_interpreter"}]}, "code_interpreter"),
    (Dialect.MESSAGES, with_part(Dialect.MESSAGES, {"type": "container_upload", "file_id": "f"}), "file_id"),
    (
        Dialect.MESSAGES,
        with_part(Dialect.MESSAGES, {"type": "image", "source": {"type": "file", "file_id": "f"}}),
        "file_id",
    ),
    (Dialect.MESSAGES, with_part(Dialect.MESSAGES, {"type": "tarot"}), "tarot"),
    (
        Dialect.GEMINI,
        with_part(Dialect.GEMINI, {"fileData": {"fileUri": "gs://a/b", "mimeType": "image/png"}}),
        "fileUri",
    ),
    (Dialect.GEMINI, with_part(Dialect.GEMINI, {"runes": 1}), "runes"),
    (Dialect.GEMINI, request(Dialect.GEMINI, []) | {"cachedContent": "cachedContents/1"}, "cachedContent"),
    (Dialect.GEMINI, {"contents": [], "tools": [{"urlContext": {}}]}, "urlContext"),
]


@pytest.mark.parametrize(("client", "body", "field"), REFUSED)
def test_what_no_upstream_can_be_told_is_refused_by_name(client: Dialect, body: dict[str, Any], field: str) -> None:
    for kind in UpstreamKind:
        if (client, kind) not in PAIRS:
            continue
        with pytest.raises(TranslationError) as caught:
            translate(client, kind, body)
        found = json.loads(refusal_body(client, caught.value))["error"]
        assert field in found["message"]
        if client is Dialect.GEMINI:
            assert (found["code"], found["status"]) == (400, "INVALID_ARGUMENT")
        else:
            assert found["type"] == "invalid_request_error"


TURN = [{"role": "user", "parts": [{"text": "?"}]}]
NOT_EVERYWHERE: list[tuple[Dialect, dict[str, Any], set[str], str]] = [
    (
        Dialect.CHAT,
        with_part(Dialect.CHAT, {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}}),
        {"gemini", "code_assist"},
        "input_audio",
    ),
    (
        Dialect.GEMINI,
        with_part(Dialect.GEMINI, {"inlineData": {"mimeType": "audio/mp3", "data": WAV}}),
        {"chat"},
        "inlineData",
    ),
    (
        Dialect.GEMINI,
        with_part(Dialect.GEMINI, {"inlineData": {"mimeType": "video/mp4", "data": WAV}}),
        set(),
        "inlineData",
    ),
    (
        Dialect.MESSAGES,
        with_part(Dialect.MESSAGES, {"type": "image", "source": {"type": "url", "url": "https://a.example/x.png"}}),
        {"codex", "responses", "chat", "gemini"},
        "source.url",
    ),
    (
        Dialect.RESPONSES,
        with_part(Dialect.RESPONSES, {"type": "input_file", "file_url": "https://a.example/x.pdf"}),
        {"messages", "gemini"},
        "file_url",
    ),
    (
        Dialect.MESSAGES,
        request(Dialect.MESSAGES, [("user", "?")]) | {"tools": [{"type": "web_search_20260209", "name": "web_search"}]},
        {"codex", "responses", "gemini", "code_assist"},
        "web_search",
    ),
    (Dialect.RESPONSES, {"input": "x", "include": ["message.output_text.logprobs"]}, {"chat"}, "include"),
    (Dialect.RESPONSES, {"input": "x", "top_logprobs": 2}, {"chat"}, "top_logprobs"),
    (Dialect.GEMINI, {"contents": TURN, "generationConfig": {"candidateCount": 2}}, {"chat"}, "candidateCount"),
    (Dialect.GEMINI, {"contents": TURN, "generationConfig": {"responseLogprobs": True}}, {"chat"}, "responseLogprobs"),
    (
        Dialect.GEMINI,
        {"contents": TURN, "generation_config": {"response_modalities": ["IMAGE"]}},
        {"chat"},
        "responseModalities IMAGE",
    ),
    (Dialect.GEMINI, {"contents": TURN, "generationConfig": {"responseModalities": ["AUDIO"]}}, {"chat"}, "AUDIO"),
]


@pytest.mark.parametrize(("client", "body", "takers", "field"), NOT_EVERYWHERE)
def test_what_some_upstreams_take_goes_to_them_alone(
    client: Dialect, body: dict[str, Any], takers: set[str], field: str
) -> None:
    for kind in UpstreamKind:
        if (client, kind) not in PAIRS:
            continue
        if kind.value in takers:
            translate(client, kind, body)
        else:
            with pytest.raises(TranslationError, match=field):
                translate(client, kind, body)


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_a_field_nobody_knows_is_served_and_named(client: Dialect, kind: UpstreamKind) -> None:
    body = request(client, [("user", "?")])
    inner = body["request"] if client is Dialect.CODE_ASSIST else body
    inner["wind_direction"] = {"deg": 270}
    found = translate(client, kind, body)
    assert "wind_direction" in found.dropped
    assert b"wind_direction" not in found.body


INSIDE: dict[Dialect, tuple[list[str], list[str]]] = {
    Dialect.CHAT: (
        ["messages 0", "messages -1", "messages 0 content 0", "messages 1 tool_calls 0", "tools 0", "tools 0 function"],
        ["messages[]", "messages[].content[]", "messages[].tool_calls[]", "tools[]", "tools[].function"],
    ),
    Dialect.MESSAGES: (
        ["messages 0", "messages 0 content 0", "messages 1 content 0", "messages 2 content 0", "tools 0"],
        ["messages[]", "messages[].content[]", "tools[]"],
    ),
    Dialect.RESPONSES: (
        ["input 0", "input 0 content 0", "input 1", "input 2", "tools 0"],
        ["input[]", "input[].content[]", "tools[]"],
    ),
    Dialect.GEMINI: (
        ["contents 0", "contents 0 parts 0", "contents 1 parts 0 functionCall", "contents 2 parts 0 functionResponse",
         "tools 0 functionDeclarations 0"],
        ["contents[]", "contents[].parts[]", "contents[].parts[].functionCall", "contents[].parts[].functionResponse",
         "tools[].functionDeclarations[]"],
    ),
}  # fmt: skip
TALKS: dict[Dialect, dict[str, Any]] = {
    Dialect.CHAT: {
        "model": "m", "tools": [{"type": "function", "function": {"name": "moon", "parameters": {"deep": 1}}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "?"}]},
            {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "moon", "arguments": '{"deep": 1}'}}]},
            {"role": "tool", "tool_call_id": "c1", "name": "moon", "content": "full"},
        ],
    },
    Dialect.MESSAGES: {
        "model": "m", "max_tokens": 9, "tools": [{"name": "moon", "input_schema": {"deep": 1}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "?", "cache_control": {"type": "ephemeral"}}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "moon", "input": {"deep": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "full"}]},
        ],
    },
    Dialect.RESPONSES: {
        "model": "m", "tools": [{"type": "function", "name": "moon", "parameters": {"deep": 1}, "strict": False}],
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "?"}]},
            {"type": "function_call", "id": "fc", "call_id": "c1", "name": "moon", "arguments": "{}", "status": "done"},
            {"type": "function_call_output", "call_id": "c1", "output": "full"},
        ],
    },
    Dialect.GEMINI: {
        "tools": [{"functionDeclarations": [{"name": "moon", "parameters": {"deep": 1}}]}],
        "contents": [
            {"role": "user", "parts": [{"text": "?"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "moon", "args": {"deep": 1}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "moon", "response": {"deep": 1}}}]},
        ],
    },
}  # fmt: skip
LEFT_OUT = "unknown field within another"


@pytest.mark.parametrize(("client", "kind"), [pair for pair in PAIRS if pair[0] in TALKS])
def test_a_field_inside_that_nobody_knows_is_in_the_record(client: Dialect, kind: UpstreamKind) -> None:
    places, names = INSIDE[client]
    assert LEFT_OUT not in translate(client, kind, deepcopy(TALKS[client])).approximated, "all of it is known"
    body = deepcopy(TALKS[client])
    for place in places:
        found: Any = body
        for step in place.split():
            found = found[int(step) if step.lstrip("-").isdigit() else step]
        found |= {"wind, direction": {"deg": 270}, "still": None, "none": []}
    translated = translate(client, kind, body)
    told = translated.approximated[LEFT_OUT].removeprefix("left out: ").split(", ")
    assert sorted(told) == sorted(f"{name}.wind\\x2c direction" for name in names)
    assert b"wind" not in translated.body and not any("wind" in name for name in translated.dropped)


def test_a_server_tool_beside_functions_is_left_out_and_named() -> None:
    body = request(Dialect.RESPONSES, [("user", "?")], tools=("moon",))
    body["tools"].append({"type": "image_generation"})
    found = translate(Dialect.RESPONSES, UpstreamKind.MESSAGES, body)
    assert [tool["name"] for tool in json.loads(found.body)["tools"]] == ["moon"]
    assert "tools[1] image_generation" in found.dropped


@pytest.mark.parametrize(
    ("kind", "dropped"),
    [
        (UpstreamKind.CODEX, ["max_completion_tokens", "temperature", "top_p", "seed", "presence_penalty"]),
        (UpstreamKind.RESPONSES, ["seed", "presence_penalty"]),
        (UpstreamKind.MESSAGES, ["seed", "presence_penalty", "top_p"]),
        (UpstreamKind.GEMINI, []),
    ],
)
def test_options_an_upstream_has_no_word_for_are_named(kind: UpstreamKind, dropped: list[str]) -> None:
    body = request(Dialect.CHAT, [("user", "?")]) | {"max_completion_tokens": 80, "temperature": 0.4, "top_p": 0.9}
    found = translate(Dialect.CHAT, kind, body | {"seed": 4, "presence_penalty": 0.1})
    assert sorted(found.dropped) == sorted(dropped)
    for name in dropped:
        assert f'"{name}"'.encode() not in found.body


@pytest.mark.parametrize("client", [Dialect.CHAT, Dialect.RESPONSES, Dialect.MESSAGES, Dialect.GEMINI])
@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b"\xff{}", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(client: Dialect, body: bytes) -> None:
    for kind in UpstreamKind:
        with pytest.raises(TranslationError, match="JSON object"):
            translate(client, kind, body)
