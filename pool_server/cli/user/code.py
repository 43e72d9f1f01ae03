"""`pool-server user code …`."""

from __future__ import annotations

from typing import Any

import click

from pool_server.cli.common import Columns, config_option, json_option, listing
from pool_server.cli.user import common
from pool_server.cli.user.common import SHELL
from pool_server.users import Users


@click.group("code", help="Personal codes for the door, beside the friend code of the settings.")
def code() -> None:
    pass


@code.command("add", help="A new code, which is shown this once.")
@click.option("--label", default="", help="Whom it is for.")
@click.option("--uses", type=int, default=1, show_default=True, help="How many may enter with it; 0 = any number.")
@click.option("--days", type=float, help="How long it is valid; for ever when left out.")
@click.option("--limit", "limits", multiple=True, metavar="NAME=VALUE", help="Limits of whoever enters with it.")
@config_option
@json_option
def add(label: str, uses: int, days: float | None, limits: tuple[str, ...], config: str | None, as_json: bool) -> None:
    wanted = common.limits(limits)

    async def make(users: Users) -> dict[str, Any]:
        return await users.codes.create(
            actor=SHELL, label=label, uses=uses or None, expires=common.in_days(days), limits=wanted
        )

    made = common.run(config, make)
    common.show_secret(made, "code", made["label"], as_json)


@code.command("list", help="All personal codes, without the codes themselves.")
@config_option
@json_option
def list_(config: str | None, as_json: bool) -> None:
    async def look(users: Users) -> list[dict[str, Any]]:
        return users.codes.rows()

    columns: Columns = {
        "ID": "id",
        "LABEL": "label",
        "STATE": "state",
        "USES LEFT": lambda r: "any" if r["uses_left"] is None else r["uses_left"],
        "ENDS": lambda r: common.day(r["expires"]),
    }
    listing(common.run(config, look), columns, "No personal codes.", as_json=as_json)


@code.command("revoke", help="A code opens nothing any more; who came by it stays.")
@click.argument("code_id")
@config_option
def revoke(code_id: str, config: str | None) -> None:
    async def end(users: Users) -> None:
        await users.codes.revoke(code_id, actor=SHELL)

    common.run(config, end)
    click.echo(f"{code_id} is revoked")
