"""What error answers of Google and of Qwen mean: real bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pool_server.core.enums import FaultKind as K
from pool_server.providers.times import pacific_midnight, shanghai_midnight
from tests.providers.make import NOW
from tests.providers.test_classify import GEMINI, QWEN, S, classify, err, family_of, of


def google(code: int, *details: dict[str, Any], message: str = "m", state: str = "RESOURCE_EXHAUSTED") -> Any:
    return {"error": {"code": code, "message": message, "status": state, "details": list(details)}}


def info(reason: str, **metadata: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "metadata": metadata}


def retry(delay: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


def violation(quota: str) -> dict[str, Any]:
    entry = {"quotaId": quota, "quotaMetric": "m", "quotaDimensions": {"model": "Gemini-2.5-Pro"}}
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [entry]}


MIDNIGHT = pacific_midnight(NOW) - NOW


@pytest.mark.parametrize(
    ("status", "body", "kind", "scope", "seconds"),
    [
        (429, google(429, info("RATE_LIMIT_EXCEEDED", quotaResetDelay="12.345s")), K.RATE, S.MODEL, 13),
        (429, google(429, info("RATE_LIMIT_EXCEEDED"), retry("34.074824224s")), K.RATE, S.MODEL, 35),
        (429, google(429, info("RATE_LIMIT_EXCEEDED"), retry("7200s")), K.QUOTA, S.MODEL, 7200),
        (429, google(429, info("QUOTA_EXHAUSTED"), retry("7500.1s")), K.QUOTA, S.MODEL, 7501),
        (429, google(429, info("QUOTA_EXHAUSTED")), K.QUOTA, S.MODEL, MIDNIGHT),
        (429, google(429, info("QUOTA_EXHAUSTED"), retry("900000s")), K.QUOTA, S.MODEL, 86400),
        (
            429,
            google(429, violation("GenerateRequestsPerDayPerProjectPerModel-FreeTier")),
            K.QUOTA,
            S.FAMILY,
            MIDNIGHT,
        ),
        (429, google(429, violation("GenerateRequestsPerDay"), retry("34s")), K.QUOTA, S.FAMILY, MIDNIGHT),
        (
            429,
            google(429, violation("GenerateRequestsPerDay"), info("X", quotaResetDelay="1h2m3s")),
            K.QUOTA,
            S.FAMILY,
            3723,
        ),
        (429, google(429, violation("GenerateRequestsPerMinutePerProjectPerModel")), K.RATE, S.FAMILY, 60),
        (429, google(429, violation("GenerateRequestsPerMinute"), retry("20s")), K.RATE, S.FAMILY, 20),
        (429, google(429, message="Quota exceeded. Please retry in 12.3s"), K.RATE, S.MODEL, 13),
        (429, google(429, message="Your quota will reset after 1h2m3s."), K.QUOTA, S.MODEL, 3723),
        (429, google(429), K.RATE, S.MODEL, None),
        (429, google(429, message="Quota exceeded, limit: 0, model: x"), K.MODEL_UNSUPPORTED, S.MODEL, None),
        (429, google(429, message="Quota exceeded, limit: 05"), K.RATE, S.MODEL, None),
        (429, google(429, info("MODEL_CAPACITY_EXHAUSTED")), K.CAPACITY, S.MODEL, None),
        (429, google(429, message="No capacity available for model x"), K.CAPACITY, S.MODEL, None),
        (503, google(503, message="No capacity available"), K.CAPACITY, S.MODEL, None),
        (503, google(503, message="The model is overloaded", state="UNAVAILABLE"), K.TRANSIENT, S.MODEL, None),
        (429, google(429, info("INSUFFICIENT_G1_CREDITS_BALANCE")), K.PAYMENT, S.MODEL, None),
        (403, google(403, info("TOS_VIOLATION", appeal_url="https://x")), K.SUSPENDED, S.ACCOUNT, None),
        (403, google(403, info("VALIDATION_REQUIRED")), K.NEEDS_USER, S.ACCOUNT, None),
        (403, google(403, info("SERVICE_DISABLED")), K.NEEDS_USER, S.ACCOUNT, None),
        (403, google(403, message="Your API key was reported as leaked."), K.NEEDS_USER, S.ACCOUNT, None),
        (403, google(403, message="denied for violation of Terms of Service"), K.SUSPENDED, S.ACCOUNT, None),
        (403, google(403, message="The caller does not have permission"), K.PERMISSION, S.ACCOUNT, None),
        (400, google(400, info("API_KEY_INVALID")), K.AUTH, S.ACCOUNT, None),
        (400, google(400, message="API key not valid. Please pass a valid API key."), K.AUTH, S.ACCOUNT, None),
        (400, google(400, message="User location is not supported"), K.PERMISSION, S.ACCOUNT, None),
        (400, google(400, message="Invalid JSON payload"), K.REQUEST, S.NONE, None),
        (401, google(401, info("ACCESS_TOKEN_EXPIRED")), K.AUTH, S.ACCOUNT, None),
        (404, google(404, message="models/x is not found for API version v1beta"), K.NOT_FOUND, S.MODEL, None),
        (404, google(404, message="Requested entity was not found."), K.NOT_FOUND, S.NONE, None),
        (499, google(499, message="The operation was cancelled."), K.TRANSIENT, S.NONE, None),
        (200, google(429, info("QUOTA_EXHAUSTED"), retry("60s")), K.QUOTA, S.MODEL, 60),
    ],
)
@pytest.mark.parametrize("wrap", ["plain", "list", "message"])
def test_gemini_answers(status: int, body: Any, kind: K, scope: S, seconds: float | None, wrap: str) -> None:
    if wrap == "list":
        body = [body]
    elif wrap == "message":
        body = {"error": {"code": body["error"]["code"], "message": json.dumps(body)}}
    fault = classify(GEMINI, status, body)
    assert (fault.kind, of(fault)) == (kind, scope)
    assert fault.retry_at == (None if seconds is None else pytest.approx(NOW + seconds))


def test_gemini_names_the_model_of_the_quota() -> None:
    assert family_of(classify(GEMINI, 429, google(429, violation("PerDay")))) == "gemini-2.5-pro"
    assert family_of(classify(GEMINI, 429, google(429, info("X", model="models-y")))) == "models-y"
    assert of(classify(GEMINI, 429, google(429), model="")) is S.NONE


@pytest.mark.parametrize(
    ("status", "body", "headers", "end"),
    [
        (403, err("Free allocated quota exceeded.", code="insufficient_quota"), {}, shanghai_midnight(NOW)),
        (403, err("m", code="quota_exceeded"), {}, shanghai_midnight(NOW)),
        (403, err("your quota exceeded today"), {}, shanghai_midnight(NOW)),
        (429, err("Free allocated quota exceeded."), {}, shanghai_midnight(NOW)),
        (403, err("m", code="insufficient_quota"), {"retry-after": "90"}, NOW + 90),
        (429, err("You exceeded your current quota", code="insufficient_quota"), {}, None),
    ],
)
def test_qwen_quota_ends_at_midnight_in_shanghai(
    status: int, body: Any, headers: dict[str, str], end: float | None
) -> None:
    fault = classify(QWEN, status, body, headers)
    assert (fault.kind, of(fault), fault.retry_at) == (K.QUOTA, S.ACCOUNT, end)
