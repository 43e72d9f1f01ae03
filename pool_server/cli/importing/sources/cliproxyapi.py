"""CLIProxyAPI: flat files of accounts in its auth folder, and `api-keys`, a plain list without names, in its YAML.

Source: its open source.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pool_server.cli.importing.found import (
    Found,
    FoundAccount,
    Left,
    UnusableSourceError,
    claude_login,
    codex_login,
    content,
    flag,
    inner,
    milliseconds,
    of_file,
    picked,
    text,
)
from pool_server.core.enums import Provider
from pool_server.users import ImportedUser, token_mark

_CONFIG = ("config.yaml", "config.yml")
_HEAD = "api-keys:"
_ITEM = re.compile(r"""-[ \t]+(?P<value>"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|.*?)(?:[ \t]+#.*)?""")


def read(folder: Path) -> Found:
    """The folder with `config.yaml` and `auths/`, or a folder of account files alone."""
    config = next((folder / name for name in _CONFIG if (folder / name).is_file()), None)
    place = folder / "auths" if (folder / "auths").is_dir() else folder
    paths = sorted(place.glob("*.json"))
    if config is None and not paths:
        raise UnusableSourceError(f"there is neither a config.yaml nor an account file of CLIProxyAPI in {folder}")
    found = Found("CLIProxyAPI")
    for path in paths:
        found.add(of_file(path, path.name, partial(_account, path)))
    if config is None:
        found.left.append(Left("config.yaml", "it is not there: no key comes over"))
    else:
        _people(config, found)
    return found


def _account(path: Path, data: dict[str, Any]) -> FoundAccount | Left:
    kind = text(data, "type")
    shapes = {"codex": _codex, "claude": _claude, "gemini": _gemini, "qwen": _qwen, "kimi": _kimi}
    if kind not in shapes:
        return Left(path.name, f"accounts of {kind or 'no type'} have no place here")
    options = {
        "priority": data.get("priority"),
        "weight": data.get("weight"),
        "label": text(data, "note"),
        "proxy_url": text(data, "proxy_url"),
        "disabled": flag(data.get("disabled"), absent=False, unreadable=True) or None,
    }
    if data.get("proxy_url") and not options["proxy_url"]:
        return Left(path.name, "its proxy_url cannot be read: without it the account would go another way")
    provider, credential = shapes[kind](data)
    name = text(data, "email").partition("@")[0] or path.stem.removeprefix(f"{kind}-")
    return FoundAccount(path.name, provider, name, credential | picked(options, options))


def _codex(data: dict[str, Any]) -> tuple[Provider, dict[str, Any]]:
    return Provider.CODEX, codex_login(
        text(data, "id_token"),
        text(data, "access_token"),
        text(data, "refresh_token"),
        account_id=text(data, "account_id"),
        last_refresh=text(data, "last_refresh"),
    )


def _claude(data: dict[str, Any]) -> tuple[Provider, dict[str, Any]]:
    return Provider.CLAUDE, claude_login(
        text(data, "access_token"),
        text(data, "refresh_token"),
        expires_ms=milliseconds(text(data, "expired")),
        accountUuid=text(data, "account_uuid"),
        organizationUuid=text(data, "organization_uuid"),
    )


def _gemini(data: dict[str, Any]) -> tuple[Provider, dict[str, Any]]:
    token = inner(data, "token") or data
    login = {
        **picked(token, ("access_token", "refresh_token", "scope", "token_type", "id_token")),
        "expiry_date": milliseconds(text(token, "expiry", "expired")),
        "project_id": text(data, "project_id"),
    }
    return Provider.GEMINI, picked(login, login)


def _qwen(data: dict[str, Any]) -> tuple[Provider, dict[str, Any]]:
    login = {**data, "expiry_date": milliseconds(text(data, "expired"))}
    return Provider.QWEN, picked(login, ("access_token", "refresh_token", "resource_url", "expiry_date"))


def _kimi(data: dict[str, Any]) -> tuple[Provider, dict[str, Any]]:
    login = {**data, "expires_at": milliseconds(text(data, "expired"))}
    return Provider.KIMI, picked(login, ("access_token", "refresh_token", "scope", "token_type", "expires_at"))


def _people(config: Path, found: Found) -> None:
    try:
        keys = api_keys(content(config).decode())
    except (OSError, ValueError):
        found.left.append(Left(config.name, "it cannot be read: no key comes over"))
        return
    if not keys:
        found.left.append(Left(config.name, "there is no list api-keys in it: no key comes over"))
    for number, key in enumerate(keys, 1):
        where = f"api-keys, entry {number}"
        if not key:
            found.left.append(Left(where, "it is no plain text"))
        elif (first := keys.index(key) + 1) < number:
            found.left.append(Left(where, f"it is the key of entry {first}"))
        else:
            found.people.append(ImportedUser(where, f"cliproxyapi {number}", marks=(token_mark(key),)))


def api_keys(yaml: str) -> list[str]:
    """The plain list `api-keys` at the top of a YAML text; "" for an item that is no plain text.

    >>> api_keys("port: 1\\napi-keys:\\n  - 'a-key'  # Anna\\n  - b\\nother:\\n  - c\\n")
    ['a-key', 'b']
    """
    values: list[str] = []
    lines = iter(yaml.splitlines())
    for line in lines:
        if line.startswith(_HEAD):
            rest = line.removeprefix(_HEAD).partition(" #")[0].strip()
            values = rest[1:-1].split(",") if rest[:1] == "[" and rest[-1:] == "]" else _items(lines)
            break
    return [_scalar(value.strip()) for value in values]


def _items(lines: Iterator[str]) -> list[str]:
    """The items of a block list, which ends at the first line of another kind."""
    values = []
    for line in map(str.strip, lines):
        item = _ITEM.fullmatch(line)
        if item is not None:
            values.append(item["value"])
        elif line and not line.startswith("#"):
            break
    return values


def _scalar(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == "'":
        return value[1:-1].replace("''", "'")
    if len(value) >= 2 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except ValueError:
            return ""
    plain = value not in ("", "~", "null") and value[0] not in "{[&*!|>#" and ": " not in value
    return value if plain else ""
