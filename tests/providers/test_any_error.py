"""Whatever an upstream may send as an error: it is classified, quickly, and nothing secret comes out."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import FaultKind, Provider
from pool_server.core.models import OF_PROVIDER, OF_REQUEST, ModelScope
from pool_server.providers import network_fault, provider_module
from tests.providers.make import NOW, SENTINELS, for_every_provider, jwt

WORDS = [
    *("error", "code", "type", "status", "message", "detail", "details", "reason", "metadata", "@type", "body"),
    *("response", "violations", "quotaId", "retryDelay", "resets_at", "resets_in_seconds", "plan_type", "param"),
    *("type.googleapis.com/google.rpc.ErrorInfo", "type.googleapis.com/google.rpc.RetryInfo", "QuotaFailure"),
    *("usage_limit_reached", "rate_limit_exceeded", "insufficient_quota", "12.5s", "try again in 3s", "limit: 0"),
]
LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(WORDS)
    | st.text(max_size=9)
)
BODY = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
        | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3).map(json.dumps)
    ),
    max_leaves=14,
)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["retry-after", "retry-after-ms", "content-type", "cf-mitigated", "x-error-json", "x-codex-active-limit"]
        + ["x-codex-primary-used-percent", "x-codex-primary-window-minutes", "x-codex-primary-reset-at"]
        + [f"anthropic-ratelimit-unified-{w}-{k}" for w in ("5h", "7d_oi") for k in ("status", "reset", "utilization")]
        + ["anthropic-ratelimit-unified-status", "anthropic-ratelimit-unified-representative-claim"]
    ),
    st.sampled_from(["rejected", "allowed", "1.5", "18000", "five_hour", "seven_day_opus", "text/html", "codex_x"])
    | st.text(max_size=12),
    max_size=6,
)
STATUS = st.sampled_from([0, 200, 400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 499, 500, 502, 503, 529, 999])


def check(provider: Provider, status: int, headers: dict[str, str], body: bytes, model: str) -> None:
    fault = provider_module(provider).classify(status, headers, body, now=NOW, model=model)
    assert fault.message and len(fault.message) <= 300
    assert "\n" not in fault.message
    assert fault.retry_at is None or NOW < fault.retry_at <= NOW + 31 * 86400
    if isinstance(fault.scope, ModelScope):
        assert fault.scope.model == model
    if fault.kind is FaultKind.REQUEST:
        assert (fault.scope, fault.retry_at) == (OF_REQUEST, None)


@given(st.sampled_from(list(Provider)), STATUS, HEADERS, BODY, st.sampled_from(["", "claude-opus-4", "gpt-6"]))
def test_any_json(provider: Provider, status: int, headers: dict[str, str], body: object, model: str) -> None:
    check(provider, status, headers, json.dumps(body).encode(), model)


@given(st.sampled_from(list(Provider)), STATUS, HEADERS, st.binary(max_size=200))
def test_any_bytes(provider: Provider, status: int, headers: dict[str, str], body: bytes) -> None:
    check(provider, status, headers, body, "m")


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 403, 429, 503])
@pytest.mark.parametrize(
    "body",
    [
        b"<html>" + b"a" * 10_000_000,
        b"[" * 1_000_000,
        b'{"error":' * 200_000,
        b'{"error":{"message":"' + b"model " * 1_000_000 + b'"}}',
        b'{"error":{"message":"' + b"a@" * 500_000 + b'"}}',
        b'{"error":{"details":' + b"[" + b'{"@type":"x.RetryInfo"},' * 100_000 + b"1]}}",
        b"\xff\xfe" * 1000,
    ],
    ids=["html", "lists", "objects", "text", "mails", "details", "bytes"],
)
@for_every_provider
def test_huge_and_broken_bodies_cost_little(provider: Provider, status: int, body: bytes) -> None:
    begun = time.process_time()
    check(provider, status, {}, body, "m")
    assert time.process_time() - begun < 5  # seconds of this process: what is quadratic takes minutes


@for_every_provider
def test_no_secret_leaves_in_a_message(provider: Provider) -> None:
    texts = [
        f"bad token {jwt({'sub': 'joe'})}",
        *(f"Authorization: Bearer {secret} refused" for secret in SENTINELS),
        *(f"api_key={secret}" for secret in SENTINELS),
        "key sk-ant-api03-abcdefghijk is wrong",
        "joe@example.com is not allowed",
    ]
    for text in texts:
        shapes = (text.encode(), json.dumps({"error": {"message": text, "code": text}}).encode())
        for body in shapes:
            for status in (400, 401, 403, 429, 500):
                fault = provider_module(provider).classify(status, {}, body, now=NOW, model="m")
                shown = repr(fault)
                assert not any(secret in shown for secret in (*SENTINELS, "eyJ", "sk-ant", "joe@")), shown


def test_network_faults_blame_nobody() -> None:
    fault = network_fault("Cannot connect to host api.example:443\nproxy http://joe:pw@10.0.0.1:1")
    assert (fault.kind, fault.scope, fault.retry_at) == (FaultKind.NETWORK, OF_PROVIDER, None)
    assert fault.message == "Cannot connect to host api.example:443 proxy http://[hidden]@10.0.0.1:1"
    assert network_fault("").message == "no connection"
