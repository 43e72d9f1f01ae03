"""Credential files: every shape that is taken, and one clear line for every one that is not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import CredentialKind, Provider
from pool_server.providers import CredentialRejectedError, provider_module
from tests.providers.make import (
    ACCESS,
    FILES,
    KEY,
    KEY_FILES,
    NOW,
    OWN,
    REFRESH,
    SENTINELS,
    claude_file,
    codex_file,
    cred,
    google_file,
    jwt,
)

AUTH = "https://api.openai.com/auth"


@pytest.mark.parametrize("provider", OWN)
def test_every_provider_takes_its_file_and_a_key(provider: Provider) -> None:
    login = cred(provider)
    assert login.provider is provider
    assert login.account == f"{provider}:joe"
    assert login.secret == (KEY if provider is Provider.OPENAI else ACCESS)
    assert login.can_refresh is (provider is not Provider.OPENAI)
    key = cred(provider, key=True)
    assert (key.kind, key.secret, key.can_refresh, key.plan) == (CredentialKind.API_KEY, KEY, False, "api")


def test_codex_takes_identity_from_the_id_token() -> None:
    claims = {
        "email": "joe@example.com",
        AUTH: {
            "chatgpt_account_id": "acc-1",
            "chatgpt_plan_type": "Pro",
            "chatgpt_user_id": "user-1",
            "chatgpt_account_is_fedramp": True,
        },
    }
    access = jwt({"exp": NOW + 864000, "iat": NOW - 10})
    tokens = {"id_token": jwt(claims), "access_token": access, "refresh_token": REFRESH}
    found = cred(Provider.CODEX, {"tokens": tokens, "last_refresh": "2026-09-20T00:00:00.123456789Z"})
    assert (found.plan, found.account_id, found.user_id) == ("pro", "acc-1", "user-1")
    assert (found.email, found.fedramp) == ("joe@example.com", True)
    assert (found.expires_at, found.issued_at) == (NOW + 864000, NOW - 10)
    assert found.last_refresh is not None and int(found.last_refresh) == 1789862400


def test_codex_takes_what_the_vendors_cli_writes() -> None:
    claims = {AUTH: {"chatgpt_account_id": "acc-2"}, "https://api.openai.com/profile": {"email": "p@example.com"}}
    file = {
        "auth_mode": "chatgpt",
        "OPENAI_API_KEY": None,
        "tokens": {"id_token": "", "access_token": jwt(claims), "refresh_token": REFRESH, "account_id": None},
        "last_refresh": None,
    }
    found = cred(Provider.CODEX, file)
    assert (found.account_id, found.email, found.kind) == ("acc-2", "p@example.com", CredentialKind.OAUTH)
    explicit = copy.deepcopy(file)
    explicit["tokens"]["account_id"] = "acc-9"  # type: ignore[index]
    assert cred(Provider.CODEX, explicit).account_id == "acc-9"


def test_codex_file_with_both_is_what_auth_mode_says() -> None:
    both = codex_file(OPENAI_API_KEY=KEY)
    assert cred(Provider.CODEX, both).kind is CredentialKind.OAUTH
    assert cred(Provider.CODEX, {**both, "auth_mode": "apikey"}).kind is CredentialKind.API_KEY
    empty = {"OPENAI_API_KEY": KEY, "tokens": {"access_token": "", "refresh_token": ""}}
    assert cred(Provider.CODEX, empty).kind is CredentialKind.API_KEY


def test_claude_file() -> None:
    found = cred(Provider.CLAUDE)
    assert (found.plan, found.tier, found.scopes) == (
        "max",
        "default_claude_max_20x",
        ("user:inference", "user:profile"),
    )
    assert found.expires_at == NOW + 3600
    setup = cred(Provider.CLAUDE, {"claudeAiOauth": {"accessToken": ACCESS}})
    assert (setup.kind, setup.can_refresh, setup.expires_at) == (CredentialKind.SETUP_TOKEN, False, None)
    blank = claude_file(refreshToken=None, expiresAt=None, scopes=None, subscriptionType=None)
    assert cred(Provider.CLAUDE, blank).kind is CredentialKind.SETUP_TOKEN
    spoken = claude_file(expiresAt="2026-09-21T15:13:20Z", scopes="user:inference user:profile")
    assert cred(Provider.CLAUDE, spoken).expires_at == NOW + 3600
    assert cred(Provider.CLAUDE, spoken).scopes == ("user:inference", "user:profile")


def test_a_login_without_access_token_is_due_at_once() -> None:
    found = cred(Provider.GEMINI, {"refresh_token": REFRESH, "expiry_date": int((NOW + 3600) * 1000)})
    assert (found.expires_at, found.can_refresh, found.secret) == (0.0, True, "")


def test_plan_type_of_the_file_wins() -> None:
    assert cred(Provider.CODEX, codex_file(plan_type="Team")).plan == "team"
    assert cred(Provider.CLAUDE, {**claude_file(), "plan_type": "Pro"}).plan == "pro"
    assert cred(Provider.GEMINI, google_file(plan_type="ultra")).plan == "ultra"
    assert cred(Provider.OPENAI, {"api_key": KEY, "plan_type": "tier-3"}).plan == "tier-3"


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        ("portal.qwen.ai", "https://portal.qwen.ai"),
        ("http://127.0.0.1:4100/v1/", "http://127.0.0.1:4100/v1"),
        ("https://portal.qwen.ai", "https://portal.qwen.ai"),
        ("", ""),
        (None, ""),
    ],
)
def test_qwen_resource_url(resource: str | None, expected: str) -> None:
    assert cred(Provider.QWEN, google_file(resource_url=resource)).resource_url == expected


def test_openai_base_and_models() -> None:
    found = cred(Provider.OPENAI, {"api_key": KEY, "base_url": "https://ai.example.com/v1/", "models": ["a", "b-*"]})
    assert (found.base_url, found.models) == ("https://ai.example.com/v1", ("a", "b-*"))


@pytest.mark.parametrize(
    ("provider", "data", "words"),
    [
        (Provider.CODEX, [], "the file is not a JSON object"),
        (Provider.CODEX, None, "the file is not a JSON object"),
        (Provider.CODEX, {}, "OPENAI_API_KEY is missing"),
        (Provider.CODEX, {"tokens": []}, "tokens is not a JSON object"),
        (Provider.CODEX, {"tokens": {"access_token": 5}}, "tokens.access_token must be a text"),
        (Provider.CODEX, {"tokens": {"access_token": "a b"}}, "tokens.access_token is not a usable token"),
        (Provider.CODEX, {"tokens": {"access_token": "a\nb"}}, "tokens.access_token is not a usable value"),
        (Provider.CODEX, {"tokens": {"access_token": "ä"}}, "tokens.access_token is not a usable token"),
        (Provider.CODEX, {"OPENAI_API_KEY": 7}, "OPENAI_API_KEY must be a text"),
        (Provider.CODEX, codex_file(last_refresh="never"), "last_refresh is not a moment in time"),
        (Provider.CODEX, claude_file(), "name the file claude_"),
        (Provider.CODEX, google_file(), "name the file gemini_"),
        (Provider.CODEX, {"access_token": ACCESS, "expiry_date": 1}, "name the file gemini_"),
        (Provider.CODEX, {"access_token": ACCESS, "refresh_token": REFRESH}, "name the file gemini_"),
        (Provider.CODEX, {"access_token": ACCESS}, "OPENAI_API_KEY is missing"),
        (Provider.CODEX, codex_file(plan_type=5), "plan_type must be a text"),
        (
            Provider.CODEX,
            {"tokens": {"access_token": "a", "account_id": ["x"]}},
            "tokens.account_id must be a text",
        ),
        (Provider.CODEX, {"tokens": {"access_token": "x" * 70_000}}, "tokens.access_token is not a usable value"),
        (Provider.CLAUDE, {}, "claudeAiOauth.accessToken or api_key is missing"),
        (Provider.CLAUDE, {"claudeAiOauth": "x"}, "claudeAiOauth is not a JSON object"),
        (Provider.CLAUDE, claude_file(expiresAt="soon"), "claudeAiOauth.expiresAt is not a moment in time"),
        (Provider.CLAUDE, claude_file(expiresAt=True), "claudeAiOauth.expiresAt is not a moment in time"),
        (Provider.CLAUDE, claude_file(scopes=[1]), "claudeAiOauth.scopes must be a list of texts"),
        (Provider.CLAUDE, {"api_key": "sk-ant-oat01-x"}, "write it as claudeAiOauth.accessToken"),
        (Provider.GEMINI, {"api_key": ""}, "access_token or api_key is missing"),
        (Provider.GEMINI, google_file(expiry_date={}), "expiry_date is not a moment in time"),
        (Provider.QWEN, google_file(resource_url="ftp://x"), "resource_url is not an http or https address"),
        (Provider.QWEN, google_file(resource_url="https://u:p@x"), "resource_url is not an http or https address"),
        (
            Provider.QWEN,
            google_file(resource_url="https://x:99999"),
            "resource_url is not an http or https address",
        ),
        (Provider.OPENAI, {"api_key": KEY, "base_url": "http://"}, "base_url is not an http or https address"),
        (
            Provider.OPENAI,
            {"api_key": KEY, "base_url": "https://x/?k=1"},
            "base_url is not an http or https address",
        ),
        (Provider.OPENAI, {"api_key": KEY, "models": [1]}, "models must be a list of texts"),
        (Provider.OPENAI, {"base_url": "https://x"}, "api_key is missing"),
    ],
)
def test_rejected_in_one_line(provider: Provider, data: object, words: str) -> None:
    with pytest.raises(CredentialRejectedError) as caught:
        provider_module(provider).parse(data, "x:y", now=NOW)
    reason = str(caught.value)
    assert words in reason
    assert "\n" not in reason
    assert not any(secret in reason for secret in SENTINELS)


@pytest.mark.parametrize("provider", OWN)
@pytest.mark.parametrize("key", [False, True])
def test_nothing_secret_in_a_repr(provider: Provider, key: bool) -> None:
    found = cred(provider, key=key)
    for text in (repr(found), str(found), f"{found}", repr(found.__rich_repr__()), repr([found])):
        assert not any(secret in text for secret in SENTINELS)
    assert found.fingerprint in repr(found)
    assert len(found.fingerprint) == 12
    assert found.fingerprint not in found.secret


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
NAMES = sorted({name for data in [*FILES.values(), *KEY_FILES.values()] for name in data} | {"base_url", "models"})
INNER = ["access_token", "refresh_token", "id_token", "accessToken", "refreshToken", "expiresAt", "scopes"]


@given(st.sampled_from(OWN), st.sampled_from(NAMES), st.none() | st.sampled_from(INNER), JSON)
def test_any_value_in_any_field_is_taken_or_rejected(
    provider: Provider, name: str, inner: str | None, value: object
) -> None:
    data: dict[str, Any] = copy.deepcopy(FILES[provider])
    if inner is not None and isinstance(data.get(name), dict):
        data[name][inner] = value
    else:
        data[name] = value
    try:
        found = provider_module(provider).parse(data, "x:y", now=NOW)
    except CredentialRejectedError as error:
        assert "\n" not in str(error)
        assert not any(secret in str(error) for secret in SENTINELS)
    else:
        assert found.secret or found.refresh_token
        assert found.secret.isascii() and found.secret.isprintable()


@given(st.sampled_from(OWN), JSON)
def test_any_json_is_taken_or_rejected(provider: Provider, data: object) -> None:
    with pytest.raises(CredentialRejectedError):
        provider_module(provider).parse({"x": data} if isinstance(data, dict) else data, "x:y", now=NOW)


def test_broken_jwts_tell_nothing() -> None:
    for token in ("a.b.c", "..", "a.!!!.c", f"x.{'A' * 70_000}.y", "e30.bnVsbA.x", "e30.W10.x"):
        found = cred(Provider.CODEX, {"tokens": {"id_token": token[:60_000], "access_token": "t"}})
        assert (found.plan, found.account_id, found.expires_at) == ("", "", None)


def test_an_accounts_own_secrets_are_hidden_whatever_their_form() -> None:
    cred = provider_module(Provider.OPENAI).parse({"api_key": "hunter2-local"}, "openai:x", now=NOW)
    echoed = b'{"error":"no access for hunter2-local, key=hunter2-local"}'
    assert cred.hide(echoed) == b'{"error":"no access for [hidden], key=[hidden]"}'
    assert cred.hide_text("x hunter2-local y") == "x [hidden] y"
    plain = b"nothing of it"
    assert cred.hide(plain) is plain
    short = provider_module(Provider.OPENAI).parse({"api_key": "none"}, "openai:x", now=NOW)
    assert short.hide(b"there is none") == b"there is none", "too short to be told from words"
