"""What is read of Chat answers in the forms that public reports of compatible endpoints show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pool_server import dialects
from pool_server.core.enums import Dialect, Operation
from tests.dialects.streams import sse

EMPTY: list[Any] = [None, {}, "", {"message": "", "type": "", "param": "", "code": None}]
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


def chunk(content: str, finish: str | None = None, **more: Any) -> bytes:
    return sse({"id": "c", "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}], **more})


def read(*events: bytes) -> dialects.Meter:
    meter = dialects.meter(Dialect.CHAT, Operation.CHAT, stream=True)
    for event in events:
        meter.feed(event)
    meter.finish()
    return meter


@pytest.mark.parametrize("word", ["stop", "STOP", "MAX_TOKENS", "Tool_Calls"])
def test_a_stream_ends_well_after_a_reason_in_any_case(word: str) -> None:
    assert read(chunk("Full"), chunk("", word)).complete
    assert read(chunk("Full", word)).complete


def test_the_word_null_is_no_reason() -> None:
    assert not read(chunk("Full", "null")).complete
    assert not read(chunk("Full"), chunk(" moon", "null")).complete


@pytest.mark.parametrize("error", EMPTY)
def test_an_error_that_says_nothing_is_none(error: Any) -> None:
    meter = read(chunk("Full", error=error), chunk(" moon", error=error), chunk("", "stop", usage=USAGE))
    assert meter.fault is None and meter.complete and meter.usage.total == 12
    one = dialects.meter(Dialect.CHAT, Operation.CHAT, stream=False)
    choices = [{"message": {"content": "Full"}, "finish_reason": "stop"}]
    one.feed(json.dumps({"choices": choices, "usage": USAGE, "error": error}).encode())
    one.finish()
    assert one.fault is None and one.usage.total == 12


FAULTS = [
    (b'error: {"code":500,"message":"It died."}\n\n', 500),
    (b'event: error\ndata: "It died."\n\n', 500),
    (b"event: error\ndata: It died.\n\n", 500),
    (sse({"choices": None, "base_resp": {"status_code": 1008, "status_msg": "It died."}}), 200),
    (sse({"choices": [], "x_groq": {"id": "r", "error": "It died."}}), 500),
]


@pytest.mark.parametrize(("event", "status"), FAULTS)
def test_an_error_under_another_name_is_one(event: bytes, status: int) -> None:
    meter = read(event)
    assert meter.fault is not None and meter.fault[0] == status and b"It died." in meter.fault[1]
    meter = read(chunk("Full"), event)
    assert meter.fault is None and not meter.complete, "no client reads it: the pool tells it in words of its own"


def test_a_code_of_zero_is_no_error() -> None:
    assert read(chunk("Full", base_resp={"status_code": 0}), chunk("", "stop", base_resp={"status_code": 0})).complete


def test_a_message_in_place_of_a_delta_is_shown() -> None:
    message = {"index": 0, "message": {"role": "assistant", "content": "Full"}, "finish_reason": None}
    assert read(sse({"choices": [message]}), sse("[DONE]")).complete
