"""The upstream request: where it goes, as whom, and what of the client's goes along."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server import __version__
from pool_server.core.enums import Dialect, Provider
from pool_server.core.models import UpstreamRequest
from pool_server.core.settings import Settings, Upstreams
from pool_server.providers import Credential, client_headers, provider_module
from tests.providers.make import ACCESS, KEY, SENTINELS, SETTINGS, call, cred, google_file

CODEX = "https://chatgpt.com/backend-api/codex"


def prepared(credential: Credential, path: str, *headers: tuple[str, str], query: str = "") -> UpstreamRequest:
    return provider_module(credential.provider).prepare(credential, call(path, *headers, query=query), SETTINGS)


def names(result: UpstreamRequest) -> dict[str, str]:
    found = {name.lower(): value for name, value in result.headers}
    assert len(found) == len(result.headers), "a header went up twice"
    return found


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/v1/responses", f"{CODEX}/responses"),
        ("/responses", f"{CODEX}/responses"),
        ("/backend-api/codex/responses", f"{CODEX}/responses"),
        ("/backend-api/codex/v1/responses", f"{CODEX}/responses"),
        ("/v1/v1/responses", f"{CODEX}/responses"),
        ("/v1/responses/compact", f"{CODEX}/responses/compact"),
        ("/backend-api/codex/models", f"{CODEX}/models"),
        ("/backend-api/codex/alpha/search", f"{CODEX}/alpha/search"),
        ("/backend-api/wham/usage", "https://chatgpt.com/backend-api/wham/usage"),
        ("/api/codex/responses", f"{CODEX}/responses"),
        ("/api/codex/responses/compact", f"{CODEX}/responses/compact"),
        ("/api/codex/usage", "https://chatgpt.com/backend-api/wham/usage"),
        ("/v1//responses/", f"{CODEX}/responses"),
        ("/v1/responses/../../wham/usage", f"{CODEX}/responses/wham/usage"),
        ("/v1/responses/%2e%2e/%2e%2e/wham", f"{CODEX}/responses/wham"),
        ("/v1/responses/..%2f..%2fwham", f"{CODEX}/responses"),
        ("/v1/responses/..%5cwham", f"{CODEX}/responses"),
    ],
)
def test_codex_sign_in_paths(path: str, url: str) -> None:
    assert prepared(cred(Provider.CODEX), path).url == url


@pytest.mark.parametrize(
    "path",
    ["/v1/responses", "/responses", "/backend-api/codex/responses", "/backend-api/responses", "/api/codex/responses"],
)
def test_codex_key_paths(path: str) -> None:
    assert prepared(cred(Provider.CODEX, key=True), path).url == "https://api.openai.com/v1/responses"


@pytest.mark.parametrize(
    ("base", "url"),
    [
        (None, "https://api.openai.com/v1/chat/completions"),
        ("https://ai.example.com", "https://ai.example.com/v1/chat/completions"),
        ("https://ai.example.com/v1", "https://ai.example.com/v1/chat/completions"),
        ("https://openrouter.ai/api/v1/", "https://openrouter.ai/api/v1/chat/completions"),
        ("https://api.z.ai/api/paas/v4", "https://api.z.ai/api/paas/v4/chat/completions"),
        ("https://g.example.com/v1beta/openai", "https://g.example.com/v1beta/openai/chat/completions"),
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434/v1/chat/completions"),
    ],
)
def test_openai_bases(base: str | None, url: str) -> None:
    found = cred(Provider.OPENAI, {"api_key": KEY, "base_url": base})
    assert prepared(found, "/v1/chat/completions").url == url


@pytest.mark.parametrize(
    ("data", "url"),
    [
        (google_file(resource_url="portal.qwen.ai"), "https://portal.qwen.ai/v1/chat/completions"),
        (google_file(resource_url="https://x.example/v1"), "https://x.example/v1/chat/completions"),
        (google_file(), "https://dashscope.aliyuncs.com/compatible-mode/v1/chat/completions"),
        ({"api_key": KEY}, "https://dashscope.aliyuncs.com/compatible-mode/v1/chat/completions"),
        (
            {"api_key": KEY, "base_url": "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"},
            "https://dashscope-intl.aliyuncs.com/compatible-mode/v1/chat/completions",
        ),
    ],
)
def test_qwen_bases(data: object, url: str) -> None:
    assert prepared(cred(Provider.QWEN, data), "/v1/chat/completions").url == url


@pytest.mark.parametrize(
    ("path", "query", "url"),
    [
        ("/v1/messages", "beta=true", "https://api.anthropic.com/v1/messages?beta=true"),
        ("/messages", "", "https://api.anthropic.com/v1/messages"),
        (
            "/v1/messages/count_tokens",
            "beta=true&key=p",
            "https://api.anthropic.com/v1/messages/count_tokens?beta=true",
        ),
        ("/api/oauth/profile", "", "https://api.anthropic.com/api/oauth/profile"),
    ],
)
def test_claude_paths(path: str, query: str, url: str) -> None:
    assert prepared(cred(Provider.CLAUDE), path, query=query).url == url


def test_gemini_key_path_keeps_alt_and_drops_key() -> None:
    path = "/v1beta/models/gemini-2.5-pro:streamGenerateContent"
    result = prepared(cred(Provider.GEMINI, key=True), path, query="key=pool&alt=sse&%6bey=again")
    assert result.url == f"https://generativelanguage.googleapis.com{path}?alt=sse"
    assert names(result)["x-goog-api-key"] == KEY
    assert "authorization" not in names(result)
    assert result.patch is None


@pytest.mark.parametrize(
    ("method", "patch"),
    [
        ("generateContent", {"project": "proj-1"}),
        ("streamGenerateContent", {"project": "proj-1"}),
        ("retrieveUserQuota", {"project": "proj-1"}),
        ("countTokens", None),
    ],
)
def test_code_assist_carries_the_accounts_project(method: str, patch: dict[str, str] | None) -> None:
    result = prepared(cred(Provider.GEMINI), f"/v1internal:{method}", query="alt=sse")
    assert result.url == f"https://cloudcode-pa.googleapis.com/v1internal:{method}?alt=sse"
    assert result.patch == patch
    assert names(result)["authorization"] == f"Bearer {ACCESS}"


def test_code_assist_without_a_project_does_not_pass_the_clients() -> None:
    assert prepared(cred(Provider.GEMINI, google_file()), "/v1internal:generateContent").patch == {"project": ""}


def test_headers_keep_order_and_case_and_lose_what_is_not_the_upstreams() -> None:
    client = [
        ("X-Second", "2"),
        ("Authorization", "Bearer pool-key"),
        ("x-api-key", "pool-key"),
        ("X-Goog-Api-Key", "pool-key"),
        ("a-First", "1"),
        ("Cookie", "session=1"),
        ("CF-Connecting-IP", "10.0.0.1"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("Forwarded", "for=10.0.0.1"),
        ("Via", "1.1 proxy"),
        ("X-Real-IP", "10.0.0.1"),
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("Transfer-Encoding", "chunked"),
        ("Host", "pool.example"),
        ("Content-Length", "5"),
        ("Accept-Encoding", "gzip, br"),
        ("chatgpt-account-id", "the-clients"),
        ("X-OpenAI-Fedramp", "true"),
        ("OpenAI-Organization", "org-client"),
        ("X-Pool-Session", "s"),
        ("Sec-WebSocket-Key", "abc"),
        ("User-Agent", "codex_exec/0.169.0"),
        ("x-codex-turn-state", "opaque"),
        ("Content-Encoding", "zstd"),
    ]
    result = prepared(cred(Provider.CODEX), "/v1/responses", *client)
    assert result.headers == [
        ("X-Second", "2"),
        ("a-First", "1"),
        ("User-Agent", "codex_exec/0.169.0"),
        ("x-codex-turn-state", "opaque"),
        ("Content-Encoding", "zstd"),
        ("Authorization", f"Bearer {ACCESS}"),
        ("ChatGPT-Account-ID", "acc-1"),
        ("Accept-Encoding", "identity"),
    ]


@pytest.mark.parametrize(
    ("connection", "stays"),
    [
        ([], ["X-A", "X-B"]),
        (["keep-alive"], ["X-A", "X-B"]),
        (["Keep-Alive, x-a"], ["X-B"]),
        (["X-B", "close, X-A"], []),
    ],
)
def test_names_a_connection_lists_stay_behind(connection: list[str], stays: list[str]) -> None:
    sent = [("X-A", "1"), *[("connection", value) for value in connection], ("X-B", "2")]
    assert [name for name, _ in client_headers(iter(sent))] == stays


def test_codex_key_has_no_chatgpt_headers() -> None:
    result = prepared(cred(Provider.CODEX, key=True), "/v1/responses", ("ChatGPT-Account-ID", "x"))
    assert names(result) == {"authorization": f"Bearer {KEY}", "accept-encoding": "identity"}


def test_fedramp_is_the_accounts() -> None:
    found = msgspec.structs.replace(cred(Provider.CODEX), fedramp=True)
    assert names(prepared(found, "/v1/responses"))["x-openai-fedramp"] == "true"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([], [("anthropic-beta", "oauth-2025-04-20")]),
        ([("Anthropic-Beta", "b,a")], [("Anthropic-Beta", "b,a,oauth-2025-04-20")]),
        ([("anthropic-beta", "")], [("anthropic-beta", "oauth-2025-04-20")]),
        ([("anthropic-beta", "b, oauth-2025-04-20 ,a")], [("anthropic-beta", "b, oauth-2025-04-20 ,a")]),
        (
            [("anthropic-beta", "b"), ("anthropic-beta", "a")],
            [("anthropic-beta", "b"), ("anthropic-beta", "a,oauth-2025-04-20")],
        ),
    ],
)
def test_claude_sign_in_gets_its_beta_once(sent: list[tuple[str, str]], expected: list[tuple[str, str]]) -> None:
    result = prepared(cred(Provider.CLAUDE), "/v1/messages", *sent)
    assert [pair for pair in result.headers if pair[0].lower() == "anthropic-beta"] == expected
    assert ("anthropic-version", "2023-06-01") in result.headers


def test_claude_key_keeps_version_and_gets_no_beta() -> None:
    sent = [("anthropic-version", "2099-01-01"), ("x-api-key", "pool"), ("Authorization", "Bearer pool")]
    result = names(prepared(cred(Provider.CLAUDE, key=True), "/v1/messages", *sent))
    assert result == {"anthropic-version": "2099-01-01", "x-api-key": KEY, "accept-encoding": "identity"}
    setup = cred(Provider.CLAUDE, {"claudeAiOauth": {"accessToken": ACCESS}})
    assert names(prepared(setup, "/v1/messages"))["anthropic-beta"] == "oauth-2025-04-20"


def test_qwen_names_the_kind_of_its_token() -> None:
    sent = ("X-DashScope-AuthType", "qwen-oauth")
    assert names(prepared(cred(Provider.QWEN), "/v1/chat/completions"))["x-dashscope-authtype"] == "qwen-oauth"
    assert "x-dashscope-authtype" not in names(prepared(cred(Provider.QWEN, key=True), "/v1/chat/completions", sent))


@pytest.mark.parametrize(
    ("provider", "key"), [(Provider.CODEX, False), (Provider.CODEX, True), (Provider.OPENAI, True)]
)
def test_websocket_is_the_same_call_under_another_scheme(provider: Provider, key: bool) -> None:
    module, found = provider_module(provider), cred(provider, key=key)
    settings = Settings(upstreams=Upstreams(openai="http://127.0.0.1:9"))
    plain = module.prepare(found, call("/v1/responses"), settings)
    socket = module.prepare(found, call("/v1/responses", websocket=True), settings)
    assert socket.url == plain.url.replace("http", "ws", 1)
    assert socket.headers == plain.headers


def test_every_base_can_be_moved() -> None:
    moved: dict[str, Any] = {name: f"http://127.0.0.1:9/{name}" for name in Upstreams.__struct_fields__}
    settings = Settings(upstreams=Upstreams(**moved))
    cases = [
        (cred(Provider.CODEX), "/v1/responses", "codex/responses"),
        (cred(Provider.CODEX), "/backend-api/wham/usage", "chatgpt/wham/usage"),
        (cred(Provider.CODEX, key=True), "/v1/responses", "openai/v1/responses"),
        (cred(Provider.OPENAI), "/v1/chat/completions", "openai/v1/chat/completions"),
        (cred(Provider.CLAUDE), "/v1/messages", "claude/v1/messages"),
        (cred(Provider.GEMINI), "/v1internal:generateContent", "code_assist/v1internal:generateContent"),
        (cred(Provider.GEMINI, key=True), "/v1beta/models", "gemini/v1beta/models"),
        (cred(Provider.QWEN, key=True), "/v1/chat/completions", "qwen/v1/chat/completions"),
        (cred(Provider.QWEN, google_file()), "/v1/chat/completions", "qwen/v1/chat/completions"),
    ]
    for found, path, tail in cases:
        result = provider_module(found.provider).prepare(found, call(path), settings)
        assert result.url == f"http://127.0.0.1:9/{tail}"


@pytest.mark.parametrize("provider", list(Provider))
@pytest.mark.parametrize("key", [False, True])
def test_no_agent_is_invented_for_a_client_and_ours_is_named(provider: Provider, key: bool) -> None:
    found = cred(provider, key=key)
    assert "user-agent" not in names(prepared(found, "/v1/x"))
    own = provider_module(provider).test_request(found, SETTINGS)
    assert dict(own.headers)["User-Agent"] == f"pool-server/{__version__}"
    assert not any(secret in repr(own) + repr(prepared(found, "/v1/x")) for secret in SENTINELS)


@given(st.sampled_from(list(Provider)), st.booleans(), st.text(max_size=60), st.text(max_size=60))
def test_no_path_leaves_the_base(provider: Provider, key: bool, path: str, query: str) -> None:
    found = cred(provider, key=key)
    base = "http://127.0.0.1:9/base"
    moved: dict[str, Any] = {**dict.fromkeys(Upstreams.__struct_fields__, base), "presets": {provider.value: base}}
    settings = Settings(upstreams=Upstreams(**moved))
    found = msgspec.structs.replace(found, resource_url="")
    client_call = call("/" + path.partition("?")[0], query=query, dialect=Dialect.RESPONSES)
    url = provider_module(provider).prepare(found, client_call, settings).url
    assert url.startswith("http://127.0.0.1:9/base")
    assert not any(part in (".", "..") for part in url.partition("?")[0].split("/"))
