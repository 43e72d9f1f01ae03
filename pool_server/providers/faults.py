"""Reading error answers: what a body says whatever its shape, and the classes that are the same for all
vendors."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from pool_server.core.enums import FaultKind, FaultScope
from pool_server.core.models import Fault, WindowObservation
from pool_server.providers.redact import short
from pool_server.providers.times import HOUR, MINUTE, WEEK, number, retry_after, wait_in_text

_READ = 262144  # an error body is read no further
TEXT_WAIT_CAP = MINUTE  # "try again in 1.2s" is believed up to here (providers' texts speak of short waits)

_CHALLENGE = re.compile(
    rb"cf-chl|cf_chl|challenge-platform|just a moment\.\.\.|attention required! \| cloudflare", re.I
)
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{0,300})", re.I)

# Anchored: an error text may quote the request, and a request must not be able to stop an account.
_SUSPENDED = re.compile(
    r"^(?:error:\s*)?(?:this|your|the) (?:organization|account|workspace|user|api key|project)"
    r"(?: associated[^.]{0,80})? (?:has been|is|was) (?:\w+ly )?"
    r"(?:disabled|suspended|deactivated|banned|terminated)",
    re.I,
)
# Reasoning that another account has sealed: OpenAI's, Gemini's ("Corrupted thought signature."), Claude's ("Invalid
# `signature` in `thinking` block").
_ENCRYPTED = re.compile(
    r"encrypted[ _]content.{0,200}(?:could not be|cannot be|failed to)"
    r"|(?:corrupted|invalid|malformed|unknown|expired) `?thought[ _]?signature"
    r"|thought[ _]?signature\S{0,2} (?:is|was) (?:corrupted|invalid|not valid|malformed|expired)"
    r"|invalid `?signature`? in `?(?:redacted_)?thinking`? block",
    re.I | re.S,
)
_MODEL_UNSUPPORTED = re.compile(
    r"model\b.{0,120}\bnot (?:supported|available|included|enabled|allowed)\b.{0,80}"
    r"\b(?:account|plan|tier|subscription|organization|project)"
    r"|(?:do(?:es)? not|don't|doesn't) have access to (?:the |this )?(?:model|claude|gpt|gemini|qwen)"
    r"|not available (?:for|on|in) your (?:plan|subscription|tier)",
    re.I | re.S,
)
_NOT_PERSISTED = re.compile(r"item with id .{1,200} not found", re.I | re.S)

REQUEST_CODES = frozenset(
    (
        "context_length_exceeded", "cyber_policy", "message_too_big", "string_above_max_length",
        "invalid_prompt", "invalid_value", "unsupported_value", "unsupported_parameter", "invalid_type",
        "missing_required_parameter", "unknown_parameter", "content_policy_violation", "image_parse_error",
        "invalid_image",
    )
)  # fmt: skip
CODES: dict[str, tuple[FaultKind, FaultScope]] = {
    "invalid_encrypted_content": (FaultKind.ENCRYPTED_CONTENT, FaultScope.NONE),
    "previous_response_not_found": (FaultKind.CONTINUATION, FaultScope.NONE),
    "server_is_overloaded": (FaultKind.OVERLOAD, FaultScope.NONE),
    "slow_down": (FaultKind.OVERLOAD, FaultScope.NONE),
    "overloaded_error": (FaultKind.OVERLOAD, FaultScope.NONE),
    "token_invalidated": (FaultKind.AUTH, FaultScope.ACCOUNT),
    "token_revoked": (FaultKind.AUTH, FaultScope.ACCOUNT),
    "token_expired": (FaultKind.AUTH, FaultScope.ACCOUNT),
    "invalid_token": (FaultKind.AUTH, FaultScope.ACCOUNT),
    "invalid_api_key": (FaultKind.AUTH, FaultScope.ACCOUNT),
    "account_deactivated": (FaultKind.SUSPENDED, FaultScope.ACCOUNT),
    "account_suspended": (FaultKind.SUSPENDED, FaultScope.ACCOUNT),
    "access_terminated": (FaultKind.SUSPENDED, FaultScope.ACCOUNT),
    "insufficient_quota": (FaultKind.PAYMENT, FaultScope.ACCOUNT),
    "billing_not_active": (FaultKind.PAYMENT, FaultScope.ACCOUNT),
    "billing_hard_limit_reached": (FaultKind.PAYMENT, FaultScope.ACCOUNT),
    "unsupported_country_region_territory": (FaultKind.PERMISSION, FaultScope.ACCOUNT),
    "model_not_found": (FaultKind.NOT_FOUND, FaultScope.MODEL),
}
_TYPE_STATUS = {  # errors within a stream carry no status
    "invalid_request": 400,
    "invalid_request_error": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found": 404,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "usage_limit_reached": 429,
    "overloaded_error": 529,
}


class ErrorFacts(msgspec.Struct, frozen=True):
    """What an error body says. `code` and `kind` are lower case ("" when absent); `error` is the error object."""

    code: str = ""
    kind: str = ""  # error.type, or Google's error.status
    message: str = ""
    html: bool = False
    error: dict[str, Any] = {}

    def says(self, *words: str) -> bool:
        """Is one of `words` the code or the type?"""
        return self.code in words or self.kind in words


def read_error(headers: Mapping[str, str], body: bytes) -> ErrorFacts:
    """The facts of an error body: JSON objects in the vendors' shapes, wrapped in a list or a stream event, with a
    JSON text as message; plain text; HTML. Never raises."""
    head = body[:_READ]
    kind = headers.get("content-type", "").lower()
    start = head[:512].lstrip().lower()
    html = "text/html" in kind or start.startswith((b"<!doctype", b"<html", b"<head"))
    data = _decode(body) if start[:1] in (b"{", b"[") else None
    if data is None:
        data = _header_error(headers)
    if data is None:
        text = head[:4096].decode("utf-8", "replace")
        title = _TITLE.search(text) if html else None
        return ErrorFacts(
            code=_word(headers.get("x-openai-authorization-error")),
            message=title.group(1).strip() if title else ("" if html else text),
            html=html,
        )
    return _object_facts(data)


def _decode(raw: bytes | str) -> dict[str, Any] | None:
    if len(raw) > 8 * _READ:
        return None
    try:
        data = msgspec.json.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    while isinstance(data, list) and data:
        data = data[0]
    return data if isinstance(data, dict) else None


def _header_error(headers: Mapping[str, str]) -> dict[str, Any] | None:
    """ChatGPT's backend puts the error of some answers into a header, base64 JSON."""
    value = headers.get("x-error-json", "")
    if not value:
        return None
    try:
        return _decode(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        return None


def _object_facts(data: dict[str, Any]) -> ErrorFacts:
    error = _error_object(data)
    message = next(
        (text for key in ("message", "error_description", "description") if (text := _text(error.get(key)))), ""
    )
    inner = _decode(message) if message.lstrip()[:1] in ("{", "[") else None
    if inner is not None:  # Google wraps an error in an error's message
        nested = _error_object(inner)
        error = {**error, **nested}
        message = _text(nested.get("message")) or message
    return ErrorFacts(
        code=_word(error.get("code")),
        kind=_word(error.get("type")) or _word(error.get("status")),
        message=message,
        error=error,
    )


def _error_object(data: dict[str, Any]) -> dict[str, Any]:
    response = data.get("response")
    candidates = (
        data.get("error"),
        response.get("error") if isinstance(response, dict) else None,
        data.get("detail"),
    )
    for found in candidates:
        if isinstance(found, dict):
            return found
        if isinstance(found, str) and found:
            more = data.get("error_description") or data.get("message")
            text = more if isinstance(more, str) else found
            return {"code": found if " " not in found else "", "message": text}
    body = data.get("body")
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        return dict(body["error"])
    return data


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _word(value: object) -> str:
    return value.strip().lower()[:120] if isinstance(value, str) else ""


def message_of(facts: ErrorFacts, status: int) -> str:
    """A short redacted line for people, also when the provider sent none."""
    return short(facts.message) or (facts.code or facts.kind)[:120] or f"status {status}"


def build(
    kind: FaultKind,
    scope: FaultScope,
    facts: ErrorFacts,
    status: int,
    *,
    retry_at: float | None = None,
    model: str = "",
    family: str = "",
    code: str = "",
    windows: tuple[WindowObservation, ...] = (),
) -> Fault:
    """A fault with the provider's words, redacted. A fault of a model that is not known is the account's."""
    if scope is FaultScope.MODEL and not (model or family):
        scope = FaultScope.ACCOUNT
    word = code or facts.code or facts.kind
    return Fault(
        kind=kind,
        scope=scope,
        retry_at=retry_at,
        code=short(word, 80),
        message=message_of(facts, status),
        model=model if scope is FaultScope.MODEL else "",
        family=family,
        status=status,
        windows=windows,
    )


def hint(headers: Mapping[str, str], facts: ErrorFacts, *, now: float, cap: float) -> float | None:
    """When to try again by `Retry-After` (capped) or, where it is missing, by the message's own words."""
    seconds = retry_after(headers, now=now)
    if seconds is None:
        seconds = wait_in_text(facts.message)
        cap = min(cap, TEXT_WAIT_CAP)
    return None if seconds is None or seconds <= 0 else now + min(seconds, cap)


def is_challenge(status: int, headers: Mapping[str, str], body: bytes, facts: ErrorFacts) -> bool:
    """A bot check instead of an answer: `cf-mitigated`, a challenge page, or any HTML with 403."""
    if status not in (403, 429, 503):
        return False
    if "cf-mitigated" in headers:
        return True
    return facts.html and (status == 403 or _CHALLENGE.search(body[:_READ]) is not None)


def effective_status(status: int, facts: ErrorFacts) -> int:
    """`status`, or for an error within an answer of 200 what its code or type stands for; 502 when nothing
    tells."""
    if status >= 400:
        return status
    declared = (
        number(facts.error.get("status_code")) or number(facts.error.get("status")) or number(facts.error.get("code"))
    )
    if declared is not None and 400 <= declared <= 599:
        return int(declared)
    if facts.code in REQUEST_CODES:
        return 400
    return _TYPE_STATUS.get(facts.code) or _TYPE_STATUS.get(facts.kind) or 502


def common(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    facts: ErrorFacts,
    *,
    now: float,
    model: str,
    cap: float = WEEK,
) -> Fault:
    """The classes that hold for every vendor; a vendor asks its own first."""
    if is_challenge(status, headers, body, facts):
        return build(FaultKind.CHALLENGE, FaultScope.ACCOUNT, facts, status, code="challenge")
    special = by_code(status, facts, model)
    if special is not None:
        if special.kind is FaultKind.OVERLOAD or special.kind is FaultKind.PAYMENT:
            return msgspec.structs.replace(special, retry_at=hint(headers, facts, now=now, cap=cap))
        return special
    return by_status(status, headers, facts, now=now, model=model, cap=cap)


def by_code(status: int, facts: ErrorFacts, model: str) -> Fault | None:
    """The fault that a code, a type or a known sentence names, whatever the status."""
    if facts.code in REQUEST_CODES and status not in (401, 402, 429):
        return build(FaultKind.REQUEST, FaultScope.NONE, facts, status)
    known = CODES.get(facts.code) or CODES.get(facts.kind)
    if known is not None:
        return build(*known, facts, status, model=model)
    text = facts.message[:2000]
    if status in (400, 401, 402, 403) and _SUSPENDED.search(text):
        return build(FaultKind.SUSPENDED, FaultScope.ACCOUNT, facts, status)
    if status in (400, 403, 404, 422) and _MODEL_UNSUPPORTED.search(text):
        return build(FaultKind.MODEL_UNSUPPORTED, FaultScope.MODEL, facts, status, model=model)
    if status in (400, 422) and _ENCRYPTED.search(text):
        return build(FaultKind.ENCRYPTED_CONTENT, FaultScope.NONE, facts, status)
    if status == 404 and _NOT_PERSISTED.search(text):
        return build(FaultKind.REQUEST, FaultScope.NONE, facts, status)
    return None


def by_status(
    status: int, headers: Mapping[str, str], facts: ErrorFacts, *, now: float, model: str, cap: float = WEEK
) -> Fault:
    """The fault a bare status stands for."""
    retry_at = hint(headers, facts, now=now, cap=min(cap, HOUR) if status >= 500 else cap)
    if status == 401:
        return build(FaultKind.AUTH, FaultScope.ACCOUNT, facts, status)
    if status == 402:
        return build(FaultKind.PAYMENT, FaultScope.ACCOUNT, facts, status, retry_at=retry_at)
    if status == 403:
        return build(FaultKind.PERMISSION, FaultScope.ACCOUNT, facts, status, retry_at=retry_at)
    if status == 404:
        return not_found(facts, status, model)
    if status == 429:
        return build(FaultKind.RATE, FaultScope.ACCOUNT, facts, status, retry_at=retry_at, model=model)
    if status == 529:
        return build(FaultKind.OVERLOAD, FaultScope.NONE, facts, status, retry_at=retry_at)
    if status == 499:
        return build(FaultKind.CLIENT_GONE, FaultScope.NONE, facts, status)
    if status == 408 or status >= 500:
        return build(FaultKind.TRANSIENT, FaultScope.MODEL, facts, status, retry_at=retry_at, model=model)
    return build(FaultKind.REQUEST, FaultScope.NONE, facts, status)


def not_found(facts: ErrorFacts, status: int, model: str) -> Fault:
    """404: of the model when the answer speaks of a model; of a route nobody is blamed for otherwise."""
    text = facts.message.lower()
    about_model = not facts.html and ("model" in text or (bool(model) and model.lower() in text))
    scope = FaultScope.MODEL if about_model else FaultScope.NONE
    return build(FaultKind.NOT_FOUND, scope, facts, status, model=model)


def network_fault(exc_text: str) -> Fault:
    """No connection, cut off or timed out, in the words of the exception. No cooldown by itself: the pool's own
    line may be the cause, and one dead line must not look like an exhausted pool."""
    return Fault(FaultKind.NETWORK, FaultScope.NONE, code="network", message=short(exc_text) or "no connection")
