"""`pool-server login URL`: a key of a pool for this machine."""

from __future__ import annotations

import os
import platform
import sys
from urllib.parse import parse_qs, urlsplit

import click

from pool_server.cli.run import pools
from pool_server.cli.run.asking import PoolClient


@click.command("login", help="Sign in to a pool: its key is kept on this machine, for `pool-server run`.")
@click.argument("url")
@click.option("--name", default="", help="Your name in the pool; asked for where it is needed.")
@click.option("--key", "by_key", is_flag=True, help="Keep a key you have; it is asked for, or read from stdin.")
@click.option("--keyring", is_flag=True, help="Into the system's keyring instead of a file of mode 0600.")
@click.option("--insecure", is_flag=True, help="Also over http to another machine, where all of it can be read.")
@click.option("--forget", is_flag=True, help="Drop the key of this pool from this machine.")
def login(url: str, name: str, by_key: bool, keyring: bool, insecure: bool, forget: bool) -> None:
    base = pools.address(url)
    if forget:
        if not pools.forget(base, os.environ):
            raise click.ClickException(f"nothing of {base} is kept on this machine")
        click.echo(f"the key for {base} is gone from this machine; it still works until you revoke it in the pool")
        return
    if pools.in_the_clear(base) and not insecure:
        raise click.UsageError(f"{base} is reached in the clear; use its https address, or --insecure")
    try:
        pool = PoolClient(base)
        key = _known_key(pool) if by_key else _new_key(pool, name, _code(url))
        kept = pools.keep(pools.PoolKey(base, key), os.environ, keyring=keyring)
    except OSError as error:
        raise click.ClickException(f"{error.filename or base}: {error.strerror or error}") from None
    click.echo(f"signed in to {base}; the key is in {kept}. Now: pool-server run codex")


def _code(url: str) -> str:
    """The code of an invitation's link."""
    return (parse_qs(urlsplit(url).query).get("code") or [""])[0]


def _known_key(pool: PoolClient) -> str:
    key: str = click.prompt("Key", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    key = key.strip()
    pool.call("POST", "/api/friend/login", {"key": key})
    return key


def _new_key(pool: PoolClient, name: str, code: str) -> str:
    code = code or click.prompt("Code (empty if you are in the pool already)", default="", show_default=False)
    name = name or click.prompt("Your name")
    said = "A passphrase of your choosing" if code else "Passphrase"
    passphrase = click.prompt(said, hide_input=True, confirmation_prompt=bool(code))
    entered = pool.call("POST", "/api/friend/login", {"code": code, "name": name, "passphrase": passphrase})
    made = entered
    if not made.get("key"):
        pool.call("GET", "/api/me")  # brings the token that a session's changes must carry
        made = pool.call("POST", "/api/keys", {"label": f"run on {platform.node()}"[:60]})
    key = made.get("key")
    if not isinstance(key, str) or not key:
        raise click.ClickException("the pool gave no key")
    return key
