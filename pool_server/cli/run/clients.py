"""How each CLI is started so that it uses a pool for one run: arguments, variables, and files of our own. Pure.

Nothing of the CLI's own is edited: what would win over a variable is overruled by an option, or by a settings file of
ours at the place that the CLI lets a variable name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pool_server.cli.run.pools import CLAUDE_SETTINGS, QWEN_SETTINGS
from pool_server.texts.client_settings import (
    CLAUDE_CONFLICTS,
    GEMINI_CONFLICTS,
    INSTALL,
    claude_env,
    gemini_env,
    opencode_config,
    qwen_env,
)

KEY_VARIABLE = "POOL_SERVER_KEY"  # holds the key for Codex, which is told the variable's name alone


class CannotSendHeadersError(ValueError):
    """The CLI has no way to be given headers."""


def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


class Asked(NamedTuple):
    """A run: the pool, its key, headers for every request, the CLI's own arguments, the environment, and the folder
    where settings files of ours may be written. `read` reads a file that the arguments name; `model` is one that the
    pool serves, "" where that is not known."""

    base: str
    key: str
    headers: Mapping[str, str]
    args: Sequence[str]
    env: Mapping[str, str]
    folder: Path
    read: Callable[[str], str] = _text
    model: str = ""


class Launch(NamedTuple):
    """What to start: `env` is the whole environment, `files` are written before, for their owner alone."""

    argv: tuple[str, ...]
    env: dict[str, str]
    files: dict[Path, str] = {}  # noqa: RUF012 - a NamedTuple's default, never changed
    note: str = ""  # what the person must know before it starts


def codex(asked: Asked) -> Launch:
    """A provider of this run alone, with WebSockets; its key in a variable. A ChatGPT sign-in of the person is neither
    used nor sent to the pool."""
    provider: dict[str, Any] = {
        "name": "Pool",
        "base_url": f"{asked.base}/v1",
        "wire_api": "responses",
        "env_key": KEY_VARIABLE,
        "supports_websockets": True,
        **({"http_headers": dict(asked.headers)} if asked.headers else {}),
    }
    fields = {
        "model_provider": "pool-server",
        "model_providers.pool-server": provider,
        f"shell_environment_policy.set.{KEY_VARIABLE}": "",  # its tools need no key
    }
    options = [part for name, value in fields.items() for part in ("-c", f"{name}={_toml(value)}")]
    return Launch(("codex", *options, *asked.args), {**asked.env, KEY_VARIABLE: asked.key})


def claude(asked: Asked) -> Launch:
    """Variables, and a settings file that repeats them: those of the person's own settings files win over variables.
    Settings that the arguments give stand in it too, since the program takes one such file alone."""
    variables = claude_env(asked.base, asked.key)
    if asked.headers:
        own = [asked.env["ANTHROPIC_CUSTOM_HEADERS"]] if asked.env.get("ANTHROPIC_CUSTOM_HEADERS") else []
        lines = [*own, *(f"{name}: {value}" for name, value in asked.headers.items())]
        variables["ANTHROPIC_CUSTOM_HEADERS"] = "\n".join(lines)
    env = {**_without(asked.env, CLAUDE_CONFLICTS), **variables}
    given, args = _claude_settings(asked)
    if given is None:
        note = "the settings that --settings names cannot be read here: what they say of an address wins over the pool"
        return Launch(("claude", *asked.args), env, note=note)
    file = asked.folder / CLAUDE_SETTINGS
    both = _json(_merged(given, {"env": variables}))
    return Launch(("claude", "--settings", str(file), *args), env, {file: both})


def _claude_settings(asked: Asked) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The settings that the arguments name (a file, or JSON), of which Claude Code takes the last alone, and the other
    arguments. None for settings that cannot be read."""
    given, waiting = "", False
    rest: list[str] = []
    for number, arg in enumerate(asked.args):
        if waiting:
            given, waiting = arg, False
        elif arg == "--":
            rest += asked.args[number:]
            break
        elif arg == "--settings":
            waiting = True
        elif arg.startswith("--settings="):
            given = arg.partition("=")[2]
        else:
            rest.append(arg)
    if not given:
        return {}, tuple(rest)
    try:
        found = json.loads(given if given.lstrip().startswith("{") else asked.read(given))
    except (OSError, ValueError):
        return None, ()
    readable = isinstance(found, dict) and isinstance(found.get("env", {}), dict)
    return found if readable else None, tuple(rest)


