"""The vendors' own programs that sign in: how each is run in a home of its own, and what it leaves there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from pool_server.core.enums import Provider


class SignInProgram(NamedTuple):
    """`home` is the variable that moves the program's home, `file` what it writes there (a pattern), `prepared` the
    files that are there before it starts. `remote` is the command for a machine without a browser. `token`: a command
    that shows a token instead, for where no file is left; `older_home`: what an older program of the same name calls
    `home`; `leave`: how somebody ends a program that goes on after the sign-in; `ended`: a command and the word in its
    answer by which a version of it tells that it signs nobody in any more; `edition`: a file of the home, the
    words in it that tell the vendor's other edition, and the region it then is."""

    argv: tuple[str, ...]
    home: str
    file: str
    remote: tuple[str, ...] = ()
    prepared: tuple[tuple[str, str], ...] = ()
    token: tuple[str, ...] = ()
    older_home: str = ""
    leave: str = ""
    ended: tuple[tuple[str, ...], str] | tuple[()] = ()
    edition: tuple[str, str, str] | tuple[()] = ()

    def left(self, home: Path) -> str:
        """The credential that the program left in its home, "" for none. Raises OSError."""
        files = [one for one in sorted(home.glob(self.file)) if one.is_file() and one.stat().st_size]
        text = files[-1].read_text(encoding="utf-8") if files else ""
        if not text or not self.edition:
            return text
        file, words, region = self.edition
        config = home / file
        if not config.is_file() or words not in config.read_text(encoding="utf-8"):
            return text
        return json.dumps({**json.loads(text), "region": region})


_CHOSEN = '{"security":{"auth":{"selectedType":"%s"},"folderTrust":{"enabled":false}}}'
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
        ("qwen",),
        "QWEN_HOME",
        "oauth_creds.json",
        prepared=(("settings.json", _CHOSEN % "qwen-oauth"),),
        leave="/quit",
        ended=(("qwen", "auth", "--help"), "removed"),  # 0.24.4 opens a list of vendors' keys that nothing closes
    ),
    Provider.KIMI: SignInProgram(
        ("kimi", "login"),
        "KIMI_CODE_HOME",
        "credentials/kimi-code*.json",  # of kimi.ai: kimi-code-env-HASH.json
        older_home="KIMI_SHARE_DIR",
        edition=("config.toml", "api.kimi.ai", "ai"),
    ),
}
