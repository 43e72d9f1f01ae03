"""Responses answers of compatible servers in the forms that public reports show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pool_server import dialects
from pool_server.core.enums import Dialect, Operation
from pool_server.dialects.translation import UpstreamKind
from tests.dialects.streams import named, sse
from tests.dialects.translation.grammar import Heard, hear
from tests.dialects.translation.kit import request, translate

CLIENTS = (Dialect.CHAT, Dialect.MESSAGES, Dialect.GEMINI)
each_client = pytest.mark.parametrize("client", CLIENTS)
CREATED = named({"type": "response.created", "response": {"id": "r", "model": "m"}})
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_a", "name": "moon", "arguments": '{"a":1}'}
OTHER = {**CALL, "id": "fc_2", "call_id": "call_b", "name": "tide"}
TEXT = {"type": "message", "content": [{"type": "output_text", "text": "Full moon."}]}
EMPTY: list[Any] = [None, {}, "", {"code": "", "message": ""}]


def delta(text: str) -> bytes:
    return named({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": text})


def done(item: Any, index: int = 1) -> bytes:
    return named({"type": "response.output_item.done", "output_index": index, "item": item})


def completed(*output: Any, **more: Any) -> bytes:
    response = {"id": "r", "status": "completed", "output": list(output), **more}
    return named({"type": "response.completed", "response": response})


def heard(client: Dialect, *pieces: bytes) -> Heard:
    body = request(client, [("user", "?")], tools=("moon", "tide"), stream=True)
    told = translate(client, UpstreamKind.RESPONSES, body, stream=True).response
    return hear(client, b"".join(map(told.feed, pieces)) + told.finish())


@each_client
def test_a_call_that_only_the_last_event_tells_is_told_once(client: Dialect) -> None:
    found = heard(client, CREATED, delta("Full moon."), completed(TEXT, CALL))
    assert (found.texts(), found.calls()) == ("Full moon.", [("moon", {"a": 1})])
    found = heard(client, CREATED, delta("Full moon."), done(CALL), completed(TEXT, CALL, OTHER))
    assert (found.texts(), found.calls()) == ("Full moon.", [("moon", {"a": 1}), ("tide", {"a": 1})])
    found = heard(client, CREATED, done(CALL, 0), completed(CALL))
    assert found.calls() == [("moon", {"a": 1})]


@each_client
@pytest.mark.parametrize("error", EMPTY)
def test_an_error_that_says_nothing_is_none(client: Dialect, error: Any) -> None:
    found = heard(client, CREATED, delta("Full moon."), completed(error=error))
    assert found.error is None and found.texts() == "Full moon."


@each_client
def test_a_message_whose_content_is_a_text_is_told(client: Dialect) -> None:
    assert (
        heard(client, CREATED, done({"type": "message", "content": "Full moon."}), completed()).texts() == "Full moon."
    )


@pytest.mark.parametrize(
    "event",
    [
        sse({"error": {"message": "It died.", "type": "server_error"}}),
        sse({"error": "It died."}),
        sse({"object": "error", "message": "It died.", "code": 500}),
    ],
)
def test_an_error_without_a_type_is_one(event: bytes) -> None:
    meter = dialects.meter(Dialect.RESPONSES, Operation.RESPONSES, stream=True)
    meter.feed(event)
    assert meter.fault is not None and b"It died." in meter.fault[1]
    assert "It died." in json.dumps(heard(Dialect.MESSAGES, CREATED, delta("Full"), event).error)
