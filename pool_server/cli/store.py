"""`pool-server store migrate · check`: the database of a pool of several machines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from pool_server.cli.common import emit, json_option, one_line
from pool_server.storage.postgres.connection import Connection, connected
from pool_server.storage.postgres.inspection import WRONG, inspect
from pool_server.storage.postgres.migrations import migrate as bring_up_to_date
from pool_server.storage.postgres.migrations import migrations
from pool_server.storage.postgres.url import DatabaseUrl, parse

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


def _run(url: str, work: Callable[[Connection, DatabaseUrl], Awaitable[T]]) -> T:
    async def with_connection() -> T:
        place = parse(url, os.environ)
        async with connected(place) as connection:
            return await work(connection, place)

    with one_line():
        return asyncio.run(with_connection())
