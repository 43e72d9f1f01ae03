"""What a source holds, before anything of it is taken. Pure."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pool_server.core.enums import Provider
from pool_server.providers.times import moment
from pool_server.users import ImportedSecret, ImportedUser

MAX_BYTES = 64 << 20
_ON, _OFF = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})


class UnusableSourceError(Exception):
    """The folder holds nothing of the kind that was named; one line."""


class FoundAccount(msgspec.Struct, frozen=True):
    """A credential in the shape of a file of the pool folder. `where` names the place it came from."""

    where: str
    provider: Provider
    name: str
    data: dict[str, Any]
    dropped: Sequence[str] = ()  # fields of the other program that do not come over

    def __repr__(self) -> str:
        return f"FoundAccount(where={self.where!r}, provider={self.provider!r}, name={self.name!r})"


class Left(msgspec.Struct, frozen=True):
    """Something that is not taken, and why."""

    where: str
    why: str


class Found(msgspec.Struct):
    """All of a source. `program` is what goes on using its sign-ins until the pool refreshes them."""

    program: str
    accounts: list[FoundAccount] = []
    people: list[ImportedUser] = []
    secrets: list[ImportedSecret] = []
    left: list[Left] = []

    def add(self, one: FoundAccount | Left) -> None:
        if isinstance(one, Left):
            self.left.append(one)
        else:
            self.accounts.append(one)

    def __repr__(self) -> str:
        return f"Found(program={self.program!r}, accounts={len(self.accounts)}, people={len(self.people)})"


def content(path: Path) -> bytes:
    """What a file holds; a pipe or device is not waited for. Raises ValueError (one line) and OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ValueError("it is too large")
    return raw


def json_object(path: Path) -> dict[str, Any]:
    """A JSON object of a file. Raises ValueError (one line without anything of the file), OSError."""
    raw = content(path)
    try:
        data = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(data, dict):
        raise ValueError("it is not a JSON object")
    return data


def of_file(path: Path, where: str, account: Callable[[dict[str, Any]], FoundAccount | Left]) -> FoundAccount | Left:
    """What `account` makes of a file's JSON object, or why the file is left."""
    try:
        data = json_object(path)
    except ValueError as wrong:
        return Left(where, str(wrong))
    except OSError:
        return Left(where, "cannot be read")
    return account(data)


def milliseconds(value: object) -> int | None:
    """A moment in any form as programs' sign-ins keep it; None for none."""
    at = moment(value)
    return None if at is None else int(at * 1000)


def text(data: object, *names: str) -> str:
    """The first of `names` that holds text, stripped."""
    fields = data if isinstance(data, dict) else {}
    for name in names:
        value = fields.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def flag(value: object, *, absent: bool, unreadable: bool) -> bool:
    """A switch as programs write one: JSON's, or its text."""
    if value in (None, ""):
        return absent
    word = str(value).strip().lower()
    return word in _ON if word in _ON | _OFF else unreadable


def inner(data: object, name: str) -> dict[str, Any]:
    """The object in `name`, {} for anything else."""
    value = data.get(name) if isinstance(data, dict) else None
    return value if isinstance(value, dict) else {}


def picked(data: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The fields of these names that say something."""
    return {name: data[name] for name in names if data.get(name) not in (None, "")}


def codex_login(
    id_token: str, access: str, refresh: str, *, account_id: str = "", last_refresh: str = ""
) -> dict[str, Any]:
    """A Codex sign-in as its CLI writes it."""
    tokens = {"id_token": id_token, "access_token": access, "refresh_token": refresh, "account_id": account_id}
    kept: dict[str, Any] = {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": picked(tokens, tokens)}
    return kept | picked({"last_refresh": last_refresh}, ["last_refresh"])


def claude_login(
    access: str, refresh: str, *, expires_ms: int | None = None, scopes: list[str] | None = None, **more: Any
) -> dict[str, Any]:
    """A Claude sign-in or setup token as its CLI writes it."""
    login = {"accessToken": access, "refreshToken": refresh, "expiresAt": expires_ms, "scopes": scopes, **more}
    return {"claudeAiOauth": picked(login, login)}
