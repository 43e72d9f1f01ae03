"""A field of another type than its own is refused by its name, wherever it stands; a word nobody knows is named."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import TranslationError, UpstreamKind, refusal_body
from tests.dialects.translation.kit import PAIRS, translate
from tests.dialects.translation.test_left_out import EVERYTHING, LEFT_OUT, WHOLE, Path, at

ELSEWHERE = {client: next(kind for one, kind in PAIRS if one is client) for client in EVERYTHING}
WRONG: tuple[Any, ...] = ("other", 5.5, True, [["other"]], {"other": 1})
# In place of these the APIs take a text, a list or an object alike, or anything at all.
FREE = ("content", "input", "output", "system", "systemInstruction", "tool_choice", "image_url", "stop", "contents",
        "parts", "tools", "index", "conversation", "prompt", "google_search")  # fmt: skip


def nodes(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every field of the API's own."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in items:
        here = (*path, step)
        if isinstance(step, str):
            yield here
        if step not in WHOLE or isinstance(inner, list):
            yield from nodes(inner, here)


def spelt(path: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def refused(client: Dialect, kind: UpstreamKind, body: dict[str, Any]) -> str:
    """The field a request is refused for; what is left out of it where it is not."""
    try:
        found = translate(client, kind, body)
    except TranslationError as error:
        shown = json.loads(refusal_body(client, error))
        assert error.field.partition(" ")[0] in shown["error"]["message"]
        return error.field
    return found.approximated.get(LEFT_OUT, "")


@pytest.mark.parametrize("client", EVERYTHING)
def test_a_field_of_another_type_is_refused_by_its_name(client: Dialect) -> None:
    whole, silent, tried = EVERYTHING[client], [], 0
    for path in nodes(whole):
        was = at(whole, path)
        for wrong in WRONG:
            alike = type(wrong) is type(was) or {type(wrong), type(was)} <= {int, float}
            if alike or (path[-1] in FREE and isinstance(wrong, (str, list, dict))):
                continue
            body = deepcopy(whole)
            at(body, path[:-1])[path[-1]] = wrong
            tried += 1
            named = refused(client, ELSEWHERE[client], body)
            wanted = spelt(path).removeprefix("request.")
            left_out = f"left out: {re.sub(r'[0-9]+', '', wanted)}"
            if named.partition(" ")[0] not in (wanted, f"{wanted}[0]") and named != left_out:
                silent.append((wanted, wrong, named))
    assert tried > 100
    assert not silent, silent


@pytest.mark.parametrize(
    ("client", "path", "wrong"),
    [
        (Dialect.CHAT, ("max_completion_tokens",), 0),
        (Dialect.CHAT, ("n",), -3),
        (Dialect.CHAT, ("temperature",), 10**400),
        (Dialect.CHAT, ("max_completion_tokens",), 1e300),
        (Dialect.CHAT, ("stop",), ["a", 5]),
        (Dialect.CHAT, ("tool_choice", "type"), "other"),
        (Dialect.RESPONSES, ("max_output_tokens",), -1),
        (Dialect.RESPONSES, ("input", 1, "summary", 0), "other"),
        (Dialect.RESPONSES, ("include",), [None]),
        (Dialect.RESPONSES, ("tool_choice",), "other"),
        (Dialect.MESSAGES, ("tools", 1, "max_uses"), 0),
        (Dialect.MESSAGES, ("thinking", "budget_tokens"), -5),
        (Dialect.MESSAGES, ("stop_sequences",), [["END"]]),
        (Dialect.GEMINI, ("generationConfig", "thinkingConfig", "thinkingBudget"), -2),
        (Dialect.GEMINI, ("generationConfig", "responseMimeType"), "text/x.enum"),
        (Dialect.GEMINI, ("toolConfig", "functionCallingConfig", "mode"), "SOME"),
    ],
)
def test_a_value_no_vendor_takes_is_refused_by_its_name(client: Dialect, path: Path, wrong: Any) -> None:
    body = deepcopy(EVERYTHING[client])
    at(body, path[:-1])[path[-1]] = wrong
    named = refused(client, ELSEWHERE[client], body)
    assert named.startswith(spelt(path)) or named == spelt(path[:-1]), named


@pytest.mark.parametrize(
    ("client", "path"),
    [
        (Dialect.CHAT, ("reasoning_effort",)),
        (Dialect.RESPONSES, ("reasoning", "effort")),
        (Dialect.MESSAGES, ("output_config", "effort")),
        (Dialect.GEMINI, ("generationConfig", "thinkingConfig", "thinkingLevel")),
    ],
)
def test_a_level_of_effort_nobody_knows_is_left_out_and_named(client: Dialect, path: Path) -> None:
    body = deepcopy(EVERYTHING[client])
    at(body, path[:-1])[path[-1]] = "ultra"
    assert f"{spelt(path)} ultra" in translate(client, ELSEWHERE[client], body).approximated[LEFT_OUT]


def test_the_older_limit_beside_the_newer_is_named() -> None:
    body = {**EVERYTHING[Dialect.CHAT], "max_tokens": 5}
    assert "max_tokens" in translate(Dialect.CHAT, UpstreamKind.GEMINI, body).dropped


@pytest.mark.parametrize(
    "schema", [{"anyOf": [{"type": "object"}]}, {"type": "string"}, {"type": "object", "properties": []}]
)
def test_a_schema_that_is_told_otherwise_is_in_the_record(schema: dict[str, Any]) -> None:
    body = deepcopy(EVERYTHING[Dialect.CHAT])
    body["tools"][0]["function"]["parameters"] = schema
    for kind in (UpstreamKind.MESSAGES, UpstreamKind.GEMINI):
        assert "JSON schema whose root is no plain object" in translate(Dialect.CHAT, kind, body).approximated


def nested(shape: tuple[str, str], depth: int) -> str:
    return shape[0] * depth + '"x"' + shape[1] * depth


SHAPES = {
    "lists": ("[", "]"),
    "objects": ('{"a":', "}"),
    "schema": ('{"type":"object","properties":{"a":', "}}"),
    "alternatives": ('{"anyOf":[', "]}"),
    "items": ('{"type":"array","items":', "}"),
    "content": ('[{"type":"tool_result","tool_use_id":"t","content":', "}]"),
    "parts": ('[{"functionResponse":{"name":"moon","response":{"parts":', "}}}]"),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("client", EVERYTHING)
def test_what_is_nested_deeply_is_translated_or_refused(client: Dialect, shape: tuple[str, str]) -> None:
    """How deep a body can be decoded is Python's matter: 996 levels in 3.11, 1,498 in 3.12, 9,999 in 3.13."""
    whole = EVERYTHING[client]
    deep = ["messages", "contents", "content", "parts", "input", "output", "response", "parameters", "input_schema"]
    tried = 0
    for path in nodes(whole):
        if path[-1] not in deep and len(path) > 1:
            continue
        for depth in (240, 475, 4900):
            body = deepcopy(whole)
            at(body, path[:-1])[path[-1]] = "DEEP"
            raw = json.dumps(body).replace('"DEEP"', nested(shape, depth)).encode()
            tried += 1
            with contextlib.suppress(TranslationError):
                assert translate(client, ELSEWHERE[client], raw).body
    assert tried > 20
