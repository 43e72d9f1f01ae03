"""The pools this machine has signed in to: their addresses and keys, in a file that only its owner may read."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click

from pool_server.core.disk import write_private
from pool_server.core.loopback import is_loopback
from pool_server.core.processes import runs

HERE = "http://127.0.0.1:8989"  # where a pool of this machine listens unless told otherwise
NO_KEY = "pool"  # what local mode is told; the clients insist on a key
FILE = "pools.json"
CLAUDE_SETTINGS, QWEN_SETTINGS = "claude-settings.json", "qwen-settings.json"  # written by a run, with a key in them
# What a program that is run, and its tools, need not see: keys of the pool, and what whoever operates it may have set.
SECRETS = frozenset(
    (
        "POOL_SERVER_KEY", "POOL_LOCAL_TOKEN", "POOL_ADMIN_PASSWORD", "POOL_ADMIN_TOTP", "POOL_JWT_SECRET",
        "POOL_STORE_KEY", "POOL_STORE_URL", "POOL_STORE_LISTEN_URL", "POOL_OPENID_CLIENT_SECRET", "FRIEND_CODE",
        "POOL_VENDOR_ADMIN_KEY", "GEMINI_OAUTH_CLIENT_SECRET",
    )
)  # fmt: skip
SERVICE = "pool-server"  # in the system's keyring
MOST_BYTES = 1 << 20


class PoolKey(NamedTuple):
    """A pool and the key that opens it."""

    url: str
    key: str


def folder(env: Mapping[str, str]) -> Path:
    """Where this program keeps what belongs to a person, by the system's conventions."""
    if sys.platform == "win32":
        return Path(env.get("APPDATA") or Path.home()) / "pool-server"
    return Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "pool-server"


def address(text: str) -> str:
    """A pool's base URL as it is kept: scheme, host, port. Raises click.UsageError for anything else."""
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise click.UsageError(f"{text!r} is no address of a pool: {error}") from None
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or parts.username is not None or not host.isprintable():
        raise click.UsageError(f"{text!r} is no address of a pool, as in https://pool.example.org")
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def in_the_clear(url: str) -> bool:
    """Whether a key sent there can be read on the way."""
    host = urlsplit(url).hostname or ""
    return url.startswith("http://") and host != "localhost" and not is_loopback(host)


def find(asked: str, env: Mapping[str, str]) -> PoolKey:
    """The pool to use: the one that is asked for, else POOL_SERVER_URL's, else the one signed in to last, else this
    machine's. Its key: POOL_SERVER_KEY, else the one that was kept; local mode needs none.

    Raises click.ClickException where a key is needed and there is none.
    """
    kept = _read(folder(env) / FILE)
    url = address(asked or env.get("POOL_SERVER_URL", "") or kept["last"] or HERE)
    key = env.get("POOL_SERVER_KEY", "") or _key(kept["pools"].get(url), url)
    if not key and (is_loopback(urlsplit(url).hostname or "") or url.startswith("http://localhost")):
        key = env.get("POOL_LOCAL_TOKEN", "") or NO_KEY
    if not key:
        raise click.ClickException(f"no key for {url} on this machine: pool-server login {url}")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise click.ClickException(f"the key for {url} holds characters that no key has: pool-server login {url}")
    return PoolKey(url, key)


def keep(found: PoolKey, env: Mapping[str, str], *, keyring: bool) -> str:
    """Keep a key, in the system's keyring or in the file; returns where. Settings that hold an earlier key of that pool
    are removed: the next run writes them. Raises OSError, click.ClickException."""
    place = folder(env)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = _read(place / FILE)
    if keyring:
        _keyring().set_password(SERVICE, found.url, found.key)
    kept["pools"][found.url] = {"keyring": True} if keyring else {"key": found.key}
    _write(place / FILE, {**kept, "last": found.url})
    _sweep(place, found.url)
    return "the system's keyring" if keyring else str(place / FILE)


def forget(url: str, env: Mapping[str, str]) -> bool:
    """Drop what was kept of a pool, and the settings that its runs wrote; whether there was anything. Raises OSError,
    click.ClickException."""
    place = folder(env)
    kept = _read(place / FILE)
    entry = kept["pools"].pop(url, None)
    swept = _sweep(place, url)
    if entry is None:
        return swept
    if isinstance(entry, dict) and entry.get("keyring"):
        _keyring().delete_password(SERVICE, url)
    last = next(reversed(kept["pools"]), "") if kept["last"] == url else kept["last"]
    _write(place / FILE, {**kept, "last": last})
    return True


def settings_folder(env: Mapping[str, str], pid: int) -> Path:
    """Where a run by this process may write settings: no other run reads or replaces them."""
    return folder(env) / "run" / str(pid)


def sweep_ended(env: Mapping[str, str]) -> None:
    """Remove the settings of runs that have ended: they hold keys, and their programs cannot remove them. What cannot
    be removed now is at the next run."""
    for place in (folder(env) / "run").glob("*"):
        if re.fullmatch("[0-9]+", place.name) and not runs(int(place.name)):
            shutil.rmtree(place, ignore_errors=True)


def _sweep(place: Path, url: str) -> bool:
    """Remove the settings files that runs with this pool wrote: they hold its key. Whether there were any. Raises
    OSError."""
    address = re.compile(rf'"{re.escape(url)}[/"]')
    names = (CLAUDE_SETTINGS, QWEN_SETTINGS)
    every = (one / name for one in (place, *(place / "run").glob("*")) for name in names)
    found = [path for path in every if path.is_file()]
    found = [path for path in found if address.search(path.read_text(encoding="utf-8", errors="replace"))]
    for path in found:
        path.unlink(missing_ok=True)
    return bool(found)


def _key(entry: Any, url: str) -> str:
    if not isinstance(entry, dict):
        return ""
    if entry.get("keyring"):
        return str(_keyring().get_password(SERVICE, url) or "")
    key = entry.get("key")
    return key if isinstance(key, str) else ""


def _keyring() -> Any:
    try:
        return importlib.import_module("keyring")
    except ImportError:
        raise click.ClickException("the package keyring is not installed: pip install keyring") from None


def _read(file: Path) -> dict[str, Any]:
    """What is kept: {"last": URL, "pools": {URL: {"key"} or {"keyring": true}}}. Raises click.ClickException."""
    try:
        with file.open("rb") as opened:
            if os.name == "posix" and os.fstat(opened.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                click.echo(f"pool-server: others may read the keys in {file}: chmod 600 {file}", err=True)
            found = json.loads(opened.read(MOST_BYTES))
    except FileNotFoundError:
        return {"last": "", "pools": {}}
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    except ValueError:
        found = None
    pools = found.get("pools") if isinstance(found, dict) else None
    last = found.get("last") if isinstance(found, dict) else None
    if not isinstance(pools, dict) or not isinstance(last, str):
        raise click.ClickException(f"{file} is not what pool-server login wrote: remove it and sign in again")
    return {"last": last, "pools": pools}


def _write(file: Path, kept: dict[str, Any]) -> None:
    write_private(file, json.dumps(kept, indent=2).encode() + b"\n")
