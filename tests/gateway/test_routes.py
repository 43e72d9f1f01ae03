"""Every path a recorded client used finds its route; pages keep theirs."""

from __future__ import annotations

import pytest

from pool_server.core.enums import Dialect, Operation, Provider
from pool_server.gateway.routes import match

UPGRADE = {"Upgrade": "websocket"}


@pytest.mark.parametrize(
    ("method", "path", "dialect", "operation"),
    [
        ("POST", "/v1/responses", Dialect.RESPONSES, Operation.RESPONSES),
        ("POST", "/responses", Dialect.RESPONSES, Operation.RESPONSES),
        ("POST", "/backend-api/codex/responses", Dialect.RESPONSES, Operation.RESPONSES),
        ("POST", "/backend-api/codex/responses/compact", Dialect.RESPONSES, Operation.RESPONSES_COMPACT),
        ("GET", "/v1/responses/resp_1", Dialect.RESPONSES, Operation.STORED_RESPONSES),
        ("POST", "/v1/messages", Dialect.MESSAGES, Operation.MESSAGES),
        ("POST", "/v1/messages/count_tokens", Dialect.MESSAGES, Operation.COUNT_TOKENS),
        ("POST", "/v1/chat/completions", Dialect.CHAT, Operation.CHAT),
        ("POST", "/chat/completions", Dialect.CHAT, Operation.CHAT),
        ("POST", "/v1/embeddings", Dialect.CHAT, Operation.EMBEDDINGS),
        ("POST", "/v1internal:generateContent", Dialect.CODE_ASSIST, Operation.GENERATE),
        ("POST", "/v1internal:streamGenerateContent", Dialect.CODE_ASSIST, Operation.GENERATE),
        ("POST", "/v1beta/models/gemini-2.5-pro:streamGenerateContent", Dialect.GEMINI, Operation.GENERATE),
        ("POST", "/v1beta/models/gemini-2.5-pro:countTokens", Dialect.GEMINI, Operation.COUNT_TOKENS),
    ],
)
def test_model_calls(method: str, path: str, dialect: Dialect, operation: Operation) -> None:
    route = match(method, path, {})
    assert route is not None
    assert (route.dialect, route.operation, route.path, route.model_call) == (dialect, operation, path, True)
    assert route.forced is None


def test_a_prefix_forces_the_provider_and_is_taken_off() -> None:
    route = match("POST", "/claude/v1/messages", {})
    assert route is not None
    assert (route.forced, route.path, route.operation) == (Provider.CLAUDE, "/v1/messages", Operation.MESSAGES)


def test_an_unknown_path_under_a_prefix_stays_with_the_data_plane() -> None:
    route = match("GET", "/qwen/nonsense", {})
    assert route is not None
    assert (route.forced, route.model_call, route.dialect) == (Provider.QWEN, False, Dialect.CHAT)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/backend-api/wham/usage",
        "/backend-api/codex/models",
        "/backend-api/ps/mcp",
        "/api/codex/accounts/check",
        "/v1internal:loadCodeAssist",
        "/v1beta/models",
        "/api/hello",
        "/api/event_logging/v2/batch",
        "/api/oauth/usage",
    ],
)
def test_side_calls_are_answered_by_the_pool(path: str) -> None:
    route = match("GET", path, {})
    assert route is not None
    assert not route.model_call


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/healthz",
        "/status",
        "/analytics",
        "/admin/accounts",
        "/api/me",
        "/api/keys",
        "/api/usage/summary",
        "/api/friend/login",
        "/setup/x/codex",
        "/metrics",
        "/static/style.css",
    ],
)
def test_pages_are_left_alone(path: str) -> None:
    assert match("GET", path, {}) is None


def test_a_socket_is_a_get_with_upgrade() -> None:
    plain = match("GET", "/v1/responses", {})
    socket = match("GET", "/v1/responses", UPGRADE)
    assert plain is not None
    assert socket is not None
    assert not plain.model_call
    assert socket.websocket


def test_models_of_a_claude_client_speak_its_dialect() -> None:
    route = match("GET", "/v1/models", {"Anthropic-Version": "2023-06-01"})
    assert route is not None
    assert route.dialect is Dialect.MESSAGES


@pytest.mark.parametrize(
    "path",
    [
        "/v1/responses/..",
        "/v1/responses/%2e%2E/responses",
        "/responses/..%2f..%2fx",
        "/v1/files/../messages",
        "/v1beta/files/./x",
        "/v1beta/models/..:generateContent",
        "/claude/v1/files/..\\messages",
    ],
)
def test_a_path_that_climbs_is_no_call_of_any_provider(path: str) -> None:
    route = match("POST", path, {})
    assert route is not None
    assert not route.model_call


def test_dots_within_a_name_are_its_own() -> None:
    for method, path in (
        ("POST", "/v1beta/models/gemini-2.5-pro:generateContent"),
        ("GET", "/v1/responses/resp_1..2"),
        ("DELETE", "/v1/files/a...b"),
    ):
        route = match(method, path, {})
        assert route is not None
        assert route.model_call


def test_a_fixed_path_under_a_prefix_keeps_its_call() -> None:
    for path in ("/v1/chat/completions", "/responses/compact", "/v1internal:countTokens"):
        plain, under = match("POST", path, {}), match("POST", f"/qwen{path}", {})
        assert plain is not None and under is not None
        assert plain.forced is None and under.forced is Provider.QWEN
        assert (under.dialect, under.operation, under.path) == (plain.dialect, plain.operation, path)


def test_a_get_under_a_prefix_is_a_socket_too() -> None:
    socket = match("GET", "/codex/v1/responses", UPGRADE)
    plain = match("GET", "/codex/v1/responses", {})
    assert socket is not None and plain is not None
    assert socket.websocket and socket.forced is Provider.CODEX
    assert not plain.model_call and not plain.websocket


@pytest.mark.parametrize(
    ("prefix", "headers", "dialect"),
    [
        ("", {}, Dialect.CHAT),
        ("", {"Anthropic-Version": "2023-06-01"}, Dialect.MESSAGES),
        ("", {"X-Goog-Api-Key": "k"}, Dialect.GEMINI),
        ("", {"X-Goog-Api-Client": "google-genai-sdk/1"}, Dialect.GEMINI),
        ("/openai", {"Anthropic-Version": "2023-06-01"}, Dialect.CHAT),
        ("/claude", {}, Dialect.MESSAGES),
        ("/gemini", {}, Dialect.GEMINI),
        ("/qwen", {"X-Goog-Api-Key": "k"}, Dialect.CHAT),
    ],
)
@pytest.mark.parametrize("path", ["/v1/files", "/v1/files/file-1"])
def test_a_path_that_vendors_share_goes_by_the_client(
    prefix: str, headers: dict[str, str], dialect: Dialect, path: str
) -> None:
    route = match("GET", prefix + path, headers)
    assert route is not None
    assert (route.dialect, route.operation, route.model_call) == (dialect, Operation.FILES, True)
