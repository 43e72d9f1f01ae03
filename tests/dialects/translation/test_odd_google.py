"""Gemini's answers in the forms that relays of it send."""

from __future__ import annotations

import json

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import UpstreamKind
from tests.dialects.streams import sse
from tests.dialects.translation.grammar import Heard, hear, hear_whole
from tests.dialects.translation.kit import request, translate

each_client = pytest.mark.parametrize("client", [Dialect.CHAT, Dialect.RESPONSES, Dialect.MESSAGES])


def event(part: object, reason: str = "", **more: object) -> dict[str, object]:
    candidate = {"content": {"role": "model", "parts": [part]}} | ({"finishReason": reason} if reason else {})
    return {"candidates": [candidate], "responseId": "g", "modelVersion": "m", **more}


def heard(client: Dialect, *events: dict[str, object]) -> Heard:
    body = request(client, [("user", "?")], tools=("moon",), stream=True)
    told = translate(client, UpstreamKind.GEMINI, body, stream=True).response
    return hear(client, b"".join(told.feed(sse(one)) for one in events) + told.finish())


@each_client
def test_an_answer_goes_on_behind_a_reason_to_stop(client: Dialect) -> None:
    call = {"functionCall": {"name": "moon", "args": {"a": 1}}}
    found = heard(client, event({"text": "Full "}, "STOP"), event({"text": "moon."}, "STOP"), event(call, "STOP"))
    assert (found.texts(), found.calls()) == ("Full moon.", [("moon", {"a": 1})])
    assert len(found.blocks) == 2, "one text, however often it seemed to end"
    whole = translate(client, UpstreamKind.GEMINI, request(client, [("user", "?")], tools=("moon",))).response
    body = json.dumps([event({"text": "Full "}, "STOP"), event({"text": "moon."}, "STOP")]).encode()
    assert hear_whole(client, whole.whole(body)).texts() == "Full moon."


@each_client
@pytest.mark.parametrize("reasons", [("MAX_TOKENS", "STOP"), ("STOP", "MAX_TOKENS")])
def test_a_reason_that_says_more_than_stop_counts(client: Dialect, reasons: tuple[str, str]) -> None:
    found = heard(client, *(event({"text": "Full"}, reason) for reason in reasons))
    assert found.finish in ("length", "max_output_tokens", "max_tokens")
