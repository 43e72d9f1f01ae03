"""The parts beside requests and answers: names, schemas, seals, stop strings, errors, counting, the backend's rules."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import (
    ErrorInfo,
    ResponseFold,
    Target,
    TranslationContext,
    TranslationError,
    UpstreamKind,
    apply_rules,
    count_answer,
    error_body,
    read_error,
    translate_count,
)
from pool_server.dialects.translation.answers import cuts
from pool_server.dialects.translation.answers.cuts import StopStrings
from pool_server.dialects.translation.neutral import Family
from pool_server.dialects.translation.options import claude, level_of, nearest, openai_level
from pool_server.dialects.translation.seals import read_seal, seal_for
from pool_server.dialects.translation.tools import (
    ToolNames,
    arguments_object,
    closed,
    is_strict,
    object_schema,
    plain_id,
)
from pool_server.dialects.types import BadBodyError
from tests.dialects.streams import named
from tests.dialects.translation.grammar import hear
from tests.dialects.translation.kit import CLIENTS, PAIRS, Blocks, events, request, response_items, translate

# ---------------------------------------------------------------- names and ids

NAME = st.text(min_size=1, max_size=90) | st.from_regex(r"mcp__x{50,60}__(left|right)_[a-z]{0,9}", fullmatch=True)


@pytest.mark.parametrize("kind", UpstreamKind)
@given(names=st.lists(NAME, max_size=30))
def test_names_map_one_to_one_and_back(kind: UpstreamKind, names: list[str]) -> None:
    found = ToolNames(names, kind)
    told = {name: found.up(name) for name in names}
    assert len(set(told.values())) == len(told)
    google = kind in (UpstreamKind.GEMINI, UpstreamKind.CODE_ASSIST)
    fits = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}" if google else r"[A-Za-z0-9_-]{1,64}")
    for name, other in told.items():
        assert fits.fullmatch(other) and found.down(other) == name
        assert other == name or not fits.fullmatch(name)


def test_a_name_that_is_another_s_short_one_keeps_it() -> None:
    long = "a_very_" + "long_" * 20 + "name"
    taken = ToolNames([long], UpstreamKind.CODEX).up(long)
    names = ToolNames([long, taken], UpstreamKind.CODEX)
    assert names.up(taken) == taken
    assert names.up(long) not in (long, taken)
    assert names.down(names.up(long)) == long


@given(idents=st.lists(st.text(min_size=1, max_size=90), max_size=30))
def test_equal_ids_stay_equal_and_others_apart(idents: list[str]) -> None:
    told = {ident: plain_id(ident) for ident in idents}
    assert len(set(told.values())) == len(told)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", ident) for ident in told.values())


def test_a_long_name_comes_back_in_the_answer() -> None:
    name = "mcp__" + "harbour_" * 12 + "depth"
    for client, kind in PAIRS:
        told = translate(client, kind, request(client, [("user", "?")], tools=(name,), stream=True), stream=True)
        short = ToolNames([name], kind).up(name)
        assert len(short) <= 64
        raw = b"".join(map(told.response.feed, events(kind, [("call", "c", short, "{}")]))) + told.response.finish()
        assert hear(client, raw).calls() == [(name, {})]


def test_a_custom_tool_comes_back_as_one() -> None:
    tool = {
        "type": "custom",
        "name": "patch",
        "format": {"type": "grammar", "syntax": "lark", "definition": "start: X"},
    }
    body = {"model": "m", "input": "?", "tools": [tool], "stream": True}
    for kind in (UpstreamKind.CHAT, UpstreamKind.MESSAGES, UpstreamKind.GEMINI, UpstreamKind.CODE_ASSIST):
        told = translate(Dialect.RESPONSES, kind, body)
        assert b"start: X" in told.body
        blocks: Blocks = [("call", "c", "patch", json.dumps({"input": "*** Ändern\n+1"}))]
        raw = b"".join(map(told.response.feed, events(kind, blocks))) + told.response.finish()
        assert hear(Dialect.RESPONSES, raw).blocks[0][2:] == ["patch", "*** Ändern\n+1"]
        assert b'"type":"custom_tool_call"' in raw


def test_a_namespace_comes_back_as_one() -> None:
    inner = {"type": "function", "name": "depth", "parameters": {"type": "object", "properties": {}}}
    body = {
        "model": "m",
        "input": "?",
        "tools": [{"type": "namespace", "name": "sea", "tools": [inner]}],
        "stream": True,
    }
    told = translate(Dialect.RESPONSES, UpstreamKind.MESSAGES, body).response
    raw = b"".join(map(told.feed, events(UpstreamKind.MESSAGES, [("call", "c", "sea__depth", "{}")]))) + told.finish()
    assert b'"name":"depth","namespace":"sea"' in raw


# ---------------------------------------------------------------- schemas

LOOPS: list[dict[str, Any]] = [
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    {"$ref": "#"},
    {"anyOf": [{"$ref": "#/anyOf/0"}]},
    {"allOf": [{"allOf": [{"allOf": []}]}], "oneOf": 4, "anyOf": {"x": 1}},
    {"type": "object", "properties": {"next": {"$ref": "#"}}},
    {"type": "object", "properties": [], "required": {"a": 1}},
    {"type": ["object", "null"], "properties": {"a": {}}},
]


@pytest.mark.parametrize("schema", LOOPS)
def test_schemas_that_refer_to_themselves_end(schema: dict[str, Any]) -> None:
    for found in (object_schema(schema), closed(object_schema(schema))):
        assert found["type"] == "object"
        assert isinstance(found["properties"], dict)
    is_strict(schema)


def test_a_deep_or_wide_schema_is_no_trouble() -> None:
    deep: dict[str, Any] = {"type": "object", "properties": {}}
    for _ in range(400):
        deep = {"type": "object", "properties": {"in": deep}}
    wide = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(30_000)}}
    for schema in (deep, wide):
        for client, kind in PAIRS:
            if client is Dialect.CHAT:
                body = request(client, [("user", "?")], tools=("moon",))
                body["tools"][0]["function"]["parameters"] = schema
                body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
                assert json.loads(translate(client, kind, body).body)


def test_branches_at_the_root_become_one_object() -> None:
    found = object_schema(
        {
            "$ref": "#/$defs/base",
            "oneOf": [
                {"properties": {"anyOf": {"type": "string"}, "b": {}}, "required": ["anyOf", "b"]},
                {"properties": {"c": {}}, "required": ["b"]},
            ],
            "$defs": {"base": {"type": "object", "properties": {"id": {}}, "required": ["id"]}},
        }
    )
    assert set(found["properties"]) == {"id", "anyOf", "b", "c"}
    assert found["required"] == ["id", "b"]


# ---------------------------------------------------------------- seals


@pytest.mark.parametrize("client", [c for c in CLIENTS if c is not Dialect.CHAT])
@given(
    family=st.sampled_from(list(Family)),
    seal=st.text(min_size=1, max_size=40) | st.just("gAAAAAB"),
    redacted=st.booleans(),
)
@example(family=Family.GEMINI, seal="EsUDCkYIBRgCKkCq7", redacted=False)
@example(family=Family.GEMINI, seal="gAAAAAB", redacted=False)
def test_a_seal_survives_a_client(client: Dialect, family: Family, seal: str, redacted: bool) -> None:
    own = {Dialect.RESPONSES: Family.OPENAI, Dialect.MESSAGES: Family.CLAUDE}.get(client, Family.GEMINI)
    if family is own:
        return  # never translated
    found = read_seal(client, "text", seal_for(client, family, seal, redacted=redacted))
    assert (found.family, found.seal, found.redacted) == (family, seal, redacted)


@pytest.mark.parametrize("seal", ["cG9vbC1zZWFs", "cG9vbC1zZWFs!!", "cG9vbC1zZWFsOng6eTp6", "cG9vbC1zZWFsOmNsYXVkZQ=="])
def test_a_seal_that_only_looks_like_one_is_nobody_s(seal: str) -> None:
    assert read_seal(Dialect.MESSAGES, "t", seal).family is None


# ---------------------------------------------------------------- stop strings and cut JSON


@given(
    text=st.text("abEND \n", max_size=60),
    stops=st.lists(st.text("abEND\n", min_size=1, max_size=4), min_size=1, max_size=3),
    data=st.data(),
)
def test_a_text_ends_where_a_stop_string_begins(text: str, stops: list[str], data: st.DataObject) -> None:
    """However it was cut, and nothing of the text before it is lost."""
    found, at, told, met = StopStrings(tuple(stops)), 0, "", ""
    while at < len(text) and not met:
        size = data.draw(st.integers(1, 9))
        piece, met = found.feed(text[at : at + size])
        told, at = told + piece, at + size
    told += "" if met else found.rest()
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    if not places:
        assert told == text and not met
    else:
        assert met in stops and text[len(told) :].startswith(met)
        assert len(told) <= max(places)


@pytest.mark.parametrize("kind", [UpstreamKind.CODEX, UpstreamKind.RESPONSES])
def test_the_pool_ends_the_text_where_the_vendor_cannot(kind: UpstreamKind) -> None:
    body = request(Dialect.MESSAGES, [("user", "?")], stream=True) | {"stop_sequences": ["\nENDE", "zz"]}
    told = translate(Dialect.MESSAGES, kind, body).response
    blocks: Blocks = [("text", "one two\nENDE three"), ("call", "c", "moon", "{}")]
    raw = b"".join(map(told.feed, events(kind, blocks))) + told.finish()
    heard = hear(Dialect.MESSAGES, raw)
    assert (heard.blocks, heard.finish, heard.stop) == ([["text", "one two", ""]], "stop_sequence", "\nENDE")
    assert heard.usage["output_tokens"] == 9


# ---------------------------------------------------------------- errors

WORDS = "Pier 4 is closed."
ERRORS: list[tuple[int, dict[str, Any], int]] = [
    (429, {"error": {"message": WORDS, "type": "rate_limit_error", "code": "rate_limit_exceeded"}}, 429),
    (400, {"detail": WORDS}, 400),
    (404, {"detail": WORDS}, 404),
    (529, {"type": "error", "error": {"type": "overloaded_error", "message": WORDS}}, 529),
    (0, {"type": "error", "error": {"type": "rate_limit_error", "message": WORDS}}, 429),
    (0, {"error": {"code": 503, "message": WORDS, "status": "UNAVAILABLE"}}, 503),
    (0, {"type": "response.failed", "response": {"error": {"code": "server_error", "message": WORDS}}}, 500),
    (500, {"error": WORDS}, 500),
    (401, {"error": {"code": 401, "message": WORDS, "status": "UNAUTHENTICATED"}}, 401),
]


@pytest.mark.parametrize(("status", "body", "told"), ERRORS)
@pytest.mark.parametrize("client", CLIENTS)
def test_an_error_keeps_its_status_and_its_words(client: Dialect, status: int, body: dict[str, Any], told: int) -> None:
    for raw in (json.dumps(body).encode(), json.dumps([body]).encode()):
        info = read_error(status, raw)
        assert (info.status, info.message) == (told, WORDS)
        error = error_body(client, info)["error"]
        assert error["message"] == WORDS
        if client in (Dialect.GEMINI, Dialect.CODE_ASSIST):
            assert error["code"] == told and error["status"].isupper()
        else:
            assert error["type"].endswith("_error")


@pytest.mark.parametrize(
    "raw", [b"", b"<html>502</html>", b"[]", b"null", b'{"error":null}', b"\xff\xfe", b"[" * 50_000]
)
def test_an_error_that_says_nothing_still_is_one(raw: bytes) -> None:
    info = read_error(502, raw)
    assert info.status == 502 and info.message and len(info.message) <= 4000


def test_the_time_of_return_is_read_from_the_body() -> None:
    delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17.5s"}
    assert read_error(429, {"error": {"message": "x", "details": [delay]}}).retry_after == 17.5
    assert read_error(429, {"error": {"message": "x", "resets_in_seconds": 90}}).retry_after == 90
    told = error_body(Dialect.GEMINI, ErrorInfo(429, "x", retry_after=90))["error"]["details"][0]
    assert told["retryDelay"] == "90s"


@pytest.mark.parametrize(
    "words",
    [
        "prompt is too long: 210000 tokens > 200000 maximum",
        "This model's maximum context length is 128000 tokens.",
        "Your input exceeds the context window of this model.",
        "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).",
    ],
)
def test_a_full_context_is_known_by_every_client(words: str) -> None:
    info = read_error(400, {"error": {"message": words}})
    assert error_body(Dialect.CHAT, info)["error"]["code"] == "context_length_exceeded"
    assert "prompt is too long" in error_body(Dialect.MESSAGES, info)["error"]["message"]
    assert words in error_body(Dialect.MESSAGES, info)["error"]["message"]


# ---------------------------------------------------------------- counting

CONTEXT = TranslationContext("x", 1.0, model="m")


@pytest.mark.parametrize("client", [Dialect.RESPONSES, Dialect.MESSAGES, Dialect.GEMINI])
def test_tokens_are_counted_by_the_upstream_or_estimated(client: Dialect) -> None:
    body = request(client, [("user", "deep water " * 200)], tools=("moon",), system="Be brief.")
    for other, kind in PAIRS:
        if other is not client:
            continue
        found = translate_count(client, Target(kind), body, CONTEXT)
        if kind in (UpstreamKind.CODEX, UpstreamKind.CHAT):
            assert found.estimate is not None and 400 < found.estimate < 900
            assert found.body == b""
            assert str(found.estimate).encode() in count_answer(client, found.estimate)
        else:
            assert b"deep water" in found.body and b"max_tokens" not in found.body
            assert found.path.endswith(("count_tokens", ":countTokens", "input_tokens"))
            answers = (b'{"input_tokens":4711}', b'{"totalTokens":4711}')
            assert all(b"4711" in count_answer(client, told) for told in answers)


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("model", "adaptive", "budgets", "sampling", "most"),
    [
        ("claude-3-5-haiku-20241022", False, False, True, 8192),
        ("claude-3-7-sonnet-latest", False, True, True, 64_000),
        ("claude-opus-4-20250514", False, True, True, 32_000),
        ("claude-sonnet-4-5-20250929", False, True, True, 64_000),
        ("anthropic/claude-opus-4.6", True, True, True, 128_000),
        ("claude-opus-4-8", True, False, False, 128_000),
        ("claude-sonnet-5", True, False, False, 128_000),
    ],
)
def test_what_claude_s_models_take(model: str, adaptive: bool, budgets: bool, sampling: bool, most: int) -> None:
    found = claude(model)
    assert (found.adaptive, found.budgets, found.sampling, found.most_output) == (adaptive, budgets, sampling, most)


def test_levels_of_budgets_and_models() -> None:
    budgets = (0, 1, 512, 513, 1024, 8192, 24576, 24577, -1)
    levels = ["none", "minimal", "minimal", "low", "low", "medium", "high", "xhigh", "medium"]
    assert [level_of(budget) for budget in budgets] == levels
    assert nearest("medium", ("low", "high")) == "low"
    assert openai_level("max", "gpt-5.1") == "high"
    assert openai_level("xhigh", "gpt-5.4-codex") == "xhigh"
    assert openai_level("none", "gpt-5.4-codex") == "low"
    assert openai_level("minimal", "gpt-5-mini") == "minimal"
    assert openai_level("max", "glm-4.6") == "xhigh"


# ---------------------------------------------------------------- the ChatGPT backend's rules


def rules(**body: Any) -> tuple[dict[str, Any], list[str]]:
    raw, dropped = apply_rules(json.dumps(body).encode())
    return json.loads(raw), dropped


def test_a_plain_client_s_body_becomes_one_the_backend_takes() -> None:
    items = [
        {"role": "system", "content": [{"type": "input_text", "text": "s", "prompt_cache_breakpoint": {}}]},
        {"type": "message", "id": "msg_1", "role": "assistant", "content": "a"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "gAAAAAx"},
    ]
    found, dropped = rules(model="m", input=items, temperature=1, max_output_tokens=9, user="u", store=True, seed=None)
    assert (found["stream"], found["store"], found["instructions"]) == (True, False, "")
    assert [item.get("role", item.get("type")) for item in found["input"]] == ["developer", "assistant", "reasoning"]
    assert all("id" not in item for item in found["input"])
    assert "prompt_cache_breakpoint" not in json.dumps(found)
    assert set(dropped) == {
        "temperature",
        "max_output_tokens",
        "user",
        "store",
        "input reasoning without encrypted_content",
    }
    assert not {"temperature", "max_output_tokens", "user", "seed"} & set(found)
    assert rules(input="Hi")[0]["input"][0]["content"] == [{"type": "input_text", "text": "Hi"}]


@pytest.mark.parametrize(
    ("told", "tier", "dropped"), [("fast", "priority", []), ("flex", None, ["service_tier"]), ("auto", None, [])]
)
def test_the_backend_s_tiers(told: str, tier: str | None, dropped: list[str]) -> None:
    found, left = rules(input="x", service_tier=told)
    assert (found.get("service_tier"), left) == (tier, dropped)


def test_tools_and_stream_options_of_the_backend() -> None:
    found, _ = rules(input="x", tools=[{"type": "web_search_preview_2025_03_11"}], tool_choice="auto")
    assert found["tools"] == [{"type": "web_search"}] and found["tool_choice"] == "auto"
    found, _ = rules(
        input="x", tools=[], tool_choice="auto", parallel_tool_calls=True, stream_options={"include_usage": True}
    )
    assert not {"tool_choice", "parallel_tool_calls", "stream_options"} & set(found)
    found, _ = rules(input="x", reasoning={"effort": "low"})
    assert found["include"] == ["reasoning.encrypted_content"]


def test_a_body_that_obeys_stays_byte_for_byte() -> None:
    raw = b'{ "stream" : true,"store":false, "instructions":"i", "input":[ {"role":"user","content":"\\u00e9"} ]}'
    assert apply_rules(raw) == (raw, [])


@pytest.mark.parametrize("field", ["previous_response_id", "conversation", "prompt"])
def test_the_backend_continues_nothing(field: str) -> None:
    with pytest.raises(TranslationError, match=field):
        rules(input="x", **{field: "resp_1"})


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"3", b"\xff", b"[" * 100_000])
def test_a_body_that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(BadBodyError):
        apply_rules(raw)


BLOCKS: Blocks = [("think", "Ebb.", "gAAAAAs"), ("text", "Früh um sechs."), ("call", "c", "moon", '{"a":1}')]


def test_a_stream_folds_to_the_vendor_s_own_answer() -> None:
    whole = b"".join(events(UpstreamKind.CODEX, BLOCKS))
    for size in (1, 7, len(whole)):
        fold = ResponseFold()
        for at in range(0, len(whole), size):
            fold.feed(whole[at : at + size])
        found = json.loads(fold.finish() or b"")
        assert found["output"] == response_items(BLOCKS) and found["status"] == "completed"


def test_an_output_the_last_event_leaves_out_is_filled_in() -> None:
    fold = ResponseFold()
    for index, item in reversed(list(enumerate(response_items(BLOCKS)))):
        fold.feed(named({"type": "response.output_item.done", "output_index": index, "item": item}))
    fold.feed(named({"type": "response.completed", "response": {"id": "resp_1", "output": [], "odd": 1.50}}))
    found = json.loads(fold.finish() or b"")
    assert found["output"] == response_items(BLOCKS) and found["odd"] == 1.5


def test_a_stream_that_fails_or_breaks_off_folds_to_a_fault() -> None:
    fold = ResponseFold()
    fold.feed(events(UpstreamKind.CODEX, BLOCKS)[0])
    assert fold.finish() is None and fold.fault is not None and fold.fault.status == 502
    fold = ResponseFold()
    fold.feed(named({"type": "response.failed", "response": {"error": {"code": "server_error", "message": WORDS}}}))
    assert fold.finish() is None and fold.fault is not None and fold.fault.message == WORDS
    fold = ResponseFold()
    item = {"type": "message", "content": "x" * (9 << 20)}
    for index in range(4):
        fold.feed(named({"type": "response.output_item.done", "output_index": index, "item": item}))
    assert fold.finish() is None and fold.fault is not None


@pytest.mark.parametrize("head", ['{"a":"x}', "{x}", '{"a":"\\', '{"a":[', '{"a":1}'])
def test_pieces_of_arguments_are_read_once(monkeypatch: pytest.MonkeyPatch, head: str) -> None:
    """Each could be where an object ends that is told again: to read all of them at each took seconds a KiB."""
    read = list[str]()

    def reading(arguments: str) -> tuple[Any, bool]:
        read.append(arguments)
        return arguments_object(arguments)

    monkeypatch.setattr(cuts, "arguments_object", reading)
    live, before = cuts.LivePieces(), list[str]()
    for piece in (head, *["{}"] * 50):
        told = live.feed(piece, before)
        before.append(piece)
    assert told == (head != '{"a":1}') and len(read) <= 1


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("first", ['{"a":"}{"}', r'{"a":"\"}{"}', r'{"a":"\\"}', '{"a":[{}]}'])
def test_an_object_that_is_told_again_is_found_wherever_it_is_cut(first: str, size: int) -> None:
    live, before = cuts.LivePieces(), list[str]()
    pieces = [first[at : at + size] for at in range(0, len(first), size)]
    for piece in pieces:
        assert live.feed(piece, before)
        before.append(piece)
    assert not live.feed(first, before)
