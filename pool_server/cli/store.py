"""`pool-server store migrate · check · contract · import`: the database of a pool of several machines."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click

from pool_server.accounts.credentials.sealing import environment_keys
from pool_server.app.server import open_durable
from pool_server.cli.common import config_option, emit, json_option, one_line, settings
from pool_server.cluster import embedded_import
from pool_server.cluster.ledger.moving import move_usage
from pool_server.cluster.people import shared_secret
from pool_server.core.settings import Settings
from pool_server.ledger import Ledger
from pool_server.storage import LEDGER, Store, StoreError, lock_folder
from pool_server.storage.lmdb.integrity import DATA_FILE
from pool_server.storage.postgres.connection import Connection, connected
from pool_server.storage.postgres.inspection import WRONG, inspect
from pool_server.storage.postgres.migrations import contract as take_away
from pool_server.storage.postgres.migrations import judge, migrations, schema_of
from pool_server.storage.postgres.migrations import migrate as bring_up_to_date
from pool_server.storage.postgres.url import DatabaseUrl, parse
from pool_server.users.identity.tokens import kept_in
from pool_server.users.limits.periods import Calendar, zone

VARIABLE = "POOL_STORE_URL"

T = TypeVar("T")
url_option = click.option(
    "--url",
    envvar=VARIABLE,
    metavar="URL",
    required=True,
    help=f"postgresql://ROLE@HOST/DATABASE; {VARIABLE} without it.",
)


@click.group("store", help="The PostgreSQL database of a pool of several machines.")
def command() -> None:
    pass


@command.command("migrate", help="Bring the schema to this version; as the role that owns it.")
@url_option
@json_option
def migrate(url: str, as_json: bool) -> None:
    ran = _run(url, lambda connection, place: bring_up_to_date(connection))
    if as_json:
        emit({"version": migrations()[-1].version, "ran": [one.version for one in ran]})
        return
    for one in ran:
        click.echo(f"{one.version}: {one.name.replace('_', ' ')}")
    click.echo(f"the schema is at {migrations()[-1].version}")


@command.command("contract", help="Take away what only older programs call, once every node is upgraded; as the owner.")
@url_option
@json_option
def contract(url: str, as_json: bool) -> None:
    gone = _run(url, lambda connection, place: take_away(connection))
    if as_json:
        emit({"removed": gone})
        return
    for name in gone:
        click.echo(name)
    click.echo(f"{len(gone)} functions of older programs are gone" if gone else "nothing of older programs is left")


@command.command("check", help="Can a pool run on it, and how safely; exit 1 if something is wrong. Changes nothing.")
@url_option
@json_option
def check(url: str, as_json: bool) -> int:
    found = _run(url, inspect)
    wrong = any(one.state == WRONG for one in found)
    if as_json:
        emit({"ok": not wrong, "checks": [one._asdict() for one in found]})
        return int(wrong)
    for one in found:
        click.echo(f"{one.state:<8}{one.check}: {one.message}")
        if one.fix:
            click.echo(f"{'':<8}→ {one.fix}")
    return int(wrong)


@command.command("import", help="Take over people and use of this machine's stopped pool; what is there stays.")
@url_option
@config_option
@json_option
def import_(url: str, config: str | None, as_json: bool) -> None:
    here = settings(config)
    folder = Path(here.data_dir)
    with one_line(), lock_folder(folder):
        if not (folder / LEDGER / DATA_FILE).is_file():
            raise StoreError(f"there is no store in {folder}")
        durable = open_durable(folder)
        try:
            taken = _run(url, lambda connection, place: _take_over(connection, durable, here))
        finally:
            durable.close()
    if as_json:
        emit(taken)
        return
    for what, count in taken.items():
        click.echo(f"{what}: {count['new']} new of {count['all']}")


async def _take_over(connection: Connection, durable: Store, here: Settings) -> dict[str, dict[str, int]]:
    judge(await schema_of(connection), migrations())
    ledger = Ledger(durable, here)  # takes in what killed processes had written ahead
    taken = await embedded_import.move_people(connection, durable)
    await _take_over_secret(connection, here)
    calendar = Calendar(zone(here.ledger.timezone))
    await embedded_import.move_counters(connection, durable, ledger.used_by_user, calendar, time.time())
    return {**taken, "records": await move_usage(connection, durable, here.ledger.timezone)}


async def _take_over_secret(connection: Connection, here: Settings) -> None:
    """The keys people have here go on there, or the operator is told what it takes."""
    kept, keys = kept_in(Path(here.data_dir)), environment_keys()
    if here.pool_users.jwt_secret or kept is None:
        return
    if not keys.names:
        click.echo(
            "keys: those that were handed out here work there once POOL_STORE_KEY is set and this is run again",
            err=True,
        )
    elif not await shared_secret.take_over(connection, keys, kept):
        click.echo("keys: the pool there signs with another secret; those that were handed out here end", err=True)


def _run(url: str, work: Callable[[Connection, DatabaseUrl], Awaitable[T]]) -> T:
    async def with_connection() -> T:
        place = parse(url, os.environ)
        async with connected(place) as connection:
            return await work(connection, place)

    with one_line():
        return asyncio.run(with_connection())
