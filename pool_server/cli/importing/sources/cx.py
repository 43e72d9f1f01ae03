"""`cx` of manaflow-ai/subrouter: one file an account, `{"email", "label"?, "auth": {…auth.json of Codex…}}`.

Source: its open source. Other tools use the same folder with a folder an account; those are not read.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from pool_server.cli.importing.found import Found, FoundAccount, Left, UnusableSourceError, of_file, picked, text
from pool_server.core.enums import Provider

_AUTH = ("auth_mode", "OPENAI_API_KEY", "tokens", "last_refresh")


def read(folder: Path) -> Found:
    """`~/.codex-accounts`, its `accounts` folder, or the `codex` folder of a newer version's state."""
    places = (folder / "accounts", folder / "codex" / "accounts", folder)
    place = next((one for one in places if one.is_dir() and any(one.glob("*.json"))), None)
    if place is None:
        raise UnusableSourceError(f"there are no accounts of cx in {folder}")
    found = Found("cx")
    for path in sorted(place.glob("*.json")):
        found.add(of_file(path, path.name, partial(_account, path)))
    return found


def _account(path: Path, data: dict[str, Any]) -> FoundAccount | Left:
    auth = data.get("auth", data if "tokens" in data or "OPENAI_API_KEY" in data else None)
    if not isinstance(auth, dict):
        return Left(path.name, "it is no account of cx")
    if auth.get("refresh_failure"):
        return Left(path.name, "cx could not refresh it any more: its sign-in has ended")
    email = text(data, "email")
    name = email.removeprefix("apikey:").partition("@")[0] or path.stem
    label = picked({"label": text(data, "label")}, ["label"])
    return FoundAccount(path.name, Provider.CODEX, name, picked(auth, _AUTH) | label)
