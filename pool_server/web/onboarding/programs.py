"""The vendors' own programs that sign in: how each is run in a home of its own, and what it leaves there."""

from __future__ import annotations

from typing import NamedTuple

from pool_server.core.enums import Provider


class SignInProgram(NamedTuple):
    """`home` is the variable that moves the program's home, `file` what it writes there, `prepared` the files that are
    there before it starts. `remote` is the command for a machine without a browser. `token`: a command that shows a
    token instead, for where no file is left; `older_home`: what an older program of the same name calls
    `home`; `leave`: how somebody ends a program that goes on after the sign-in."""

    argv: tuple[str, ...]
    home: str
    file: str
    remote: tuple[str, ...] = ()
    prepared: tuple[tuple[str, str], ...] = ()
    token: tuple[str, ...] = ()
    older_home: str = ""
    leave: str = ""


_CHOSEN = '{"security":{"auth":{"selectedType":"%s"}}}'
PROGRAMS = {
    Provider.CODEX: SignInProgram(
        ("codex", "login"),
        "CODEX_HOME",
        "auth.json",
        remote=("codex", "login", "--device-auth"),
        prepared=(("config.toml", 'cli_auth_credentials_store = "file"\n'),),
    ),
    Provider.CLAUDE: SignInProgram(
        ("claude", "auth", "login"), "CLAUDE_CONFIG_DIR", ".credentials.json", token=("claude", "setup-token")
    ),
    Provider.GEMINI: SignInProgram(
        ("gemini",),
        "GEMINI_CLI_HOME",
        ".gemini/oauth_creds.json",
        prepared=((".gemini/settings.json", _CHOSEN % "oauth-personal"),),
        leave="/quit",
    ),
    Provider.QWEN: SignInProgram(
        ("qwen",), "QWEN_HOME", "oauth_creds.json", prepared=(("settings.json", _CHOSEN % "qwen-oauth"),), leave="/quit"
    ),
    Provider.KIMI: SignInProgram(
        ("kimi", "login"), "KIMI_CODE_HOME", "credentials/kimi-code.json", older_home="KIMI_SHARE_DIR"
    ),
}