def gemini(asked: Asked) -> Launch:
    """Code Assist with a token, and the same pool as Gemini API for whoever has chosen API keys in their settings: the
    CLI takes a settings file that wins over theirs from folders of the superuser alone. What is chosen there for Vertex
    is sent to the pool too, which refuses it, and not to Google."""
    env = {**_without(asked.env, GEMINI_CONFLICTS), **gemini_env(asked.base, asked.key)}
    env |= {"GOOGLE_GEMINI_BASE_URL": asked.base, "GEMINI_API_KEY": asked.key, "GOOGLE_VERTEX_BASE_URL": asked.base}
    if asked.headers:
        own = [asked.env["GEMINI_CLI_CUSTOM_HEADERS"]] if asked.env.get("GEMINI_CLI_CUSTOM_HEADERS") else []
        pairs = [*own, *(f"{name}: {value}" for name, value in asked.headers.items())]
        env["GEMINI_CLI_CUSTOM_HEADERS"] = ", ".join(pairs)
    return Launch(("gemini", *asked.args), env)


def qwen(asked: Asked) -> Launch:
    """An OpenAI-compatible server, by variables and by the system's settings file, which wins over the person's own.
    Their OPENAI_MODEL stays."""
    env = {**asked.env, **qwen_env(asked.base, asked.key, asked.env.get("OPENAI_MODEL") or asked.model)}
    settings: dict[str, Any] = {
        "security": {"auth": {"selectedType": "openai", "apiKey": asked.key, "baseUrl": f"{asked.base}/v1"}}
    }
    if asked.headers:
        settings["model"] = {"generationConfig": {"customHeaders": dict(asked.headers)}}
    file = asked.folder / QWEN_SETTINGS
    env["QWEN_CODE_SYSTEM_SETTINGS_PATH"] = str(file)
    return Launch(("qwen", *asked.args), env, {file: _json(settings)})


def opencode(asked: Asked) -> Launch:
    """Configuration in a variable, over what the person has there and in files."""
    config = opencode_config(asked.base, asked.key, asked.model)
    if asked.headers:
        for provider in config["provider"].values():
            provider["options"]["headers"] = dict(asked.headers)
    try:
        own = json.loads(asked.env.get("OPENCODE_CONFIG_CONTENT") or "{}")
    except ValueError:
        own = {}
    merged = _merged(own if isinstance(own, dict) else {}, config)
    return Launch(("opencode", *asked.args), {**asked.env, "OPENCODE_CONFIG_CONTENT": json.dumps(merged)})


def aider(asked: Asked) -> Launch:
    """An OpenAI-compatible server; its models are called openai/NAME. The AIDER_ variables win over its own files."""
    if asked.headers:
        raise CannotSendHeadersError("aider cannot be told headers, which --account and --as need")
    url = f"{asked.base}/v1"
    names = {"OPENAI_API_BASE": url, "OPENAI_API_KEY": asked.key}
    return Launch(("aider", *asked.args), {**asked.env, **names, **{f"AIDER_{n}": v for n, v in names.items()}})


RECIPES: dict[str, Callable[[Asked], Launch]] = {
    "codex": codex,
    "claude": claude,
    "gemini": gemini,
    "qwen": qwen,
    "opencode": opencode,
    "aider": aider,
}
NEED_MODEL = frozenset(("qwen", "opencode"))  # they read no list of the pool's
INSTALLED_BY = {**INSTALL, "aider": "python -m pip install aider-chat"}


def _without(env: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name not in names}


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on top of `under`, tables within tables."""
    both = dict(under)
    for name, value in over.items():
        below = both.get(name)
        both[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return both


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


def _toml(value: Any) -> str:
    """A value on one line of TOML: strings, booleans, tables of them."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {_toml(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(value)
