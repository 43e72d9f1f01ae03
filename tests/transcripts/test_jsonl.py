"""Lines of transcripts: secrets hidden, everything counted."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from pool_server.transcripts import jsonl
from pool_server.transcripts.capture import Answered, CaptureEvent

SECRET = "abcDEF123456"


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "proxy-authorization", "X-API-Key", "x-goog-api-key", "Cookie", "Set-Cookie", "X-Auth-Token",
        "api-key", "x_api_key", "X-Amz-Signature", "Sec-WebSocket-Protocol", "X-Client-Secret",
        "x-goog-iap-jwt-assertion",
    ],
)  # fmt: skip
def test_a_header_that_holds_a_secret_is_hidden(name: str) -> None:
    assert jsonl.without_secrets([(name, SECRET)]) == [(name, "[hidden]")]


@pytest.mark.parametrize(
    "value", ["Bearer abcdefgh1234", "sk-ant-api03-xyzxyz", "eyJhbGciOi.eyJzdWIi.c2ln", "me@example.org"]
)
def test_a_secret_is_hidden_whatever_header_holds_it(value: str) -> None:
    [(_, shown)] = jsonl.without_secrets([("X-Whatever", value)])
    assert value not in shown


def test_ordinary_headers_stay() -> None:
    plain = [("User-Agent", "codex_cli_rs/0.9"), ("session_id", "0199-aa"), ("Idempotency-Key", "7"), ("Accept", "*/*")]
    assert jsonl.without_secrets(plain) == plain


def test_pieces_of_an_answer_share_a_line_and_keep_their_times() -> None:
    up, down = jsonl.Totals(), jsonl.Totals()
    events: list[CaptureEvent] = [
        (0.001, Answered(200, [("Set-Cookie", SECRET)]), False),
        (0.002, b"one", False), (0.0035, b"two", False),
    ]  # fmt: skip
    answer, body = map(json.loads, jsonl.event_lines(events, up, down, began=0.0, websocket=False))
    assert answer["status"] == 200 and SECRET not in json.dumps(answer)
    assert body["pieces"] == [[2.0, 3], [3.5, 3]] and base64.b64decode(body["data"]) == b"onetwo"
    assert body["sha256"] == down.told()["sha256"] == hashlib.sha256(b"onetwo").hexdigest()
    assert down.told()["pieces"] == 2 and up.told()["bytes"] == 0


def test_a_frame_that_is_no_unicode_is_kept() -> None:
    up, down = jsonl.Totals(), jsonl.Totals()
    [line] = jsonl.event_lines([(0.001, "\ud800", True)], up, down, began=0.0, websocket=True)
    assert json.loads(line)["direction"] == "up" and up.told()["bytes"] == 3
