"""Errors: each client gets the shape at which it stops and shows the reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import ErrorResponse
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from pool_server.core.enums import Dialect, ErrorKind, Operation, Signal
from pool_server.core.models import ClientError
from pool_server.dialects import (
    SPECS,
    ends_stream,
    error,
    header_safe,
    meter,
    next_sequence,
    stream_error,
    ws_error,
)
from tests.dialects.streams import OPERATION, stream

NOW = 1_800_000_000.0
STATUS = {
    ErrorKind.AUTH: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.LIMIT: 429,
    ErrorKind.EXHAUSTED: 429,
    ErrorKind.RATE: 429,
    ErrorKind.NO_ACCOUNT: 503,
    ErrorKind.UNREACHABLE: 502,
    ErrorKind.BAD_REQUEST: 400,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.UPGRADE: 426,
    ErrorKind.DRAINING: 503,
    ErrorKind.BUSY: 503,
    ErrorKind.CUT: 502,
    ErrorKind.CONTINUATION: 400,
}
QUOTA = (ErrorKind.EXHAUSTED, ErrorKind.LIMIT)


def fault(kind: ErrorKind, retry_in: float | None = None, message: str = "Every account is used up.") -> ClientError:
    retry_at = None if retry_in is None else NOW + retry_in
    return ClientError(kind=kind, message=message, status=STATUS[kind], retry_at=retry_at, plan="plus")


def told(
    dialect: Dialect, kind: ErrorKind, retry_in: float | None = None
) -> tuple[int, dict[str, str], dict[str, Any]]:
    status, headers, body = error(dialect, fault(kind, retry_in), now=NOW, request_id="req_7")
    assert len({name.lower() for name, _ in headers}) == len(headers)
    return status, {name.lower(): value for name, value in headers}, json.loads(body)


@pytest.mark.parametrize("kind", list(ErrorKind))
@pytest.mark.parametrize("dialect", list(Dialect))
def test_every_error_tells_its_reason_once(dialect: Dialect, kind: ErrorKind) -> None:
    status, headers, body = told(dialect, kind)
    assert status == STATUS[kind] and headers["content-type"] == "application/json"
    assert body["error"]["message"].startswith("Every account is used up.")
    passing = kind in (ErrorKind.CUT, ErrorKind.DRAINING, ErrorKind.BUSY, ErrorKind.RATE)
    assert ("x-should-retry" in headers) is not passing
    assert ("retry-after" in headers) is passing
    assert told(dialect, kind, 50.2)[1]["retry-after"] == "51"
    assert told(dialect, kind, -5)[1]["retry-after"] == "1"


@pytest.mark.parametrize("kind", QUOTA)
def test_codex_prints_the_reason_and_the_time(kind: ErrorKind) -> None:
    status, headers, body = told(Dialect.RESPONSES, kind, 7200.5)
    assert status == 429 and headers["x-codex-promo-message"] == "Every account is used up"
    assert body["error"] == {
        "type": "usage_limit_reached",
        "code": "usage_limit_reached",
        "message": "Every account is used up.",
        "plan_type": "plus",
        "resets_at": int(NOW) + 7201,
        "resets_in_seconds": 7201,
    }
    assert "resets_at" not in told(Dialect.RESPONSES, kind)[2]["error"]


def test_claude_code_stops_and_knows_the_reset() -> None:
    _, headers, body = told(Dialect.MESSAGES, ErrorKind.EXHAUSTED, 7200)
    assert body == {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "Every account is used up. Try again in 2h."},
        "request_id": "req_7",
    }
    assert headers["anthropic-ratelimit-unified-reset"] == str(int(NOW) + 7200)
    assert headers["x-should-retry"] == "false"
    assert "anthropic-ratelimit-unified-reset" not in told(Dialect.MESSAGES, ErrorKind.LIMIT, 20)[1]


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        (ErrorKind.AUTH, "authentication_error"),
        (ErrorKind.FORBIDDEN, "permission_error"),
        (ErrorKind.TOO_LARGE, "request_too_large"),
        (ErrorKind.UNREACHABLE, "api_error"),
    ],
)
def test_anthropic_types(kind: ErrorKind, label: str) -> None:
    assert told(Dialect.MESSAGES, kind)[2]["error"]["type"] == label


@pytest.mark.parametrize("dialect", [Dialect.GEMINI, Dialect.CODE_ASSIST])
@pytest.mark.parametrize("kind", [*QUOTA, ErrorKind.NO_ACCOUNT])
def test_gemini_cli_takes_it_for_a_used_up_quota(dialect: Dialect, kind: ErrorKind) -> None:
    body = told(dialect, kind, 3661)[2]["error"]
    assert body["code"] == STATUS[kind]
    assert body["status"] == ("UNAVAILABLE" if kind is ErrorKind.NO_ACCOUNT else "RESOURCE_EXHAUSTED")
    info, retry = body["details"]
    assert (info["reason"], info["domain"]) == ("QUOTA_EXHAUSTED", "cloudcode-pa.googleapis.com")
    assert info["metadata"]["quotaResetDelay"] == retry["retryDelay"] == "3661s"
    assert info["metadata"]["quotaResetTimeStamp"] == "2027-01-15T09:01:01Z"
    assert len(told(dialect, kind)[2]["error"]["details"]) == 1


def test_google_statuses() -> None:
    assert told(Dialect.GEMINI, ErrorKind.AUTH)[2]["error"]["status"] == "UNAUTHENTICATED"
    assert told(Dialect.GEMINI, ErrorKind.UNREACHABLE)[2]["error"]["status"] == "UNAVAILABLE"
    odd = ClientError(kind=ErrorKind.BAD_REQUEST, message="m", status=418)
    assert json.loads(error(Dialect.GEMINI, odd, now=NOW)[2])["error"]["status"] == "UNKNOWN"


@pytest.mark.parametrize("kind", QUOTA)
def test_qwen_code_stops_at_these_words(kind: ErrorKind) -> None:
    """Its test: "quota", "exhausted" or "exceeded", and "will reset" or "reset at"."""
    for retry_in, when in ((7200, "will reset in 2h."), (None, "will reset later.")):
        body = told(Dialect.CHAT, kind, retry_in)[2]["error"]
        assert body["message"] == f"Every account is used up. The quota is exhausted and {when}"
        assert (body["type"], body["code"]) == ("insufficient_quota", "insufficient_quota")


def test_codes() -> None:
    err = ClientError(kind=ErrorKind.CONTINUATION, message="m", status=400)
    body = json.loads(error(Dialect.RESPONSES, err, now=NOW)[2])["error"]
    assert (body["code"], body["param"]) == ("previous_response_not_found", "previous_response_id")
    foreign = ClientError(kind=ErrorKind.EXHAUSTED, message="m", status=429, code="usage_limit_reached")
    assert json.loads(error(Dialect.CHAT, foreign, now=NOW)[2])["error"]["code"] == "insufficient_quota"
    own = ClientError(kind=ErrorKind.FORBIDDEN, message="m", status=403, code="my_code")
    assert json.loads(error(Dialect.CHAT, own, now=NOW)[2])["error"]["code"] == "my_code"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5, "5s"),
        (119, "119s"),
        (120, "2m"),
        (3599, "1h"),
        (3601, "1h1m"),
        (86400, "1d"),
        (90000, "1d1h"),
        (172799, "2d"),
    ],
)
def test_durations_as_people_read_them(seconds: int, text: str) -> None:
    assert told(Dialect.MESSAGES, ErrorKind.EXHAUSTED, seconds)[2]["error"]["message"].endswith(f"in {text}.")


@pytest.mark.parametrize("said", ["the limit is reached", "the limit is reached.", "the limit is reached  ", "why?"])
@pytest.mark.parametrize("kind", [*QUOTA, ErrorKind.RATE])
@pytest.mark.parametrize("dialect", list(Dialect))
def test_a_time_follows_a_whole_sentence(dialect: Dialect, kind: ErrorKind, said: str) -> None:
    raw = error(dialect, ClientError(kind=kind, message=said, status=429, retry_at=NOW + 3600), now=NOW)[2]
    text = json.loads(raw)["error"]["message"]
    whole = "why?" if said == "why?" else "the limit is reached."
    if dialect in (Dialect.MESSAGES, Dialect.CHAT):  # the others' clients show the time themselves
        assert text.startswith((f"{whole} Try again in ", f"{whole} The ")) and text.endswith(".")
    else:
        assert text == said or text.startswith(f"{whole} ")


@given(st.text(max_size=600))
def test_no_message_breaks_a_header(message: str) -> None:
    for dialect in Dialect:
        _, headers, body = error(dialect, fault(ErrorKind.EXHAUSTED, 60, message + "\r\nSet-Cookie: a=b"), now=NOW)
        json.loads(body)
        for name, value in headers:
            assert (name + value).isprintable() and value.encode("latin-1") and len(value) <= 400


def test_typography_survives_in_ascii() -> None:
    assert header_safe("You’ve  hit\nit – “now”… ☃") == 'You\'ve hit it - "now"... ?'


def events(data: bytes) -> list[dict[str, Any]]:
    assert data.endswith(b"\n\n")
    return [json.loads(event.split(b"data: ")[1]) for event in data[:-2].split(b"\n\n")]


@pytest.mark.parametrize("kind", list(ErrorKind))
@pytest.mark.parametrize("dialect", list(Dialect))
def test_a_stream_ends_with_an_error_its_own_meter_reads(dialect: Dialect, kind: ErrorKind) -> None:
    reading = meter(dialect, OPERATION[dialect], stream=True)
    assert reading.feed(stream_error(dialect, fault(kind, 60), now=NOW)) == Signal.FAULT
    assert reading.fault is not None and reading.at_boundary and not reading.complete


def test_codex_shows_final_errors_and_retries_passing_ones() -> None:
    for kind in ErrorKind:
        plain, failed = events(stream_error(Dialect.RESPONSES, fault(kind, 60), now=NOW))
        assert (plain["type"], failed["type"]) == ("error", "response.failed")
        passing = kind in (
            ErrorKind.CUT,
            ErrorKind.DRAINING,
            ErrorKind.BUSY,
            ErrorKind.RATE,
            *QUOTA,  # they free within a minute
            ErrorKind.UNREACHABLE,
            ErrorKind.CONTINUATION,
        )
        assert (failed["response"]["error"]["code"] == "invalid_prompt") is not passing
        assert failed["response"]["error"]["message"].startswith("Every account is used up.")
    assert [dialect for dialect in Dialect if ends_stream(dialect)] == [Dialect.RESPONSES]


@pytest.mark.parametrize("kind", QUOTA)
@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("seconds", [0.2, 5, 60, 61, 62, 3600, None])
def test_a_limit_that_frees_within_a_minute_is_waited_for(
    dialect: Dialect, seconds: float | None, kind: ErrorKind
) -> None:
    """Claude Code waits for a Retry-After of 60 at most, Codex hides a 429 that it waits for in vain."""
    status, headers, body = told(dialect, kind, seconds)
    soon = seconds is not None and seconds <= 61
    assert status == 429
    assert ("x-should-retry" not in headers) is soon
    assert (1 <= int(headers.get("retry-after", "0")) <= 60) is soon
    if dialect is Dialect.CHAT:
        assert ("is exhausted" in body["error"]["message"]) is not soon
    if dialect in (Dialect.GEMINI, Dialect.CODE_ASSIST):
        assert (body["error"]["details"][0]["reason"] == "RATE_LIMIT_EXCEEDED") is soon
    if dialect is Dialect.RESPONSES:
        assert body["error"]["code"] == ("rate_limit_exceeded" if soon else "usage_limit_reached")
        assert ("x-codex-promo-message" in headers) is not soon


RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_the_pools_own_events_are_what_the_vendors_types_ask_for(kind: ErrorKind) -> None:
    told = events(stream_error(Dialect.RESPONSES, fault(kind, 60), now=NOW, sequence=7))
    assert [event["sequence_number"] for event in told] == [7, 8]
    for event in told:
        RESPONSE_EVENT.validate_python(event)
    Response.model_validate(told[1]["response"])
    (message,) = events(stream_error(Dialect.MESSAGES, fault(kind, 60), now=NOW))
    if kind is not ErrorKind.TOO_LARGE:  # documented with its 413, and not among the SDK's types
        ErrorResponse.model_validate(message)
    (google,) = events(stream_error(Dialect.GEMINI, fault(kind, 60), now=NOW))
    assert {"code", "message", "status"} <= google["error"].keys() and isinstance(google["error"]["code"], int)


@pytest.mark.parametrize(
    ("piece", "number"),
    [
        (b'data: {"type":"x","sequence_number":4}\n\ndata: {"sequence_number" : 5}\n\n', 6),
        (b'data: {"type":"x"}\n\n', 0),
        (b"", 0),
        (b'data: {"text":"\\"sequence_number\\":9"}\n\n', 0),
    ],
)
def test_the_next_event_goes_on_counting(piece: bytes, number: int) -> None:
    assert next_sequence(piece) == number


def test_cut_streams_are_tried_again() -> None:
    assert (
        events(stream_error(Dialect.MESSAGES, fault(ErrorKind.CUT), now=NOW))[0]["error"]["type"] == "overloaded_error"
    )
    assert events(stream_error(Dialect.CHAT, fault(ErrorKind.CUT), now=NOW))[0]["error"]["type"] == "overloaded_error"
    assert (
        events(stream_error(Dialect.CHAT, fault(ErrorKind.LIMIT), now=NOW))[0]["error"]["type"] == "insufficient_quota"
    )


def test_socket_errors() -> None:
    frame = json.loads(ws_error(fault(ErrorKind.EXHAUSTED, 600), now=NOW))
    assert (frame["type"], frame["status"], frame["error"]["type"]) == ("error", 429, "usage_limit_reached")
    assert frame["headers"]["retry-after"] == "600" and "x-codex-promo-message" in frame["headers"]
    lost = json.loads(ws_error(fault(ErrorKind.CONTINUATION), now=NOW))
    assert lost["error"]["code"] == "previous_response_not_found"


@pytest.mark.parametrize("dialect", list(Dialect))
def test_a_keepalive_changes_nothing(dialect: Dialect) -> None:
    reading = meter(dialect, OPERATION[dialect], stream=True)
    for _ in range(3):
        assert reading.feed(SPECS[dialect].keepalive) == Signal.NONE and reading.at_boundary
    data = stream(dialect)
    first = data.index(b"\n\n") + 2
    reading.feed(data[:first])
    assert reading.feed(SPECS[dialect].keepalive) == Signal.NONE
    reading.feed(data[first:])
    assert reading.complete
    assert meter(dialect, Operation.OTHER, stream=True).feed(SPECS[dialect].keepalive) == Signal.NONE
