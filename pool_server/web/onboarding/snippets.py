"""What each client must be told: the settings of every CLI and SDK, filled with the pool's address and a key.

Which settings work, and which quietly go around a pool, was measured with the published clients: Codex 0.169,
Claude Code 2.1.329, Gemini CLI 0.61, Qwen Code 0.24, opencode 1.18. Pure.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from pool_server.core.enums import Provider
from pool_server.dialects import UsableModel
from pool_server.language import gettext as _
from pool_server.language import marked
from pool_server.providers import SPECS
from pool_server.texts.client_settings import (
    LABELS,
    claude_env,
    codex_login,
    codex_toml,
    gemini_env,
    opencode_config,
    qwen_env,
)
from pool_server.web.onboarding.agents import agents
from pool_server.web.onboarding.quoting import ps, sh, word
from pool_server.web.onboarding.sdks import sdks
from pool_server.web.onboarding.steps import Client, Step, Usable, exports, named, pretty

_CODEX_BY_HAND = marked(
    "At the very top of ~/.codex/config.toml, in place of lines with the same names. Where the file has an [analytics] "
    "or [features] table, put the last three lines into it, without the part before the dot:"
)


# Claude Code hands its own variables to the command: no key stands in the file a second time.
_ASK_LINE = 'curl -fsS -m 2 -H "Authorization: Bearer $ANTHROPIC_AUTH_TOKEN" "$ANTHROPIC_BASE_URL/api/statusline"'
BARS: dict[str, tuple[Step, ...]] = {
    "claude": (
        Step(
            marked("Into ~/.claude/settings.json:"),
            pretty({"statusLine": {"type": "command", "command": _ASK_LINE}}),
            "posix",
        ),
        Step(
            marked("The same where pool-server is installed, from a cache:"),
            pretty({"statusLine": {"type": "command", "command": "pool-server statusline"}}),
        ),
    ),
    # The pool tells Codex its headroom as the vendor would tell a plan's.
    "codex": (
        Step(
            marked("In the [tui] table of ~/.codex/config.toml:"),
            'status_line = ["model-with-reasoning", "current-dir", "five-hour-limit", "weekly-limit"]',
        ),
    ),
}


def clients(base: str, key: str, usable: Usable) -> tuple[Client, ...]:
    """Every client, in the order of the page; their lines name what is `usable`. `base` has no trailing slash."""
    clis = (*_of_vendors(base, key, usable), *_of_any(base, key, usable.chat))
    return (*clis, *agents(base, key, usable.chat), *sdks(base, key, usable))


def _of_vendors(base: str, key: str, usable: Usable) -> tuple[Client, ...]:
    """CLIs that ask for a model of their own vendor's unless they are told another."""
    responses, messages, google = usable.responses, usable.messages, usable.code_assist
    claude, gemini = claude_env(base, key), gemini_env(base, key)
    return (
        Client(
            "codex",
            "Codex",
            (
                Step(_(_CODEX_BY_HAND), codex_toml(base)),
                Step(_("As ~/.codex/auth.json (keep the old file):"), pretty(codex_login(key))),
            ),
            f'codex exec --skip-git-repo-check {_asked("-m", responses)}"say hi"',
            responses,
            True,
            True,
        ),
        Client(
            "claude",
            "Claude Code",
            (Step(_("Into ~/.claude/settings.json:"), pretty({"env": claude})), *exports(claude)),
            f'claude {_asked("--model", messages)}-p "say hi"',
            messages,
            True,
            True,
        ),
        Client(
            "gemini",
            "Gemini CLI",
            (Step(_("Into ~/.gemini/.env:"), _lines(gemini)), *exports(gemini)),
            f'gemini --skip-trust {_asked("-m", google)}-p "say hi"',
            google,
            True,
            True,
        ),
    )


def _of_any(base: str, key: str, chat: UsableModel) -> tuple[Client, ...]:
    """CLIs that are told a model of any vendor's."""
    qwen = qwen_env(base, key, named(chat))
    return (
        Client(
            "qwen",
            "Qwen Code",
            (Step(_("Into ~/.qwen/.env:"), _lines(qwen)), *exports(qwen)),
            'qwen -p "say hi"',
            chat,
            True,
        ),
        Client(
            "opencode",
            "opencode",
            (Step(_("Into ~/.config/opencode/opencode.json:"), pretty(opencode_config(base, key, named(chat)))),),
            f'opencode run -m {word("pool/" + named(chat))} "say hi"',
            chat,
            True,
        ),
    )


def _asked(option: str, usable: UsableModel) -> str:
    """How a client that has a model of its own is told another, where that one may not be served."""
    return "" if usable.whole_range or not usable.model else f"{option} {word(usable.model)} "


def _lines(variables: dict[str, str]) -> str:
    return "\n".join(f"{name}={value}" for name, value in variables.items())


