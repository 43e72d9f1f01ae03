"""A dialect read and written again is the same: what the matrix calls exact, for any conversation and options."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import TranslationContext, UpstreamKind
from pool_server.dialects.translation.plan import read_request
from tests.dialects.translation.kit import request, up

HOMES = [
    (Dialect.CHAT, UpstreamKind.CHAT),
    (Dialect.RESPONSES, UpstreamKind.RESPONSES),
    (Dialect.MESSAGES, UpstreamKind.MESSAGES),
    (Dialect.GEMINI, UpstreamKind.GEMINI),
    (Dialect.CODE_ASSIST, UpstreamKind.CODE_ASSIST),
]
CONTEXT = TranslationContext("x", 1.0, model="m")
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=30).filter(str.strip)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(st.text(min_size=1, max_size=8), VALUES, max_size=3)


def read(dialect: Dialect, body: dict[str, Any]) -> Any:
    inner = body if dialect is not Dialect.CODE_ASSIST or "request" in body else {"model": "m", "request": body}
    return read_request(dialect, inner, CONTEXT)


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[str, ...]]:
    """Turns that alternate, each call answered in its order."""
    turns: list[tuple[str, ...]] = []
    for number in range(draw(st.integers(0, 5))):
        turns.append(("user", draw(WORDS)))
        for call in range(draw(st.integers(0, 2))):
            ident, arguments = f"call_{number}{call}", json.dumps(draw(ARGUMENTS), ensure_ascii=False)
            turns += [("call", ident, "moon", arguments), ("result", ident, "moon", draw(WORDS))]
        turns.append(("assistant", draw(WORDS)))
    return [*turns, ("user", draw(WORDS))]


def parts(found: Any, *, ids: bool) -> list[tuple[str, Any]]:
    """What was said, whatever turn it was put in. Gemini matches calls and results by name and order, without ids."""
    shown: list[tuple[str, Any]] = []
    for message in found.messages:
        for part in message.parts:
            fields = {name: getattr(part, name) for name in part.__struct_fields__}
            if "arguments" in fields:
                fields["arguments"] = json.loads(fields["arguments"])
            if not ids:
                fields |= dict.fromkeys(fields.keys() & {"id", "call_id"})
            shown.append((message.role.value, (type(part).__name__, fields)))
    return shown


@pytest.mark.slow
@pytest.mark.parametrize(("dialect", "kind"), HOMES)
@given(turns=conversations(), system=st.just("") | WORDS)
@settings(max_examples=40, deadline=None)
def test_a_conversation_comes_back_as_it_was(
    dialect: Dialect, kind: UpstreamKind, turns: list[tuple[str, ...]], system: str
) -> None:
    body = request(dialect, turns, tools=("moon",), system=system)
    first, ids = read(dialect, body), dialect in (Dialect.CHAT, Dialect.RESPONSES, Dialect.MESSAGES)
    sent = up(dialect, kind, body)
    second = read(dialect, sent)
    assert parts(second, ids=ids) == parts(first, ids=ids)
    assert second.tools == first.tools


SHARE = st.integers(0, 100).map(lambda n: n / 100)
STOPS = st.lists(
    st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=4), max_size=4, unique=True
)
SEEDS, LIMITS = st.integers(0, 1 << 31), st.integers(16, 8000)
MODES = st.sampled_from(["auto", "none", "required", "one"])
OPTIONS: dict[Dialect, dict[str, Any]] = {
    Dialect.CHAT: {
        "temperature": SHARE, "top_p": SHARE, "seed": SEEDS, "presence_penalty": SHARE, "frequency_penalty": SHARE,
        "max_completion_tokens": LIMITS, "stop": STOPS, "parallel_tool_calls": st.booleans(),
        "reasoning_effort": st.sampled_from(["low", "medium", "high"]), "verbosity": st.sampled_from(["low", "high"]),
    },
    Dialect.RESPONSES: {
        "temperature": SHARE, "top_p": SHARE, "max_output_tokens": LIMITS, "parallel_tool_calls": st.booleans(),
        "reasoning": st.sampled_from(["low", "medium", "high"]).map(lambda level: {"effort": level, "summary": "auto"}),
    },
    Dialect.MESSAGES: {
        "temperature": SHARE, "top_k": st.integers(1, 90), "stop_sequences": STOPS, "max_tokens": LIMITS,
    },
    Dialect.GEMINI: {
        "temperature": SHARE, "topP": SHARE, "topK": st.integers(1, 90), "seed": SEEDS, "presencePenalty": SHARE,
        "frequencyPenalty": SHARE, "maxOutputTokens": LIMITS, "stopSequences": STOPS,
    },
}  # fmt: skip
CHOICES: dict[Dialect, dict[str, Any]] = {
    Dialect.CHAT: {"one": {"type": "function", "function": {"name": "moon"}}},
    Dialect.RESPONSES: {"one": {"type": "function", "name": "moon"}},
    Dialect.MESSAGES: {
        "one": {"type": "tool", "name": "moon"}, "required": {"type": "any"}, "auto": {"type": "auto"},
        "none": {"type": "none"},
    },
    Dialect.GEMINI: {
        "one": {"mode": "ANY", "allowedFunctionNames": ["moon"]}, "required": {"mode": "ANY"}, "auto": {"mode": "AUTO"},
        "none": {"mode": "NONE"},
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("dialect", "kind"), HOMES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_options_come_back_as_they_were(dialect: Dialect, kind: UpstreamKind, data: st.DataObject) -> None:
    own = Dialect.GEMINI if dialect is Dialect.CODE_ASSIST else dialect
    body = request(dialect, [("user", "?")], tools=("moon", "tide"))
    inner = body["request"] if dialect is Dialect.CODE_ASSIST else body
    options = data.draw(st.fixed_dictionaries({}, optional=OPTIONS[own]))
    mode = data.draw(MODES)
    chosen = CHOICES[own].get(mode, mode)
    if own is Dialect.GEMINI:
        inner |= {"generationConfig": options, "toolConfig": {"functionCallingConfig": chosen}}
    else:
        inner |= {**options, "tool_choice": chosen}
    first, second = read(dialect, body), read(dialect, up(dialect, kind, body))
    first.options.session = second.options.session = first.options.cache_key = second.options.cache_key = ""
    assert second.options == first.options
    assert second.effort == first.effort
    if chosen != "auto":
        assert second.choice == first.choice
