"""What a client is told when the pool cannot serve: the shape that makes it stop and show the reason once.

Measured on the real CLIs: Codex prints `x-codex-promo-message` for `usage_limit_reached` and asks once; Claude
Code asks once when `x-should-retry` is false; Gemini CLI ends at `QUOTA_EXHAUSTED`; the OpenAI SDK under Qwen Code
heeds `x-should-retry`, and Qwen Code itself the words of a quota message.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import msgspec

from pool_server.core.enums import ApiFamily, Dialect, ErrorKind
from pool_server.core.models import ClientError
from pool_server.dialects import responses
from pool_server.dialects.specs import SPECS
from pool_server.dialects.types import dumps

Headers = list[tuple[str, str]]
Answer = tuple[int, Headers, bytes]

_LONGEST_HEADER = 400  # characters of a message in a header
_SOON_S = 5  # Retry-After where the cause passes by itself

PATIENCE_S = 60  # a client is left to wait so long by itself, as every one of them does for a Retry-After

_QUOTA = frozenset({ErrorKind.EXHAUSTED, ErrorKind.LIMIT})
_TIMED = _QUOTA | {ErrorKind.RATE}  # their messages say when to come back
# A retry may help by itself, so the client's own is welcome.
_PASSING = frozenset({ErrorKind.CUT, ErrorKind.DRAINING, ErrorKind.BUSY})

# Within a stream: the client is to send its request again.
_RETRIED = _PASSING | {ErrorKind.UNREACHABLE, ErrorKind.CONTINUATION}

_OPENAI_TYPE = {
    ErrorKind.AUTH: ("invalid_request_error", "invalid_api_key"),
    ErrorKind.FORBIDDEN: ("permission_error", "forbidden"),
    ErrorKind.LIMIT: ("insufficient_quota", "insufficient_quota"),
    ErrorKind.EXHAUSTED: ("insufficient_quota", "insufficient_quota"),
    ErrorKind.RATE: ("rate_limit_error", "rate_limit_exceeded"),
    ErrorKind.NO_ACCOUNT: ("service_unavailable_error", "no_account"),
    ErrorKind.UNREACHABLE: ("server_error", "upstream_unreachable"),
    ErrorKind.BAD_REQUEST: ("invalid_request_error", "invalid_request"),
    ErrorKind.NOT_FOUND: ("invalid_request_error", "not_found"),
    ErrorKind.TOO_LARGE: ("invalid_request_error", "request_too_large"),
    ErrorKind.UPGRADE: ("invalid_request_error", "upgrade_required"),
    ErrorKind.DRAINING: ("server_error", "draining"),
    ErrorKind.BUSY: ("server_error", "overloaded"),
    ErrorKind.CUT: ("server_error", "stream_cut"),
    ErrorKind.CONTINUATION: ("invalid_request_error", "previous_response_not_found"),
}
_ANTHROPIC_TYPE = {
    ErrorKind.AUTH: "authentication_error",
    ErrorKind.FORBIDDEN: "permission_error",
    ErrorKind.LIMIT: "rate_limit_error",
    ErrorKind.EXHAUSTED: "rate_limit_error",
    ErrorKind.RATE: "rate_limit_error",
    ErrorKind.BAD_REQUEST: "invalid_request_error",
    ErrorKind.CONTINUATION: "invalid_request_error",
    ErrorKind.UPGRADE: "invalid_request_error",
    ErrorKind.NOT_FOUND: "not_found_error",
    ErrorKind.TOO_LARGE: "request_too_large",
    ErrorKind.CUT: "overloaded_error",
    ErrorKind.DRAINING: "overloaded_error",
    ErrorKind.BUSY: "overloaded_error",
}
_GOOGLE_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    426: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
}


def error(dialect: Dialect, err: ClientError, *, now: float, request_id: str = "") -> Answer:
    """(status, headers, body) of a whole error answer. `err.message` need not say when to come back: this does."""
    err = _as_told(err, now)
    headers = [("Content-Type", "application/json")]
    seconds, passing = _wait(err, now), _passes(err, now)
    if seconds or passing:
        headers.append(("Retry-After", str(seconds or _SOON_S)))
    if not passing:
        headers.append(("x-should-retry", "false"))
    family = SPECS[dialect].family
    if family is ApiFamily.ANTHROPIC:
        return err.status, headers + _anthropic_headers(err), dumps(_anthropic(err, now, request_id))
    if family is ApiFamily.GOOGLE:
        return err.status, headers, dumps(_google(err, now))
    if dialect is Dialect.RESPONSES:
        if err.kind in _QUOTA:
            # Codex has a sentence before it, and goes on behind it: ", or try again at 10:49 PM."
            said = header_safe(err.message).rstrip(". ")
            headers.append(("x-codex-promo-message", said[:1].upper() + said[1:]))
        # A 429 of another shape Codex waits for in silence and then hides; a 400 it shows at once.
        status = 400 if err.kind is ErrorKind.RATE and not passing else err.status
        return status, headers, dumps({"error": _codex(err, now)})
    return err.status, headers, dumps({"error": _openai(err, now)})


def ends_stream(dialect: Dialect) -> bool:
    """Whether the body has to end well after `stream_error`; elsewhere the connection is to be aborted.

    Codex reads on after `response.failed`, and a broken connection would hide its message and make it ask again.
    Gemini CLI overlooks an error event: only an aborted connection tells it.
    """
    return dialect is Dialect.RESPONSES


def stream_error(dialect: Dialect, err: ClientError, *, now: float, sequence: int = 0) -> bytes:
    """The event that ends a stream already begun; then the body ends (`ends_stream`) or the connection is aborted.

    Write a blank line before it where the stream stands within an event (`Meter.at_boundary` is False). `sequence` is
    the number of the next event where the dialect counts them.
    """
    err = _as_told(err, now)
    family = SPECS[dialect].family
    if family is ApiFamily.ANTHROPIC:
        return b"event: error\ndata: " + dumps(_anthropic(err, now, "")) + b"\n\n"
    if family is ApiFamily.GOOGLE:
        return b"data: " + dumps(_google(err, now)) + b"\n\n"
    if dialect is Dialect.RESPONSES:
        return _responses_end(err, now, sequence)
    shape = _openai(err, now)
    if err.kind in _RETRIED:
        # Of the errors within a stream this is the type after which Qwen Code tries again.
        shape["type"] = "overloaded_error"
    return b"data: " + dumps({"error": shape}) + b"\n\n"


def ws_error(err: ClientError, *, now: float) -> str:
    """A Responses WebSocket error frame (JSON text): `{"type":"error","status","error":{…},"headers":{…}}`."""
    err = _as_told(err, now)
    status, headers, _ = error(Dialect.RESPONSES, err, now=now)
    shown = {name.lower(): value for name, value in headers if name != "Content-Type"}
    frame = {"type": "error", "status": status, "error": _codex(err, now), "headers": shown}
    return dumps(frame).decode()


def live_error(err: ClientError, *, now: float, event_id: str) -> str:
    """An error event of the realtime API (JSON text)."""
    _, _, body = error(Dialect.CHAT, err, now=now)
    told = {"type": "error", "event_id": event_id, **msgspec.json.decode(body)}
    return dumps(told).decode()


def header_safe(value: str) -> str:
    """One line of printable Latin-1, as a header value must be, cut where it is long."""
    flat = " ".join(value.split())
    plain = flat.translate(
        {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x2013: "-", 0x2014: "-", 0x2026: "..."}
    )
    safe = plain.encode("latin-1", "replace").decode("latin-1")
    return "".join(c for c in safe if c.isprintable())[:_LONGEST_HEADER]


def _as_told(err: ClientError, now: float) -> ClientError:
    """A limit or quota that frees within a minute, as a limit on requests at the same time does, is told as one of
    pace: its client waits and goes on by itself, where it gives up at a quota."""
    if err.kind not in _QUOTA or err.retry_at is None or _wait(err, now) > PATIENCE_S + 1:
        return err
    # A minute's count frees a second after the minute, for which some clients wait no more.
    return msgspec.structs.replace(err, kind=ErrorKind.RATE, retry_at=min(err.retry_at, now + PATIENCE_S))


def _passes(err: ClientError, now: float) -> bool:
    """May the client try again by itself, soon enough for somebody who waits?"""
    return err.kind in _PASSING or (err.kind is ErrorKind.RATE and _wait(err, now) <= PATIENCE_S)


def _wait(err: ClientError, now: float) -> int:
    """Whole seconds until `retry_at`, at least one; 0 when it is not known."""
    return max(1, math.ceil(err.retry_at - now)) if err.retry_at is not None else 0


def duration(seconds: int) -> str:
    """A duration as people and Go write it: 45s, 42m, 3h20m, 2d4h."""
    if seconds < 120:
        return f"{seconds}s"
    minutes = math.ceil(seconds / 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d{hours % 24}h" if hours % 24 else f"{hours // 24}d"
    return (f"{hours}h" if hours else "") + (f"{minute}m" if minute else "")


def _message(err: ClientError, now: float) -> str:
    """The reason and, for quotas and rate limits, the time of return."""
    seconds = _wait(err, now)
    if err.kind not in _TIMED or not seconds:
        return err.message
    return f"{_sentence(err.message)} Try again in {duration(seconds)}."


def _sentence(text: str) -> str:
    """The text with an end."""
    text = text.rstrip()
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def _codex(err: ClientError, now: float) -> dict[str, Any]:
    """Codex shows the time of return itself, from `resets_at`, in the user's time zone."""
    if err.kind not in _QUOTA:
        return _openai(err, now)
    shape: dict[str, Any] = {"type": "usage_limit_reached", "code": "usage_limit_reached", "message": err.message}
    if err.plan:
        shape["plan_type"] = err.plan
    if err.retry_at is not None:
        shape |= {"resets_at": math.ceil(err.retry_at), "resets_in_seconds": _wait(err, now)}
    return shape


