"""Where Codex, opencode and pi keep credentials, and the shape of them there. Pure but for the environment it is given.

A sign-in's refresh token stays in the pool: it is good once, and two programs that refresh one sign-in end it. What is
written serves until the access token ends. Sources: the programs' open source; opencode 1.18 and pi keep all vendors in
one object by vendor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pool_server.accounts import PoolFile
from pool_server.core.enums import CredentialKind, Provider
from pool_server.providers.times import rfc3339

_NAMES = {Provider.OPENAI: "openai", Provider.CLAUDE: "anthropic", Provider.GEMINI: "google"}


class SyncRefusedError(Exception):
    """The account has no place in that program; one line."""


class SyncTarget(NamedTuple):
    """One program: its file, and what its content becomes with an account in it."""

    name: str
    path: Callable[[Mapping[str, str], Path], Path]
    merged: Callable[[dict[str, Any], PoolFile, float], dict[str, Any]]


def _codex(before: dict[str, Any], account: PoolFile, now: float) -> dict[str, Any]:
    cred = account.credential
    if cred.provider not in (Provider.CODEX, Provider.OPENAI):
        raise SyncRefusedError("Codex takes accounts of codex and openai")
    if cred.kind is CredentialKind.API_KEY:
        _own_host(account)
        rest = {name: value for name, value in before.items() if name not in ("tokens", "last_refresh")}
        return {**rest, "auth_mode": "apikey", "OPENAI_API_KEY": cred.api_key}
    held = account.data.get("tokens")
    tokens = {**held, "refresh_token": ""} if isinstance(held, dict) else {}
    login = {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": tokens, "last_refresh": rfc3339(now)}
    return {**before, **login}


def _opencode(before: dict[str, Any], account: PoolFile, now: float) -> dict[str, Any]:
    names = {
        Provider.CODEX: "openai",
        Provider.OPENAI: "openai",
        Provider.CLAUDE: "anthropic",
        Provider.GEMINI: "google",
    }
    return {**before, **_entry(account, names, key="api")}


def _pi(before: dict[str, Any], account: PoolFile, now: float) -> dict[str, Any]:
    codex = "openai" if account.credential.kind is CredentialKind.API_KEY else "openai-codex"
    return {**before, **_entry(account, {**_NAMES, Provider.CODEX: codex}, key="api_key")}


def _entry(account: PoolFile, names: Mapping[Provider, str], *, key: str) -> dict[str, Any]:
    """One vendor's entry of a file that holds several."""
    cred = account.credential
    name = names.get(cred.provider)
    if name is None:
        raise SyncRefusedError(f"it takes accounts of {', '.join(one.value for one in names)}")
    if cred.kind is CredentialKind.API_KEY:
        _own_host(account)
        return {name: {"type": key, "key": cred.api_key}}
    if cred.provider is not Provider.CODEX:
        raise SyncRefusedError(
            f"the terms of {cred.provider.value} keep its sign-in to its own program; an API key can be lent"
        )
    login = {"type": "oauth", "refresh": "", "access": cred.access_token, "expires": int((cred.expires_at or 0) * 1000)}
    return {name: login | ({"accountId": cred.account_id} if cred.account_id else {})}


def _own_host(account: PoolFile) -> None:
    if account.credential.base_url:
        raise SyncRefusedError("its key is good at an address of its own, which that program's file cannot hold")


def _codex_path(environment: Mapping[str, str], home: Path) -> Path:
    return Path(environment.get("CODEX_HOME") or home / ".codex") / "auth.json"


def _opencode_path(environment: Mapping[str, str], home: Path) -> Path:
    return Path(environment.get("XDG_DATA_HOME") or home / ".local/share") / "opencode/auth.json"


def _pi_path(environment: Mapping[str, str], home: Path) -> Path:
    return Path(environment.get("PI_CODING_AGENT_DIR") or home / ".pi/agent") / "auth.json"


TARGETS = {
    "codex": SyncTarget("Codex", _codex_path, _codex),
    "opencode": SyncTarget("opencode", _opencode_path, _opencode),
    "pi": SyncTarget("pi", _pi_path, _pi),
}
