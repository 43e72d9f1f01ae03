"""Requests over every pair: the conversation in the order vendors take, prefixes that stay, options in their words."""

from __future__ import annotations

import json
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import DIALECT, Target, TranslationContext, TranslationError, UpstreamKind
from pool_server.dialects.translation.fields import words
from pool_server.dialects.translation.neutral import Media, Reasoning, Result, Role, Text, ToolCall
from pool_server.dialects.translation.plan import read_request
from tests.dialects.streams import sse
from tests.dialects.translation.grammar import hear, split
from tests.dialects.translation.kit import CLIENTS, PAIRS, SEALS, Blocks, answer, events, request, translate, up

CONTEXT = TranslationContext("x", 1.0, model="m")


def neutral(kind: UpstreamKind, body: dict[str, Any]) -> list[tuple[str, str, str]]:
    """A body that went up, read again: (role, kind, text) of every part."""
    found: list[tuple[str, str, str]] = []
    dialect = Dialect.GEMINI if kind is UpstreamKind.CODE_ASSIST else DIALECT[kind]
    for message in read_request(dialect, body, CONTEXT).messages:
        for part in message.parts:
            if isinstance(part, Text):
                found.append((message.role.value, "text", part.text))
            elif isinstance(part, ToolCall):
                found.append((message.role.value, "call", f"{part.name}{part.arguments}"))
            elif isinstance(part, Result):
                found.append((message.role.value, "result", "".join(p.text for p in part.parts if isinstance(p, Text))))
            elif isinstance(part, (Media, Reasoning)):
                found.append((message.role.value, type(part).__name__.lower(), ""))
    return found


TURNS: list[tuple[str, ...]] = [
    ("user", "Plan a crossing."),
    ("assistant", "Which way?"),
    ("user", "To Föhr."),
    ("call", "call_1", "tide_table", '{"place":"Dagebüll"}'),
    ("result", "call_1", "tide_table", "high at 6:10"),
    ("assistant", "Go at six."),
    ("user", "Thanks."),
]


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_a_conversation_arrives_word_for_word(client: Dialect, kind: UpstreamKind) -> None:
    body = up(client, kind, request(client, TURNS, tools=("tide_table",), system="Be brief."))
    assert neutral(kind, body) == [
        ("developer" if kind is UpstreamKind.CODEX else "system", "text", "Be brief."),
        ("user", "text", "Plan a crossing."),
        ("assistant", "text", "Which way?"),
        ("user", "text", "To Föhr."),
        ("assistant", "call", 'tide_table{"place":"Dagebüll"}'),
        ("tool", "result", "high at 6:10"),
        ("assistant", "text", "Go at six."),
        ("user", "text", "Thanks."),
    ]


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=20)
TURN = st.one_of(
    st.tuples(st.just("user"), WORDS),
    st.tuples(st.just("assistant"), WORDS),
    st.tuples(st.just("call"), st.sampled_from(["c1", "c2", "c3"]), st.just("moon"), st.just('{"place":"x"}')),
    st.tuples(st.just("result"), st.sampled_from(["c1", "c2", "c3", "gone"]), st.just("moon"), WORDS),
)


