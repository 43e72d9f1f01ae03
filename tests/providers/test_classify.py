"""What error answers mean: real bodies of every vendor, and whatever else may come."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import pytest

from pool_server.core.enums import FaultKind as K
from pool_server.core.enums import Provider
from pool_server.core.models import (
    AccountScope,
    FamilyScope,
    Fault,
    ModelScope,
    ProviderScope,
    RequestScope,
)
from pool_server.providers import provider_module
from tests.providers.make import NOW, for_every_provider

CODEX, CLAUDE, GEMINI, QWEN, OPENAI = (Provider(name) for name in ("codex", "claude", "gemini", "qwen", "openai"))
MODEL = "model-x"


class S(Enum):
    """What a fault speaks of."""

    NONE = RequestScope
    MODEL = ModelScope
    FAMILY = FamilyScope
    ACCOUNT = AccountScope
    PROVIDER = ProviderScope


def of(fault: Fault) -> S:
    return S(type(fault.scope))


def family_of(fault: Fault) -> str:
    return fault.scope.family if isinstance(fault.scope, FamilyScope) else ""


CHALLENGE = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>cf_chl_opt</body></html>"


def classify(
    provider: Provider, status: int, body: Any = b"", headers: dict[str, str] | None = None, model: str = MODEL
) -> Fault:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return provider_module(provider).classify(status, headers or {}, raw, now=NOW, model=model)


def err(message: str = "m", **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


THIRD_PARTY = (
    "Third-party apps now draw from your extra usage, not your plan limits. Ask your workspace admin to add more and "
    "keep going."
)


def claude(kind: str, message: str = "m") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


@pytest.mark.parametrize(
    ("status", "kind", "scope"),
    [
        (400, K.REQUEST, S.NONE),
        (401, K.AUTH, S.ACCOUNT),
        (402, K.PAYMENT, S.ACCOUNT),
        (403, K.PERMISSION, S.ACCOUNT),
        (404, K.NOT_FOUND, S.NONE),
        (405, K.REQUEST, S.NONE),
        (408, K.TRANSIENT, S.MODEL),
        (409, K.REQUEST, S.NONE),
        (413, K.REQUEST, S.NONE),
        (422, K.REQUEST, S.NONE),
        (500, K.TRANSIENT, S.MODEL),
        (502, K.TRANSIENT, S.MODEL),
        (503, K.TRANSIENT, S.MODEL),
        (504, K.TRANSIENT, S.MODEL),
        (529, K.OVERLOAD, S.NONE),
    ],
)
@pytest.mark.parametrize("body", [b"", b"not json", b'{"error":{"message":"m"}}', b"[]"])
@for_every_provider
def test_bare_statuses(provider: Provider, status: int, kind: K, scope: S, body: bytes) -> None:
    fault = classify(provider, status, body)
    assert (fault.kind, of(fault), fault.status) == (kind, scope, status)
    if isinstance(fault.scope, ModelScope):
        assert fault.scope.model == MODEL
    assert fault.message


@for_every_provider
def test_a_plain_429_is_a_short_limit_whatever_its_body_says(provider: Provider) -> None:
    for body in (b"", err("slow", type="invalid_request_error"), b"<html><body>1015</body></html>"):
        assert classify(provider, 429, body).kind is K.RATE
    assert classify(provider, 429, err(), {"retry-after": "20"}).retry_at == NOW + 20
    assert classify(provider, 429, err(), {"retry-after-ms": "1500"}).retry_at is not None


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (403, {"cf-mitigated": "challenge"}, b""),
        (403, {"content-type": "text/html; charset=UTF-8"}, b"\n <p>no</p>"),
        (403, {}, CHALLENGE),
        (503, {"content-type": "text/html"}, CHALLENGE),
        (429, {"cf-mitigated": "challenge"}, CHALLENGE),
    ],
)
@for_every_provider
def test_a_cloudflare_page_blames_no_sign_in(
    provider: Provider, status: int, headers: dict[str, str], body: bytes
) -> None:
    fault = classify(provider, status, body, headers)
    assert (fault.kind, of(fault), fault.retry_at) == (K.CHALLENGE, S.ACCOUNT, None)
    if body is CHALLENGE:
        assert fault.message == "Just a moment..."


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize(
    "message",
    [
        "This organization has been disabled.",
        "Your account has been suspended.",
        "The account associated with this key was permanently deactivated, see the terms.",
        "Your organization has been temporarily disabled",
    ],
)
@for_every_provider
def test_a_stopped_account(provider: Provider, status: int, message: str) -> None:
    assert (fault := classify(provider, status, err(message))).kind is K.SUSPENDED, fault
    assert of(fault) is S.ACCOUNT


def test_a_request_cannot_stop_an_account_by_being_quoted() -> None:
    quoted = "Invalid value: 'This organization has been disabled.'"
    assert classify(OPENAI, 400, err(quoted, type="invalid_request_error")).kind is K.REQUEST


@pytest.mark.parametrize(
    ("provider", "status", "body", "kind", "scope"),
    [
        (CODEX, 403, err(type="usage_not_included"), K.MODEL_UNSUPPORTED, S.ACCOUNT),
        (CODEX, 429, err(type="usage_not_included"), K.MODEL_UNSUPPORTED, S.ACCOUNT),
        (CODEX, 429, err("You exceeded your current quota", code="insufficient_quota"), K.PAYMENT, S.ACCOUNT),
        (CODEX, 429, err(code="billing_hard_limit_reached"), K.PAYMENT, S.ACCOUNT),
        (CODEX, 429, err(type="workspace_member_credits_depleted"), K.PAYMENT, S.ACCOUNT),
        (CODEX, 402, {"detail": {"code": "deactivated_workspace"}}, K.NEEDS_USER, S.ACCOUNT),
        (CODEX, 401, err(code="token_invalidated", type="invalid_request_error"), K.AUTH, S.ACCOUNT),
        (CODEX, 401, err(code="account_deactivated"), K.SUSPENDED, S.ACCOUNT),
        (CODEX, 400, err(code="context_length_exceeded"), K.REQUEST, S.NONE),
        (CODEX, 400, err(code="cyber_policy"), K.REQUEST, S.NONE),
        (CODEX, 404, err(code="previous_response_not_found"), K.CONTINUATION, S.NONE),
        (CODEX, 400, err(code="previous_response_not_found"), K.CONTINUATION, S.NONE),
        (CODEX, 400, err(code="invalid_encrypted_content"), K.ENCRYPTED_CONTENT, S.NONE),
        (
            CODEX,
            400,
            err("The encrypted content gAAAA… could not be verified.", type="invalid_request_error", code=None),
            K.ENCRYPTED_CONTENT,
            S.NONE,
        ),
        (
            CODEX,
            404,
            b"Item with id rs_1 not found. Items are not persisted when `store` is set to false.",
            K.REQUEST,
            S.NONE,
        ),
        (CODEX, 503, err(code="server_is_overloaded"), K.OVERLOAD, S.NONE),
        (CODEX, 503, err(code="slow_down"), K.OVERLOAD, S.NONE),
        (CODEX, 429, err("Selected model is at capacity. Please try a different model."), K.CAPACITY, S.MODEL),
        (
            CODEX,
            400,
            {"detail": "The 'model-x' model is not supported when using Codex with a ChatGPT account."},
            K.MODEL_UNSUPPORTED,
            S.MODEL,
        ),
        (CODEX, 404, err("The model `x` does not exist", code="model_not_found"), K.NOT_FOUND, S.MODEL),
        (CODEX, 403, err(code="unsupported_country_region_territory"), K.PERMISSION, S.ACCOUNT),
        (CODEX, 400, err(code="websocket_connection_limit_reached"), K.TRANSIENT, S.NONE),
        (CODEX, 200, {"error": {"code": "server_is_overloaded", "message": "m"}}, K.OVERLOAD, S.NONE),
        (CODEX, 200, {"response": {"error": {"code": "rate_limit_exceeded", "message": "m"}}}, K.RATE, S.ACCOUNT),
        (CODEX, 200, {"type": "error", "code": "server_error", "message": "m"}, K.TRANSIENT, S.MODEL),
        (CODEX, 200, err(code="context_length_exceeded"), K.REQUEST, S.NONE),
        (OPENAI, 401, err(code="invalid_api_key"), K.AUTH, S.ACCOUNT),
        (OPENAI, 402, err("Insufficient Balance"), K.PAYMENT, S.ACCOUNT),
        (OPENAI, 429, err(code="rate_limit_exceeded"), K.RATE, S.MODEL),
        (OPENAI, 404, err("Your org does not have access to model x"), K.MODEL_UNSUPPORTED, S.MODEL),
        (CLAUDE, 400, claude("invalid_request_error", "max_tokens: Field required"), K.REQUEST, S.NONE),
        (CLAUDE, 400, claude("invalid_request_error", "Your credit balance is too low"), K.PAYMENT, S.ACCOUNT),
        (CLAUDE, 401, claude("authentication_error", "OAuth access token has been revoked"), K.AUTH, S.ACCOUNT),
        (CLAUDE, 403, claude("permission_error", "OAuth token has been revoked."), K.AUTH, S.ACCOUNT),
        (CLAUDE, 403, claude("permission_error", "no permission"), K.PERMISSION, S.ACCOUNT),
        (
            CLAUDE,
            403,
            claude("permission_error", "OAuth authentication is currently not allowed for this organization."),
            K.NEEDS_USER,
            S.ACCOUNT,
        ),
        (CLAUDE, 404, claude("not_found_error", "model: claude-nope-1"), K.NOT_FOUND, S.MODEL),
        (CLAUDE, 404, claude("not_found_error", "Not found"), K.NOT_FOUND, S.NONE),
        (CLAUDE, 413, claude("request_too_large"), K.REQUEST, S.NONE),
        (CLAUDE, 500, claude("api_error"), K.TRANSIENT, S.MODEL),
        (CLAUDE, 529, claude("overloaded_error", "Overloaded"), K.OVERLOAD, S.NONE),
        (CLAUDE, 200, claude("overloaded_error", "Overloaded"), K.OVERLOAD, S.NONE),
        (CLAUDE, 200, claude("rate_limit_error"), K.RATE, S.MODEL),
        (CLAUDE, 429, claude("rate_limit_error", "Usage credits are required for fast mode"), K.REQUEST, S.NONE),
        (
            CLAUDE,
            429,
            claude("rate_limit_error", "Extra usage is required for long context requests."),
            K.PLAN,
            S.NONE,
        ),
        (CLAUDE, 400, claude("invalid_request_error", THIRD_PARTY), K.PLAN, S.NONE),
        (
            CLAUDE,
            400,
            claude("invalid_request_error", "The long context beta is not yet available for this subscription."),
            K.PLAN,
            S.NONE,
        ),
        (QWEN, 401, err("invalid access token or token expired"), K.AUTH, S.ACCOUNT),
        (QWEN, 403, err("Token expired"), K.AUTH, S.ACCOUNT),
        (QWEN, 429, err(code="limit_burst_rate"), K.RATE, S.MODEL),
        (QWEN, 429, {"code": "Throttling.RateQuota", "message": "m"}, K.RATE, S.MODEL),
        (QWEN, 400, err("Access denied, account in arrears", code="Arrearage"), K.PAYMENT, S.ACCOUNT),
        (QWEN, 403, {"code": "AllocationQuota.FreeTierOnly", "message": "m"}, K.QUOTA, S.MODEL),
        (QWEN, 403, err(code="Model.AccessDenied"), K.MODEL_UNSUPPORTED, S.MODEL),
        (QWEN, 404, err("m", code="model_not_found"), K.NOT_FOUND, S.MODEL),
        (QWEN, 400, err(code="data_inspection_failed"), K.REQUEST, S.NONE),
    ],
)
def test_real_answers(provider: Provider, status: int, body: Any, kind: K, scope: S) -> None:
    fault = classify(provider, status, body)
    assert (fault.kind, of(fault)) == (kind, scope)


@pytest.mark.parametrize(
    ("fields", "headers", "seconds"),
    [
        ({"resets_at": NOW + 9876, "resets_in_seconds": 5}, {"retry-after": "7"}, 9876),
        ({"resets_in_seconds": 9876}, {"retry-after": "7"}, 9876),
        ({}, {"retry-after": "7"}, 7),
        ({"resets_at": NOW - 5, "resets_in_seconds": 60}, {}, 60),
        ({"resets_in_seconds": 18 * 86400}, {}, 7 * 86400),
        ({"resets_in_seconds": 18 * 86400, "plan_type": "free"}, {}, 18 * 86400),
        ({"resets_in_seconds": 90 * 86400, "plan_type": "free"}, {}, 30 * 86400),
        ({"resets_in_seconds": "x", "resets_at": {}}, {}, None),
    ],
)
def test_codex_usage_limit_ends_when_told(
    fields: dict[str, Any], headers: dict[str, str], seconds: float | None
) -> None:
    fault = classify(CODEX, 429, err(type="usage_limit_reached", **fields), headers)
    assert (fault.kind, of(fault), fault.code) == (K.QUOTA, S.ACCOUNT, "usage_limit_reached")
    assert fault.retry_at == (None if seconds is None else NOW + seconds)


WINDOW = {
    "x-codex-primary-used-percent": "100",
    "x-codex-primary-window-minutes": "300",
    "x-codex-primary-reset-at": str(int(NOW + 3000)),
}


@pytest.mark.parametrize("body", [err(type="usage_limit_reached"), b"slow down", err()])
def test_codex_usage_limit_by_an_exhausted_window(body: Any) -> None:
    fault = classify(CODEX, 429, body, WINDOW)
    assert (fault.kind, of(fault), fault.retry_at) == (K.QUOTA, S.ACCOUNT, NOW + 3000)
    assert [(w.window, w.used_percent) for w in fault.windows] == [("5h", 100.0)]


def test_codex_a_separate_limit_binds_its_models_only() -> None:
    family = {name.replace("codex-", "codex-bengalfox-"): value for name, value in WINDOW.items()}
    headers = {
        **family,
        "x-codex-bengalfox-limit-name": "GPT-5.3-Codex-Spark",
        "x-codex-active-limit": "codex_bengalfox",
    }
    fault = classify(CODEX, 429, err(type="usage_limit_reached"), headers, model="gpt-5.3-codex-spark")
    assert (fault.kind, of(fault), family_of(fault), fault.retry_at) == (K.QUOTA, S.FAMILY, "spark", NOW + 3000)
    assert family_of(fault) == provider_module(CODEX).model_family("gpt-5.3-codex-spark")


def test_codex_waits_by_its_words() -> None:
    limited = err("Rate limit reached. Please try again in 1.2s.", code="rate_limit_exceeded")
    assert classify(CODEX, 200, limited).retry_at == NOW + 1.2
    assert classify(CODEX, 429, err("Please try again in 300ms", code="rate_limit_exceeded")).retry_at == NOW + 0.3
    long = err("Please try again in 3 days", code="rate_limit_exceeded")
    assert classify(CODEX, 429, long).retry_at == NOW + 3600
    assert classify(CODEX, 503, err(), {"retry-after": str(18 * 86400)}).retry_at == NOW + 3600


@pytest.mark.parametrize(
    ("code", "kind", "scope"),
    [
        ("invalid_encrypted_content", K.ENCRYPTED_CONTENT, S.NONE),
        ("previous_response_not_found", K.CONTINUATION, S.NONE),
        ("server_is_overloaded", K.OVERLOAD, S.NONE),
        ("slow_down", K.OVERLOAD, S.NONE),
        ("overloaded_error", K.OVERLOAD, S.NONE),
        ("token_invalidated", K.AUTH, S.ACCOUNT),
        ("token_revoked", K.AUTH, S.ACCOUNT),
        ("token_expired", K.AUTH, S.ACCOUNT),
        ("invalid_token", K.AUTH, S.ACCOUNT),
        ("invalid_api_key", K.AUTH, S.ACCOUNT),
        ("account_suspended", K.SUSPENDED, S.ACCOUNT),
        ("access_terminated", K.SUSPENDED, S.ACCOUNT),
        ("billing_not_active", K.PAYMENT, S.ACCOUNT),
        ("model_not_found", K.NOT_FOUND, S.MODEL),
        ("message_too_big", K.REQUEST, S.NONE),
        ("string_above_max_length", K.REQUEST, S.NONE),
        ("invalid_prompt", K.REQUEST, S.NONE),
        ("invalid_value", K.REQUEST, S.NONE),
        ("unsupported_value", K.REQUEST, S.NONE),
    ],
)
@pytest.mark.parametrize("field", ["code", "type"])
@for_every_provider
def test_codes_every_vendor_shares(provider: Provider, code: str, kind: K, scope: S, field: str) -> None:
    fault = classify(provider, 400, err(**{field: code}))
    assert (fault.kind, of(fault), fault.code) == (kind, scope, code)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"code": "cyber_policy"}, 400),
        ({"type": "invalid_request_error"}, 400),
        ({"type": "authentication_error"}, 401),
        ({"type": "permission_error"}, 403),
        ({"code": 404}, 404),
        ({"status": 413}, 413),
        ({"status_code": "429"}, 429),
        ({"code": "rate_limit_exceeded"}, 429),
        ({"type": "overloaded_error"}, 529),
        ({"code": "server_error"}, 500),
        ({"code": "unheard_of"}, 400),
        ({"code": 77}, 400),
    ],
)
@for_every_provider
def test_an_error_within_an_answer_stands_for_a_status(provider: Provider, fields: dict[str, Any], status: int) -> None:
    assert classify(provider, 200, err(**fields)).status == status


@pytest.mark.parametrize("word", ["permission_error", "permission_denied", "model_not_found", "not_found_error"])
@pytest.mark.parametrize("field", ["code", "type"])
@for_every_provider
def test_what_speaks_of_the_account_as_a_status_does_not_within_an_answer(
    provider: Provider, field: str, word: str
) -> None:
    fault = classify(provider, 200, err(**{field: word}))
    assert (fault.kind, of(fault)) == (K.REQUEST, S.NONE)


def test_codex_error_in_a_header() -> None:
    value = base64.b64encode(json.dumps(err(code="token_invalidated")).encode()).decode()
    assert classify(CODEX, 403, b"", {"x-error-json": value}).kind is K.AUTH
    assert classify(CODEX, 403, b"", {"x-error-json": "!!"}).kind is K.PERMISSION


def unified(*rejected: str, reset: float = NOW + 3600, **more: str) -> dict[str, str]:
    prefix = "anthropic-ratelimit-unified"
    headers = {f"{prefix}-{w}-status": "allowed" for w in ("5h", "7d")}
    for window in rejected:
        headers |= {f"{prefix}-{window}-status": "rejected", f"{prefix}-{window}-reset": str(reset)}
    return headers | {name.replace("_", "-"): value for name, value in more.items()}


@pytest.mark.parametrize(
    ("headers", "kind", "scope", "family", "seconds"),
    [
        (unified("5h"), K.QUOTA, S.ACCOUNT, "", 3600),
        (unified("7d", reset=NOW + 5 * 86400), K.QUOTA, S.ACCOUNT, "", 5 * 86400),
        (unified("5h", reset=NOW + 18 * 86400), K.QUOTA, S.ACCOUNT, "", 5 * 3600),
        (unified("5h", retry_after="7200"), K.QUOTA, S.ACCOUNT, "", 7200),
        (unified("5h", retry_after=str(18 * 86400)), K.QUOTA, S.ACCOUNT, "", 5 * 3600),
        (unified("5h", "7d_opus"), K.QUOTA, S.ACCOUNT, "", 3600),
        (unified("7d_opus"), K.QUOTA, S.FAMILY, "opus", 3600),
        (unified("7d-sonnet"), K.QUOTA, S.FAMILY, "sonnet", 3600),
        (unified("7d_oi"), K.QUOTA, S.FAMILY, "oi", 3600),
        (unified("7d_oi", reset=NOW + 18 * 86400), K.QUOTA, S.FAMILY, "oi", 7 * 86400),
        (unified(), K.RATE, S.MODEL, "", None),
        (unified(retry_after="30"), K.RATE, S.MODEL, "", 30),
        (unified(retry_after=str(18 * 86400)), K.RATE, S.MODEL, "", 5 * 3600),
        ({}, K.RATE, S.MODEL, "", None),
        (
            {
                "anthropic-ratelimit-unified-status": "rejected",
                "anthropic-ratelimit-unified-representative-claim": "seven_day_opus",
                "anthropic-ratelimit-unified-reset": str(NOW + 60),
            },
            K.QUOTA,
            S.FAMILY,
            "opus",
            60,
        ),
        (
            {
                "anthropic-ratelimit-unified-status": "rejected",
                "anthropic-ratelimit-unified-representative-claim": "five_hour",
            },
            K.QUOTA,
            S.ACCOUNT,
            "",
            None,
        ),
        ({"anthropic-ratelimit-unified-status": "rejected"}, K.RATE, S.MODEL, "", None),
    ],
)
def test_claude_limits(headers: dict[str, str], kind: K, scope: S, family: str, seconds: float | None) -> None:
    body = claude("rate_limit_error", "This request would exceed your account's rate limit.")
    fault = classify(CLAUDE, 429, body, headers)
    assert (fault.kind, of(fault), family_of(fault)) == (kind, scope, family)
    assert fault.retry_at == (None if seconds is None else NOW + seconds)
    if kind is K.QUOTA:
        assert any(w.used_percent >= 100 and w.scope == family for w in fault.windows)


def test_claude_s_spend_limit_ends_when_told() -> None:
    now, then = (datetime(2026, month, day, tzinfo=UTC).timestamp() for month, day in ((11, 28), (12, 1)))
    said = "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
    body = json.dumps(claude("invalid_request_error", said)).encode()
    fault = provider_module(CLAUDE).classify(400, {}, body, now=now, model="claude-x")
    assert (fault.kind, of(fault), fault.retry_at) == (K.QUOTA, S.ACCOUNT, then)
