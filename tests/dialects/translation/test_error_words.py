"""The words of an error, wherever vendors and relays put them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pool_server import dialects
from pool_server.core.enums import Dialect, Operation
from pool_server.dialects.translation import read_error

ERRORS: list[Any] = [
    {"errors": [{"message": "It died.", "code": 7003}], "success": False},
    {"code": 400, "msg": "It died."},
    {"message": {"detail": [{"msg": "It died."}]}},
    {"error_code": 17, "error_msg": "It died."},
    {"error": {"message": json.dumps({"error": {"message": "It died.", "code": 400}}), "type": "x"}},
    {"error": {"message": {"message": "It died."}}},
    {"error": {"error": {"message": "It died."}}},
    {"title": "Bad Request", "detail": "It died."},
    {"detail": {"message": "It died."}},
]


@pytest.mark.parametrize("body", ERRORS)
def test_an_error_says_what_it_says(body: Any) -> None:
    assert read_error(400, json.dumps(body).encode()).message == "It died."


def test_what_is_no_error_within_a_text_stays_a_text() -> None:
    assert read_error(400, b'{"error":{"message":"{no json"}}').message == "{no json"
    assert read_error(400, b'{"error":{"message":"{}"}}').message == "{}"


def test_a_field_that_is_missing_is_named() -> None:
    detail = [{"loc": ["body", "messages"], "msg": "field required"}]
    for body in ({"detail": detail}, {"message": {"detail": detail}}):
        assert json.loads(read_error(422, json.dumps(body).encode()).message) == detail


@pytest.mark.parametrize(
    "body",
    [
        {"success": False, "msg": "It died.", "code": 500},
        {"code": "InvalidParameter", "message": "It died."},
        {"error_code": 17, "error_msg": "It died."},
    ],
)
def test_a_200_without_an_answer_is_told_in_its_own_words(body: Any) -> None:
    meter = dialects.meter(Dialect.CHAT, Operation.CHAT, stream=False)
    meter.feed(json.dumps(body).encode())
    meter.finish()
    assert meter.fault is not None and b"It died." in meter.fault[1]