@pytest.mark.parametrize(("client", "kind"), PAIRS)
@given(turns=st.lists(TURN, max_size=14))
@settings(max_examples=40, deadline=None)
def test_any_history_becomes_one_every_vendor_takes(client: Dialect, kind: UpstreamKind, turns: list[Any]) -> None:
    """Each call is answered right after its turn, in order, once; no result lacks a call; ids are unlike."""
    body = up(client, kind, request(client, [("user", "Begin."), *turns], tools=("moon",)))
    dialect = Dialect.GEMINI if kind is UpstreamKind.CODE_ASSIST else DIALECT[kind]
    messages = read_request(dialect, body, CONTEXT).messages
    calls = [(p.id, p.name) for m in messages for p in m.parts if isinstance(p, ToolCall)]
    results = [(p.call_id, p.name) for m in messages for p in m.parts if isinstance(p, Result)]
    if dialect is Dialect.GEMINI:
        assert [name for _, name in calls] == [name for _, name in results]
    else:
        assert [ident for ident, _ in calls] == [ident for ident, _ in results]
        assert len({ident for ident, _ in calls}) == len(calls)
    open_calls = 0
    for message in messages:
        if message.role is Role.TOOL:
            open_calls -= len(message.parts)
        elif message.role is not Role.ASSISTANT:
            assert open_calls == 0
        open_calls += sum(isinstance(part, ToolCall) for part in message.parts)
    assert open_calls == 0
    if kind in (UpstreamKind.MESSAGES, UpstreamKind.GEMINI, UpstreamKind.CODE_ASSIST):
        turns_up = body.get("messages") or body["contents"]
        roles = [turn["role"] for turn in turns_up]
        assert all(a != b for a, b in pairwise(roles)) and roles[0] == "user"
        assert kind is UpstreamKind.MESSAGES or roles[-1] == "user"
    said = json.dumps(body, ensure_ascii=False)
    users = [turn[1] for turn in turns if turn[0] == "user"]
    assert all(json.dumps(word, ensure_ascii=False)[1:-1] in said for word in users)


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_a_long_conversation_keeps_its_prefix(client: Dialect, kind: UpstreamKind) -> None:
    """Fifty turns: the body of each begins with that of the one before, up to where its list was closed."""
    name = "mcp__an_office_whose_name_is_so_long_that_no_vendor_takes_it__tide_table_of_a_place"
    turns: list[tuple[str, ...]] = []
    before = b""
    for number in range(50):
        turns.append(("user", f"Day {number}?"))
        raw = translate(client, kind, request(client, turns, tools=(name, "moon"), system="Be brief.")).body
        told = raw[: raw.rindex(b',"user_prompt_id"')] if kind is UpstreamKind.CODE_ASSIST else raw  # new each prompt
        closed = told.rstrip(b"]}")
        assert closed.startswith(before) and len(closed) > len(before), number
        before = closed
        if number % 3 == 0:
            turns += [("call", f"call:{number}/ü", name, '{"place":"x"}'), ("result", f"call:{number}/ü", name, "ebb")]
        turns.append(("assistant", f"Low at {number}."))


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_the_session_is_told_without_its_name(client: Dialect, kind: UpstreamKind) -> None:
    body = request(client, [("user", "?")])
    person = "user_ab12_account_c0ffee-11_session_5d1e7c0a-77"
    if client is Dialect.MESSAGES:
        body["metadata"] = {"user_id": person}
    elif client is Dialect.CODE_ASSIST:
        body["request"]["session_id"] = person
    elif client is not Dialect.GEMINI:
        body |= {"user": person, "safety_identifier": person}
    raw = translate(client, kind, body).body
    assert b"ab12" not in raw and b"c0ffee" not in raw and b"s-1" not in raw
    found = json.loads(raw)
    told = {
        UpstreamKind.CODEX: lambda: found["prompt_cache_key"],
        UpstreamKind.RESPONSES: lambda: found["prompt_cache_key"],
        UpstreamKind.MESSAGES: lambda: found["metadata"]["user_id"],
        UpstreamKind.CODE_ASSIST: lambda: found["request"]["session_id"],
    }
    if kind in told:
        assert len(told[kind]()) == 32
        assert told[kind]() == json.loads(translate(client, kind, body).body).get("prompt_cache_key", told[kind]())


def test_the_cache_key_a_client_chose_is_kept() -> None:
    for client, kind in PAIRS:
        if client is Dialect.CHAT and kind in (UpstreamKind.CODEX, UpstreamKind.RESPONSES):
            body = request(client, [("user", "?")]) | {"prompt_cache_key": "voyage-9"}
            assert up(client, kind, body)["prompt_cache_key"] == "voyage-9"


@pytest.mark.parametrize("client", [c for c in CLIENTS if c is not Dialect.MESSAGES])
def test_claude_gets_cache_marks(client: Dialect) -> None:
    body = up(client, UpstreamKind.MESSAGES, request(client, TURNS, tools=("tide_table", "moon"), system="Be brief."))
    assert body["cache_control"] == {"type": "ephemeral"}
    assert body["system"][-1]["cache_control"] == body["tools"][-1]["cache_control"] == {"type": "ephemeral"}
    assert json.dumps(body).count("ephemeral") <= 4


def test_claude_s_marks_do_not_go_elsewhere() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    body = request(Dialect.MESSAGES, [("user", "?")], tools=("moon",)) | mark
    body["messages"][0]["content"] = [{"type": "text", "text": "?", **mark}]
    body["tools"][0] |= mark
    for client, kind in PAIRS:
        if client is Dialect.MESSAGES:
            found = translate(client, kind, body)
            assert b"ephemeral" not in found.body and b"cache_control" not in found.body
            assert "prompt cache" in found.approximated


