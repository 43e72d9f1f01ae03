"""The settings that bring each CLI to a pool: addresses, variables, files. Pure, and cheap to import.

Which settings work, and which quietly go around a pool, was measured with the published clients: Codex 0.169,
Claude Code 2.1.329, Gemini CLI 0.61, Qwen Code 0.24, opencode 1.18.
"""

from __future__ import annotations

import base64
import json
from typing import Any

CLIS = ("codex", "claude", "gemini", "qwen", "opencode")
LABELS = {
    "codex": "Codex",
    "claude": "Claude Code",
    "gemini": "Gemini CLI",
    "qwen": "Qwen Code",
    "opencode": "opencode",
    "kimi": "Kimi Code",
}
INSTALL = {
    "codex": "npm install -g @openai/codex",
    "claude": "npm install -g @anthropic-ai/claude-code",
    "gemini": "npm install -g @google/gemini-cli",
    "qwen": "npm install -g @qwen-code/qwen-code",
    "opencode": "npm install -g opencode-ai",
    "kimi": "npm install -g @moonshot-ai/kimi-code",
}


def codex_login(key: str) -> dict[str, Any]:
    """Codex's `auth.json`: a sign-in without any account id.

    With an account id Codex asks where that account's workspace lives and would send its traffic there, around the
    pool. The id token is only parsed, never checked; the access token goes out as the bearer as it is.
    """

    def part(value: object) -> str:
        raw = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    claims = {"email": "friend@pool.invalid", "https://api.openai.com/auth": {"chatgpt_plan_type": "pro"}}
    token = ".".join((part({"alg": "HS256", "typ": "JWT"}), part(claims), part(b"pool-server")))
    return {
        "auth_mode": "chatgpt",
        "OPENAI_API_KEY": None,
        "tokens": {"id_token": token, "access_token": key, "refresh_token": "", "account_id": None},
        "last_refresh": "2099-01-01T00:00:00Z",
    }


def codex_urls(base: str) -> dict[str, str]:
    """Top-level keys of Codex's `config.toml`; they must stand before its first table."""
    return {"openai_base_url": f"{base}/backend-api/codex", "chatgpt_base_url": f"{base}/backend-api"}


# Without these Codex sends telemetry and asks for plugins that the pool has nothing to say about.
CODEX_TABLES = {"analytics": {"enabled": False}, "features": {"apps": False, "plugins": False}}


def codex_toml(base: str) -> str:
    """Lines for the top of `config.toml`: top-level and dotted keys, so that what stands below keeps its place."""
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in codex_urls(base).items()]
    for table, fields in CODEX_TABLES.items():
        lines += [f"{table}.{name} = {str(value).lower()}" for name, value in fields.items()]
    return "\n".join(lines)


def claude_env(base: str, key: str) -> dict[str, str]:
    """Claude Code's variables. A bearer token, because an API key would also be sent to the vendor."""
    return {
        "ANTHROPIC_BASE_URL": base,
        "ANTHROPIC_AUTH_TOKEN": key,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }


# Each of these would win over the pool's variables, or send the key elsewhere.
CLAUDE_CONFLICTS = (
    "ANTHROPIC_API_KEY",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
    "ANTHROPIC_BEDROCK_BASE_URL",
    "ANTHROPIC_VERTEX_BASE_URL",
)


def gemini_env(base: str, key: str) -> dict[str, str]:
    """Gemini CLI's variables for Code Assist with a token: the one way that needs no Google host at all."""
    return {
        "CODE_ASSIST_ENDPOINT": base,
        "GOOGLE_GENAI_USE_GCA": "true",
        "GOOGLE_CLOUD_ACCESS_TOKEN": key,
    }


GEMINI_CONFLICTS = (
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "GOOGLE_GENAI_USE_VERTEXAI",
    "GOOGLE_GEMINI_BASE_URL",
    "GOOGLE_CLOUD_PROJECT",
)


def qwen_env(base: str, key: str, model: str) -> dict[str, str]:
    """Qwen Code's variables for any OpenAI-compatible server; without a model the program has its own."""
    named = {"OPENAI_MODEL": model} if model else {}
    return {"OPENAI_BASE_URL": f"{base}/v1", "OPENAI_API_KEY": key, **named}


def opencode_config(base: str, key: str, model: str) -> dict[str, Any]:
    """opencode's providers: each family through the SDK of its own dialect, `model` through Chat Completions."""
    return {
        "provider": {
            "pool": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "Pool",
                "options": {"baseURL": f"{base}/v1", "apiKey": key},
                "models": {model: {"name": model}} if model else {},
            },
            "anthropic": {"options": {"baseURL": f"{base}/v1", "apiKey": key}},
            "openai": {"options": {"baseURL": f"{base}/v1", "apiKey": key}},
            "google": {"options": {"baseURL": f"{base}/v1beta", "apiKey": key}},
        }
    }
