"""Errors of OpenAI-compatible vendors in their own words: what each is evidence of, whoever's host the key is for."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import FaultKind as K
from pool_server.core.enums import Provider
from pool_server.core.models import OF_ACCOUNT, OF_REQUEST, Fault, ModelScope
from pool_server.providers import provider_module
from pool_server.providers.evidence.rules import fits
from pool_server.providers.evidence.vendors import VENDORS

NOW = datetime.datetime(2026, 11, 28, 12, 0, tzinfo=datetime.UTC).timestamp()
MODEL = "model-m"
RATE = "rate_limit_exceeded"
ACCOUNT, REQUEST, OF_MODEL = OF_ACCOUNT, OF_REQUEST, ModelScope(MODEL)


def classify(status: int, body: Any, headers: dict[str, str] | None = None, model: str = MODEL) -> Fault:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return provider_module(Provider.OPENAI).classify(status, headers or {}, raw, now=NOW, model=model)


def err(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("status", "body", "kind", "scope"),
    [
        # Z.ai: codes are strings; 429 for all of them.
        (429, err("Insufficient balance or no resource package. Please recharge.", code="1113"), K.PAYMENT, ACCOUNT),
        (429, err("Your GLM Coding Plan package has expired", code="1309"), K.PAYMENT, ACCOUNT),
        (429, err("High concurrency usage of this API", code="1302"), K.RATE, OF_MODEL),
        (429, err("The plan does not yet include access to glm-5.3", code="1311"), K.MODEL_UNSUPPORTED, OF_MODEL),
        (429, err("The model is busy", code="1312"), K.CAPACITY, OF_MODEL),
        (429, err("Your usage pattern does not comply with the Fair Usage Policy", code="1313"), K.NEEDS_USER, ACCOUNT),
        (400, err("Model does not exist, please check the model code", code="1211"), K.REQUEST, REQUEST),
        (400, err("System detected potentially unsafe or sensitive content", code="1301"), K.REQUEST, REQUEST),
        # Kimi Code: one 403 type for three things.
        (
            403,
            err("You've reached your weekly (7-day) usage limit. It will reset.", type="access_terminated_error"),
            K.QUOTA,
            ACCOUNT,
        ),
        (
            403,
            err("You've reached kimi's usage limit for this billing cycle.", type="access_terminated_error"),
            K.QUOTA,
            ACCOUNT,
        ),
        (
            403,
            err("Kimi For Coding is currently only available for Coding Agents.", type="access_terminated_error"),
            K.CLIENT,
            REQUEST,
        ),
        (403, err("Access terminated. Review our Guidelines.", type="access_terminated_error"), K.SUSPENDED, ACCOUNT),
        (402, err("We're unable to verify your membership benefits at this time."), K.PAYMENT, ACCOUNT),
        (429, err("The engine is currently overloaded", type="engine_overloaded_error"), K.CAPACITY, OF_MODEL),
        # Moonshot.
        (
            429,
            err(
                "Your account org-x <y> is suspended due to insufficient balance",
                type="exceeded_current_quota_error",
            ),
            K.PAYMENT,
            ACCOUNT,
        ),
        (403, err("Your account is not active", type="exceeded_current_quota_error"), K.PAYMENT, ACCOUNT),
        (
            429,
            err("Your account org-x request reached organization TPD rate limit", type="rate_limit_reached_error"),
            K.QUOTA,
            OF_MODEL,
        ),
        # MiniMax: errors in a 200; a model outside the plan reads as a used-up window of nothing.
        (
            429,
            err("usage limit exceeded, 5-hour usage limit reached for Token Plan Starter (0/0 used), resets (2056)"),
            K.MODEL_UNSUPPORTED,
            OF_MODEL,
        ),
        (200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, K.PAYMENT, ACCOUNT),
        (200, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, K.RATE, OF_MODEL),
        (200, {"base_resp": {"status_code": 1026, "status_msg": "input sensitive"}}, K.REQUEST, REQUEST),
        (200, {"base_resp": {"status_code": 2013, "status_msg": "invalid params"}}, K.REQUEST, REQUEST),
        (402, err("Insufficient Balance", type="unknown_error", code="invalid_request_error"), K.PAYMENT, ACCOUNT),
        # OpenRouter: a moderated prompt is the request's, an upstream's limit the model's.
        (402, err("This request requires more credits, or fewer max_tokens.", code=402), K.PLAN, REQUEST),
        (402, err("Insufficient credits. Add more using …", code=402), K.PAYMENT, ACCOUNT),
        (
            403,
            err("用户额度不足, 剩余额度: ¥0.0", type="new_api_error", code="insufficient_user_quota"),
            K.PAYMENT,
            ACCOUNT,
        ),
        (403, err("token quota is not enough", code="pre_consume_token_quota_failed"), K.PAYMENT, ACCOUNT),
        (400, err("The model `model-m` is decommissioned", code="model_decommissioned"), K.NOT_FOUND, OF_MODEL),
        (500, err("image input is not supported - hint: …", type="server_error", code=500), K.REQUEST, REQUEST),
        # One request alone is more than a minute's tokens: no wait helps it, a smaller one is served.
        (413, err("Request too large for model `x` on TPM: Limit 6", type="tokens", code=RATE), K.PLAN, REQUEST),
        (429, err("Request too large for gpt-4o in organization o on TPM", type="tokens", code=RATE), K.PLAN, REQUEST),
        (429, err("Rate limit reached for gpt-4o on TPM: Limit 6", type="tokens", code=RATE), K.RATE, OF_MODEL),
        (403, err("input flagged", code=403, metadata={"reasons": ["x"], "provider_name": "z"}), K.REQUEST, REQUEST),
        (402, err("in flight", code="in_flight_budget_exhausted"), K.RATE, OF_MODEL),
        (498, err("flex capacity", type="invalid_request_error", code="capacity_exceeded"), K.CAPACITY, OF_MODEL),
        (401, {"object": "error", "message": "Unauthorized", "type": "authentication_error"}, K.AUTH, ACCOUNT),
        # xAI: money as 403 and 429, a wrong key as 400.
        *(
            (
                status,
                {"code": code, "error": "Your team 0000 has either used all available credits or reached its limit."},
                K.PAYMENT,
                ACCOUNT,
            )
            for status, code in ((403, "permission-denied"), (429, "resource-exhausted"))
        ),
        (403, {"code": "x", "error": "Your newly created team doesn't have any credits"}, K.PAYMENT, ACCOUNT),
        (400, {"code": "invalid", "error": "Incorrect API key provided: sk***gA. Get one."}, K.AUTH, ACCOUNT),
        # The same in others' words, as 400 and 403.
        *(
            (status, err(message, type="invalid_request_error"), K.AUTH, ACCOUNT)
            for status in (400, 403)
            for message in (
                "API key not valid. Please pass a valid API key.",
                "Incorrect API key provided.",
                "Invalid API key",
                "invalid access token or token expired",
                "Your API key is invalid, expired or revoked.",
                "The API key you provided has been revoked.",
                "Authentication failed: API key expired. Please renew the API key.",
                "Invalid API-key provided.",
            )
        ),
        (400, err("Invalid 'api_key' in tools[0].headers"), K.REQUEST, REQUEST),
        (400, err("The parameter api_key is not supported here"), K.REQUEST, REQUEST),
        (400, err("Tool 'Your API key is invalid' has no parameters"), K.REQUEST, REQUEST),
        # Alibaba, Ark, SiliconFlow, Hugging Face, Together, Azure, Bedrock, local servers.
        (429, err("hour allocated quota exceeded.", code="insufficient_quota"), K.QUOTA, ACCOUNT),
        (400, err("Access denied, please make sure your account is well", code="Arrearage"), K.PAYMENT, ACCOUNT),
        (403, err("overdue", code="AccountOverdueError"), K.PAYMENT, ACCOUNT),
        (404, err("m", code="ModelNotOpen"), K.NOT_FOUND, OF_MODEL),
        (
            403,
            {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None},
            K.PAYMENT,
            ACCOUNT,
        ),
        (400, {"code": 20012, "message": "Model does not exist. Please check it.", "data": None}, K.REQUEST, REQUEST),
        (402, {"error": "You have exceeded your monthly included credits"}, K.PAYMENT, ACCOUNT),
        (403, err("Input token count + max_tokens parameter must be less than the context length"), K.REQUEST, REQUEST),
        (404, err("The API deployment does not exist.", code="DeploymentNotFound"), K.NOT_FOUND, OF_MODEL),
        (400, err("The response was filtered", code="content_filter"), K.REQUEST, REQUEST),
        (412, err("Account joe is suspended"), K.SUSPENDED, ACCOUNT),
        (429, {"message": "Too many tokens per day, please wait before trying again."}, K.QUOTA, OF_MODEL),
        (503, err("Loading model", code=503, type="unavailable_error"), K.CAPACITY, OF_MODEL),
        (404, err(f"model '{MODEL}' not found", type="not_found_error"), K.NOT_FOUND, OF_MODEL),
        # A relay nobody has heard of.
        (403, {"code": "INSUFFICIENT_BALANCE", "message": "Insufficient account balance"}, K.PAYMENT, ACCOUNT),
        (429, err("Your credit balance is too low to continue"), K.PAYMENT, ACCOUNT),
        (403, err("余额不足，请充值"), K.PAYMENT, ACCOUNT),
        (429, err("You have reached your 5-hour usage limit."), K.QUOTA, ACCOUNT),
        (429, err("Weekly limit reached, upgrade your plan."), K.QUOTA, ACCOUNT),
    ],
)
def test_the_vendors_words(status: int, body: Any, kind: K, scope: Any) -> None:
    fault = classify(status, body)
    assert (fault.kind, fault.scope) == (kind, scope), fault


@pytest.mark.parametrize(
    ("status", "body", "end"),
    [
        (
            429,
            err("Usage limit reached for 5 hour. Your limit will reset at 2026-11-28 23:01:25", code="1308"),
            "2026-11-28T15:01:25Z",
        ),
        (
            429,
            err("您已达到每周/每月使用上限,您的限额将在 2026-12-01 07:41:44 重置。", code="1310"),
            "2026-11-30T23:41:44Z",
        ),
        (
            429,
            err("You have exceeded the monthly usage quota. It will reset at 2026-12-23 23:59:59 +0800 CST.",
                code="AccountQuotaExceeded"),
            "2026-12-23T15:59:59Z",
        ),
        (
            429,
            err("usage limit exceeded, 5-hour usage limit reached for Token Plan Plus (9/9 used), "
                "resets at 2026-11-28T15:00:00Z (2056)"),
            "2026-11-28T15:00:00Z",
        ),
        (
            429,
            err("Rate limit exceeded: free-models-per-day. Add 10 credits to unlock more", code=429,
                metadata={"headers": {"X-RateLimit-Reset": "1795910400000"}}),
            "2026-11-29T00:00:00Z",
        ),
        (429, err("Usage limit reached for 5 hour. Resets 2027-11-28 23:01:25", code="1308"), "2026-11-28T17:00:00Z"),
        (429, err("Weekly usage limit reached. It resets at 2028-01-01 00:00:00 UTC"), "2026-12-05T12:00:00Z"),
        (429, err("Usage limit reached. It reset at 2026-11-28 10:00:00", code="1308"), None),
        (429, err("Usage limit reached. It resets at 2026-99-99 99:99:99", code="1308"), None),
    ],
)  # fmt: skip
def test_a_dated_reset_is_read_in_the_vendors_zone_and_capped(status: int, body: Any, end: str | None) -> None:
    fault = classify(status, body)
    assert fault.kind is K.QUOTA
    assert fault.retry_at == (None if end is None else at(end))


def test_waits_in_headers_and_bodies() -> None:
    groq = err("Rate limit reached for model x on TPM. Please try again in 5.289s.", code="rate_limit_exceeded")
    assert classify(429, groq, {"retry-after": "6"}).retry_at == NOW + 6
    assert classify(429, groq).retry_at == NOW + 5.289
    day = "Rate limit reached for model x on requests per day (RPD): Limit 50. Please try again in "
    for text, seconds in (("23m.", 1380), ("7m12.5s", 432.5), ("1h2m3s", 3600), ("28h48m0s", 3600)):
        assert classify(429, err(day + text, code="rate_limit_exceeded")).retry_at == NOW + seconds
    assert classify(429, err("Usage limit reached. Try again in 2h.")).retry_at == NOW + 7200
    assert classify(503, err("Please try again in 23m.")).retry_at == NOW + 60
    assert classify(429, err("Limited: 'try again in 23m'", code="rate_limit_exceeded")).retry_at is None
    upstream = err("Provider returned error", code=429, metadata={"provider_name": "V", "retry_after_seconds": 17})
    fault = classify(429, upstream)
    assert (fault.kind, fault.scope, fault.retry_at) == (K.CAPACITY, OF_MODEL, NOW + 17)


QUOTED = [
    "Invalid value: 'Your account has been suspended'",
    'messages[0]: "insufficient balance" is not allowed',
    "Could not parse `usage limit reached`",
    "Unknown field: You've reached your weekly usage limit",
    "The prompt says: insufficient balance, please recharge",
]


@pytest.mark.parametrize("text", QUOTED)
@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_an_error_that_quotes_a_request_is_the_requests(text: str, status: int) -> None:
    assert classify(status, err(text)).scope == OF_REQUEST


@given(st.text(max_size=60), st.sampled_from(["'", '"', "`"]), st.sampled_from([400, 403, 404, 422]))
def test_whatever_stands_in_quotes_stops_no_account(said: str, mark: str, status: int) -> None:
    text = said.replace(mark, "").replace("\n", " ")
    fault = classify(status, err(f"Bad field {mark}{text}{mark}."))
    assert fault.kind in (K.REQUEST, K.PERMISSION, K.NOT_FOUND)


@pytest.mark.parametrize(
    ("vendor", "kind"),
    [(Provider.XAI, K.PAYMENT), (Provider.ZAI, K.RATE), (Provider.ZHIPU, K.RATE), (Provider.OPENAI, K.RATE)],
)
def test_a_vendor_s_own_rules_come_before_those_of_others(vendor: Provider, kind: K) -> None:
    said = "Your team 1b2c has used all available credits or reached its monthly spending limit."
    body = json.dumps(err(said, code="1302")).encode()
    assert provider_module(vendor).classify(429, {}, body, now=NOW, model=MODEL).kind is kind


def test_every_rule_has_a_vendor_and_can_be_reached() -> None:
    seen = []
    for rules in dict.fromkeys(VENDORS.values()):
        for rule in rules:
            assert any((rule.status, rule.name, rule.code, rule.type, rule.says, rule.has, rule.header)), rule
            assert rule not in seen
            seen.append(rule)
    assert fits(VENDORS["zai"][0], 429, {}, provider_facts("1308"), "")


def provider_facts(code: str) -> Any:
    from pool_server.providers.evidence.reading import read_error

    return read_error({}, json.dumps(err("m", code=code)).encode())