EFFORTS = [("low", 1024), ("medium", 8192), ("high", 24576)]


@pytest.mark.parametrize(("level", "budget"), EFFORTS)
def test_a_level_is_a_budget_and_a_budget_a_level(level: str, budget: int) -> None:
    chat = request(Dialect.CHAT, [("user", "?")]) | {"reasoning_effort": level}
    claude = request(Dialect.MESSAGES, [("user", "?")]) | {"max_tokens": 60_000}
    claude["thinking"] = {"type": "enabled", "budget_tokens": budget}
    google = request(Dialect.GEMINI, [("user", "?")])
    google["generationConfig"] = {"thinkingConfig": {"thinkingBudget": budget, "includeThoughts": True}}
    assert up(Dialect.CHAT, UpstreamKind.MESSAGES, chat)["thinking"]["budget_tokens"] == budget
    config = up(Dialect.CHAT, UpstreamKind.GEMINI, chat)["generationConfig"]["thinkingConfig"]
    assert config == {"thinkingBudget": budget, "includeThoughts": True}
    config = up(Dialect.CHAT, UpstreamKind.GEMINI, chat, model="gemini-3-flash")["generationConfig"]["thinkingConfig"]
    assert config == {"thinkingLevel": level.upper(), "includeThoughts": True}
    for client, body in ((Dialect.MESSAGES, claude), (Dialect.GEMINI, google)):
        assert up(client, UpstreamKind.CODEX, body)["reasoning"] == {"effort": level, "summary": "auto"}
        assert up(client, UpstreamKind.CHAT, body)["reasoning_effort"] == level
    newer = up(Dialect.CHAT, UpstreamKind.MESSAGES, chat | {"temperature": 0.5}, model="claude-opus-4-8")
    assert newer["thinking"]["type"] == "adaptive" and newer["output_config"] == {"effort": level}
    assert "temperature" not in newer


def test_a_thinking_budget_stays_below_the_limit_and_gives_way_to_a_forced_tool() -> None:
    body = request(Dialect.CHAT, [("user", "?")], tools=("moon",)) | {"reasoning_effort": "high", "max_tokens": 3000}
    found = up(Dialect.CHAT, UpstreamKind.MESSAGES, body)
    assert found["thinking"]["budget_tokens"] < found["max_tokens"] == 3000
    forced = translate(Dialect.CHAT, UpstreamKind.MESSAGES, body | {"tool_choice": "required"})
    assert b"budget_tokens" not in forced.body and forced.approximated
    tiny = up(Dialect.CHAT, UpstreamKind.MESSAGES, body | {"max_tokens": 500})
    assert "thinking" not in tiny


def test_thinking_gives_way_where_a_tool_loop_lost_its_thought() -> None:
    turns: list[tuple[str, ...]] = [("user", "?"), ("call", "c", "moon", "{}"), ("result", "c", "moon", "half")]
    body = request(Dialect.CHAT, turns, tools=("moon",)) | {"reasoning_effort": "low"}
    assert "thinking" not in up(Dialect.CHAT, UpstreamKind.MESSAGES, body)
    turns += [("assistant", "Half."), ("user", "And then?")]
    body = request(Dialect.CHAT, turns, tools=("moon",)) | {"reasoning_effort": "low"}
    assert up(Dialect.CHAT, UpstreamKind.MESSAGES, body)["thinking"]["type"] == "enabled"


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_tool_choice_in_every_word(client: Dialect, kind: UpstreamKind) -> None:
    words: dict[Dialect, dict[str, Any]] = {
        Dialect.CHAT: {"auto": "auto", "none": "none", "required": "required"},
        Dialect.RESPONSES: {"auto": "auto", "none": "none", "required": "required"},
        Dialect.MESSAGES: {"auto": {"type": "auto"}, "none": {"type": "none"}, "required": {"type": "any"}},
        Dialect.GEMINI: {
            "auto": {"functionCallingConfig": {"mode": "AUTO"}},
            "none": {"functionCallingConfig": {"mode": "NONE"}},
            "required": {"functionCallingConfig": {"mode": "ANY"}},
        },
    }
    words[Dialect.CODE_ASSIST] = words[Dialect.GEMINI]
    one = {
        Dialect.CHAT: {"type": "function", "function": {"name": "moon"}},
        Dialect.RESPONSES: {"type": "function", "name": "moon"},
        Dialect.MESSAGES: {"type": "tool", "name": "moon"},
        Dialect.GEMINI: {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["moon"]}},
    }
    one[Dialect.CODE_ASSIST] = one[Dialect.GEMINI]
    out = DIALECT[kind]
    google = out in (Dialect.GEMINI, Dialect.CODE_ASSIST)
    for name, said in (words[client] | {"one": one[client]}).items():
        body = request(client, [("user", "?")], tools=("moon", "tide_table"))
        inner = body["request"] if client is Dialect.CODE_ASSIST else body
        inner["toolConfig" if client in (Dialect.GEMINI, Dialect.CODE_ASSIST) else "tool_choice"] = said
        found = up(client, kind, body)
        assert found["toolConfig" if google else "tool_choice"] == (one[out] if name == "one" else words[out][name])