SIGN_IN_PROGRAMS = {
    "codex": ("codex login", "~/.codex/auth.json"),
    "claude": ("claude /login", "~/.claude/.credentials.json"),
    "gemini": ("gemini", "~/.gemini/oauth_creds.json"),
    "qwen": ("qwen", "~/.qwen/oauth_creds.json"),
    "kimi": ("kimi login", "~/.kimi-code/credentials/kimi-code.json"),
}


def program() -> str:
    """The pool's own command as a shell finds it from anywhere, with no folder of ours on its PATH."""
    beside = Path(sys.executable).with_name("pool-server")
    return sh(str(beside)) if beside.is_file() else f"{sh(sys.executable)} -m pool_server"


def _put(there: str, file: Path) -> str:
    """The copy of a sign-in, readable by the operator alone."""
    return f"install -m 600 {there} {sh(str(file))}"


def first_account(folder: str) -> tuple[Step, ...]:
    """What puts a first account into an empty pool: the sign-in of a CLI that is there already, or a key. The lines
    work from any folder."""
    place = Path(folder).absolute()
    copies = (
        Step(
            _("{labels}, signed in on this machine{ended}", labels=LABELS[name], ended=_ended(name)),
            _put(there, place / f"{name}_work.json"),
        )
        for name, (_command, there) in SIGN_IN_PROGRAMS.items()
    )
    key = f"cd {sh(str(Path.cwd()))} && {program()} account add-key"
    return (
        *copies,
        Step(
            _("An API key of a vendor (kimi, zai, openrouter, deepseek, groq, … as docs/accounts.md lists them)"),
            f"{key} kimi",
        ),
        Step(_("An API key of any other compatible service; --base-url says where it is"), f"{key} openai"),
    )


def _ended(name: str) -> str:
    """What is to be known of a sign-in that its vendor has ended."""
    notice = _(SPECS[Provider(name)].notice)
    return f" ({notice})" if notice else ""


def sign_in_again(provider: str, file: str, folder: str) -> tuple[Step, ...]:
    """How an account that has lost its sign-in gets a new one: sign in with its own client, put the file in its
    place. () for a provider whose accounts have no sign-in."""
    if provider not in SIGN_IN_PROGRAMS:
        return ()
    command, there = SIGN_IN_PROGRAMS[provider]
    place = Path(folder).absolute() / file
    return (
        Step(_("1. Sign in with {labels}{ended}:", labels=LABELS[provider], ended=_ended(provider)), command),
        Step(_("2. Put the new sign-in in its place; it is used at once:"), _put(there, place)),
    )


class Endpoint(NamedTuple):
    """Where one dialect is spoken, and what each known client calls that address."""

    dialect: str
    url: str
    clients: tuple[tuple[str, str], ...]


def endpoints(base: str) -> tuple[Endpoint, ...]:
    """The base URL by dialect; the key is the same everywhere. Settings have the names their clients give them."""
    v1 = f"{base}/v1"
    return (
        Endpoint(
            "Chat Completions",
            v1,
            (
                ("aider", "OPENAI_API_BASE"),
                ("Cline", "API Provider “OpenAI Compatible”, Base URL"),
                ("Continue", "provider: openai, apiBase"),
                ("Copilot", "OpenAI-compatible model, endpoint URL"),
                ("pi", "models.json, baseUrl"),
                ("OpenAI SDK, Python and Node", "OPENAI_BASE_URL"),
            ),
        ),
        Endpoint("Responses", v1, (("Codex", "openai_base_url"), ("OpenAI SDK, Python and Node", "OPENAI_BASE_URL"))),
        Endpoint(
            "Messages",
            base,
            (("Claude Code", "ANTHROPIC_BASE_URL"), ("Anthropic SDK, Python and Node", "ANTHROPIC_BASE_URL")),
        ),
        Endpoint(
            "Gemini",
            base,
            (("Gemini CLI", "CODE_ASSIST_ENDPOINT"), ("Google Gen AI SDK, Python and Node", "GOOGLE_GEMINI_BASE_URL")),
        ),
    )


def usable_first(clients: tuple[Client, ...]) -> tuple[Client, ...]:
    """The clients that are served now come first, before all those whose own dialect an account speaks; the order is
    kept otherwise."""
    return tuple(sorted(clients, key=lambda one: (not one.usable.served, one.usable.translated)))


def one_line(base: str, ticket: str, cli: str) -> tuple[Step, Step]:
    """The command that fetches and runs the set-up script, for both kinds of shell. It says what the machine is called,
    so that its key has a name one knows again."""
    url = f"{base}/setup/{ticket}/{cli}"
    return (
        Step("", f'curl -fsSL -H "X-Pool-Machine: $(uname -n)" {sh(url)} | sh', "posix"),
        Step(
            "",
            f"irm {ps(url + '?shell=powershell')} -Headers @{{ 'X-Pool-Machine' = \"$env:COMPUTERNAME\" }} | iex",
            "powershell",
        ),
    )
