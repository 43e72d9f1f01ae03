"""`pool-server booking add · list · end`."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import click
import msgspec

from pool_server.cli.common import Columns, config_option, emit, json_option, listing
from pool_server.cli.user import common
from pool_server.cli.user.common import SHELL
from pool_server.users import Users


@click.group("booking", help="Headroom of a provider that is one person's for a time.")
def command() -> None:
    pass


@command.command("add", help="Book PERCENT of PROVIDER's headroom for USER.")
@click.argument("user")
@click.argument("provider")
@click.argument("percent", type=float)
@click.option("--hours", type=float, default=1.0, show_default=True, help="How long.")
@click.option(
    "--from",
    "since",
    type=click.DateTime(["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]),
    help="When it begins, by this machine's clock; now when left out.",
)
@config_option
@json_option
def add(
    user: str, provider: str, percent: float, hours: float, since: datetime | None, config: str | None, as_json: bool
) -> None:
    begin = since.timestamp() if since is not None else 0.0

    async def make(users: Users) -> dict[str, Any]:
        ident = common.found(users, user)
        made = await users.bookings.make(ident, provider, percent, begin, hours * 3600, actor=SHELL)
        return dict(msgspec.structs.asdict(made))

    made = common.run(config, make)
    if as_json:
        emit(made)
        return
    click.echo(
        f"{made['id']}: {percent:g} % of {provider} for {user}, {_clock(made['since'])} to {_clock(made['until'])}"
    )


@command.command("list", help="What is booked, and by whom.")
@config_option
@json_option
def list_(config: str | None, as_json: bool) -> None:
    async def look(users: Users) -> list[dict[str, Any]]:
        return [
            {**msgspec.structs.asdict(one), "name": users.people.get(one.user)["name"]}
            for one in users.bookings.coming()
        ]

    columns: Columns = {
        "ID": "id",
        "WHO": "name",
        "PROVIDER": "provider",
        "PERCENT": lambda r: f"{r['percent']:g}",
        "FROM": lambda r: _clock(r["since"]),
        "UNTIL": lambda r: _clock(r["until"]),
    }
    listing(common.run(config, look), columns, "Nothing is booked.", as_json=as_json)


@command.command("end", help="A booking holds nothing any more.")
@click.argument("booking_id")
@config_option
def end(booking_id: str, config: str | None) -> None:
    async def stop(users: Users) -> None:
        await users.bookings.end(booking_id, None, actor=SHELL)

    common.run(config, stop)
    click.echo(f"{booking_id} has ended")


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
