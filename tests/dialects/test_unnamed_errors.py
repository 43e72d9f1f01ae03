"""Streams of gateways and compatible endpoints that are not as their dialect has them: errors that do not say they are
events, counts beside their place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pool_server.core.enums import Dialect, Signal
from tests.dialects import streams
from tests.dialects.streams import named, run, sse


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"error": {"code": "1305", "message": "busy"}, "request_id": "r"}, 500),
        ({"error": {"type": "overloaded_error", "message": "busy"}}, 529),
        ({"error": {"code": 429, "message": "busy"}}, 429),
        ({"error": "words"}, 500),
    ],
)
@pytest.mark.parametrize("before", [0, 3])
def test_an_error_that_does_not_say_it_is_an_event_ends_a_message(
    error: dict[str, Any], status: int, before: int
) -> None:
    told = [named(event) for event in streams.messages()[:before]]
    reading, found = run(Dialect.MESSAGES, [*told, sse(error)])
    assert found & Signal.FAULT and reading.fault == (status, json.dumps(error).encode())


def test_usage_beside_the_envelope_counts() -> None:
    inner = {"candidates": [{"content": {"parts": [{"text": "Hi."}]}, "finishReason": "STOP"}]}
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12}
    for shape in ({"response": inner, "usageMetadata": usage}, {"response": {**inner, "usageMetadata": usage}}):
        reading, _ = run(Dialect.CODE_ASSIST, [sse(shape)])
        assert (reading.usage.input, reading.usage.output, reading.complete) == (7, 5, True)
