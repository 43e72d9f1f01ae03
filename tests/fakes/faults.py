"""The vendors' faults in the vendors' words: statuses, headers and bodies as seen on their wires."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from tests.fakes.plays import Play, status

Json = dict[str, Any]
CHALLENGE_PAGE = (
    "<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>"
    '<script src="/cdn-cgi/challenge-platform/h/b/orchestrate/chl_page/v1"></script></body></html>'
)


def _json(code: int, body: Json, **headers: str) -> Play:
    return status(code, body, **headers)


# ---------------------------------------------------------------- any vendor


def unauthorized(body: Json | None = None) -> Play:
    """A single 401 although the token is good; use `FakeAccount.revoke` for one that lasts until a refresh."""
    return _json(401, body or {"error": {"message": "token expired", "code": "token_expired"}})


def payment(message: str = "Payment required") -> Play:
    return _json(402, {"error": {"type": "billing_error", "message": message}})


def challenge() -> Play:
    """A Cloudflare page instead of an answer."""
    return status(403, CHALLENGE_PAGE, content_type="text/html; charset=UTF-8", cf_mitigated="challenge")


def server_error(code: int = 500) -> Play:
    return _json(code, {"error": {"type": "server_error", "message": "The server had an error"}})


def retry_after(seconds: float | str) -> Play:
    """A plain 429 with `Retry-After`: seconds or an HTTP date."""
    return _json(429, {"error": {"type": "rate_limit_error", "message": "Too many requests"}}, Retry_After=str(seconds))


def retry_after_ms(millis: int) -> Play:
    return _json(429, {"error": {"message": "Too many requests"}}, Retry_After_Ms=str(millis))


def bare_429() -> Play:
    return _json(429, {"error": {"message": "Too many requests"}})


# ---------------------------------------------------------------- Codex


def codex_usage_limit(*, resets_at: float | None = None, resets_in: float | None = None, plan: str = "plus") -> Play:
    """429 `usage_limit_reached` with whichever reset is given."""
    error: Json = {"type": "usage_limit_reached", "message": "The usage limit has been reached", "plan_type": plan}
    if resets_at is not None:
        error["resets_at"] = int(resets_at)
    if resets_in is not None:
        error["resets_in_seconds"] = int(resets_in)
    return _json(429, {"error": error})


def codex_usage_limit_by_headers(resets_at: float) -> Play:
    """429 without a reset in the body: the exhausted window of the headers says it."""
    return codex_usage_limit().but(
        headers=(
            ("x-codex-primary-used-percent", "100"),
            ("x-codex-primary-window-minutes", "300"),
            ("x-codex-primary-reset-at", str(int(resets_at))),
        )
    )


def codex_rate_limit(text: str = "Please try again in 1.2s") -> Play:
    return _json(429, {"error": {"code": "rate_limit_exceeded", "message": f"Rate limit reached. {text}"}})


def insufficient_quota(code: int = 429) -> Play:
    """OpenAI's and, with 403, Qwen's word for no credits or no quota left."""
    error = {
        "code": "insufficient_quota",
        "type": "insufficient_quota",
        "message": "You exceeded your current quota",
    }
    return _json(code, {"error": error})


def codex_overloaded(code: str = "server_is_overloaded") -> Play:
    return _json(503, {"error": {"code": code, "type": "service_unavailable_error", "message": "Overloaded"}})


def encrypted_content() -> Play:
    error = {
        "code": "invalid_encrypted_content",
        "type": "invalid_request_error",
        "message": "The encrypted content could not be verified.",
    }
    return _json(400, {"error": error})


# ---------------------------------------------------------------- Anthropic


def _anthropic(code: int, kind: str, message: str, **headers: str) -> Play:
    return _json(
        code,
        {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake"},
        **headers,
    )


def claude_limit(
    resets_at: float, *, window: str = "5h", retry_after_s: float | None = None, percent: float = 100.0
) -> Play:
    """429 with the unified headers saying which window is rejected ("5h", "7d", or a model family's "7d_oi")."""
    base = "anthropic-ratelimit-unified"
    headers = [
        (f"{base}-status", "rejected"),
        (f"{base}-reset", str(int(resets_at))),
        (f"{base}-{window}-status", "rejected"),
        (f"{base}-{window}-reset", str(int(resets_at))),
        (f"{base}-{window}-utilization", f"{percent / 100:g}"),
    ]
    headers += [(f"{base}-{other}-status", "allowed") for other in ("5h", "7d") if other != window]
    if retry_after_s is not None:
        headers.append(("retry-after", f"{retry_after_s:g}"))
    play = _anthropic(429, "rate_limit_error", "This request would exceed your account's rate limit.")
    return play.but(headers=tuple(headers))


def claude_temporarily_limited() -> Play:
    text = "Server is temporarily limiting requests (not your usage limit)"
    return _anthropic(429, "rate_limit_error", text)


def claude_overloaded() -> Play:
    return _anthropic(529, "overloaded_error", "Overloaded")


def claude_suspended() -> Play:
    return _anthropic(403, "permission_error", "This organization has been disabled.")


def claude_invalid(message: str = "max_tokens: Field required") -> Play:
    return _anthropic(400, "invalid_request_error", message)


# ---------------------------------------------------------------- Google


def google(code: int, state: str, message: str, details: list[Json] | None = None, *, in_array: bool = False) -> Play:
    """A google.rpc error body; `in_array` wraps it in a one-element list, as some answers are."""
    body: Any = {"error": {"code": code, "message": message, "status": state, "details": details or []}}
    return status(code, [body] if in_array else body)


def _info(reason: str, **metadata: str) -> Json:
    return {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "cloudcode-pa.googleapis.com",
        "metadata": metadata,
    }


def _retry(delay: str) -> Json:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


def gemini_rate(delay: str = "34.074824224s", *, in_array: bool = False) -> Play:
    details = [_info("RATE_LIMIT_EXCEEDED", quotaResetDelay=delay), _retry(delay)]
    return google(429, "RESOURCE_EXHAUSTED", "Rate limited", details, in_array=in_array)


def gemini_reset_delay(delay: str = "12.345s") -> Play:
    """Only `quotaResetDelay` in the metadata, no RetryInfo."""
    return google(429, "RESOURCE_EXHAUSTED", "Exhausted", [_info("RATE_LIMIT_EXCEEDED", quotaResetDelay=delay)])


def gemini_exhausted(delay: str = "7500.1s") -> Play:
    return google(429, "RESOURCE_EXHAUSTED", "Quota used up", [_info("QUOTA_EXHAUSTED"), _retry(delay)])


def gemini_per_day() -> Play:
    violation = {"quotaId": "GenerateRequestsPerDayPerProjectPerModel", "quotaMetric": "requests"}
    detail = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}
    return google(429, "RESOURCE_EXHAUSTED", "Quota exceeded", [detail])


