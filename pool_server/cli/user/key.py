"""`pool-server user key …`."""

from __future__ import annotations

from typing import Any

import click

from pool_server.cli.common import Columns, config_option, given, json_option, listing
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
@click.option(
    "--limit", "limits", multiple=True, metavar="NAME=VALUE", help="Its own, as in [limits]; may be repeated."
)
@config_option
@json_option
def add(user: str, label: str, days: float | None, limits: tuple[str, ...], config: str | None, as_json: bool) -> None:
    wanted = common.limits(limits)

    async def make(users: Users) -> dict[str, Any]:
        ident = common.found(users, user)
        ends = common.in_days(days)
        return await users.people.create_key(ident, label, actor=SHELL, expires=ends, limits=wanted)

    made = common.run(config, make)
    common.show_secret(made, "key", f"{user}, {made['label']}", as_json)


@key.command("list", help="A person's keys, without their secrets.")
@click.argument("user")
@config_option
@json_option
def list_(user: str, config: str | None, as_json: bool) -> None:
    async def look(users: Users) -> list[dict[str, Any]]:
        return users.keys(common.found(users, user))

    columns: Columns = {
        "ID": "id",
        "LABEL": "label",
        "MADE": lambda r: common.day(r["created"]),
        "ENDS": lambda r: common.day(r["expires"]),
        "LAST USED": lambda r: common.day(r["last_used"]),
        "OWN LIMITS, USED": lambda r: common.standing(r["standing"]),
    }
    listing(common.run(config, look), columns, f"{user} has no keys", as_json=as_json)


@key.command("limit", help="A key's own limits, in place of those it had, beside its person's. None given: none.")
@click.argument("user")
@click.argument("key_id")
@click.argument("limits", nargs=-1, metavar="[NAME=VALUE]...")
@config_option
def limit(user: str, key_id: str, limits: tuple[str, ...], config: str | None) -> None:
    row = _patch(config, user, key_id, {"limits": common.limits(limits)})
    click.echo(f"{row['label']}: {common.standing(row['standing']) or 'no limits of its own'}")


@key.command("set", help="Another label, until when the key is good, or how long its requests are held.")
@click.argument("user")
@click.argument("key_id")
@click.option("--label")
@click.option("--days", type=float, help="Good for so many days from now.")
@click.option("--forever", is_flag=True, help="Good until it is revoked.")
@click.option("--wait", help='Hold its requests until headroom returns: "until=06:00", "for=2h", or "" for not at all.')
@config_option
def set_(
    user: str, key_id: str, label: str | None, days: float | None, forever: bool, wait: str | None, config: str | None
) -> None:
    if days is not None and forever:
        raise click.UsageError("give --days or --forever, not both")
    patch = given(label=label, expires=common.in_days(days), wait=wait) | ({"expires": None} if forever else {})
    if not patch:
        raise click.UsageError("nothing to set: give --label, --days, --forever or --wait")
    row = _patch(config, user, key_id, patch)
    held = f", its requests are held {row['wait'].replace('=', ' ')}" if row["wait"] else ""
    click.echo(f"{row['label']}: ends {common.day(row['expires'])}{held}")


@key.command("revoke", help="End one key; what it has running ends within a second.")
@click.argument("user")
@click.argument("key_id")
@config_option
def revoke(user: str, key_id: str, config: str | None) -> None:
    async def end(users: Users) -> None:
        await users.people.revoke_key(common.found(users, user), key_id, actor=SHELL)

    common.run(config, end)
    click.echo(f"{key_id} is revoked")


def _patch(config: str | None, user: str, key_id: str, patch: dict[str, Any]) -> dict[str, Any]:
    """Changes the key and returns its row."""

    async def change(users: Users) -> dict[str, Any]:
        ident = common.found(users, user)
        await users.people.patch_key(ident, key_id, patch, actor=SHELL)
        return next(row for row in users.keys(ident) if row["id"] == key_id)

    row: dict[str, Any] = common.run(config, change)
    return row
