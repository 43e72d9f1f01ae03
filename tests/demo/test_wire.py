"""The fake answers count as their vendors do: the pool's own meters read back what was put in."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Dialect, Operation
from pool_server.core.models import Usage
from pool_server.demo import wire
from pool_server.demo.surfaces import Surface, good, surface_of
from pool_server.dialects import meter

PIECES = ["One", " two", " thrée"]
counts = st.integers(0, 10_000_000)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    output = draw(counts)
    return Usage(draw(counts), draw(counts), output=output, reasoning=draw(st.integers(0, output)), known=True)


Builder = Callable[[str, str, list[str], Usage], list[bytes]]


@pytest.mark.parametrize(
    ("dialect", "operation", "build"),
    [
        (Dialect.RESPONSES, Operation.RESPONSES, wire.responses_events),
        (Dialect.CHAT, Operation.CHAT, wire.chat_events),
        (Dialect.MESSAGES, Operation.MESSAGES, wire.messages_events),
        (Dialect.GEMINI, Operation.GENERATE, wire.gemini_events),
    ],
)
@given(usage=usages())
def test_a_meter_reads_back_the_counts(dialect: Dialect, operation: Operation, build: Builder, usage: Usage) -> None:
    if dialect is Dialect.MESSAGES:
        # Anthropic counts cache writes and no thoughts apart, and speaks of one output token from the start.
        usage.cache_write, usage.reasoning, usage.output = usage.reasoning, 0, max(1, usage.output)
    reader = meter(dialect, operation, stream=True)
    for event in build("1", "m", PIECES, usage):
        reader.feed(event)
    reader.finish()
    assert reader.complete and reader.usage == usage


def test_chat_counts_only_when_asked() -> None:
    events = b"".join(wire.chat_events("1", "m", PIECES, Usage(input=1, known=True), include_usage=False))
    assert b"usage" not in events and events.endswith(b"data: [DONE]\n\n")


def test_gemini_without_sse_is_one_array() -> None:
    whole = json.loads(b"".join(wire.gemini_array("1", "m", PIECES, Usage(input=2, output=3, known=True))))
    assert [chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in whole] == PIECES
    assert whole[-1]["usageMetadata"]["totalTokenCount"] == 5 and "usageMetadata" not in whole[0]


def test_a_router_gets_json_that_fits_its_schema() -> None:
    schema = {
        "type": "OBJECT",
        "properties": {
            "choice": {"type": "STRING", "enum": ["flash", "pro"]},
            "score": {"type": "INTEGER", "minimum": 3},
            "sure": {"type": "BOOLEAN"},
            "why": {"type": "string"},
            "list": {"type": "array"},
        },
    }
    fitting = {"choice": "flash", "score": 3, "sure": False, "why": "demo", "list": []}
    assert wire.json_for_schema(schema) == fitting
    config = {"responseMimeType": "application/json", "responseJsonSchema": schema}
    answer = good(
        Surface.GENERATE,
        "/v1internal:generateContent",
        "",
        {"model": "m", "request": {"generationConfig": config}},
        ident="1",
        pieces=PIECES,
        usage=Usage(known=True),
    )
    text = answer.body["response"]["candidates"][0]["content"]["parts"][0]["text"]
    assert json.loads(text) == fitting


@pytest.mark.parametrize(
    ("method", "path", "surface"),
    [
        ("POST", "/chatgpt/backend-api/codex/responses", Surface.RESPONSES),
        ("GET", "/chatgpt/backend-api/codex/responses", Surface.SOCKET),
        ("POST", "/openai/v1/responses/compact", Surface.COMPACT),
        ("POST", "/gemini/v1beta/models/m:streamGenerateContent", Surface.GENERATE),
        ("POST", "/codeassist/v1internal:countTokens", Surface.COUNT),
        ("POST", "/codeassist/v1internal:retrieveUserQuota", Surface.USAGE),
        ("POST", "/codeassist/v1internal:loadCodeAssist", Surface.CODE_ASSIST),
        ("GET", "/chatgpt/backend-api/wham/usage", Surface.USAGE),
        ("POST", "/token/codex", Surface.TOKEN),
        ("GET", "/claude/v1/messages", Surface.UNKNOWN),
    ],
)
def test_calls_are_told_apart(method: str, path: str, surface: Surface) -> None:
    assert surface_of(method, path) is surface
