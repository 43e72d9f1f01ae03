"""`pool-server user key …`."""

from __future__ import annotations

from typing import Any

import click

from pool_server.cli.common import config_option, emit, json_option, table
from pool_server.cli.user import common
from pool_server.cli.user.common import SHELL
from pool_server.users import Users


@click.group("key", help="A person's keys.")
def key() -> None:
    pass


@key.command("add", help="Another key, which is shown this once.")
@click.argument("user")
@click.option("--label", default="", help="What it is for.")
@click.option("--days", type=float, help="How long it is valid; for ever when left out.")
@config_option
@json_option
def add(user: str, label: str, days: float | None, config: str | None, as_json: bool) -> None:
    async def make(users: Users) -> dict[str, Any]:
        ident = common.found(users, user)
        return await users.people.create_key(ident, label, actor=SHELL, expires=common.in_days(days))

    made = common.run(config, make)
    common.show_secret(made, "key", f"{user}, {made['label']}", as_json)


@key.command("list", help="A person's keys, without their secrets.")
@click.argument("user")
@config_option
@json_option
def list_(user: str, config: str | None, as_json: bool) -> None:
    async def look(users: Users) -> list[dict[str, Any]]:
        return users.people.list_keys(common.found(users, user))

    rows = common.run(config, look)
    if as_json:
        emit(rows)
        return
    cells = [
        (r["id"], r["label"], common.day(r["created"]), common.day(r["expires"]), common.day(r["last_used"]))
        for r in rows
    ]
    table(("ID", "LABEL", "MADE", "ENDS", "LAST USED"), cells, f"{user} has no keys")


@key.command("revoke", help="End one key; what it has running ends within a second.")
@click.argument("user")
@click.argument("key_id")
@config_option
def revoke(user: str, key_id: str, config: str | None) -> None:
    async def end(users: Users) -> None:
        await users.people.revoke_key(common.found(users, user), key_id, actor=SHELL)

    common.run(config, end)
    click.echo(f"{key_id} is revoked")
