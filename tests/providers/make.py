"""Credentials, tokens and calls for the tests of this room. Everything secret in them is a sentinel."""

from __future__ import annotations

import base64
import inspect
import json
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from cryptography.hazmat.primitives import serialization

from pool_server.core.enums import Dialect, Operation, Provider
from pool_server.core.models import ClientCall, HttpAnswer
from pool_server.core.settings import Settings
from pool_server.providers import SPECS, Credential, client_headers, provider_module
from pool_server.providers.presets.data import PRESETS
from tests.fakes.rsa_keys import rsa_key

P = ParamSpec("P")
NOW = 1_790_000_000.0  # 2026-09-21T14:13:20Z
SENTINELS = ("S3NTINEL-access-0001", "S3NTINEL-refresh-0002", "S3NTINEL-apikey-0003", "S3NTINEL-client-0004")
ACCESS, REFRESH, KEY, CLIENT_SECRET = SENTINELS
SETTINGS = Settings(gemini_client_id="client.apps.example", gemini_client_secret=CLIENT_SECRET)


def for_every_provider(test: Callable[Concatenate[Provider, P], None]) -> Callable[P, None]:
    """Gives a test each provider in turn; which one failed is told beside the fault. Thousands of tests would cost more
    than what they do."""

    def every(*args: P.args, **more: P.kwargs) -> None:
        for provider in Provider:
            try:
                test(provider, *args, **more)
            except AssertionError as exc:
                exc.add_note(f"provider: {provider}")
                raise

    signature = inspect.signature(test)
    every.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    every.__name__, every.__doc__, every.__module__ = test.__name__, test.__doc__, test.__module__
    return every


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


OWN = [
    one for one, spec in SPECS.items() if not spec.preset and spec.keys.fields
]  # with a module of their own, and keys

_PEM = (
    rsa_key()
    .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    .decode()
)


def service_account(**changes: Any) -> dict[str, Any]:
    return {
        "type": "service_account",
        "project_id": "project-one",
        "private_key_id": "key-1",
        "private_key": _PEM,
        "client_email": "pool@project-one.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
        "access_token": ACCESS,
        "expiry_date": int((NOW + 3600) * 1000),
        **changes,
    }


FILES: dict[Provider, dict[str, Any]] = {
    Provider.CODEX: codex_file(),
    Provider.CLAUDE: claude_file(),
    Provider.GEMINI: google_file(project_id="proj-1"),
    Provider.QWEN: google_file(resource_url="portal.qwen.ai"),
    Provider.OPENAI: {"api_key": KEY},
    Provider.VERTEX: service_account(),
}
KEY_FILES: dict[Provider, dict[str, Any]] = {
    provider: {"OPENAI_API_KEY" if provider is Provider.CODEX else "api_key": KEY} for provider in OWN
}


_BY_PATH = {
    "/messages": Dialect.MESSAGES,
    "/v1internal": Dialect.CODE_ASSIST,
    "/v1beta": Dialect.GEMINI,
    "/chat/": Dialect.CHAT,
    "/embeddings": Dialect.CHAT,
}


PRESET_KEYS = {
    Provider.KIMI: f"sk-kimi-{KEY}", Provider.OPENROUTER: f"sk-or-v1-{KEY}", Provider.GROQ: f"gsk_{KEY}",
    Provider.XAI: f"xai-{KEY}", Provider.FIREWORKS: f"fw_{KEY}", Provider.CEREBRAS: f"csk-{KEY}",
    Provider.NVIDIA: f"nvapi-{KEY}", Provider.HUGGINGFACE: f"hf_{KEY}", Provider.GITHUB: f"ghp_{KEY}",
    Provider.ALIBABA: f"sk-sp-{KEY}",
}  # fmt: skip


def preset_file(provider: Provider, **more: object) -> dict[str, Any]:
    """The file of a preset's account, with what its hosts need."""
    places = {
        name: f"{name}-1" for name in PRESETS[provider].places if not (name == "region" and PRESETS[provider].regions)
    }
    return {"api_key": PRESET_KEYS.get(provider, f"sk-{KEY}"), **places, **more}


def cred(provider: Provider, data: object = None, *, key: bool = False) -> Credential:
    """The credential of a file of this provider: a usual sign-in, an API key, or `data`."""
    if data is None:
        data = (
            preset_file(provider)
            if provider in PRESETS
            else (KEY_FILES if key and provider in OWN else FILES)[provider]
        )
    chosen = data
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
