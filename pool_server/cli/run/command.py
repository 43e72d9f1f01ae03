"""`pool-server run CLI [ARGS]`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from pool_server.cli.run import pools, reach
from pool_server.cli.run.asking import usable_model
from pool_server.cli.run.clients import (
    INSTALLED_BY,
    NEED_MODEL,
    RECIPES,
    Asked,
    CannotSendHeadersError,
    Launch,
)
from pool_server.core.disk import write_private
from pool_server.core.loopback import is_loopback


@click.command(
    "run",
    help="Start a CLI with a pool for this run alone: nothing of its own is edited, and it keeps its settings and "
    "sessions. Options come before the CLI's name; all that follows it is the CLI's own.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option(
    "--pool", metavar="URL", default="", help="The pool; else the one signed in to last, else this machine's."
)
@click.option("--account", metavar="ID", default="", help="Use this account (yours, or any if you are the operator).")
@click.option("--as", "label", metavar="LABEL", default="", help="What the pool's figures call this program.")
@click.argument("cli", type=click.Choice(list(RECIPES)))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def command(pool: str, account: str, label: str, cli: str, args: tuple[str, ...]) -> int:
    env = dict(os.environ)
    found = pools.find(pool, env)
    place = pools.settings_folder(env, os.getpid())
    headers = {"X-Pool-Account": _plain("--account", account), "X-Pool-Agent": _plain("--as", label)}
    told = {name: value for name, value in headers.items() if value}
    handed = {name: value for name, value in env.items() if name not in pools.SECRETS}
    asked = Asked(found.url, found.key, told, args, handed, place)
    try:
        launch = RECIPES[cli](asked)
        if shutil.which(launch.argv[0]) is None:
            raise click.ClickException(f"{cli} is not on this machine; get it with: {INSTALLED_BY[cli]}")
        if _see_the_pool(found.url) and cli in NEED_MODEL:
            model, trouble = usable_model(found)
            launch = RECIPES[cli](asked._replace(model=model))._replace(note=trouble)
    except CannotSendHeadersError as error:
        raise click.UsageError(str(error)) from None
    pools.sweep_ended(env)
    _write(launch.files)
    if launch.note:
        click.echo(f"pool-server: {launch.note}", err=True)
    return _start(launch)


def _see_the_pool(url: str) -> bool:
    """Whether a pool answers, as far as that is known; says so where none does. Raises click.ClickException where that
    is sure: nothing stands between a machine and itself."""
    if not (why := reach.why_not(url)):
        return True
    host = urlsplit(url).hostname or ""
    if host == "localhost" or is_loopback(host):
        raise click.ClickException(
            f"no pool answers at {url}: {why}. Start it with pool-server serve, or name another: run --pool URL"
        )
    click.echo(f"pool-server: no pool answers at {url}: {why}", err=True)
    return False


def _plain(option: str, value: str) -> str:
    if not value.isascii() or not value.isprintable() or "," in value:
        raise click.UsageError(f"{option}: plain letters, digits and signs without commas")
    return value


def _write(files: dict[Path, str]) -> None:
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not (path.is_file() and path.read_text(encoding="utf-8") == text):
                write_private(path, text.encode())
        except (OSError, ValueError) as error:
            raise click.ClickException(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def _start(launch: Launch) -> int:
    """Become the program, so that its exit code, its signals and its terminal are its own. Windows has no such call:
    there it is waited for."""
    if os.name == "posix":
        sys.stdout.flush()
        sys.stderr.flush()
        os.execvpe(launch.argv[0], launch.argv, launch.env)
    return subprocess.run([shutil.which(launch.argv[0]) or "", *launch.argv[1:]], env=launch.env).returncode
