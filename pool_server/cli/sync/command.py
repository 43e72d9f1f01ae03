"""`pool-server sync PROGRAM ACCOUNT`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pool_server.accounts import PoolFile, PoolFiles
from pool_server.cli.common import config_option, settings
from pool_server.cli.pool import UNKNOWN
from pool_server.cli.sync.targets import TARGETS, SyncRefusedError
from pool_server.core.disk import create_private, write_private
from pool_server.core.enums import CredentialKind

_KEPT = ".before-pool-server"  # ends the name of what was there before the first sync
_NOTHING = b"null\n"  # kept where there was no file


@click.command("sync", help="Lend an account to a program of this machine, in its own file; --undo puts back what was.")
@click.argument("program", type=click.Choice(list(TARGETS)))
@click.argument("account", required=False)
@click.option("--undo", is_flag=True, help="Put back what the file held before the first sync.")
@config_option
def command(program: str, account: str | None, undo: bool, config: str | None) -> None:
    if undo == bool(account):
        raise click.UsageError("name the account to lend, or --undo")
    target = TARGETS[program]
    path = target.path(os.environ, Path.home())
    if undo:
        _undo(path)
        click.echo(f"{path} is as it was before the first sync")
        return
    now = time.time()
    lent = PoolFiles(Path(settings(config).pool_dir), now=now).find(account or "")
    if lent is None:
        raise click.ClickException(UNKNOWN)
    if lent.credential.expires_at is not None and lent.credential.expires_at <= now:
        raise click.ClickException(f"its access token has ended; the running pool renews it: `account test {account}`")
    try:
        _write(path, lambda before: target.merged(before, lent, now))
    except SyncRefusedError as refused:
        raise click.ClickException(f"{account} cannot be lent to {target.name}: {refused}") from None
    click.echo(f"{target.name} uses {account} ({path}); {_until(lent)}")
    click.echo(f"`pool-server sync {program} --undo` puts back what was there.")


def _write(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change a file, whose content before the first change is kept beside it."""
    try:
        raw = path.read_bytes() if path.exists() else None
        before = json.loads(raw) if raw is not None else {}
        if not isinstance(before, dict):
            raise ValueError
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise click.ClickException(f"{path} is no JSON object: it is left as it is") from None
    after = json.dumps(change(before), indent=2, ensure_ascii=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            create_private(_kept(path), _NOTHING if raw is None else raw)
        except FileExistsError:
            pass  # an earlier sync kept what the person had
        write_private(path, after)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None


def _undo(path: Path) -> None:
    kept = _kept(path)
    try:
        raw = kept.read_bytes()
        if raw == _NOTHING:
            path.unlink(missing_ok=True)
        else:
            write_private(path, raw)
        kept.unlink()
    except FileNotFoundError:
        raise click.ClickException(f"there is nothing to undo: no sync has changed {path}") from None
    except OSError as error:
        raise click.ClickException(f"{path} cannot be put back: {error.strerror}") from None


def _kept(path: Path) -> Path:
    return path.with_name(path.name + _KEPT)


def _until(lent: PoolFile) -> str:
    if lent.credential.kind is CredentialKind.API_KEY:
        return "its key lasts until it is revoked"
    end = lent.credential.expires_at
    when = f"on {time.strftime('%Y-%m-%d at %H:%M', time.localtime(end))}" if end else "at a time that is not known"
    return f"its token ends {when}, then run this again: the refresh token stays in the pool, which alone renews it"
