"""Nothing of a request vanishes in silence: each field goes up, or changes how it is told, or is named or refused."""

from __future__ import annotations

import random
from collections.abc import Iterator
from copy import deepcopy
from fnmatch import fnmatchcase
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import TranslationError, UpstreamKind
from tests.dialects.translation.grammar import hear_whole
from tests.dialects.translation.kit import PAIRS, answer, request, translate

LEFT_OUT = "unknown field within another"
PNG, PDF = "iVBORw0KGgo=", "JVBERi0xLjQ="
SCHEMA = {
    "type": "object",
    "properties": {"place": {"type": "string"}},
    "required": ["place"],
    "additionalProperties": False,
}
PLACE = {"type": "approximate", "country": "FI", "city": "Turku", "region": "SW", "timezone": "Europe/Helsinki"}
EVERYTHING: dict[Dialect, dict[str, Any]] = {
    Dialect.CHAT: {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 900,
        "temperature": 0.5,
        "top_p": 0.7,
        "top_k": 40,
        "stop": ["END"],
        "seed": 7,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "reasoning_effort": "high",
        "verbosity": "low",
        "service_tier": "priority",
        "prompt_cache_key": "k",
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "description": "d", "strict": True, "schema": SCHEMA},
        },
        "web_search_options": {"user_location": {"type": "approximate", "approximate": PLACE}},
        "tools": [
            {"type": "function", "function": {
                "name": "moon", "description": "d", "strict": True, "parameters": SCHEMA}},
            {"type": "custom", "custom": {"name": "sun", "description": "d", "format": {
                "type": "grammar", "grammar": {"syntax": "lark", "definition": "start: X"}}}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "moon"}},
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "s"}]},
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}}]},
            {"role": "assistant", "content": "hm", "refusal": "no", "reasoning_content": "thought", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "moon", "arguments": '{"place": "x"}'}},
                {"id": "c2", "type": "custom", "custom": {"name": "sun", "input": "X"}}]},
            {"role": "tool", "tool_call_id": "c1", "name": "moon", "content": [{"type": "text", "text": "full"}]},
            {"role": "tool", "tool_call_id": "c2", "content": "up"},
            {"role": "user", "content": "and?"},
        ],
    },
    Dialect.RESPONSES: {
        "model": "m",
        "instructions": "s",
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "max_output_tokens": 900,
        "temperature": 0.5,
        "top_p": 0.7,
        "prompt_cache_key": "k",
        "service_tier": "priority",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "high", "summary": "auto"},
        "text": {"verbosity": "low", "format": {
            "type": "json_schema", "name": "n", "description": "d", "strict": True, "schema": SCHEMA}},
        "tools": [
            {"type": "function", "name": "moon", "description": "d", "strict": True, "parameters": SCHEMA},
            {"type": "custom", "name": "sun", "description": "d",
             "format": {"type": "grammar", "syntax": "lark", "definition": "start: X"}},
            {"type": "namespace", "name": "sky", "description": "d", "tools": [
                {"type": "function", "name": "star", "parameters": SCHEMA}]},
            {"type": "web_search", "filters": {"allowed_domains": ["a.example"]}, "user_location": PLACE},
        ],
        "tool_choice": {"type": "function", "name": "moon"},
        "input": [
            {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "low"},
                {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}]},
            {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "thought"}]},
            {"type": "message", "id": "ms", "role": "assistant", "status": "completed", "content": [
                {"type": "output_text", "text": "hm", "annotations": []}]},
            {"type": "function_call", "id": "f1", "call_id": "c1", "name": "moon", "arguments": '{"place": "x"}'},
            {"type": "function_call", "id": "f3", "call_id": "c3", "name": "star", "namespace": "sky",
             "arguments": '{"place": "y"}'},
            {"type": "custom_tool_call", "id": "f2", "call_id": "c2", "name": "sun", "input": "X"},
            {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "full"}]},
            {"type": "function_call_output", "call_id": "c3", "output": "far"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": "up"},
            {"role": "user", "content": "and?"},
        ],
    },
    Dialect.MESSAGES: {
        "model": "m",
        "stream": True,
        "max_tokens": 9000,
        "temperature": 0.5,
        "top_p": 0.7,
        "top_k": 40,
        "stop_sequences": ["END"],
        "service_tier": "standard_only",
        "metadata": {"user_id": "u"},
        "thinking": {"type": "enabled", "budget_tokens": 5000, "display": "omitted"},
        "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": SCHEMA}},
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "tools": [
            {"name": "moon", "description": "d", "strict": True, "input_schema": SCHEMA},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 2, "allowed_domains": ["a.example"],
             "user_location": PLACE},
        ],
        "tool_choice": {"type": "tool", "name": "moon", "disable_parallel_tool_use": True},
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                {"type": "document", "title": "a.pdf", "source": {
                    "type": "base64", "media_type": "application/pdf", "data": PDF}},
                {"type": "document", "title": "b", "source": {
                    "type": "text", "media_type": "text/plain", "data": "paper"}},
                {"type": "document", "source": {
                    "type": "content", "content": [{"type": "text", "text": "piece"}]}},
                {"type": "search_result", "title": "t", "source": "u", "content": [{"type": "text", "text": "f"}]}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "thought", "signature": "sig"},
                {"type": "text", "text": "hm"},
                {"type": "tool_use", "id": "c1", "name": "moon", "input": {"place": "x"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "is_error": True,
                 "content": [{"type": "text", "text": "full"}]},
                {"type": "text", "text": "and?"}]},
        ],
    },
    Dialect.GEMINI: {
        "systemInstruction": {"parts": [{"text": "s"}]},
        "generationConfig": {
            "maxOutputTokens": 900, "temperature": 0.5, "topP": 0.7, "topK": 40, "stopSequences": ["END"], "seed": 7,
            "presencePenalty": 0.1, "frequencyPenalty": 0.2, "responseMimeType": "application/json",
            "responseJsonSchema": SCHEMA, "thinkingConfig": {"thinkingBudget": 5000, "includeThoughts": True},
        },
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["moon"]}},
        "tools": [
            {"functionDeclarations": [{"name": "moon", "description": "d", "parametersJsonSchema": SCHEMA}]},
            {"google_search": {}},
        ],
        "contents": [
            {"role": "user", "parts": [
                {"text": "look"},
                {"inline_data": {"mime_type": "image/png", "data": PNG}},
                {"inlineData": {"mimeType": "application/pdf", "data": PDF}}]},
            {"role": "model", "parts": [
                {"text": "thought", "thought": True},
                {"text": "hm"},
                {"functionCall": {"id": "c1", "name": "moon", "args": {"place": "x"}}}]},
            {"role": "user", "parts": [
                {"functionResponse": {"id": "c1", "name": "moon", "response": {"output": "full"}}}, {"text": "and?"}]},
        ],
    },
}  # fmt: skip
EVERYTHING[Dialect.CODE_ASSIST] = {"model": "m", "project": "p", "request": EVERYTHING[Dialect.GEMINI]}
# Passed on or read whole: what is in them is no field of the request.
WHOLE = ("properties", "schema", "parameters", "input_schema", "parametersJsonSchema", "responseJsonSchema", "args",
         "response", "input", "cache_control")  # fmt: skip