def _openai(err: ClientError, now: float) -> dict[str, Any]:
    kind, code = _OPENAI_TYPE[err.kind]
    param = "previous_response_id" if err.kind is ErrorKind.CONTINUATION else None
    message = _message(err, now) if err.kind is ErrorKind.RATE else err.message
    if err.kind in _QUOTA or (err.kind is ErrorKind.RATE and not _passes(err, now)):
        # Qwen Code stops at a 429 only if its text says quota, exhausted and "will reset"; else it asks 28 times.
        when = f"will reset in {duration(_wait(err, now))}" if err.retry_at is not None else "will reset later"
        quota = "The request quota" if err.kind is ErrorKind.RATE else "The quota"
        message = f"{_sentence(err.message)} {quota} is exhausted and {when}."
    own = err.code if err.kind not in (ErrorKind.EXHAUSTED, ErrorKind.RATE) else ""
    return {"message": message, "type": kind, "param": param, "code": own or code}


def _anthropic(err: ClientError, now: float, request_id: str) -> dict[str, Any]:
    kind = _ANTHROPIC_TYPE.get(err.kind, "api_error")
    shape: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": _message(err, now)}}
    if request_id:
        shape["request_id"] = request_id
    return shape


def _anthropic_headers(err: ClientError) -> Headers:
    if err.kind is not ErrorKind.EXHAUSTED or err.retry_at is None:
        return []
    reset = str(math.ceil(err.retry_at))
    return [("anthropic-ratelimit-unified-status", "rejected"), ("anthropic-ratelimit-unified-reset", reset)]


