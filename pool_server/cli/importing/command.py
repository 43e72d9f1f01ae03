"""`pool-server import KIND DIR`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import click

from pool_server.cli.common import config_option, emit, json_option, settings, table
from pool_server.cli.importing import take as taking
from pool_server.cli.importing.found import Found, UnusableSourceError
from pool_server.cli.importing.sources import cliproxyapi, codex_pool, crs, cx, oauthrouter, programs
from pool_server.cli.user import common as people
from pool_server.core.enums import Provider

ADOPTED_S = 90 * 86400.0
_HOMES = {"cx": "~/.codex-accounts", "oauthrouter": "~/.oauthrouter", "cliproxyapi": "~/.cli-proxy-api"}
KINDS = (*(one.value for one in programs.HOMES), "cx", "oauthrouter", "codex-pool", "cliproxyapi", "crs")


@click.command(
    "import", help="Accounts, people and their keys from another program or pool; says what it left and why."
)
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("folder", metavar="DIR", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would be taken, and take nothing.")
@click.option("--take", is_flag=True, help="Use sign-ins at once, which ends them in the program they come from.")
@click.option("--old-keys-until", metavar="DATE", help="Old keys that were not shown by then end (90 days from now).")
@config_option
@json_option
def command(
    kind: str,
    folder: Path | None,
    dry_run: bool,
    take: bool,
    old_keys_until: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    loaded = settings(config)
    found = _found(kind, folder or _home(kind), _until(old_keys_until))
    rows = taking.accounts(found, Path(loaded.pool_dir), take=take, write=not dry_run)
    if found.people or found.secrets:
        begun = bool(loaded.store_url) or Path(loaded.data_dir).is_dir()
        if dry_run and not begun:
            rows += taking.people_of_nobody_yet(found)
        else:
            work = taking.planned_people if dry_run else taking.people
            rows += people.run(config, lambda users: work(found, users))
    told = taking.report(rows, found)
    if as_json:
        emit({"dry_run": dry_run, "rows": told})
        return
    cells = [(row["where"], row["taken"] or "left", row["note"]) for row in told]
    table(("FROM", "WOULD BE" if dry_run else "IS NOW", "NOTE"), cells, f"{found.program} has nothing to take")
    if found.secrets and not dry_run:
        end = found.secrets[0].until
        click.echo(f"Old keys that are shown by {people.day(end)} go on working; later ones do not.")


def _found(kind: str, folder: Path, until: float) -> Found:
    now = time.time()
    sources: dict[str, Callable[[], Found]] = {
        "cx": lambda: cx.read(folder),
        "oauthrouter": lambda: oauthrouter.read(folder),
        "codex-pool": lambda: codex_pool.read(folder, os.environ, until),
        "cliproxyapi": lambda: cliproxyapi.read(folder),
        "crs": lambda: crs.read(folder, os.environ, now, until),
    }
    read = sources.get(kind) or (lambda: programs.read(Provider(kind), folder, now))
    try:
        return read()
    except UnusableSourceError as none:
        raise click.ClickException(str(none)) from None
    except OSError as error:
        raise click.ClickException(f"{folder}: {error.strerror or error}") from None


def _home(kind: str) -> Path:
    """Where the program keeps its things when nobody said."""
    program = next((home for one, home in programs.HOMES.items() if one.value == kind), None)
    if program is not None:
        moved = os.environ.get(program.variable) if program.variable else None
        return Path(moved) if moved else Path.home() / program.home
    if kind not in _HOMES:
        raise click.UsageError(f"say in which folder {kind} runs: pool-server import {kind} DIR")
    return Path(_HOMES[kind]).expanduser()


def _until(said: str | None) -> float:
    if said is None:
        return time.time() + ADOPTED_S
    try:
        return datetime.combine(date.fromisoformat(said), datetime.max.time()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise click.UsageError("--old-keys-until takes a date such as 2027-03-31") from None