def test_json_is_asked_for_in_words_where_there_is_no_other_way() -> None:
    schema = {"type": "object", "properties": {"knots": {"type": "number"}}}
    body = request(Dialect.CHAT, [("user", "?")])
    plain = up(Dialect.CHAT, UpstreamKind.MESSAGES, body | {"response_format": {"type": "json_object"}})
    assert "JSON object" in plain["system"][0]["text"]
    form = {"type": "json_schema", "json_schema": {"name": "wind", "schema": schema}}
    old = up(Dialect.CHAT, UpstreamKind.MESSAGES, body | {"response_format": form}, model="claude-3-5-haiku-20241022")
    assert "knots" in old["system"][0]["text"] and "output_config" not in old
    new = up(Dialect.CHAT, UpstreamKind.MESSAGES, body | {"response_format": form})
    assert new["output_config"]["format"]["schema"]["additionalProperties"] is False
    assert (
        up(Dialect.CHAT, UpstreamKind.RESPONSES, body | {"response_format": form})["text"]["format"]["strict"] is False
    )


def test_gemini_s_own_schema_is_read_as_json_schema() -> None:
    own = {
        "type": "OBJECT",
        "properties": {"nullable": {"type": "STRING", "nullable": True}, "n": {"type": "ARRAY", "minItems": "2"}},
        "propertyOrdering": ["n"],
    }
    body = {
        "contents": [{"parts": {"text": "?"}}],
        "tools": {"function_declarations": [{"name": "f", "parameters": own}]},
    }
    found = up(Dialect.GEMINI, UpstreamKind.CHAT, body)["tools"][0]["function"]["parameters"]
    assert found == {
        "type": "object",
        "properties": {"nullable": {"type": ["string", "null"]}, "n": {"type": "array", "minItems": 2}},
    }


def test_a_result_s_picture_finds_a_place() -> None:
    body = request(Dialect.MESSAGES, [("user", "?"), ("call", "c", "moon", "{}"), ("result", "c", "moon", "x")])
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}
    body["messages"][-1]["content"][0]["content"] = [{"type": "image", "source": source}]
    chat = up(Dialect.MESSAGES, UpstreamKind.CHAT, body)["messages"]
    assert chat[-2]["role"] == "tool" and chat[-1]["content"][1]["image_url"]["url"] == "data:image/png;base64,iVBORw0="
    google = up(Dialect.MESSAGES, UpstreamKind.GEMINI, body)["contents"][-1]["parts"]
    assert google[1] == {"inlineData": {"mimeType": "image/png", "data": "iVBORw0="}}
    open_ai = up(Dialect.MESSAGES, UpstreamKind.RESPONSES, body)["input"][-1]["output"]
    assert open_ai[0]["type"] == "input_image"


def test_gemini_three_gets_the_stand_in_for_a_lost_signature() -> None:
    turns: list[tuple[str, ...]] = [("user", "?"), ("call", "c", "moon", "{}"), ("result", "c", "moon", "half")]
    body = request(Dialect.CHAT, turns, tools=("moon",))
    part = up(Dialect.CHAT, UpstreamKind.GEMINI, body, model="gemini-3-pro")["contents"][1]["parts"][0]
    assert part["thoughtSignature"] == "skip_thought_signature_validator"
    assert "thoughtSignature" not in up(Dialect.CHAT, UpstreamKind.GEMINI, body)["contents"][1]["parts"][0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "warm"),
        ("max_tokens", True),
        ("max_tokens", 1.5),
        ("top_p", []),
        ("stop", ["x" * 300]),
        ("n", "2"),
    ],
)
def test_an_option_of_the_wrong_kind_is_named(field: str, value: Any) -> None:
    with pytest.raises(TranslationError, match=field):
        translate(Dialect.CHAT, UpstreamKind.MESSAGES, request(Dialect.CHAT, [("user", "?")]) | {field: value})


