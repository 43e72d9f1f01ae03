"""`pool-server token add · list · revoke`."""

from __future__ import annotations

from typing import Any

import click

from pool_server.cli.common import Columns, config_option, json_option, listing
from pool_server.cli.user import common
from pool_server.cli.user.common import SHELL
from pool_server.core.enums import TokenScope
from pool_server.users import Users


@click.group("token", help="Tokens with which programs of yours call /api/v1, each with its scopes.")
def command() -> None:
    pass


@command.command("add", help="A new token, which is shown this once.")
@click.argument("label")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice([scope.value for scope in TokenScope]),
    help="What it may do.",
)
@click.option("--days", type=float, help="How long it is valid; for ever when left out.")
@config_option
@json_option
def add(label: str, scopes: tuple[str, ...], days: float | None, config: str | None, as_json: bool) -> None:
    async def make(users: Users) -> dict[str, Any]:
        return await users.admin_tokens.create(actor=SHELL, label=label, scopes=scopes, expires=common.in_days(days))

    made = common.run(config, make)
    common.show_secret(made, "token", made["label"], as_json)


@command.command("list", help="All tokens, without the tokens themselves.")
@config_option
@json_option
def list_(config: str | None, as_json: bool) -> None:
    async def look(users: Users) -> list[dict[str, Any]]:
        return users.admin_tokens.rows()

    columns: Columns = {
        "ID": "id",
        "LABEL": "label",
        "SCOPES": lambda r: ", ".join(r["scopes"]),
        "ENDS": lambda r: "ended" if r["expired"] else common.day(r["expires"]),
        "LAST USED": lambda r: common.day(r["last_used"]),
    }
    listing(common.run(config, look), columns, "No tokens.", as_json=as_json)


@command.command("revoke", help="A token opens nothing any more.")
@click.argument("token_id")
@config_option
def revoke(token_id: str, config: str | None) -> None:
    async def end(users: Users) -> None:
        await users.admin_tokens.revoke(token_id, actor=SHELL)

    common.run(config, end)
    click.echo(f"{token_id} is revoked")
