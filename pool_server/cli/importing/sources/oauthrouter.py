"""OAuthModelRouter: one SQLite table `tokens` of Claude and OpenAI sign-ins. It has neither people nor keys.

Source: its open source. The file is copied with its write-ahead log and the copy is read.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from pool_server.cli.importing.found import (
    Found,
    FoundAccount,
    Left,
    UnusableSourceError,
    claude_login,
    codex_login,
    milliseconds,
    text,
)
from pool_server.core.enums import Provider
from pool_server.providers.claude.module import CLIENT_ID as CLAUDE_CLIENT
from pool_server.providers.codex.module import CLIENT_ID as CODEX_CLIENT

_FILE = "tokens.db"


def read(folder: Path) -> Found:
    """`~/.oauthrouter`, or its `tokens.db`."""
    path = folder if folder.is_file() else folder / _FILE
    if not path.is_file():
        raise UnusableSourceError(f"there is no {_FILE} in {folder}")
    try:
        rows = _rows(path)
    except sqlite3.Error:
        raise UnusableSourceError(f"{path} is no token store of oauthrouter") from None
    found = Found("oauthrouter")
    for row in rows:
        where = f"token {text(row, 'id') or row.get('id')}"
        taken = _account(where, row)
        found.add(taken)
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="pool-server.") as home:
        copy = Path(home) / _FILE
        for suffix in ("", "-wal"):
            part = path.with_name(path.name + suffix)
            if part.is_file():
                shutil.copyfile(part, copy.with_name(copy.name + suffix))
        with closing(sqlite3.connect(copy)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute("SELECT * FROM tokens ORDER BY rowid")]


def _account(where: str, row: dict[str, Any]) -> FoundAccount | Left:
    vendor = {"claude": Provider.CLAUDE, "openai": Provider.CODEX}.get(text(row, "provider"))
    access, refresh = text(row, "access_token"), text(row, "refresh_token")
    client = text(row, "oauth_client_id")
    if vendor is None:
        return Left(where, "its provider is neither claude nor openai")
    if not access and not refresh:
        return Left(where, "it has no token")
    if refresh and client not in ("", CLAUDE_CLIENT if vendor is Provider.CLAUDE else CODEX_CLIENT):
        return Left(where, "it was made by another OAuth client, and cannot be refreshed here: sign in anew")
    if text(row, "status") == "unhealthy" and refresh:
        return Left(where, "oauthrouter could not refresh it any more: sign in anew")
    name = text(row, "account_id", "id") or "account"
    priority = row.get("priority")
    options = {"priority": priority} if isinstance(priority, int) and not isinstance(priority, bool) else {}
    return FoundAccount(where, vendor, name, _data(vendor, access, refresh, row) | options)


def _data(vendor: Provider, access: str, refresh: str, row: dict[str, Any]) -> dict[str, Any]:
    if vendor is Provider.CLAUDE:
        if access.startswith("sk-ant-api"):
            return {"api_key": access}
        scopes = text(row, "scopes").replace(",", " ").split()
        return claude_login(access, refresh, expires_ms=milliseconds(text(row, "expires_at")), scopes=scopes)
    if access.startswith("sk-") and not refresh:
        return {"OPENAI_API_KEY": access}
    return codex_login("", access, refresh)  # who it is stands in the access token
