"""The set-up scripts: what each CLI's script changes, and the text of it for either kind of shell.

The texts are templates in `templates/setup/`; a value gets into them through `quoting` alone. Scripts keep foreign
settings, write down what they replace, can be run again, and leave an undo behind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

from tornado.template import Loader

from pool_server.texts import client_settings
from pool_server.web.base.assets.paths import templates_folder
from pool_server.web.onboarding import quoting, snippets
from pool_server.web.onboarding.steps import Client, Usable


class Place(NamedTuple):
    """A file as both kinds of shell write it; `usual_…` is where it is when no variable moves it."""

    sh: str
    ps: str
    usual_sh: str
    usual_ps: str


def _place(variable: str, folder: str, *parts: str) -> Place:
    """A file in the folder that `variable` names, else in `folder` below the home. The words are ours, not values."""
    below = "/".join(("$HOME", *([folder] if folder else [])))
    windows = f"Join-Path $HOME '{folder}'" if folder else "$HOME"
    rest = "/".join(parts)
    return Place(
        f'"${{{variable}:-{below}}}/{rest}"',
        f"Join-Path $(if ($env:{variable}) {{ $env:{variable} }} else {{ {windows} }}) '" + "\\".join(parts) + "'",
        f'"{below}/{rest}"',
        f"Join-Path ({windows}) '" + "\\".join(parts) + "'",
    )


_OPENCODE = '"${XDG_CONFIG_HOME:-$HOME/.config}/opencode/opencode.json"'
OPENCODE = Place(
    f'"${{OPENCODE_CONFIG:-{_OPENCODE[1:-1]}}}"',
    "$(if ($env:OPENCODE_CONFIG) { $env:OPENCODE_CONFIG } else { Join-Path $HOME '.config\\opencode\\opencode.json' })",
    _OPENCODE,
    "Join-Path $HOME '.config\\opencode\\opencode.json'",
)


class Recipe(NamedTuple):
    """What one JSON-configured CLI's script does.

    `fields` are set in `file`, `remove` are taken out of it; `dotenv` goes into the environment file `env_file`
    (None = only set aside what is there); `exported` are variables that would win over all of it.
    """

    file: Place
    fields: dict[tuple[str, ...], Any]
    remove: tuple[tuple[str, ...], ...] = ()
    env_file: Place | None = None
    dotenv: Mapping[str, str | None] = MappingProxyType({})
    exported: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


def recipe(cli: str, base: str, key: str, model: str) -> Recipe:
    """The recipe of `claude`, `gemini`, `qwen` or `opencode`."""
    if cli == "claude":
        env = client_settings.claude_env(base, key)
        return Recipe(
            _place("CLAUDE_CONFIG_DIR", ".claude", "settings.json"),
            {("env", name): value for name, value in env.items()},
            (*(("env", name) for name in client_settings.CLAUDE_CONFLICTS), ("apiKeyHelper",)),
            exported=(*env, *client_settings.CLAUDE_CONFLICTS),
        )
    if cli == "gemini":
        env = client_settings.gemini_env(base, key)
        return Recipe(
            _place("GEMINI_CLI_HOME", "", ".gemini", "settings.json"),
            {("security", "auth", "selectedType"): "oauth-personal"},
            (("security", "auth", "enforcedType"),),
            _place("GEMINI_CLI_HOME", "", ".gemini", ".env"),
            {**env, **dict.fromkeys(client_settings.GEMINI_CONFLICTS)},
            (*env, *client_settings.GEMINI_CONFLICTS),
            (
                "Gemini CLI reads this only in folders you trust, and a project's own .env instead of it: "
                "in such a project, put the lines of ~/.gemini/.env into .gemini/.env there.",
            ),
        )
    if cli == "qwen":
        env = client_settings.qwen_env(base, key, model)
        return Recipe(
            _place("QWEN_HOME", ".qwen", "settings.json"),
            {("security", "auth", "selectedType"): "openai", **({("model", "name"): model} if model else {})},
            (("security", "auth", "apiKey"), ("security", "auth", "baseUrl")),
            _place("QWEN_HOME", ".qwen", ".env"),
            dict(env),
            tuple(env),
        )
    providers = client_settings.opencode_config(base, key, model)["provider"]
    fields = {("provider", name): value for name, value in providers.items()}
    return Recipe(OPENCODE, fields | {("$schema",): "https://opencode.ai/config.json"})


@cache
def _loader() -> Loader:
    return Loader(str(templates_folder() / "setup"), autoescape=None, whitespace="all")


def render(name: str, values: Mapping[str, object]) -> str:
    helpers = {"sh": quoting.sh, "ps": quoting.ps, "toml": quoting.toml}
    return _loader().load(name).generate(**helpers, **values).decode()


def script(cli: str, *, powershell: bool, base: str, key: str, pool: str, usable: Usable, named: str = "") -> str:
    """The set-up script of `cli` for one shell.

    `pool` is what the operator calls the pool, `named` what its key is called ("" = none was made). Raises ValueError
    when a value cannot be quoted.
    """
    client = next(client for client in snippets.clients(base, key, usable) if client.name == cli)
    # The name stands in a comment line too: letters, digits and a little punctuation are enough there.
    shown = "".join(char for char in pool if char.isalnum() or char in " .-_'") or "the pool"
    values: dict[str, Any] = {"cli": cli, "label": client.label, "pool": shown, "then": client.then}
    values |= {"program": cli, "install": client_settings.INSTALL[cli], "base": base, "key": key}
    values["key_ends"] = f"Its key, {named}, still works. To end it, open {base}/#keys" if named else ""
    values["unserved"] = _unserved(client)
    suffix = "ps1" if powershell else "sh"
    if cli == "codex":
        urls = client_settings.codex_urls(base)
        values |= {"openai_url": urls["openai_base_url"], "chatgpt_url": urls["chatgpt_base_url"]}
        values["auth_json"] = json.dumps(client_settings.codex_login(key))
        return render(f"codex.{suffix}", values)
    values |= _json_values(recipe(cli, base, key, client.usable.model))
    if powershell:
        values["encoded_undo"] = quoting.ps(quoting.encoded(render("json_undo.ps1", values)))
    return render(f"json.{suffix}", values)


def _unserved(client: Client) -> str:
    """What is to be known where nobody serves the client now, or no name of a model is known."""
    if not client.usable.served:
        what = client.usable.model or f"anything for {client.label}"
        return f"Careful: no account of the pool serves {what} now. Look at the pool's page before you rely on it."
    return "" if client.usable.model else "Careful: the pool knows no name of a model. Ask whoever runs it for one."


def refusal(base: str, *, powershell: bool) -> str:
    """A script that changes nothing and fails, for whoever's line was used or has expired."""
    words = f"pool-server: this line was used or has expired. Copy a new one from {base}/"
    if powershell:
        return f"throw {quoting.ps(words)}\n"
    return f"printf '%s\\n' {quoting.sh(words)} >&2\nexit 1\n"


def _json_values(how: Recipe) -> dict[str, object]:
    edit = {
        "set": [[list(path), value] for path, value in how.fields.items()],
        "remove": [list(path) for path in how.remove],
    }
    return {
        "file_sh": how.file.sh,
        "file_ps": how.file.ps,
        "usual_sh": how.file.usual_sh,
        "usual_ps": how.file.usual_ps,
        "edit": quoting.js(edit),
        "dotenv": how.dotenv,
        "dotenv_sh": how.env_file.sh if how.env_file else "",
        "dotenv_ps": how.env_file.ps if how.env_file else "",
        "exported": how.exported,
        "hints": how.hints,
    }
