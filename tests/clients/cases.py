"""The real CLIs and how a user of the pool sets each of them up. Two turns a case: a question, and a follow-up."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pool_server.core.enums import Provider
from tests.clients.jail import Jail

DIRECTORY = Path(os.environ.get("CLIENTS_DIR", "~/.cache/pool-clients")).expanduser()
QUIET = "\n[analytics]\nenabled = false\n[features]\napps = false\nplugins = false\n"
INSTALLED = ("node22", "codex", "claude", "gemini", "qwen", "kimi", "opencode", "cline", "continue", "copilot", "pi")
URL = Jail.url

Files = dict[str, str]


@dataclass(frozen=True)
class Case:
    """`files` (below HOME) and `env` are made from a pool key; `first` and `second` are the commands.

    `keys_only`: the fake accounts behind it have API keys instead of sign-ins.
    """

    name: str
    client: str
    provider: Provider
    first: list[str]
    second: list[str]
    files: Callable[[str], Files] = field(default=lambda key: {})
    env: Callable[[str], dict[str, str]] = field(default=lambda key: {})
    keys_only: bool = False

    def furnish(self, key: str, home: Path) -> None:
        """Makes a HOME with a small project in it and the client's settings, as a set-up would leave it."""
        (home / "project").mkdir(parents=True)
        (home / "project" / "README.md").write_text("# widget\n")
        for name, text in self.files(key).items():
            target = home / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            target.chmod(0o600)

    def environment(self, key: str, home: Path) -> dict[str, str]:
        """The whole environment the client is run with."""
        plain = {"USER": "user", "LANG": "C.UTF-8", "TERM": "xterm-256color"}
        return {"PATH": path(), "HOME": str(home), **plain, **self.env(key)}


def binary(client: str) -> Path:
    return DIRECTORY / client / "node_modules" / ".bin" / client


def path() -> str:
    own = [str(DIRECTORY / name / "node_modules" / ".bin") for name in INSTALLED]
    return ":".join([*own, "/usr/bin:/bin", str(DIRECTORY / "aider" / "bin")])  # which has a Python of its own


def missing(client: str) -> str:
    """Why this client cannot be run here; "" when it can."""
    needed = [binary(client), DIRECTORY / "node22" / "node_modules" / ".bin" / "node"]
    gone = [str(one) for one in needed if not one.exists()]
    return f"{gone[0]} is missing (CLIENTS_DIR)" if gone else ""


# ---------------------------------------------------------------- Codex


