"""Quota windows from headers, stream events and usage endpoints."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import FaultKind, Provider, Source
from pool_server.core.models import HttpAnswer, WindowObservation
from pool_server.providers import Credits, UsageAnswer, provider_module
from pool_server.providers.windows import snap, window_name
from tests.providers.make import ACCESS, KEY, NOW, OWN, SETTINGS, answered, claude_file, cred, google_file

CODEX, CLAUDE, GEMINI, QWEN, OPENAI = (Provider(name) for name in ("codex", "claude", "gemini", "qwen", "openai"))
DAY = 86400


def headers(provider: Provider, values: dict[str, Any], model: str = "") -> list[WindowObservation]:
    texts = {name: str(value) for name, value in values.items()}
    return provider_module(provider).quota_headers(texts, now=NOW, model=model)


def slot(name: str, percent: object, minutes: object, reset: object = None, limit: str = "codex") -> dict[str, Any]:
    found = {f"x-{limit}-{name}-used-percent": percent, f"x-{limit}-{name}-window-minutes": minutes}
    return found if reset is None else {**found, f"x-{limit}-{name}-reset-at": reset}


def brief(windows: Any) -> list[tuple[str, str, float, float | None]]:
    """(window, scope, percent, seconds until the reset)"""
    return [(w.window, w.scope, w.used_percent, w.resets_at and w.resets_at - NOW) for w in windows]


@pytest.mark.parametrize(
    ("seconds", "name"),
    [
        (18000, "5h"),
        (299 * 60, "5h"),
        (604800, "7d"),
        (10079 * 60, "7d"),
        (86400, "1d"),
        (31 * DAY, "30d"),
        (28 * DAY, "30d"),
        (60, "1m"),
        (3 * 3600, "3h"),
        (2700, "45m"),
        (61 * DAY, "61d"),
        (37, "37s"),
    ],
)
def test_windows_are_named_by_duration(seconds: float, name: str) -> None:
    assert window_name(snap(seconds)) == name


def test_codex_headers() -> None:
    found = headers(CODEX, slot("primary", 25, 300, NOW + 900) | slot("secondary", "40.5", 10080, NOW + DAY))
    assert brief(found) == [("5h", "", 25.0, 900), ("7d", "", 40.5, DAY)]
    assert {w.source for w in found} == {Source.HEADERS}
    assert {(w.seconds, w.observed_at) for w in found} == {(18000, NOW), (604800, NOW)}


def test_codex_weekly_window_in_the_primary_slot_is_the_week() -> None:
    assert brief(headers(CODEX, slot("primary", 60, 10080))) == [("7d", "", 60.0, None)]
    assert brief(headers(CODEX, slot("primary", 60, 43200) | slot("secondary", 0, 0))) == [("30d", "", 60.0, None)]


def test_codex_window_without_a_length_is_not_guessed() -> None:
    assert headers(CODEX, {"x-codex-primary-used-percent": "25"}) == []
    assert headers(CODEX, slot("primary", "", 300)) == []
    assert headers(CODEX, slot("primary", "nan", 300)) == []


def test_codex_reset_forms_and_lies() -> None:
    after = slot("primary", 1, 300) | {"x-codex-primary-reset-after-seconds": "60"}
    assert brief(headers(CODEX, after)) == [("5h", "", 1.0, 60)]
    assert brief(headers(CODEX, slot("primary", 1, 300, NOW + 18 * DAY))) == [("5h", "", 1.0, 18000)]
    assert brief(headers(CODEX, slot("primary", -3, 300, "x"))) == [("5h", "", 0.0, None)]


def test_codex_further_limits_bind_their_models() -> None:
    spark = slot("primary", 100, 300, NOW + 60, "codex-bengalfox")
    named = spark | {"x-codex-bengalfox-limit-name": "GPT-5.3-Codex-Spark"}
    assert brief(headers(CODEX, named)) == [("5h", "spark", 100.0, 60)]
    assert brief(headers(CODEX, spark)) == [("5h", "codex-bengalfox", 100.0, 60)]
    assert provider_module(CODEX).model_family("gpt-5.3-codex-spark") == "spark"
    assert provider_module(CODEX).model_family("GPT-6") == "gpt-6"


def test_codex_credits_bind_no_model() -> None:
    found = headers(CODEX, {"x-codex-credits-has-credits": "False", "x-codex-credits-balance": "0"})
    assert brief(found) == [("credits", "credits", 100.0, None)]
    unlimited = {"x-codex-credits-has-credits": "false", "x-codex-credits-unlimited": "true"}
    assert brief(headers(CODEX, unlimited)) == [("credits", "credits", 0.0, None)]


def event(body: object) -> list[WindowObservation]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return provider_module(CODEX).quota_event(raw, now=NOW, model="m")


def test_codex_events() -> None:
    limits = {
        "primary": {"used_percent": 12, "window_minutes": 300, "reset_at": NOW + 9},
        "secondary": {"used_percent": 3, "window_minutes": 10080, "reset_after_seconds": 99},
    }
    body = {"type": "codex.rate_limits", "plan_type": "plus", "rate_limits": limits, "limit_reached": True}
    assert brief(event(body)) == [("5h", "", 12.0, 9), ("7d", "", 3.0, 99)]
    assert {w.source for w in event(body)} == {Source.STREAM}
    extra = {**body, "metered_limit_name": "codex_bengalfox", "limit_name": "GPT-5.3-Codex-Spark"}
    assert {w.scope for w in event(extra)} == {"spark"}
    assert {w.scope for w in event({**body, "metered_limit_name": "codex", "limit_name": "Codex"})} == {""}
    credits = {"rate_limits": {"primary": None}, "credits": {"has_credits": True, "balance": 5}}
    assert brief(event(credits)) == [("credits", "credits", 0.0, None)]
    headers = {"X-Codex-Primary-Used-Percent": 7, "x-codex-primary-window-minutes": 300}
    meta = {"type": "codex.response.metadata", "headers": headers}
    assert brief(event(meta)) == [("5h", "", 7.0, None)]


@pytest.mark.parametrize("raw", [b"", b"x", b"[]", b"null", b'{"rate_limits":[1]}', b'{"rate_limits":{"primary":7}}'])
def test_codex_broken_events_tell_nothing(raw: bytes) -> None:
    assert event(raw) == []


def unified(window: str, **values: object) -> dict[str, Any]:
    return {f"anthropic-ratelimit-unified-{window}-{name}": value for name, value in values.items()}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (unified("5h", status="allowed", utilization="0.42", reset=NOW + 60), [("5h", "", 42.0, 60)]),
        (unified("5h", utilization="1.02"), [("5h", "", 102.0, None)]),
        (unified("7d", utilization=0.05, reset=f"{NOW + 60.5}"), [("7d", "", 5.0, 60.5)]),
        (unified("7d", utilization=0.05, reset="2026-09-21T14:14:20Z"), [("7d", "", 5.0, 60)]),
        (unified("7d_opus", utilization="0.9"), [("7d", "opus", 90.0, None)]),
        (unified("7d-sonnet", utilization="0.9"), [("7d", "sonnet", 90.0, None)]),
        (unified("7d_oi", utilization="0.9"), [("7d", "oi", 90.0, None)]),
        (unified("30d_new_thing", utilization="0.5"), [("30d", "new_thing", 50.0, None)]),
        (unified("5h", status="rejected"), [("5h", "", 100.0, None)]),
        (unified("5h", status="rejected", utilization="0.99"), [("5h", "", 100.0, None)]),
        (unified("5h", status="allowed", reset=NOW + 60), []),
        (unified("5h", utilization="x"), []),
        (unified("0h", utilization="0.5"), []),
        ({"anthropic-ratelimit-unified-status": "allowed", "anthropic-ratelimit-unified-reset": NOW}, []),
        (unified("overage", utilization="0.25", status="allowed"), [("credits", "credits", 25.0, None)]),
        (unified("fallback", percentage="0.5"), []),
    ],
)
def test_claude_headers(values: dict[str, Any], expected: list[Any]) -> None:
    assert brief(headers(CLAUDE, values)) == expected


def test_claude_families_are_the_scopes_of_windows() -> None:
    family = provider_module(CLAUDE).model_family
    assert [family(m) for m in ("claude-opus-4-5", "claude-sonnet-4-5[1m]", "claude-haiku-4-5", "claude-fable-1")] == [
        "opus",
        "sonnet",
        "haiku",
        "oi",
    ]
    assert family("Claude-New") == "claude-new"


def test_api_key_limits_bind_their_model() -> None:
    anthropic = {
        "anthropic-ratelimit-requests-limit": 50,
        "anthropic-ratelimit-requests-remaining": 10,
        "anthropic-ratelimit-requests-reset": "2026-09-21T14:14:20Z",
        "anthropic-ratelimit-input-tokens-limit": 1000,
        "anthropic-ratelimit-input-tokens-remaining": 250,
    }
    assert brief(headers(CLAUDE, anthropic, "claude-opus-4-5")) == [
        ("requests", "opus", 80.0, 60),
        ("input_tokens", "opus", 75.0, None),
    ]
    openai = {
        "x-ratelimit-limit-requests": 100,
        "x-ratelimit-remaining-requests": 99,
        "x-ratelimit-reset-requests": "6m0s",
        "x-ratelimit-limit-tokens": 1000,
        "x-ratelimit-remaining-tokens": 0,
        "x-ratelimit-reset-tokens": "12ms",
        "x-ratelimit-remaining-other": 5,
    }
    for provider in (OPENAI, CODEX, QWEN):
        found = headers(provider, openai, "GPT-X")
        assert [(w.window, w.scope, round(w.used_percent, 6)) for w in found] == [
            ("requests", "gpt-x", 1.0),
            ("tokens", "gpt-x", 100.0),
        ]
        assert [w.resets_at and round(w.resets_at - NOW, 3) for w in found] == [360, 0.012]
    daily = {"x-ratelimit-limit-requests-day": 10, "x-ratelimit-remaining-requests-day": 5}
    assert [(w.window, w.seconds) for w in headers(OPENAI, daily)] == [("requests_day", DAY)]
    assert headers(OPENAI, {"x-ratelimit-limit-requests": 0, "x-ratelimit-remaining-requests": 0}) == []


def usage(provider: Provider, answer: HttpAnswer) -> UsageAnswer:
    return provider_module(provider).usage_answer(cred(provider), answer, now=NOW)


def test_codex_usage() -> None:
    week = {"used_percent": 40, "limit_window_seconds": 604800, "reset_at": NOW + DAY}
    body = {
        "plan_type": "Pro",
        "rate_limit": {
            "allowed": True,
            "limit_reached": False,
            "primary_window": {"used_percent": 12, "limit_window_seconds": 18000, "reset_after_seconds": 60},
            "secondary_window": week,
        },
        "credits": {"has_credits": False, "unlimited": False, "balance": "0"},
        "additional_rate_limits": [
            {
                "limit_name": "GPT-5.3-Codex-Spark",
                "metered_feature": "codex_bengalfox",
                "rate_limit": {"primary_window": week},
            },
            {"limit_name": "x", "rate_limit": None},
            None,
        ],
        "rate_limit_reset_credits": {"available_count": 2},
        "spend_control": {"reached": False},
    }
    found = usage(CODEX, answered(200, body))
    assert brief(found.windows) == [
        ("5h", "", 12.0, 60),
        ("7d", "", 40.0, DAY),
        ("7d", "spark", 40.0, DAY),
        ("credits", "credits", 100.0, None),
    ]
    assert {w.source for w in found.windows} == {Source.USAGE_ENDPOINT}
    assert (found.plan, found.allowed, found.reset_credits) == ("pro", True, 2)
    assert found.credits == Credits(False, False, "0")
    assert (found.fault, found.retry_at) == (None, None)
    stopped = usage(CODEX, answered(200, {**body, "spend_control": {"reached": True}}))
    assert stopped.allowed is False
    bare = usage(CODEX, answered(200, {"plan_type": None, "rate_limit": None}))
    assert (bare.windows, bare.plan, bare.allowed) == ((), None, None)


def test_claude_usage() -> None:
    body = {
        "five_hour": {"utilization": 12.5, "resets_at": "2026-09-21T14:14:20.5+00:00"},
        "seven_day": {"utilization": 102, "resets_at": None},
        "seven_day_opus": {"utilization": 0, "resets_at": None},
        "seven_day_sonnet": None,
        "seven_day_oauth_apps": {"utilization": None, "resets_at": None},
        "iguana": {"utilization": 5},
        "extra_usage": {"is_enabled": True, "monthly_limit": 100, "used_credits": 25, "utilization": 25.0},
    }
    found = usage(CLAUDE, answered(200, body))
    assert brief(found.windows) == [
        ("5h", "", 12.5, 60.5),
        ("7d", "", 102.0, None),
        ("7d", "opus", 0.0, None),
        ("credits", "credits", 25.0, None),
    ]
    assert found.credits == Credits(has_credits=True)


def test_gemini_usage() -> None:
    bucket = {"remainingFraction": 0.87, "resetTime": "2026-09-22T07:00:00Z", "modelId": "gemini-2.5-pro"}
    body = {"buckets": [{**bucket, "tokenType": "REQUESTS"}, {**bucket, "tokenType": "TOKENS"}, {"modelId": "x"}, 5]}
    found = usage(GEMINI, answered(200, body))
    assert [(w.window, w.scope, round(w.used_percent, 3)) for w in found.windows] == [
        ("1d", "gemini-2.5-pro", 13.0),
        ("1d tokens", "gemini-2.5-pro", 13.0),
    ]
    assert provider_module(GEMINI).model_family("models/Gemini-2.5-Pro") == "gemini-2.5-pro"


@pytest.mark.parametrize(
    ("provider", "answer", "kind", "wait"),
    [
        (CODEX, HttpAnswer(0, {}, b"", "refused"), FaultKind.NETWORK, 300),
        (CODEX, answered(500), FaultKind.TRANSIENT, 300),
        (CODEX, answered(401, {"error": {"code": "token_invalidated"}}), FaultKind.AUTH, 300),
        (CODEX, answered(429, {}, retry_after="7200"), FaultKind.RATE, 7200),
        (CLAUDE, answered(429, {"error": {"type": "rate_limit_error"}}), FaultKind.RATE, 7200),
        (CLAUDE, answered(429, {}, retry_after="0"), FaultKind.RATE, 7200),
        (CLAUDE, answered(429, {}, retry_after="20000"), FaultKind.RATE, 20000),
        (CLAUDE, answered(429, {}, retry_after=str(18 * DAY)), FaultKind.RATE, DAY),
        (CLAUDE, answered(403, {}), FaultKind.PERMISSION, 900),
        (CLAUDE, answered(200, b"not json"), FaultKind.TRANSIENT, 900),
        (GEMINI, answered(503, {}), FaultKind.TRANSIENT, 300),
    ],
)
def test_a_usage_endpoint_that_does_not_answer(
    provider: Provider, answer: HttpAnswer, kind: FaultKind, wait: float
) -> None:
    found = usage(provider, answer)
    assert found.windows == ()
    assert found.fault is not None and found.fault.kind is kind
    assert found.retry_at == NOW + wait


def test_usage_requests() -> None:
    codex = provider_module(CODEX).usage_request(cred(CODEX), SETTINGS)
    assert codex is not None and codex.url == "https://chatgpt.com/backend-api/wham/usage"
    assert dict(codex.headers)["ChatGPT-Account-ID"] == "acc-1"
    claude = provider_module(CLAUDE).usage_request(cred(CLAUDE), SETTINGS)
    assert claude is not None and claude.url == "https://api.anthropic.com/api/oauth/usage"
    assert dict(claude.headers)["anthropic-beta"] == "oauth-2025-04-20"
    gemini = provider_module(GEMINI).usage_request(cred(GEMINI), SETTINGS)
    assert gemini is not None and json.loads(gemini.body) == {"project": "proj-1"}
    assert gemini.url == "https://cloudcode-pa.googleapis.com/v1internal:retrieveUserQuota"
    for provider in OWN:
        assert provider_module(provider).usage_request(cred(provider, key=True), SETTINGS) is None
    silent = [
        (CLAUDE, {"claudeAiOauth": {"accessToken": ACCESS}}),
        (CLAUDE, claude_file(scopes=["user:inference"])),
        (GEMINI, google_file()),
        (QWEN, google_file()),
        (OPENAI, {"api_key": KEY}),
    ]
    for provider, data in silent:
        assert provider_module(provider).usage_request(cred(provider, data), SETTINGS) is None
    assert provider_module(QWEN).usage_answer(cred(QWEN), answered(200, {}), now=NOW) == UsageAnswer()


ANY_VALUE = st.text(max_size=12) | st.floats().map(str) | st.integers().map(str)
ANY_NAME = st.sampled_from(
    [*slot("primary", 1, 1, 1), *slot("secondary", 1, 1, 1, "codex-x"), "x-codex-x-limit-name", "retry-after"]
    + [*unified("5h", status=1, reset=1, utilization=1), *unified("7d_oi", status=1, reset=1, utilization=1)]
    + [f"x-ratelimit-{kind}-tokens" for kind in ("limit", "remaining", "reset")]
    + [f"anthropic-ratelimit-tokens-{kind}" for kind in ("limit", "remaining", "reset")]
    + ["x-codex-credits-has-credits", "anthropic-ratelimit-unified-overage-utilization", "x-codex-active-limit"]
)


@given(st.sampled_from(list(Provider)), st.dictionaries(ANY_NAME, ANY_VALUE, max_size=12))
def test_any_headers_give_plausible_windows(provider: Provider, values: dict[str, str]) -> None:
    for window in provider_module(provider).quota_headers(values, now=NOW, model="m"):
        assert 0 <= window.used_percent <= 1000
        assert window.resets_at is None or window.resets_at <= NOW + 366 * DAY
        assert window.window


WORDS = [
    *("rate_limits", "rate_limit", "primary", "primary_window", "used_percent", "window_minutes", "reset_at"),
    *("limit_window_seconds", "credits", "has_credits", "headers", "five_hour", "utilization", "resets_at"),
    *("buckets", "remainingFraction", "modelId", "extra_usage", "additional_rate_limits", "plan_type"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(WORDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_event_and_any_usage_answer_can_be_read(body: object) -> None:
    raw = json.dumps(body).encode()
    for provider in Provider:
        provider_module(provider).quota_event(raw, now=NOW, model="m")
        usage(provider, HttpAnswer(200, {}, raw))