NAMES = sorted(
    words(
        "type role text name id content parts functionCall functionResponse source image_url url data input function "
        "args arguments custom tools schema format parameters input_schema mode item output summary encrypted_content "
        "thinking signature functionDeclarations inlineData fileData thought response user_location filters "
        "json_schema required effort budget_tokens thinkingConfig thinkingBudget maxOutputTokens properties anyOf "
        "allOf $ref tool_choice stop"
    )
)
VALUES: tuple[Any, ...] = (
    *(
        "user",
        "assistant",
        "model",
        "tool",
        "text",
        "tool_use",
        "tool_result",
        "function",
        "function_call",
        "reasoning",
    ),
    *("function_call_output", "image", "image_url", "input_image", "base64", "url", "json_schema", "#/a", "namespace"),
    *("https://x.example/z.png", "data:image/png;base64,aGk=", "custom", "web_search", "allowed_tools", "auto", "é"),
    *(None, True, 3, -1, 1.5, ""),
)


def junk(random: Random, depth: int = 0) -> Any:
    kind = random.random()
    if depth > 4 or kind < 0.4:
        return random.choice(VALUES)
    if kind < 0.7:
        return [junk(random, depth + 1) for _ in range(random.randint(0, 3))]
    return {random.choice(NAMES): junk(random, depth + 1) for _ in range(random.randint(0, 4))}


def spoil(value: Any, random: Random, share: float) -> Any:
    """The value with some of what is within it replaced by anything else."""
    if random.random() < share:
        return junk(random)
    if isinstance(value, dict):
        return {key: spoil(inner, random, share) for key, inner in value.items()}
    return [spoil(inner, random, share) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("client", "kind"), PAIRS)
@given(random=st.randoms(use_true_random=False), share=st.sampled_from([0.02, 0.1]))
@settings(max_examples=60, deadline=None)
def test_any_value_anywhere_is_translated_or_refused(
    client: Dialect, kind: UpstreamKind, random: Random, share: float
) -> None:
    body = request(client, TURNS, tools=("moon",), system="s") | {random.choice(NAMES): junk(random)}
    try:
        json.loads(translate(client, kind, spoil(body, random, share)).body)
    except TranslationError as error:
        assert str(error) and "\n" not in str(error)


@pytest.mark.parametrize(("client", "kind"), PAIRS)
@given(random=st.randoms(use_true_random=False), share=st.sampled_from([0.03, 0.1]), streams=st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_value_in_an_answer_is_told_or_an_error(
    client: Dialect, kind: UpstreamKind, random: Random, share: float, streams: bool
) -> None:
    blocks: Blocks = [("think", "Wind.", SEALS[kind]), ("text", "Sail."), ("call", "c1", "moon", '{"a":1}')]
    told = translate(client, kind, request(client, TURNS, stream=True), stream=True).response
    if streams:
        raw = b""
        for name, data in split(b"".join(events(kind, blocks)).replace(b"\r\n", b"\n")):
            raw += told.feed(sse(data if data == "[DONE]" else spoil(data, random, share), name))
        raw += told.finish()
    else:
        raw = told.whole(json.dumps(spoil(json.loads(answer(kind, blocks)), random, share)).encode())
    assert told.complete == (told.fault is None)
    if told.begun:
        assert (hear(client, raw).error is None) == told.complete


def test_a_model_s_new_name_goes_up() -> None:
    body = request(Dialect.GEMINI, [("user", "?")])
    found = translate(Dialect.GEMINI, UpstreamKind.MESSAGES, body, model="claude-opus-4-6")
    assert json.loads(found.body)["model"] == found.model == "claude-opus-4-6"
    assert translate(Dialect.CHAT, UpstreamKind.GEMINI, request(Dialect.CHAT, [("user", "?")]), model="a/b:c").path == (
        "/v1beta/models/a%2Fb%3Ac:generateContent"
    )
    assert Target(UpstreamKind.CHAT).model == ""
