"""`pool-server user …`: the people of the pool. Works on the store itself, also beside a running server."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import click

from pool_server.cli.common import Columns, config_option, emit, given, json_option, listing, one_printable_line, table
from pool_server.cli.user import common
from pool_server.cli.user.code import code
from pool_server.cli.user.common import SHELL
from pool_server.cli.user.key import key
from pool_server.users import Users
from pool_server.web.sign_ins import qr


@click.group("user", help="People of the pool: who they are, what they may use, their keys.")
def command() -> None:
    pass


command.add_command(key)
command.add_command(code)


@command.command("add", help="A new person with a first key, which is shown this once.")
@click.argument("name")
@click.option("--limit", "limits", multiple=True, metavar="NAME=VALUE", help="As in [limits]; may be repeated.")
@click.option("--note", default="", help="For yourself; the person never sees it.")
@config_option
@json_option
def add(name: str, limits: tuple[str, ...], note: str, config: str | None, as_json: bool) -> None:
    wanted = common.limits(limits)
    made = common.run(config, lambda users: users.people.create_user(name, actor=SHELL, limits=wanted, note=note))
    common.show_secret({"id": made["id"], "name": made["name"], "key": made["key"]}, "key", made["name"], as_json)


@command.command("list", help="Everybody, with state and limits.")
@config_option
@json_option
def list_(config: str | None, as_json: bool) -> None:
    async def everybody(users: Users) -> list[dict[str, Any]]:
        rows, cursor = users.people.list_users()
        while cursor is not None:
            more, cursor = users.people.list_users(cursor=cursor)
            rows += more
        return rows

    columns: Columns = {
        "ID": "id",
        "NAME": "name",
        "STATE": "state",
        "KEYS": "keys",
        "SINCE": lambda r: common.day(r["created"]),
        "LAST SEEN": lambda r: common.day(r["last_seen"]),
        "OWN LIMITS": lambda r: common.words(r["limits"]),
    }
    empty = "Nobody yet: `pool-server user add NAME` makes the first."
    listing(common.run(config, everybody), columns, empty, as_json=as_json)


@command.command("disable", help="Lock a person out; what they have running ends within a second.")
@click.argument("user")
@config_option
def disable(user: str, config: str | None) -> None:
    _patch(config, user, {"disabled": True})
    click.echo(f"{user} is disabled")


@command.command("enable", help="Let a disabled person in again, with the same keys.")
@click.argument("user")
@config_option
def enable(user: str, config: str | None) -> None:
    _patch(config, user, {"disabled": False})
    click.echo(f"{user} is enabled")


@command.command("rename", help="Another name for a person.")
@click.argument("user")
@click.argument("name")
@config_option
def rename(user: str, name: str, config: str | None) -> None:
    row = _patch(config, user, {"name": name})
    click.echo(f"{user} is now {row['name']}")


@command.command("limit", help="A person's own limits, in place of those they had. None given: the defaults.")
@click.argument("user")
@click.argument("limits", nargs=-1, metavar="[NAME=VALUE]...")
@config_option
def limit(user: str, limits: tuple[str, ...], config: str | None) -> None:
    row = _patch(config, user, {"limits": common.limits(limits)})
    click.echo(f"{user}: {common.words(row['limits']) or 'the default limits'}")


@command.command("delete", help="End a person: keys and sessions go, history stays.")
@click.argument("user")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
def delete(user: str, yes: bool, config: str | None) -> None:
    if not yes:
        click.confirm(f"Delete {one_printable_line(user)} and end all their keys?", abort=True)

    async def gone(users: Users) -> None:
        await users.people.delete_user(common.found(users, user), actor=SHELL)

    common.run(config, gone)
    click.echo(f"{user} is deleted")


@command.command("rotate", help="End all keys of a person and make one new, which is shown this once.")
@click.argument("user")
@config_option
@json_option
def rotate(user: str, config: str | None, as_json: bool) -> None:
    async def fresh(users: Users) -> dict[str, Any]:
        return await users.people.rotate(common.found(users, user), actor=SHELL)

    made = common.run(config, fresh)
    common.show_secret({"id": made["id"], "key": made["key"]}, "key", user, as_json)


@command.command("show", help="One person: state, keys, limits and what is used of them.")
@click.argument("user")
@config_option
@json_option
def show(user: str, config: str | None, as_json: bool) -> None:
    async def look(users: Users) -> dict[str, Any]:
        ident = common.found(users, user)
        return {**users.people.get(ident), "keys": users.keys(ident), "standing": users.limits.of(ident)}

    row = common.run(config, look)
    if as_json:
        emit(row)
        return
    click.echo(f"{row['name']} ({row['id']}) is {row['state']}, here since {common.day(row['created'])}")
    limits, used = row["standing"]["limits"], row["standing"]["used"]
    cells = [
        (name, common.amount(used[name]), common.amount(limit)) for name, limit in limits.items() if limit is not None
    ]
    table(("LIMIT", "USED", "OF"), cells, "no limits")


@command.command("set", help="A note for yourself, groups, the weight in fair shares, or a passphrase to be chosen.")
@click.argument("user")
@click.option("--note")
@click.option("--weight", type=float, help="1 is the ordinary share.")
@click.option("--groups", help="The groups they are in, with commas between; none where it is empty.")
@click.option("--forget-passphrase", is_flag=True, help="They come back with a key and choose a new one.")
@config_option
def set_(
    user: str, note: str | None, weight: float | None, groups: str | None, forget_passphrase: bool, config: str | None
) -> None:
    patch = given(note=note, weight=weight, groups=groups)
    if not patch and not forget_passphrase:
        raise click.UsageError("nothing to set: give --note, --weight, --groups or --forget-passphrase")

    async def change(users: Users) -> None:
        ident = common.found(users, user)
        if patch:
            await users.people.patch_user(ident, patch, actor=SHELL)
        if forget_passphrase:
            await users.sign_in.reset_passphrase(ident, actor=SHELL)

    common.run(config, change)
    click.echo(f"{user} is changed")


def _patch(config: str | None, user: str, patch: dict[str, Any]) -> dict[str, Any]:
    async def change(users: Users) -> dict[str, Any]:
        return await users.people.patch_user(common.found(users, user), patch, actor=SHELL)

    row: dict[str, Any] = common.run(config, change)
    return row


@command.command("totp", help="A new secret for the operator's authenticator app, to be put into the settings.")
@json_option
def totp(as_json: bool) -> None:
    """Nothing is changed: the secret is the settings' to hold."""
    secret = base64.b32encode(secrets.token_bytes(20)).decode()
    url = f"otpauth://totp/pool-server:admin?secret={secret}&issuer=pool-server"
    if as_json:
        emit({"admin_totp": secret, "url": url})
        return
    click.echo(qr.blocks(url))
    click.echo(f"Scan this with the app, or type {secret} into it. Then set, in [pool_users] of config.toml:\n")
    click.echo(f'admin_totp = "{secret}"')
