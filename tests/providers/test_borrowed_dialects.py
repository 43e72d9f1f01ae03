"""Refusals at addresses that speak a dialect of somebody else's: GLM, Kimi, MiniMax and others behind Anthropic's; and
what stands beside a refusal's words: headers that say when, pages of proxies."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from pool_server.core.enums import Dialect, FaultKind, Operation, Provider, Signal
from pool_server.core.models import AccountScope, Fault, ModelScope, RequestScope
from pool_server.dialects import meter
from pool_server.providers import provider_module

NOW = 1_796_000_000.0
K = FaultKind
ALL = [Provider.CLAUDE, Provider.OPENAI, Provider.GEMINI]


def said(provider: Provider, status: int, body: Any, headers: dict[str, str] | None = None) -> Fault:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return provider_module(provider).classify(status, headers or {}, raw, now=NOW, model="m")


def error(kind: str, message: str, **more: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message, **more}}


RESET = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(NOW + 3600 + 8 * 3600))  # Beijing's clock
REFUSALS: list[tuple[int, dict[str, Any], FaultKind, type]] = [
    (
        429,
        error("x", f"Usage limit reached for 5 hour. Your limit will reset at {RESET}", code="1308"),
        K.QUOTA,
        AccountScope,
    ),
    (429, {"error": {"code": "1113", "message": "Insufficient balance."}}, K.PAYMENT, AccountScope),
    (429, error("x", "High concurrency usage of this API", code="1302"), K.RATE, ModelScope),
    (429, error("x", "usage limit exceeded, 5-hour usage limit reached (9/9 used) (2056)"), K.QUOTA, AccountScope),
    (403, error("access_terminated_error", "You've reached your weekly usage limit"), K.QUOTA, AccountScope),
    (403, error("access_terminated_error", "Kimi For Coding is currently only available for"), K.CLIENT, RequestScope),
    (429, error("exceeded_current_quota_error", "Your account is suspended"), K.PAYMENT, AccountScope),
    (400, {"error": {"type": "Arrearage", "message": "Access denied."}}, K.PAYMENT, AccountScope),
    (429, {"error": {"code": "AccountQuotaExceeded", "message": "monthly usage quota."}}, K.QUOTA, AccountScope),
    (200, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, K.RATE, ModelScope),
    (200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, K.PAYMENT, AccountScope),
]


@pytest.mark.parametrize(("status", "body", "kind", "scope"), REFUSALS)
def test_a_vendor_s_own_codes_count_in_anthropic_s_dialect(
    status: int, body: dict[str, Any], kind: FaultKind, scope: type
) -> None:
    fault = said(Provider.CLAUDE, status, body)
    assert (fault.kind, type(fault.scope)) == (kind, scope)
    if "reset at" in str(body):
        assert fault.retry_at == pytest.approx(NOW + 3600, abs=1)


@pytest.mark.parametrize(
    "body",
    [
        {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}},
        {"code": 500, "msg": "404 NOT_FOUND", "success": False},
        {"code": "1305", "message": "busy", "content": None},
    ],
)
def test_an_error_in_the_place_of_a_message_is_one(body: dict[str, Any]) -> None:
    reading = meter(Dialect.MESSAGES, Operation.MESSAGES, stream=False)
    reading.feed(json.dumps(body).encode())
    assert reading.finish() & Signal.FAULT and reading.fault is not None and not reading.complete


def test_a_message_with_a_code_of_success_is_none() -> None:
    message = {"id": "m", "type": "message", "content": [{"type": "text", "text": "Hi."}], "code": 200}
    for more in ({"base_resp": {"status_code": 0}}, {}):
        reading = meter(Dialect.MESSAGES, Operation.MESSAGES, stream=False)
        reading.feed(json.dumps({**message, **more}).encode())
        assert not reading.finish() & Signal.FAULT and reading.complete


@pytest.mark.parametrize(
    "message",
    [
        "Your prepayment credits are depleted. Please go to AI Studio to manage your project and billing.",
        "Your prepaid credits have been exhausted.",
        "Your project has exceeded its monthly spending cap. Please go to AI Studio.",
        "Your project has exceeded its spend cap.",
    ],
)
def test_google_s_words_of_money_are_no_rate(message: str) -> None:
    body = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": message}}
    fault = said(Provider.GEMINI, 429, body)
    assert (fault.kind, type(fault.scope)) == (K.PAYMENT, AccountScope)


PAGE = b"<html><head><title>413 Request Entity Too Large</title></head></html>"


@pytest.mark.parametrize("provider", ALL)
def test_a_proxy_s_page_says_nothing_of_other_endpoints(provider: Provider) -> None:
    assert said(provider, 413, PAGE, {"content-type": "text/html; charset=utf-8"}).kind is K.PLAN
    body = error("request_too_large", "Request exceeds the maximum size")
    assert said(provider, 413, body, {"content-type": "application/json"}).kind is K.REQUEST


def moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW + seconds))


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"x-ratelimit-reset": "30"}, 30),
        ({"x-ratelimit-reset": f"{NOW + 40:.0f}"}, 40),
        ({"x-ratelimit-reset": f"{(NOW + 40) * 1000:.0f}"}, 40),
        ({"ratelimit-reset": "25"}, 25),
        ({"x-ratelimit-reset-requests": "1m30.5s", "x-ratelimit-remaining-requests": "0"}, 90.5),
        ({"x-ratelimit-reset-requests": moment(50)}, 50),
        ({"anthropic-ratelimit-input-tokens-reset": moment(20)}, 20),
        (
            {
                "x-ratelimit-reset-tokens": "20ms",
                "x-ratelimit-remaining-tokens": "50",
                "x-ratelimit-reset-requests": "50s",
                "x-ratelimit-remaining-requests": "0",
            },
            50,
        ),
        ({"x-ratelimit-reset-tokens": "7s", "x-ratelimit-reset-requests": "1h"}, 7),
        ({"x-ratelimit-reset": "30", "retry-after": "3"}, 3),
        ({"x-ratelimit-reset-tokens": "7s", "x-ratelimit-remaining-tokens": "50"}, None),
        ({"x-ratelimit-reset": "soon"}, None),
        ({"x-ratelimit-reset": "-1"}, None),
    ],
)
def test_a_limit_s_own_headers_say_when_it_begins_anew(
    provider: Provider, headers: dict[str, str], wait: float | None
) -> None:
    fault = said(provider, 429, error("rate_limit_error", "Slow down."), headers)
    assert fault.kind is K.RATE
    assert (None if fault.retry_at is None else fault.retry_at - NOW) == (
        None if wait is None else pytest.approx(wait, abs=1)
    )
