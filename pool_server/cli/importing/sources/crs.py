"""claude-relay-service: its JSON export (version 2.0) of accounts and keys.

Source: its open source. A key is kept as SHA-256(key + ENCRYPTION_KEY); an encrypted value is "IV:CIPHER" in hex,
AES-256-CBC under scrypt(ENCRYPTION_KEY, salt, 32). OpenAI accounts are not in the export.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from pool_server.cli.importing.found import (
    Found,
    FoundAccount,
    Left,
    UnusableSourceError,
    claude_login,
    content,
    flag,
    inner,
    json_object,
    milliseconds,
    picked,
    text,
)
from pool_server.core.enums import Provider
from pool_server.providers.times import moment, number
from pool_server.users import ImportedSecret, ImportedUser, OtherPool, hashed_mark

_SEALED = re.compile(r"[0-9a-f]{32}:(?:[0-9a-f]{32})+")
_ENV = re.compile(r"^\s*ENCRYPTION_KEY\s*=\s*[\"']?([^\"'\s#]+)", re.M)
_SALTS = {"claudeAccounts": b"salt", "geminiAccounts": b"gemini-account-salt"}
_LIMITS: dict[str, tuple[str, Callable[[float], float]]] = {
    "concurrencyLimit": ("concurrent", ceil),
    "dailyCostLimit": ("cost_day", float),
}
_NOT_HELD = ("tokenLimit", "weeklyOpusCostLimit", "totalCostLimit", "rateLimitCost")
_RESTRICTIONS = {"enableModelRestriction": "restrictedModels", "enableClientRestriction": "allowedClients"}
_PERMISSIONS = {"claude": (Provider.CLAUDE,), "gemini": (Provider.GEMINI,), "openai": (Provider.CODEX, Provider.OPENAI)}
_NONE: tuple[object, ...] = (None, "", "null", "[]", [])


def read(folder: Path, environment: Mapping[str, str], now: float, until: float | None) -> Found:
    """The export, or the one folder it lies in; ENCRYPTION_KEY from the environment or from `.env` beside it."""
    paths = [folder] if folder.is_file() else sorted(folder.glob("*.json"))
    exports = [(path, data) for path in paths if "data" in (data := _read(path)) and "metadata" in data]
    if not exports:
        raise UnusableSourceError(f"there is no export of claude-relay-service in {folder}")
    path, data = exports[-1]
    if inner(data, "metadata").get("sanitized"):
        raise UnusableSourceError(
            f"{path.name} is a sanitized export: it holds no credentials; export it again without"
        )
    key = environment.get("ENCRYPTION_KEY") or _key_beside(path.parent)
    found, held = Found("claude-relay-service"), inner(data, "data")
    for kind, salt in _SALTS.items():
        opener = _Opener(key, salt)
        for at, entry in enumerate(_list(held, kind), 1):
            taken = _account(f"{kind}, entry {at}", kind, entry, opener)
            found.add(taken)
    _people(_list(held, "apiKeys"), key, found, now, until)
    found.left.append(Left("OpenAI accounts", "claude-relay-service does not export them: sign in anew"))
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return json_object(path)
    except (ValueError, OSError):
        return {}


def _key_beside(folder: Path) -> str:
    try:
        found = _ENV.search(content(folder / ".env").decode())
    except (OSError, ValueError):
        return ""
    return found[1] if found else ""


def _list(data: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = data.get(name)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


class _Opener:
    """Decrypts the values of one kind of account."""

    def __init__(self, key: str, salt: bytes) -> None:
        self._given, self._salt = key, salt

    @functools.cached_property
    def _key(self) -> bytes:
        """Derived when the first value asks for it: that takes a tenth of a second."""
        return hashlib.scrypt(self._given.encode(), salt=self._salt, n=16384, r=8, p=1, dklen=32)

    def open(self, value: object) -> str:
        """The plain text; "" for what cannot be opened."""
        if not isinstance(value, str) or not _SEALED.fullmatch(value):
            return value if isinstance(value, str) else ""
        if not self._given:
            return ""
        head, _, body = value.partition(":")
        try:
            cipher = Cipher(algorithms.AES(self._key), modes.CBC(bytes.fromhex(head))).decryptor()
            padder = PKCS7(128).unpadder()
            raw = cipher.update(bytes.fromhex(body)) + cipher.finalize()
            return (padder.update(raw) + padder.finalize()).decode()
        except ValueError:
            return ""


def _account(where: str, kind: str, entry: dict[str, Any], opener: _Opener) -> FoundAccount | Left:
    name = text(entry, "name", "email").partition("@")[0] or "account"
    login = _login(entry, opener)
    access, refresh = opener.open(login.get("accessToken")), opener.open(login.get("refreshToken"))
    if not access and not refresh:
        return Left(where, "its tokens are encrypted, and ENCRYPTION_KEY does not open them" if login else "no token")
    ends, priority = milliseconds(login.get("expiresAt")), number(entry.get("priority"))
    proxy = _proxy(entry.get("proxy"))
    if proxy is None:
        return Left(where, "its proxy cannot be read: without it the account would go another way")
    options: dict[str, Any] = {"label": text(entry, "name"), "proxy_url": proxy}
    if not _active(entry) or not _shared(entry):
        options["disabled"] = True
    if priority is not None and priority.is_integer() and abs(priority) <= 1_000_000:
        options["priority"] = int(priority)
    options = picked(options, options)
    if kind == "geminiAccounts":
        fields = {"access_token": access, "refresh_token": refresh, "expiry_date": ends}
        project = {"project_id": text(entry, "projectId")}
        return FoundAccount(where, Provider.GEMINI, name, picked(fields, fields) | picked(project, project) | options)
    scopes = login.get("scopes")
    listed = scopes.split() if isinstance(scopes, str) else scopes if isinstance(scopes, list) else None
    data = claude_login(access, refresh, expires_ms=ends, scopes=listed)
    return FoundAccount(where, Provider.CLAUDE, name, data | options)


def _login(entry: dict[str, Any], opener: _Opener) -> dict[str, Any]:
    """The tokens of an entry: one encrypted object, or fields of their own."""
    for name in ("claudeAiOauth", "geminiOauth"):
        held = entry.get(name)
        if isinstance(held, dict):
            return held
        if isinstance(held, str) and held:
            try:
                opened = json.loads(opener.open(held))
            except (ValueError, RecursionError):
                continue
            if isinstance(opened, dict):
                return {
                    "accessToken": opened.get("accessToken") or opened.get("access_token"),
                    "refreshToken": opened.get("refreshToken") or opened.get("refresh_token"),
                    "expiresAt": opened.get("expiresAt") or opened.get("expiry_date"),
                    "scopes": opened.get("scopes") or opened.get("scope"),
                }
    return picked(entry, ("accessToken", "refreshToken", "expiresAt", "scopes"))


def _active(entry: dict[str, Any]) -> bool:
    on = flag(entry.get("isActive"), absent=True, unreadable=False)
    return on and not flag(entry.get("isDeleted"), absent=False, unreadable=True)


def _shared(entry: dict[str, Any]) -> bool:
    """Does an account serve every key? One kept for keys that are bound to it, or taken out of the choice, does not."""
    kept = text(entry, "accountType") not in ("", "shared")
    return not kept and flag(entry.get("schedulable"), absent=True, unreadable=False)


def _proxy(said: object) -> str | None:
    """Its `{type, host, port, username, password}`, perhaps as a JSON text; "" = none, None = it cannot be read."""
    if isinstance(said, str) and said.strip():
        try:
            said = json.loads(said)
        except (ValueError, RecursionError):
            return None
    if said in (None, "", {}):
        return ""
    if not isinstance(said, dict) or not text(said, "host"):
        return None
    user = f"{text(said, 'username')}:{text(said, 'password')}@" if text(said, "username") else ""
    return f"{text(said, 'type') or 'http'}://{user}{text(said, 'host')}:{said.get('port') or 80}"


def _people(entries: list[dict[str, Any]], key: str, found: Found, now: float, until: float | None) -> None:
    if entries and not key:
        why = "ENCRYPTION_KEY is neither in the environment nor in .env beside the export: old keys cannot live on"
        found.left.append(Left("apiKeys", why))
    names: set[str] = set()
    for at, entry in enumerate(entries, 1):
        where = f"apiKeys, entry {at}"
        name = _fresh(text(entry, "name") or f"crs {at}", names)
        try:
            digest = bytes.fromhex(text(entry, "apiKey"))
        except ValueError:
            digest = b""
        ends = moment(entry.get("expiresAt"))
        if ends is None and entry.get("expiresAt"):
            found.left.append(Left(where, f"the end of {name!r}'s key cannot be read"))
            continue
        try:
            limits = _limits(entry)
        except ValueError as wrong:
            found.left.append(Left(where, f"{name!r}: {wrong}"))
            continue
        if ends is not None and ends <= now:
            found.left.append(Left(where, f"the key of {name!r} has expired"))
            continue
        if len(digest) != 32:
            found.left.append(Left(where, f"the key of {name!r} is not in the export"))
        marks = (hashed_mark(digest),) if key and len(digest) == 32 else ()
        found.people.append(
            ImportedUser(where, name, disabled=not _active(entry), marks=marks, expires=ends, limits=limits)
        )
    if key and entries:
        found.secrets.append(ImportedSecret(OtherPool.CRS, key, until))


def _fresh(name: str, names: set[str]) -> str:
    """Each key is a person of its own here, also where two have one name."""
    fit = next(one for one in (name, *(f"{name} {at}" for at in range(2, 100_000))) if one not in names)
    names.add(fit)
    return fit


def _limits(entry: dict[str, Any]) -> dict[str, Any]:
    """Its limits as this pool has them; 0 and "" are none there. Raises ValueError, in a clause, for one that cannot be
    read or held here: without it the key would be freer than it was."""
    kept: dict[str, Any] = {}
    for theirs, (ours, kind) in _LIMITS.items():
        value = _number(entry, theirs)
        if value > 0:
            kept[ours] = kind(value)
    window, requests = _number(entry, "rateLimitWindow"), _number(entry, "rateLimitRequests")
    if requests > 0 and window == 1:
        kept["requests_per_minute"] = ceil(requests)
    elif requests > 0 and window > 0:
        raise ValueError(f"its limit of {requests:.0f} requests in {window:.0f} minutes has no like here")
    for other in _NOT_HELD:
        if _number(entry, other) > 0:
            raise ValueError(f"its {other} has no like here")
    for bound in entry:
        if bound.endswith("AccountId") and entry[bound] not in _NONE:
            raise ValueError(f"it is bound to one account ({bound}), and keys here are not")
    for switch, listed in _RESTRICTIONS.items():
        if flag(entry.get(switch), absent=False, unreadable=True) and entry.get(listed) not in _NONE:
            raise ValueError(f"its {listed} have no like here")
    if text(entry, "expirationMode") == "activation" and not flag(
        entry.get("isActivated"), absent=False, unreadable=False
    ):
        raise ValueError("it ends some days after its first use, and was not used yet")
    return kept | _providers(entry.get("permissions"))


def _providers(said: object) -> dict[str, Any]:
    """The vendors a key may use: "all", one, or several as a list or its JSON text. Raises ValueError."""
    if isinstance(said, str) and said.strip().startswith("["):
        try:
            said = json.loads(said)
        except (ValueError, RecursionError):
            raise ValueError("its permissions cannot be read") from None
    names = said if isinstance(said, list) else [said]
    if names == [] or said in (None, "", "all") or "all" in names:
        return {}
    known = [_PERMISSIONS.get(name) if isinstance(name, str) else None for name in names]
    if None in known:
        raise ValueError("its permissions have no like here")
    return {"providers": [one.value for vendors in known for one in vendors or ()]}


def _number(entry: dict[str, Any], name: str) -> float:
    """A limit; 0 where there is none."""
    value = entry.get(name)
    read = 0.0 if value in (None, "", False) else number(value)
    if read is None or not 0 <= read < 1e12:
        raise ValueError(f"its {name} cannot be read")
    return read
