"""API keys: where each is sent and how it is shown, whichever vendor's file it stands in; and what rejects a file."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import CredentialKind, Dialect, Provider
from pool_server.core.enums import Operation as O
from pool_server.core.models import UpstreamRequest
from pool_server.core.settings import Settings, Upstreams
from pool_server.providers import Credential, CredentialRejectedError, client_headers, provider_module, refuse_unnamed
from pool_server.providers.keys.operations import OPENAI_CHAT_API, OPENAI_RESPONSES_API
from pool_server.providers.requests import join
from tests.providers.make import FILES, KEY, KEY_FILES, OWN, SENTINELS, SETTINGS, call, cred

MESSAGES, CHAT, RESPONSES, GEMINI = Dialect.MESSAGES, Dialect.CHAT, Dialect.RESPONSES, Dialect.GEMINI
PATHS = {
    MESSAGES: "/v1/messages",
    CHAT: "/v1/chat/completions",
    RESPONSES: "/v1/responses",
    GEMINI: "/v1beta/models/m:generateContent",
}
AT = "https://ai.example.com"


def key_file(provider: Provider, **more: Any) -> dict[str, Any]:
    return {**KEY_FILES[provider], **more}


def asked(found: Credential, dialect: Dialect, settings: Settings = SETTINGS, path: str = "") -> UpstreamRequest:
    module = provider_module(found.provider)
    return module.prepare(found, call(path or PATHS[dialect], dialect=dialect), settings)


@pytest.mark.parametrize("provider", OWN)
@pytest.mark.parametrize("dialect", list(PATHS))
def test_a_base_url_is_honoured_by_every_file_in_every_dialect(provider: Provider, dialect: Dialect) -> None:
    found = cred(provider, key_file(provider, base_url=AT, dialects=[dialect.value]))
    assert asked(found, dialect).url == AT + PATHS[dialect]
    assert provider_module(provider).serves(found, O.OTHER, dialect, "any-model")
    others = [other for other in PATHS if other is not dialect]
    assert not any(provider_module(provider).serves(found, O.OTHER, other, "any-model") for other in others)
    assert urlsplit(provider_module(provider).test_request(found, SETTINGS).url).hostname == "ai.example.com"


@pytest.mark.parametrize("provider", OWN)
@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ("x-api-key", "x-api-key", KEY),
        ("api-key", "api-key", KEY),
        ("bearer", "authorization", f"Bearer {KEY}"),
    ],
)
def test_a_key_is_shown_as_its_file_says(provider: Provider, auth: str, header: str, value: str) -> None:
    found = cred(provider, key_file(provider, base_url=AT, auth=auth))
    for headers in (
        asked(found, found.dialects[0]).headers,
        provider_module(provider).test_request(found, SETTINGS).headers,
    ):
        shown = {name.lower(): text for name, text in headers if KEY in text}
        assert shown == {header: value}


@pytest.mark.parametrize(
    ("provider", "header"),
    [
        (Provider.CLAUDE, "x-api-key"),
        (Provider.GEMINI, "x-goog-api-key"),
        (Provider.QWEN, "authorization"),
        (Provider.OPENAI, "authorization"),
        (Provider.CODEX, "authorization"),
    ],
)
def test_without_a_word_a_key_is_shown_as_its_vendor_wants(provider: Provider, header: str) -> None:
    found = cred(provider, key=True)
    assert [name.lower() for name, text in asked(found, found.dialects[0]).headers if KEY in text] == [header]


@pytest.mark.parametrize(
    ("written", "dialect", "url"),
    [
        ("", CHAT, "https://api.openai.com/v1/chat/completions"),
        (AT, CHAT, f"{AT}/v1/chat/completions"),
        (f"{AT}/", CHAT, f"{AT}/v1/chat/completions"),
        ("ai.example.com", CHAT, f"{AT}/v1/chat/completions"),
        (f"{AT}/v1/", CHAT, f"{AT}/v1/chat/completions"),
        (f"{AT}/v1/chat/completions", CHAT, f"{AT}/v1/chat/completions"),
        (f"{AT}/v1/chat/completions/", CHAT, f"{AT}/v1/chat/completions"),
        (f"{AT}/api/paas/v4/chat/completions", CHAT, f"{AT}/api/paas/v4/chat/completions"),
        (f"{AT}/v1beta/openai/", CHAT, f"{AT}/v1beta/openai/chat/completions"),
        (f"{AT}/v1/completions", CHAT, f"{AT}/v1/chat/completions"),
        (f"{AT}/v1/embeddings", CHAT, f"{AT}/v1/chat/completions"),
        (f"{AT}/v1/models", CHAT, f"{AT}/v1/chat/completions"),
        (f"{AT}/inference/chat/completions", CHAT, f"{AT}/inference/chat/completions"),  # a base without a version
        (f"{AT}/chat/completions", CHAT, f"{AT}/chat/completions"),
        (f"{AT}/inference/chat/completions", RESPONSES, f"{AT}/inference/responses"),
        (f"{AT}/v1/responses", RESPONSES, f"{AT}/v1/responses"),
        (f"{AT}/responses/compact", RESPONSES, f"{AT}/responses"),
        (f"{AT}/coding", MESSAGES, f"{AT}/coding/v1/messages"),
        (f"{AT}/anthropic/v1/messages", MESSAGES, f"{AT}/anthropic/v1/messages"),
        (f"{AT}/v1/messages/count_tokens", MESSAGES, f"{AT}/v1/messages"),
        (f"{AT}/messages", MESSAGES, f"{AT}/messages"),
        (f"{AT}/v1beta", GEMINI, f"{AT}/v1beta/models/m:generateContent"),
        (f"{AT}/v1", GEMINI, f"{AT}/v1/models/m:generateContent"),
        (f"{AT}/google", GEMINI, f"{AT}/google/v1beta/models/m:generateContent"),
        (f"{AT}/v1beta/models/x:generateContent", GEMINI, f"{AT}/v1beta/models/m:generateContent"),
    ],
)
def test_an_address_is_read_as_people_paste_it(written: str, dialect: Dialect, url: str) -> None:
    found = cred(Provider.OPENAI, key_file(Provider.OPENAI, base_url=written, dialects=[dialect.value]))
    assert asked(found, dialect).url == url


def test_what_a_base_ends_with_is_repeated_only_where_it_is_its_host() -> None:
    assert join("https://api.example/v1/", "/v1/models", "a=b") == "https://api.example/v1/models?a=b"
    assert join("https://api.example/v1", "/v10/models") == "https://api.example/v1/v10/models"
    assert join("http://api", "/api/tags") == "http://api/api/tags"


TAILS = ("", "/", "/v1", "/v1/", "/api/paas/v4", "/v1beta/openai", "/deep/er/path", "/inference")
ENDS = ("", "/chat/completions", "/responses", "/messages", "/embeddings", "/models")


@given(st.sampled_from(TAILS), st.sampled_from(ENDS), st.sampled_from([MESSAGES, CHAT, RESPONSES]))
def test_a_pasted_endpoint_is_never_doubled(tail: str, end: str, dialect: Dialect) -> None:
    found = cred(Provider.OPENAI, key_file(Provider.OPENAI, base_url=AT + tail.rstrip("/") + end, dialects=[dialect]))
    url = asked(found, dialect).url
    operation = PATHS[dialect].removeprefix("/v1")
    assert url.startswith(AT + tail.rstrip("/")) and url.endswith(operation) and url.count(operation) == 1
    assert url.count("/v1/") <= 1 and "//" not in url.removeprefix("https://")
    if end:
        assert url == AT + tail.rstrip("/") + operation


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ({"auth": "basic"}, "auth must be one of"),
        ({"auth": 7}, "auth must be a text"),
        ({"dialects": ["code_assist"]}, "dialects must be of"),
        ({"dialects": ["chat", "x"]}, "dialects must be of"),
        ({"dialects": []}, "dialects must name one"),
        ({"dialects": {"chat": 1}}, "dialects must be a list"),
        ({"region": "eu"}, "region cannot be honoured"),
        ({"base_url": "ftp://x"}, "base_url is not an http"),
        ({"base_url": "https://u:p@x"}, "base_url is not an http"),
        ({"baseURL": AT}, "baseURL is not read here; write the address as base_url"),
        ({"ANTHROPIC_BASE_URL": AT}, "ANTHROPIC_BASE_URL is not read here"),
        ({"OPENAI_API_BASE": AT}, "OPENAI_API_BASE is not read here"),
        ({"GOOGLE_GEMINI_BASE_URL": AT}, "is not read here"),
        ({"api_base": AT}, "api_base is not read here"),
        ({"api_base_url": AT}, "api_base_url is not read here"),
        ({"endpoint": AT}, "endpoint is not read here"),
        ({"url": AT}, "url is not read here"),
        ({"host": "ai.example.com"}, "host is not read here"),
    ],
)
@pytest.mark.parametrize("provider", OWN)
def test_what_cannot_be_honoured_rejects_the_file(provider: Provider, file: dict[str, Any], words: str) -> None:
    with pytest.raises(CredentialRejectedError, match=words) as caught:
        cred(provider, key_file(provider, **file))
    assert not any(secret in str(caught.value) for secret in SENTINELS)


@pytest.mark.parametrize("field", ["base_url", "auth", "dialects", "region", "baseURL", "OPENAI_BASE_URL"])
@pytest.mark.parametrize("provider", [Provider.CODEX, Provider.CLAUDE, Provider.GEMINI, Provider.QWEN])
def test_a_sign_in_goes_to_its_provider_alone(provider: Provider, field: str) -> None:
    with pytest.raises(CredentialRejectedError, match=rf"^{field} is"):
        cred(provider, {**FILES[provider], field: AT})
    for empty in (None, ""):
        assert cred(provider, {**FILES[provider], field: empty}).kind is CredentialKind.OAUTH


@pytest.mark.parametrize("provider", OWN)
@pytest.mark.parametrize(
    ("key", "vendor", "own"),
    [
        ("sk-ant-api03-abcdef", "Anthropic", {Provider.CLAUDE}),
        ("AIzaSyabcdefghijk", "Google", {Provider.GEMINI}),
        ("sk-proj-abcdefghij", "OpenAI", {Provider.OPENAI, Provider.CODEX}),
        ("sk-or-v1-abcdefghij", "OpenRouter", set()),
        ("gsk_abcdefghijkl", "Groq", set()),
        ("xai-abcdefghijkl", "xAI", set()),
        ("sk-kimi-abcdefgh", "Kimi", set()),
    ],
)
def test_a_key_is_not_sent_to_another_vendor(provider: Provider, key: str, vendor: str, own: set[Provider]) -> None:
    file = dict.fromkeys(KEY_FILES[provider], key)
    if provider in own:
        assert cred(provider, file).api_key == key
        return
    with pytest.raises(CredentialRejectedError, match=f"key of {vendor}") as caught:
        cred(provider, file)
    assert key not in str(caught.value)
    assert cred(provider, {**file, "base_url": AT}).base_url == AT


@pytest.mark.parametrize(
    ("data", "stem", "words"),
    [
        ({"api_key": "k" * 20}, "kimi_work", "its name says no provider"),
        ({"api_key": "sk-or-v1-abc"}, "me", "key of OpenRouter; name the file openrouter_me.json"),
        ({"api_key": "sk-ant-api03-abc"}, "work", "name the file claude_work.json"),
        ({"api_key": "AIzaSyabc"}, "gemini-two", "name the file gemini_two.json"),
        ({"claudeAiOauth": {}}, "claude", "name the file claude_work.json"),
        ({"access_token": "a", "refresh_token": "b", "scope": "https://www.googleapis.com/x"}, "g", "gemini_g.json"),
        ({"access_token": "a", "refresh_token": "b", "resource_url": "portal.qwen.ai"}, "q", "qwen_q.json"),
        ({"ANTHROPIC_API_KEY": "k"}, "home", "name the file claude_home.json"),
        ({"type": "service_account", "private_key": "p"}, "vertex", "service account"),
        ({"base_url": AT}, "x", "no usable credential"),
        ({}, "x", "no usable credential"),
    ],
)
def test_a_file_whose_name_says_no_provider_is_told_its_right_one(data: dict[str, Any], stem: str, words: str) -> None:
    with pytest.raises(CredentialRejectedError) as caught:
        refuse_unnamed(data, stem)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [{"tokens": None}, {"OPENAI_API_KEY": "k"}, {"tokens": {}, "last_refresh": "x"}])
def test_codexs_own_files_need_no_name(data: dict[str, Any]) -> None:
    refuse_unnamed(data, "work")


def test_one_key_has_one_set_of_abilities_whichever_file_it_came_in() -> None:
    codex, plain = cred(Provider.CODEX, key=True), cred(Provider.OPENAI, key=True)
    for found in (codex, plain):
        module = provider_module(found.provider)
        able = {(o, d) for o in O for d in Dialect if module.serves(found, o, d, "gpt-6")}
        assert able == {(o, CHAT) for o in OPENAI_CHAT_API} | {(o, RESPONSES) for o in OPENAI_RESPONSES_API}
        assert module.websocket(found) and not module.serves(found, O.CHAT, CHAT, "qwen3-coder")
        assert asked(found, CHAT).url == "https://api.openai.com/v1/chat/completions"
        assert asked(found, CHAT, path="/v1/embeddings").url == "https://api.openai.com/v1/embeddings"
        for path in ("/v1/responses", "/responses", "/backend-api/codex/responses", "/api/codex/responses"):
            assert asked(found, RESPONSES, path=path).url == "https://api.openai.com/v1/responses"
    assert codex.guessed == plain.guessed == ()


def test_what_a_file_does_not_say_is_a_guess() -> None:
    assert cred(Provider.OPENAI, key_file(Provider.OPENAI, base_url=AT)).guessed == (RESPONSES,)
    assert cred(Provider.CODEX, key_file(Provider.CODEX, base_url=AT)).guessed == (CHAT,)
    for said in ({"models": ["m"]}, {"dialects": ["chat", "responses"]}):
        assert cred(Provider.OPENAI, key_file(Provider.OPENAI, base_url=AT, **said)).guessed == ()


def test_moved_upstreams_hold_for_keys() -> None:
    hosts: dict[str, Any] = {name: f"http://127.0.0.1:9/{name}" for name in Upstreams.__struct_fields__}
    moved = Settings(upstreams=Upstreams(**hosts))
    for provider, tail in (
        (Provider.CLAUDE, "claude/v1/messages"),
        (Provider.CODEX, "openai/v1/responses"),
        (Provider.GEMINI, "gemini/v1beta/models/m:generateContent"),
    ):
        found = cred(provider, key=True)
        assert asked(found, found.dialects[0], moved).url == f"http://127.0.0.1:9/{tail}"
        assert provider_module(provider).test_request(found, moved).url.startswith("http://127.0.0.1:9/")


@pytest.mark.parametrize(
    "name",
    [
        "X-Subrouter-Account", "X-User-Email", "x-litellm-tags", "Helicone-Auth", "Helicone-Property-Team",
        "X-Portkey-Config", "X-OpenWebUI-User-Email", "X-Auth-Request-User", "X-Amzn-Trace-Id", "X-Kong-Consumer-Id",
        "CF-Ray", "API-Key", "X-Auth-Token", "X-HTTP-Method-Override", "X-Forwarded-Email", "Remote-User",
        "Tailscale-User-Login", "X-Goog-Authenticated-User-Email", "X-MS-CLIENT-PRINCIPAL-NAME", "langfuse-trace-id",
    ],
)  # fmt: skip
def test_routing_and_identity_headers_of_other_gateways_do_not_go_up(name: str) -> None:
    assert client_headers([("User-Agent", "x"), (name, "somebody@example.com")]) == [("User-Agent", "x")]


def test_what_a_client_says_for_the_vendor_goes_up() -> None:
    kept = [
        ("HTTP-Referer", "https://app.example"),
        ("X-Title", "app"),
        ("X-Stainless-Lang", "js"),
        ("Session-Id", "1"),
    ]
    assert client_headers(kept) == kept
