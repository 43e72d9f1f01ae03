"""Refreshing: what is asked, what is kept, what is written, and which failures are for good."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import CredentialKind, Provider
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import Settings, TokenUrls
from pool_server.providers import SPECS, Refreshed, RefreshRejectedError, provider_module
from tests.providers.make import (
    ACCESS,
    CLIENT_SECRET,
    KEY,
    NOW,
    REFRESH,
    SENTINELS,
    SETTINGS,
    answered,
    claude_file,
    codex_file,
    cred,
    google_file,
    jwt,
)

OAUTH = [Provider.CODEX, Provider.CLAUDE, Provider.GEMINI, Provider.QWEN]
HTML = b"<!DOCTYPE html><html><head><title>Blocked</title></head></html>"


def request(provider: Provider, settings: Settings = SETTINGS) -> HttpRequest:
    found = provider_module(provider).refresh_request(cred(provider), settings, now=NOW)
    assert found is not None
    return found


def refreshed(provider: Provider, body: object, data: object = None) -> Refreshed:
    return provider_module(provider).refresh_answer(cred(provider, data), answered(200, body), now=NOW)


def failed(provider: Provider, answer: HttpAnswer) -> RefreshRejectedError:
    with pytest.raises(RefreshRejectedError) as caught:
        provider_module(provider).refresh_answer(cred(provider), answer, now=NOW)
    assert str(caught.value) == caught.value.reason
    assert "\n" not in caught.value.reason
    assert not any(secret in caught.value.reason for secret in SENTINELS)
    return caught.value


def test_codex_and_claude_ask_in_json() -> None:
    assert json.loads(request(Provider.CODEX).body) == {
        "client_id": "app_EMoamEEZ73f0CkXaXp7hrann",
        "grant_type": "refresh_token",
        "refresh_token": REFRESH,
    }
    assert json.loads(request(Provider.CLAUDE).body) == {
        "client_id": "9d1c250a-e61b-44d9-88ed-5944d1962f5e",
        "grant_type": "refresh_token",
        "refresh_token": REFRESH,
        "scope": "user:inference user:profile",
    }
    for provider in (Provider.CODEX, Provider.CLAUDE):
        assert dict(request(provider).headers)["Content-Type"] == "application/json"


def test_gemini_and_qwen_ask_with_a_form() -> None:
    assert dict(parse_qsl(request(Provider.GEMINI).body.decode())) == {
        "client_id": "client.apps.example",
        "client_secret": CLIENT_SECRET,
        "grant_type": "refresh_token",
        "refresh_token": REFRESH,
    }
    assert dict(parse_qsl(request(Provider.QWEN).body.decode())) == {
        "grant_type": "refresh_token",
        "refresh_token": REFRESH,
        "client_id": "f0304373b74a44d2b584a3fb70ca9e56",
    }
    for provider in (Provider.GEMINI, Provider.QWEN):
        assert dict(request(provider).headers)["Content-Type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize("provider", OAUTH)
def test_the_token_url_is_a_setting_and_the_call_shows_no_secret(provider: Provider) -> None:
    urls = TokenUrls(**{name: f"http://127.0.0.1:9/{name}" for name in TokenUrls.__struct_fields__})
    settings = Settings(token_urls=urls, gemini_client_id="a", gemini_client_secret=CLIENT_SECRET)
    asked = request(provider, settings)
    assert (asked.method, asked.url) == ("POST", f"http://127.0.0.1:9/{provider}")
    assert dict(asked.headers)["User-Agent"].startswith("pool-server/")
    assert not any(secret in repr(asked) for secret in SENTINELS)


def test_what_cannot_be_refreshed() -> None:
    for provider in (one for one in Provider if SPECS[one].keys.fields):
        module = provider_module(provider)
        assert module.refresh_request(cred(provider, key=True), SETTINGS, now=NOW) is None
        assert module.refresh_due_at(cred(provider, key=True), now=NOW) is None
    setup = cred(Provider.CLAUDE, {"claudeAiOauth": {"accessToken": ACCESS}})
    assert provider_module(Provider.CLAUDE).refresh_request(setup, SETTINGS, now=NOW) is None
    assert provider_module(Provider.GEMINI).refresh_request(cred(Provider.GEMINI), Settings(), now=NOW) is None
    with pytest.raises(RefreshRejectedError):
        provider_module(Provider.OPENAI).refresh_answer(cred(Provider.OPENAI), answered(200, {}), now=NOW)


def test_codex_writes_what_came_and_keeps_the_rest() -> None:
    auth = {"https://api.openai.com/auth": {"chatgpt_plan_type": "pro"}}
    access = jwt({"exp": NOW + 864000, "iat": NOW, **auth})
    done = refreshed(Provider.CODEX, {"access_token": access, "refresh_token": "r2", "expires_in": 60})
    assert done.updates == {
        "tokens": {"access_token": access, "refresh_token": "r2"},
        "last_refresh": "2026-09-21T14:13:20Z",
    }
    new = done.credential
    assert (new.access_token, new.refresh_token, new.account_id) == (access, "r2", "acc-1")
    assert (new.expires_at, new.issued_at, new.last_refresh, new.plan) == (NOW + 864000, NOW, NOW, "pro")


def test_codex_answers_may_leave_tokens_out() -> None:
    opaque = refreshed(Provider.CODEX, {"access_token": "opaque", "refresh_token": None, "expires_in": "600"})
    assert opaque.updates["tokens"] == {"access_token": "opaque"}
    assert (opaque.credential.refresh_token, opaque.credential.expires_at) == (REFRESH, NOW + 600)
    identity = refreshed(Provider.CODEX, {"id_token": jwt({"sub": "x"})})
    assert (identity.credential.access_token, identity.credential.expires_at) == (ACCESS, None)
    assert failed(Provider.CODEX, answered(200, {"refresh_token": "r2"})).permanent is False


def test_claude_writes_milliseconds_within_its_object() -> None:
    done = refreshed(Provider.CLAUDE, {"access_token": "a2", "refresh_token": "r2", "expires_in": 28800})
    assert done.updates == {
        "claudeAiOauth": {"accessToken": "a2", "refreshToken": "r2", "expiresAt": int((NOW + 28800) * 1000)}
    }
    kept = refreshed(Provider.CLAUDE, {"access_token": "a2", "refresh_token": "", "scope": "user:inference"})
    assert kept.updates == {
        "claudeAiOauth": {
            "accessToken": "a2",
            "expiresAt": int((NOW + 3600) * 1000),
            "scopes": ["user:inference"],
        }
    }
    assert kept.credential.refresh_token == REFRESH
    assert kept.credential.scopes == ("user:inference",)


def test_gemini_and_qwen_write_flat_fields() -> None:
    gemini = refreshed(Provider.GEMINI, {"access_token": "a2", "expires_in": 3599, "id_token": "i"})
    assert gemini.updates == {"access_token": "a2", "id_token": "i", "expiry_date": int((NOW + 3599) * 1000)}
    assert (gemini.credential.refresh_token, gemini.credential.project) == (REFRESH, "proj-1")
    body = {"access_token": "a2", "refresh_token": "r2", "expires_in": 21600, "resource_url": "new.qwen.ai"}
    qwen = refreshed(Provider.QWEN, body)
    assert qwen.updates == {
        "access_token": "a2",
        "refresh_token": "r2",
        "expiry_date": int((NOW + 21600) * 1000),
        "resource_url": "new.qwen.ai",
    }
    assert qwen.credential.resource_url == "https://new.qwen.ai"
    odd = refreshed(Provider.QWEN, {"access_token": "a2", "resource_url": "file:///etc"})
    assert "resource_url" not in odd.updates
    assert odd.credential.resource_url == "https://portal.qwen.ai"


@pytest.mark.parametrize("provider", OAUTH)
def test_what_was_written_reads_as_the_new_credential(provider: Provider) -> None:
    files: dict[Provider, dict[str, Any]] = {
        Provider.CODEX: codex_file(other=1),
        Provider.CLAUDE: {**claude_file(), "other": 1},
        Provider.GEMINI: google_file(project_id="proj-1"),
        Provider.QWEN: google_file(resource_url="portal.qwen.ai"),
    }
    token = jwt({"exp": NOW + 7200})
    body = {"access_token": token, "refresh_token": "r2", "expires_in": 7200}
    done = refreshed(provider, body, files[provider])
    file = {**files[provider]}
    for name, value in done.updates.items():
        file[name] = {**file[name], **value} if isinstance(value, dict) else value
    again = cred(provider, file)
    assert (again.access_token, again.refresh_token) == (token, "r2")
    assert again.expires_at == done.credential.expires_at == NOW + 7200
    assert (again.plan, again.account_id, again.scopes) == (
        done.credential.plan,
        done.credential.account_id,
        done.credential.scopes,
    )
    assert not any(secret in repr(done) for secret in ("r2", token))


@pytest.mark.parametrize(
    ("provider", "status", "body"),
    [
        (Provider.CODEX, 400, {"error": {"code": "refresh_token_reused", "message": "used already"}}),
        (Provider.CODEX, 400, {"error": "refresh_token_expired"}),
        (Provider.CODEX, 400, {"code": "refresh_token_invalidated"}),
        (Provider.CODEX, 401, {"error": {"message": "whatever"}}),
        (Provider.CODEX, 401, b""),
        (Provider.CLAUDE, 400, {"error": "invalid_grant", "error_description": "Refresh token not found"}),
        (Provider.CLAUDE, 401, {"error": {"type": "authentication_error", "message": "no"}}),
        (Provider.GEMINI, 400, {"error": "invalid_grant", "error_description": "Token has been revoked."}),
        (Provider.QWEN, 400, {"error": "anything"}),
        (Provider.QWEN, 401, {}),
    ],
)
def test_a_dead_refresh_token_is_for_good(provider: Provider, status: int, body: object) -> None:
    fault = failed(provider, answered(status, body))
    assert (fault.permanent, fault.suspended, fault.retry_at) == (True, False, None)


@pytest.mark.parametrize("provider", OAUTH)
@pytest.mark.parametrize(
    ("answer", "wait"),
    [
        (HttpAnswer(0, {}, b"", "Cannot connect to host x:443"), None),
        (answered(500, {"error": "server_error"}), None),
        (answered(408, {}), None),
        (answered(404, {}), 300.0),
        (answered(503, HTML), 300.0),
        (answered(403, HTML), 300.0),
        (answered(400, HTML), 300.0),
        (answered(401, b"x", cf_mitigated="challenge", content_type="text/html"), 300.0),
        (answered(200, b"not json"), None),
        (answered(200, [1]), None),
        (answered(200, {"access_token": 5}), None),
        (answered(200, {}), None),
        (answered(429, {}, retry_after="120"), 120.0),
        (answered(429, {}), 60.0),
        (answered(429, {}, retry_after="1"), 5.0),
        (answered(429, {}, retry_after_ms="20000"), 20.0),
        (answered(400, {"error": "invalid_client"}), 3600.0),
    ],
)
def test_what_passes_is_not_for_good(provider: Provider, answer: HttpAnswer, wait: float | None) -> None:
    fault = failed(provider, answer)
    assert fault.permanent is False
    assert fault.retry_at == (None if wait is None else NOW + wait)


def test_rate_limits_of_token_endpoints_are_capped() -> None:
    long = answered(429, {"error": {"type": "rate_limit_error", "message": "slow"}}, retry_after="99999")
    assert failed(Provider.CLAUDE, long).retry_at == NOW + 300
    assert failed(Provider.CODEX, long).retry_at == NOW + 3600


def test_a_refused_country_names_the_cure() -> None:
    fault = failed(Provider.CODEX, answered(403, {"error": {"code": "unsupported_country_region_territory"}}))
    assert (fault.permanent, fault.retry_at) == (False, NOW + 3600)
    assert "proxy_url" in fault.reason


def test_a_stopped_account_is_said_so() -> None:
    fault = failed(Provider.CLAUDE, answered(400, {"error": {"message": "This organization has been disabled."}}))
    assert (fault.permanent, fault.suspended) == (True, True)
    fault = failed(Provider.CODEX, answered(401, {"error": {"code": "account_deactivated", "message": "m"}}))
    assert (fault.permanent, fault.suspended) == (True, True)


def test_a_reason_says_what_the_provider_said() -> None:
    body = {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
    reason = failed(Provider.GEMINI, answered(400, body)).reason
    assert reason == "the refresh token is refused (invalid_grant): Token has been expired or revoked."
    assert "Cannot connect" in failed(Provider.QWEN, HttpAnswer(0, {}, b"", "Cannot connect")).reason


def test_a_reason_never_carries_a_token() -> None:
    for text in (f"token {jwt({})} unknown", f"refresh_token={REFRESH}", f"Bearer {KEY}"):
        failed(Provider.CODEX, answered(400, {"error": {"message": text}}))
        failed(Provider.CODEX, HttpAnswer(0, {}, b"", text))


@pytest.mark.parametrize(
    ("provider", "data", "ahead"),
    [
        (Provider.CODEX, {"exp": NOW + 10 * 86400, "iat": NOW}, 9 * 86400),  # a day before
        (Provider.CODEX, {"exp": NOW + 3600, "iat": NOW}, 1800),  # half its life
        (Provider.CLAUDE, claude_file(), 1800),  # 30 minutes before: the time of issue is not known
        (Provider.GEMINI, google_file(), 3300),
        (Provider.QWEN, google_file(), 2400),
        (Provider.CLAUDE, claude_file(expiresAt=None), None),
    ],
)
def test_when_a_refresh_is_due(provider: Provider, data: dict[str, Any], ahead: float | None) -> None:
    if "exp" in data:
        data = {"tokens": {"access_token": jwt(data), "refresh_token": REFRESH}}
    due = provider_module(provider).refresh_due_at(cred(provider, data), now=NOW)
    assert due == (None if ahead is None else NOW + ahead)


def test_codex_without_an_expiry_goes_by_its_last_refresh() -> None:
    module = provider_module(Provider.CODEX)
    assert module.refresh_due_at(cred(Provider.CODEX), now=NOW) == 1789862400 + 8 * 86400
    unknown = cred(Provider.CODEX, codex_file(last_refresh=None))
    assert module.refresh_due_at(unknown, now=NOW) is None


@pytest.mark.parametrize("provider", OAUTH)
@pytest.mark.parametrize("life", [60, 600, 3600, 28800, 864000])
def test_a_fresh_token_is_never_due_at_once(provider: Provider, life: int) -> None:
    body = {"access_token": jwt({"exp": NOW + life}), "refresh_token": "r2", "expires_in": life}
    new = refreshed(provider, body).credential
    due = provider_module(provider).refresh_due_at(new, now=NOW)
    assert due is not None
    assert NOW + life / 2 <= due < NOW + life
    assert new.kind is CredentialKind.OAUTH


@given(
    st.sampled_from(OAUTH),
    st.sampled_from([0, 200, 400, 401, 403, 418, 429, 500]),
    st.binary(max_size=80)
    | st.dictionaries(
        st.sampled_from(["access_token", "refresh_token", "expires_in", "scope", "error", "resource_url", "id_token"]),
        st.none() | st.text(max_size=9) | st.integers() | st.lists(st.integers(), max_size=1),
        max_size=5,
    ).map(lambda body: json.dumps(body).encode()),
)
def test_any_answer_is_a_new_token_or_a_refresh_fault(provider: Provider, status: int, body: bytes) -> None:
    try:
        done = provider_module(provider).refresh_answer(cred(provider), HttpAnswer(status, {}, body), now=NOW)
    except RefreshRejectedError as fault:
        assert fault.reason
    else:
        assert done.credential.access_token
        assert done.credential.refresh_token


@pytest.mark.parametrize(
    ("before", "told", "taken"),
    [
        ("portal.qwen.ai", "new.qwen.ai", True),
        ("portal.qwen.ai", "https://portal.qwen.ai/v2", True),
        ("portal.qwen.ai", "https://dashscope-intl.aliyuncs.com/compatible-mode", True),
        ("https://api.relay.example/v1", "https://eu.relay.example/v1", True),
        (None, "portal.qwen.ai", True),
        ("portal.qwen.ai", "http://portal.qwen.ai", False),
        ("portal.qwen.ai", "https://portal.qwen.ai.evil.example", False),
        ("portal.qwen.ai", "https://evilqwen.ai", False),
        ("portal.qwen.ai", "https://qwen.ai@evil.example", False),
        ("portal.qwen.ai", "https://evil.oss-cn-hangzhou.aliyuncs.com", False),
        ("https://dashscope.aliyuncs.com", "https://dashscope.evil.aliyuncs.com", False),
        ("portal.qwen.ai", "https://127.0.0.1", False),
        ("portal.qwen.ai", "https://portal.qwen.ai:99999", False),
        ("https://api.relay.example/v1", "https://other.example", False),
        ("https://me.github.io", "https://you.github.io", False),
        (None, "https://evil.example", False),
    ],
)
def test_an_address_from_the_wire_is_the_vendors_or_not_taken(before: str | None, told: str, taken: bool) -> None:
    old = cred(Provider.QWEN, google_file(resource_url=before))
    answer = answered(200, {"access_token": "a2", "refresh_token": "r2", "resource_url": told})
    found = provider_module(Provider.QWEN).refresh_answer(old, answer, now=NOW)
    assert found.credential.access_token == "a2"  # the token is good whatever the address
    assert ("resource_url" in found.updates, bool(found.warning)) == (taken, not taken)
    kept = found.credential.resource_url if taken else old.resource_url
    assert found.credential.resource_url == kept and "evil" not in found.warning + found.credential.resource_url


def test_the_end_of_a_claude_sign_in_is_kept_and_put_off_by_no_refresh() -> None:
    body = {"access_token": "a2", "refresh_token": "r2", "expires_in": 28800, "refresh_token_expires_in": 864000}
    first = refreshed(Provider.CLAUDE, body)
    assert first.updates["claudeAiOauth"]["refreshTokenExpiresAt"] == int((NOW + 864000) * 1000)
    assert first.credential.sign_in_ends == NOW + 864000
    known = {"claudeAiOauth": {"accessToken": "a", "refreshToken": "r", "refreshTokenExpiresAt": (NOW + 100) * 1000}}
    again = refreshed(Provider.CLAUDE, body, known)
    assert "refreshTokenExpiresAt" not in again.updates["claudeAiOauth"]
    assert again.credential.sign_in_ends == NOW + 100


def test_a_setup_token_ends_with_itself_and_a_refreshed_sign_in_with_nothing_that_is_known() -> None:
    setup = cred(Provider.CLAUDE, {"claudeAiOauth": {"accessToken": "a", "expiresAt": (NOW + 50) * 1000}})
    assert setup.sign_in_ends == NOW + 50
    assert cred(Provider.CODEX).sign_in_ends is None