def _chatgpt_login(key: str) -> str:
    """The login the pool's set-up hands out: a bearer and no account id."""

    def part(data: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()

    claims = {"email": "friend@pool.invalid", "https://api.openai.com/auth": {"chatgpt_plan_type": "pro"}}
    tokens = {
        "id_token": f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}.{part('none')}",
        "access_token": key,
        "refresh_token": "",
        "account_id": None,
    }
    return json.dumps(
        {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": tokens, "last_refresh": "2099-01-01T00:00:00Z"}
    )


def _codex(name: str, config: str, auth: Callable[[str], str] | None, *, env: bool = False) -> Case:
    def files(key: str) -> Files:
        made = {".codex/config.toml": config + QUIET}
        return made if auth is None else {**made, ".codex/auth.json": auth(key)}

    return Case(
        f"codex-{name}",
        "codex",
        Provider.CODEX,
        ["codex", "exec", "--skip-git-repo-check", "say hi"],
        ["codex", "exec", "--skip-git-repo-check", "resume", "--last", "say hi again"],
        files,
        lambda key: {"POOL_API_KEY": key} if env else {},
    )


def _custom(extra: str, base: str = "/backend-api/codex", name: str = "pool") -> str:
    return (
        f'model_provider = "pool"\nchatgpt_base_url = "{URL}/backend-api"\n[model_providers.pool]\n'
        f'name = "{name}"\nbase_url = "{URL}{base}"\nwire_api = "responses"\n{extra}\n'
    )


def _api_login(key: str) -> str:
    return json.dumps({"auth_mode": "apikey", "OPENAI_API_KEY": key})


_BUILT_IN = f'openai_base_url = "{URL}/backend-api/codex"\nchatgpt_base_url = "{URL}/backend-api"\n'
CODEX = [
    _codex("built-in", _BUILT_IN, _chatgpt_login),
    _codex("custom", _custom("requires_openai_auth = true"), _chatgpt_login),
    _codex("custom-zstd", _custom("requires_openai_auth = true", name="OpenAI"), _chatgpt_login),
    _codex("env-key", _custom('env_key = "POOL_API_KEY"', base="/v1"), None, env=True),
    _codex("api-key", f'openai_base_url = "{URL}/v1"\n', _api_login),
]

# ---------------------------------------------------------------- Claude Code


def _claude(name: str, variable: str) -> Case:
    def env(key: str) -> dict[str, str]:
        return {"ANTHROPIC_BASE_URL": URL, variable: key, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}

    first, second = ["claude", "-p", "say hi"], ["claude", "-p", "--continue", "say hi again"]
    return Case(f"claude-{name}", "claude", Provider.CLAUDE, first, second, env=env)


CLAUDE = [
    _claude("auth-token", "ANTHROPIC_AUTH_TOKEN"),
    _claude("api-key", "ANTHROPIC_API_KEY"),
    _claude("oauth-token", "CLAUDE_CODE_OAUTH_TOKEN"),
]

# ---------------------------------------------------------------- Gemini CLI


def _gemini(name: str, kind: str, env: Callable[[str], dict[str, str]]) -> Case:
    settings = {"security": {"auth": {"selectedType": kind}}, "privacy": {"usageStatisticsEnabled": False}}
    return Case(
        f"gemini-{name}",
        "gemini",
        Provider.GEMINI,
        ["gemini", "-p", "say hi"],
        ["gemini", "--resume", "latest", "-p", "say hi again"],
        lambda key: {".gemini/settings.json": json.dumps(settings)},
        lambda key: {"GEMINI_CLI_TRUST_WORKSPACE": "true", **env(key)},
        keys_only=kind == "gemini-api-key",
    )


GEMINI = [
    _gemini(
        "code-assist",
        "oauth-personal",
        lambda key: {
            "CODE_ASSIST_ENDPOINT": URL,
            "GOOGLE_GENAI_USE_GCA": "true",
            "GOOGLE_CLOUD_ACCESS_TOKEN": key,
        },
    ),
    _gemini("api-key", "gemini-api-key", lambda key: {"GOOGLE_GEMINI_BASE_URL": URL, "GEMINI_API_KEY": key}),
]

# ---------------------------------------------------------------- Qwen Code, opencode

QWEN = Case(
    "qwen",
    "qwen",
    Provider.QWEN,
    ["qwen", "-p", "say hi"],
    ["qwen", "--continue", "-p", "say hi again"],
    lambda key: {".qwen/settings.json": json.dumps({"privacy": {"usageStatisticsEnabled": False}})},
    lambda key: {"OPENAI_BASE_URL": f"{URL}/v1", "OPENAI_API_KEY": key, "OPENAI_MODEL": "qwen3-coder-plus"},
    keys_only=True,
)


def _opencode_files(key: str) -> Files:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Pool",
        "options": {"baseURL": f"{URL}/v1", "apiKey": key},
        "models": {"qwen3-coder-plus": {"name": "Qwen"}},
    }
    config = {
        "provider": {"pool": provider},
        "model": "pool/qwen3-coder-plus",
        "small_model": "pool/qwen3-coder-plus",
        "autoupdate": False,
        "share": "disabled",
    }
    return {".config/opencode/opencode.json": json.dumps(config)}


OPENCODE = Case(
    "opencode",
    "opencode",
    Provider.QWEN,
    ["opencode", "run", "say hi"],
    ["opencode", "run", "--continue", "say hi again"],
    _opencode_files,
    lambda key: {"OPENCODE_DISABLE_MODELS_FETCH": "1"},
    keys_only=True,
)

CASES = [*CODEX, *CLAUDE, *GEMINI, QWEN, OPENCODE]
EACH_CLIENT = [CODEX[0], CODEX[1], CLAUDE[0], GEMINI[0], GEMINI[1], QWEN, OPENCODE]
