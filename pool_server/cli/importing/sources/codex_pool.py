"""codex-pool: its pool folder, its users, and the secret under which their keys prove themselves.

Source: its open source.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import tomli

from pool_server.cli.importing.found import Found, FoundAccount, Left, UnusableSourceError, content, of_file, text
from pool_server.core.enums import Provider
from pool_server.users import ImportedSecret, OtherPool, read_codex_pool_users

_STRANGERS = ("cookies", "cyber_access", "allowed_ip", "dead")  # its own fields; cookies are no business of a pool
_VENDORS = {one.value: one for one in (Provider.CODEX, Provider.CLAUDE, Provider.GEMINI, Provider.QWEN)}


def read(folder: Path, environment: Mapping[str, str], until: float | None) -> Found:
    """The folder codex-pool runs in: `pool/`, `data/pool_users.json`, `config.toml`."""
    found = Found("codex-pool")
    told = _settings(folder, found)
    pool = folder / (text(told, "pool_dir") or "pool")
    if not pool.is_dir():
        raise UnusableSourceError(f"there is no folder {pool}")
    for path in sorted(pool.glob("*.json")) + sorted(pool.glob("*/*.json")):
        taken = _account(pool, path)
        found.add(taken)
    _people(folder, told.get("pool_users"), found, environment, until)
    return found


def _settings(folder: Path, found: Found) -> dict[str, Any]:
    path = folder / "config.toml"
    try:
        return tomli.loads(content(path).decode())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        found.left.append(Left(path.name, "it cannot be read: its pool folder and secret are not known"))
        return {}


def _account(pool: Path, path: Path) -> FoundAccount | Left:
    where = str(path.relative_to(pool))
    head, _, rest = path.stem.partition("_")
    vendor = path.parent.name if path.parent != pool else head if rest and head in _VENDORS else "codex"
    if vendor not in _VENDORS:
        return Left(where, f"accounts of {vendor} have no place here")
    name = path.stem.removeprefix(f"{vendor}_")
    return of_file(path, where, partial(_of_data, where, _VENDORS[vendor], name))


def _of_data(where: str, vendor: Provider, name: str, data: dict[str, Any]) -> FoundAccount | Left:
    if data.get("dead"):
        return Left(where, "codex-pool marked it dead: sign in anew")
    kept = {name: value for name, value in data.items() if name not in _STRANGERS}
    return FoundAccount(where, vendor, name, kept, [one for one in _STRANGERS if data.get(one)])


def _people(folder: Path, told: object, found: Found, environment: Mapping[str, str], until: float | None) -> None:
    path = folder / (text(told, "storage_path") or "data/pool_users.json")
    if not path.is_file():
        found.left.append(Left(path.name, "there is no file of users: nobody comes over"))
        return
    try:
        found.people = read_codex_pool_users(content(path))
    except (ValueError, OSError) as wrong:
        found.left.append(Left(path.name, str(wrong)))
        return
    secret = text(told, "jwt_secret") or environment.get("POOL_JWT_SECRET", "")
    if secret:
        found.secrets = [ImportedSecret(OtherPool.CODEX_POOL, secret, until)]
    else:
        why = "neither config.toml nor POOL_JWT_SECRET holds its secret: without it their old keys do not work here"
        found.left.append(Left("jwt_secret", why))