def _google(err: ClientError, now: float) -> dict[str, Any]:
    status = err.status
    shape: dict[str, Any] = {
        "code": status,
        "message": _message(err, now),
        "status": _GOOGLE_STATUS.get(status, "INTERNAL" if status >= 500 else "UNKNOWN"),
    }
    if err.kind in _TIMED or err.kind is ErrorKind.NO_ACCOUNT:
        shape["details"] = _google_quota(err, now)
    return {"error": shape}


def _google_quota(err: ClientError, now: float) -> list[dict[str, Any]]:
    """The details Gemini CLI takes for a used-up quota: at 429 and at 503 it stops and shows the message."""
    metadata = {"uiMessage": "true"}
    details: list[dict[str, Any]] = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "RATE_LIMIT_EXCEEDED" if err.kind is ErrorKind.RATE else "QUOTA_EXHAUSTED",
            "domain": "cloudcode-pa.googleapis.com",
            "metadata": metadata,
        }
    ]
    if err.retry_at is not None:
        seconds = _wait(err, now)
        metadata["quotaResetDelay"] = f"{seconds}s"
        metadata["quotaResetTimeStamp"] = datetime.fromtimestamp(math.ceil(err.retry_at), UTC).strftime("%FT%TZ")
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds}s"})
    return details


def _responses_end(err: ClientError, now: float, sequence: int) -> bytes:
    """Codex ignores `event: error`; of `response.failed` it shows the message of `invalid_prompt` as it is and
    stops, and retries after `server_error`. Other clients of the Responses API read `error`."""
    shape = _openai(err, now)
    code = "server_error" if err.kind in _RETRIED or _passes(err, now) else "invalid_prompt"
    response = responses.response_object(now, "failed", error={"code": code, "message": shape["message"]})
    failed = {"type": "response.failed", "sequence_number": sequence + 1, "response": response}
    plain = {"type": "error", "sequence_number": sequence}
    plain |= {name: shape[name] for name in ("code", "message", "param")}
    return b"event: error\ndata: " + dumps(plain) + b"\n\nevent: response.failed\ndata: " + dumps(failed) + b"\n\n"
