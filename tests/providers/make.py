"""Credentials, tokens and calls for the tests of this room. Everything secret in them is a sentinel."""

from __future__ import annotations

import base64
import json
from typing import Any

from pool_server.core.enums import Dialect, Operation, Provider
from pool_server.core.models import ClientCall, HttpAnswer
from pool_server.core.settings import Settings
from pool_server.providers import Credential, client_headers, provider_module

NOW = 1_790_000_000.0  # 2026-09-21T14:13:20Z
SENTINELS = ("S3NTINEL-access-0001", "S3NTINEL-refresh-0002", "S3NTINEL-apikey-0003", "S3NTINEL-client-0004")
ACCESS, REFRESH, KEY, CLIENT_SECRET = SENTINELS
SETTINGS = Settings(gemini_client_id="client.apps.example", gemini_client_secret=CLIENT_SECRET)


def jwt(claims: dict[str, Any]) -> str:
    """An unsigned JWT whose signature is a sentinel."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'RS256'})}.{part(claims)}.S3NTINEL-signature"


def codex_file(**changes: Any) -> dict[str, Any]:
    claims = {
        "email": "joe@example.com",
        "https://api.openai.com/auth": {"chatgpt_account_id": "acc-1", "chatgpt_plan_type": "Plus"},
    }
    tokens = {"id_token": jwt(claims), "access_token": ACCESS, "refresh_token": REFRESH}
    return {"tokens": tokens, "last_refresh": "2026-09-20T00:00:00Z", **changes}


def claude_file(**changes: Any) -> dict[str, Any]:
    login = {
        "accessToken": ACCESS,
        "refreshToken": REFRESH,
        "expiresAt": int((NOW + 3600) * 1000),
        "scopes": ["user:inference", "user:profile"],
        "subscriptionType": "max",
        "rateLimitTier": "default_claude_max_20x",
    }
    return {"claudeAiOauth": {**login, **changes}}


def google_file(**changes: Any) -> dict[str, Any]:
    return {
        "access_token": ACCESS,
        "refresh_token": REFRESH,
        "expiry_date": int((NOW + 3600) * 1000),
        "token_type": "Bearer",
        **changes,
    }


FILES: dict[Provider, dict[str, Any]] = {
    Provider.CODEX: codex_file(),
    Provider.CLAUDE: claude_file(),
    Provider.GEMINI: google_file(project_id="proj-1"),
    Provider.QWEN: google_file(resource_url="portal.qwen.ai"),
    Provider.OPENAI: {"api_key": KEY},
}
KEY_FILES: dict[Provider, dict[str, Any]] = {
    provider: {"OPENAI_API_KEY" if provider is Provider.CODEX else "api_key": KEY} for provider in Provider
}


_BY_PATH = {
    "/messages": Dialect.MESSAGES,
    "/v1internal": Dialect.CODE_ASSIST,
    "/v1beta": Dialect.GEMINI,
    "/chat/": Dialect.CHAT,
    "/embeddings": Dialect.CHAT,
}


def cred(provider: Provider, data: object = None, *, key: bool = False) -> Credential:
    """The credential of a file of this provider: a usual sign-in, an API key, or `data`."""
    chosen = data if data is not None else (KEY_FILES if key else FILES)[provider]
    return provider_module(provider).parse(chosen, f"{provider}:joe", now=NOW)


def call(
    path: str,
    *headers: tuple[str, str],
    dialect: Dialect | None = None,
    operation: Operation = Operation.OTHER,
    query: str = "",
    model: str = "",
    websocket: bool = False,
) -> ClientCall:
    """A client's call as the gateway makes it of a request with these headers; its dialect by its path."""
    if dialect is None:
        dialect = next((one for part, one in _BY_PATH.items() if part in path), Dialect.RESPONSES)
    return ClientCall(operation, dialect, "POST", path, query, client_headers(headers), model, websocket)


def answered(status: int, body: object = b"", **headers: str) -> HttpAnswer:
    """An answer; keyword names become header names with dashes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpAnswer(status, {name.replace("_", "-").lower(): value for name, value in headers.items()}, raw)