def gemini_text_delay(text: str = "Please retry in 12.3s") -> Play:
    return google(429, "RESOURCE_EXHAUSTED", f"Quota exceeded. {text}")


def gemini_tos() -> Play:
    details = [_info("TOS_VIOLATION", appeal_url="https://example.com/appeal")]
    return google(403, "PERMISSION_DENIED", "This service has been disabled in this account", details)


# ---------------------------------------------------------------- Qwen


def qwen_quota() -> Play:
    """403 that means a used-up quota: to be treated as 429."""
    error = {"code": "insufficient_quota", "message": "Free allocated quota exceeded."}
    return _json(403, {"error": error})


def qwen_burst() -> Play:
    return _json(429, {"error": {"code": "limit_burst_rate", "message": "Request rate increased too quickly"}})


# ---------------------------------------------------------------- inside a 200 stream


def _frame(event: str, data: Json) -> bytes:
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def responses_failed(code: str = "server_is_overloaded", message: str = "Overloaded") -> bytes:
    """A `response.failed` event."""
    error = {"code": code, "message": message}
    response = {"id": "resp_fake_failed", "status": "failed", "error": error}
    return _frame("response.failed", {"type": "response.failed", "response": response})


def responses_error(code: str = "server_error", message: str = "The server had an error") -> bytes:
    return _frame("error", {"type": "error", "code": code, "message": message, "param": None})


def messages_error(kind: str = "overloaded_error", message: str = "Overloaded") -> bytes:
    return _frame("error", {"type": "error", "error": {"type": kind, "message": message}})


def chat_error(code: str = "server_error", message: str = "The server had an error") -> bytes:
    return _frame("", {"error": {"code": code, "type": code, "message": message}})


def gemini_error(code: int = 503, state: str = "UNAVAILABLE") -> bytes:
    return _frame("", {"error": {"code": code, "message": "The model is overloaded.", "status": state}})


def in_stream(event: bytes, *, at: int) -> Play:
    """The good stream up to event `at`, then this error event and a clean end.

    Event 2 of Responses and event 1 of Messages are the first a client renders or counts as content; 0 is the
    very first event of any dialect.
    """
    return Play(insert=event, insert_at=at, end_at=at)


def codex_limits_event(used_percent: float = 25.0, *, limit_reached: bool = False) -> bytes:
    """The quota event within a Codex stream; `limit_reached` there is no fault by itself."""
    window = {"used_percent": used_percent, "window_minutes": 300, "reset_at": int(time.time()) + 9000}
    limits = {"primary": window, "secondary": None}
    event = {
        "type": "codex.rate_limits",
        "plan_type": "plus",
        "rate_limits": limits,
        "limit_reached": limit_reached,
    }
    return _frame("codex.rate_limits", event)


HINTS_429: dict[str, Callable[[], Play]] = {
    "codex resets_at": lambda: codex_usage_limit(resets_at=time.time() + 3600),
    "codex resets_in_seconds": lambda: codex_usage_limit(resets_in=3600),
    "codex window header": lambda: codex_usage_limit_by_headers(time.time() + 3600),
    "codex text": codex_rate_limit,
    "claude 5h": lambda: claude_limit(time.time() + 3600),
    "claude 7d": lambda: claude_limit(time.time() + 86400, window="7d"),
    "claude transient": claude_temporarily_limited,
    "gemini retry info": gemini_rate,
    "gemini reset delay": gemini_reset_delay,
    "gemini exhausted": gemini_exhausted,
    "gemini per day": gemini_per_day,
    "gemini text": gemini_text_delay,
    "qwen 403": qwen_quota,
    "qwen burst": qwen_burst,
    "retry-after": lambda: retry_after(30),
    "retry-after-ms": lambda: retry_after_ms(1500),
    "bare": bare_429,
}