# What says nothing of its own: another field of the same request says it (a call's order, the schema, the level of the
# effort), or leaving it out means the same. `model`, `project`: the test's own account says them.
SAID_ELSEWHERE = {
    Dialect.CHAT: "model stream_options.include_usage *.strict *.type *.name *.description messages.3.tool_call_id "
    "web_search_options.user_location.*",
    Dialect.RESPONSES: "model store reasoning.summary *.strict *.type *.id *.status *.annotations text.format.* "
    "input.1.summary.0.text tools.3.user_location.*",
    Dialect.MESSAGES: "model service_tier thinking.* *.type *.media_type tools.1.name tools.1.user_location.* "
    "output_config.effort messages.1.content.0.*",
    Dialect.GEMINI: "generationConfig.responseMimeType *.role *.functionResponse.id *.functionResponse.name "
    "generationConfig.thinkingConfig.includeThoughts",
}
SAID_ELSEWHERE[Dialect.CODE_ASSIST] = "model project " + " ".join(
    each if each.startswith("*") else f"request.{each}" for each in SAID_ELSEWHERE[Dialect.GEMINI].split()
)
Path = tuple[str | int, ...]


def objects(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where the request has objects whose fields are the API's."""
    if isinstance(value, dict):
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in items:
        if step not in WHOLE or isinstance(inner, list):
            yield from objects(inner, (*path, step))


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
        here = (*path, step)
        if isinstance(inner, (dict, list)) and inner and (step not in WHOLE or isinstance(inner, list)):
            yield from leaves(inner, here)
        elif isinstance(step, str):
            yield here


def at(body: Any, path: Path) -> Any:
    for step in path:
        body = body[step]
    return body


def told(client: Dialect, kind: UpstreamKind, body: dict[str, Any]) -> tuple[Any, ...]:
    """All that shows of a request: what goes up, what is named, why it is refused, how the answer is told."""
    try:
        found = translate(
            client,
            kind,
            deepcopy(body),
        )
    except TranslationError as refused:
        return (str(refused),)
    return found.body, found.path, found.dropped, found.approximated, found.response.stream


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_an_unknown_field_is_named_wherever_it_stands(client: Dialect, kind: UpstreamKind) -> None:
    whole = EVERYTHING[client]
    silent = []
    for path in objects(whole):
        body = deepcopy(whole)
        at(body, path)["wind_x"] = {"deg": 0}
        try:
            found = translate(client, kind, body)
        except TranslationError as refused:
            if "wind_x" not in str(refused):
                silent.append((path, str(refused)))
            continue
        assert b"wind_x" not in found.body, path
        if not any("wind_x" in name for name in [*found.dropped, found.approximated.get(LEFT_OUT, "")]):
            silent.append((path, "not named"))
    assert not silent


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_no_field_vanishes_in_silence(client: Dialect, kind: UpstreamKind) -> None:
    whole = EVERYTHING[client]
    before, silent = told(client, kind, whole), []
    for path in leaves(whole):
        body = deepcopy(whole)
        del at(body, path[:-1])[path[-1]]
        named = ".".join(map(str, path))
        elsewhere = any(fnmatchcase(named, pattern) for pattern in SAID_ELSEWHERE[client].split())
        if told(client, kind, body) == before and not elsewhere:
            silent.append(named)
    assert not silent, silent


HINTS = {
    Dialect.CHAT: (
        "detail of a picture", "name of a document", "place of a web search", "strict tools",
        "name and description of a JSON schema", "prompt cache",
    ),
    Dialect.RESPONSES: (
        "detail of a picture", "name of a document", "strict tools", "reasoning of another vendor, replayed",
        "name and description of a JSON schema", "prompt cache", "tool namespaces",
    ),
    Dialect.MESSAGES: (
        "name of a document", "place of a web search", "strict tools", "how many web searches at most",
        "the client's name of the conversation", "prompt cache",
    ),
}  # fmt: skip


@pytest.mark.parametrize("client", HINTS)
def test_hints_a_vendor_has_no_word_for_are_in_the_record(client: Dialect) -> None:
    found = translate(client, UpstreamKind.GEMINI, deepcopy(EVERYTHING[client]))
    assert set(HINTS[client]) <= found.approximated.keys(), set(HINTS[client]) - found.approximated.keys()


def test_many_unknown_fields_are_counted_beyond_the_first() -> None:
    body = deepcopy(EVERYTHING[Dialect.CHAT])
    body["messages"][-1] |= {f"wind_{n}": n for n in range(1000)}
    told_of = translate(Dialect.CHAT, UpstreamKind.GEMINI, body).approximated[LEFT_OUT]
    assert told_of.endswith(", 952 more") and len(told_of) < 2000


def test_what_nobody_keeps_is_named() -> None:
    body = {**EVERYTHING[Dialect.RESPONSES], "store": True, "include": ["file_search_call.results"]}
    found = translate(Dialect.RESPONSES, UpstreamKind.MESSAGES, body)
    assert "store" in found.dropped and "include file_search_call.results" in found.approximated[LEFT_OUT]


def shown_in_system(client: Dialect) -> dict[str, Any]:
    """A request whose system text has a picture in it."""
    url = f"data:image/png;base64,{PNG}"
    body = request(client, [("user", "What is it?")])
    if client is Dialect.CHAT:
        parts = [{"type": "text", "text": "Be brief."}, {"type": "image_url", "image_url": {"url": url}}]
        body["messages"].insert(0, {"role": "system", "content": parts})
    elif client is Dialect.RESPONSES:
        parts = [{"type": "input_text", "text": "Be brief."}, {"type": "input_image", "image_url": url}]
        body["input"].insert(0, {"type": "message", "role": "developer", "content": parts})
    elif client is Dialect.MESSAGES:
        source = {"type": "base64", "media_type": "image/png", "data": PNG}
        body["system"] = [{"type": "text", "text": "Be brief."}, {"type": "image", "source": source}]
    else:
        inner = body["request"] if client is Dialect.CODE_ASSIST else body
        blob = {"inlineData": {"mimeType": "image/png", "data": PNG}}
        inner["systemInstruction"] = {"parts": [{"text": "Be brief."}, blob]}
    return body


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_a_picture_in_the_system_text_is_shown_by_the_user(client: Dialect, kind: UpstreamKind) -> None:
    found = translate(client, kind, shown_in_system(client))
    text = found.body.decode()
    assert -1 < text.find("Be brief.") < text.find(PNG) < text.find("What is it?") and text.count(PNG) == 1
    assert found.approximated["picture, sound or document in the system text"] == "in the next user turn"


NEEDED = frozenset({"model", "messages", "input", "contents", "max_tokens", "request", "project", "stream"})


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_any_selection_of_options_goes_up_the_same_each_time_and_its_answer_comes_down(
    client: Dialect, kind: UpstreamKind, seed: int
) -> None:
    dice = random.Random(f"{client} {kind} {seed}")
    body = deepcopy(EVERYTHING[client])
    body.pop("stream", None)
    inner = body["request"] if client is Dialect.CODE_ASSIST else body
    for place in (inner, inner.get("generationConfig", {})):
        for name in [one for one in place if one not in NEEDED and dice.random() < 0.5]:
            del place[name]
    if "tools" not in inner:
        inner.pop("tool_choice", None)
        inner.pop("toolConfig", None)
    found, again = (translate(client, kind, deepcopy(body)) for _ in range(2))
    assert (found.body, found.dropped, found.approximated) == (again.body, again.dropped, again.approximated)
    raw = found.response.whole(answer(kind, [("text", "full moon")]))
    assert found.response.complete and found.response.fault is None
    assert hear_whole(client, raw).texts() == "full moon"


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize(
    ("client", "kind"),
    [
        pair
        for pair in PAIRS
        if pair[0] not in (Dialect.RESPONSES, Dialect.MESSAGES) and pair[1] is not UpstreamKind.CHAT
    ],
)
def test_more_than_one_choice_is_refused_by_its_name(client: Dialect, kind: UpstreamKind, count: int) -> None:
    body = deepcopy(EVERYTHING[client])
    one = deepcopy(body)
    if client is Dialect.CHAT:
        body["n"], one["n"] = count, 1
    else:
        for each, number in ((body, count), (one, 1)):
            each.get("request", each)["generationConfig"]["candidateCount"] = number
    named = r"^(n|generationConfig\.candidateCount): a translated answer of this account has one choice"
    with pytest.raises(TranslationError, match=named):
        translate(client, kind, body)
    assert translate(client, kind, one).body == translate(client, kind, deepcopy(EVERYTHING[client])).body
