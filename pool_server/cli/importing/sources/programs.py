"""The sign-in of a vendor's own CLI in its home: Codex, Claude Code, Gemini CLI, Qwen Code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pool_server.cli.importing.found import Found, FoundAccount, UnusableSourceError, inner, json_object, text
from pool_server.core.enums import Provider
from pool_server.providers import CredentialRejectedError, provider_module


class ProgramHome(NamedTuple):
    """Where a program keeps its sign-in: the variable that moves its home, the home, the file in it."""

    program: str
    variable: str
    home: str
    file: str


HOMES = {
    Provider.CODEX: ProgramHome("codex", "CODEX_HOME", ".codex", "auth.json"),
    Provider.CLAUDE: ProgramHome("claude", "CLAUDE_CONFIG_DIR", ".claude", ".credentials.json"),
    Provider.GEMINI: ProgramHome("gemini", "", ".gemini", "oauth_creds.json"),
    Provider.QWEN: ProgramHome("qwen", "", ".qwen", "oauth_creds.json"),
}


def read(provider: Provider, folder: Path, now: float) -> Found:
    """The one account of a program. `folder` may be the file itself."""
    home = HOMES[provider]
    path = folder if folder.is_file() else folder / home.file
    if not path.is_file():
        hint = "; on macOS it keeps its sign-in in the keychain" if provider is Provider.CLAUDE else ""
        raise UnusableSourceError(f"there is no {home.file} in {folder}: is {home.program} signed in there?{hint}")
    try:
        data = json_object(path)
    except ValueError as wrong:
        raise UnusableSourceError(f"{path}: {wrong}") from None
    return Found(home.program, [FoundAccount(str(path), provider, _name(provider, data, now), data)])


def _name(provider: Provider, data: dict[str, Any], now: float) -> str:
    """Who is signed in, by the part of the e-mail address that is theirs; else the program's own word."""
    try:
        cred = provider_module(provider).parse(data, f"{provider.value}:new", now=now)
    except CredentialRejectedError:
        return "own"
    email = cred.email or text(inner(data, "oauthAccount"), "emailAddress")
    return email.partition("@")[0] or "own"
