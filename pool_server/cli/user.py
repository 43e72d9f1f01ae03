"""`pool-server user …`: the people of the pool. Works on the store itself, also beside a running server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import click

from pool_server.cli.common import config_option, emit, json_option, one_line, settings, table
from pool_server.config import Limits
from pool_server.server import open_people
from pool_server.users import Actor, Users

SHELL = Actor("shell", name="shell")


@click.group("user", help="People of the pool: who they are, what they may use, their keys.")
def command() -> None:
    pass


def _run(config: str | None, work: Callable[[Users], Awaitable[Any]]) -> Any:
    async def with_people() -> Any:
        with open_people(settings(config)) as people:
            return await work(people)

    with one_line():
        return asyncio.run(with_people())


def _found(people: Users, who: str) -> str:
    """The id of a person by id or by name."""
    cursor: str | None = None
    while True:
        rows, cursor = people.list_users(cursor=cursor)
        for row in rows:
            if who in (row["id"], row["name"]):
                return str(row["id"])
        if cursor is None:
            raise click.ClickException(f"there is no user {json.dumps(who)}; `pool-server user list` shows them")


@command.command("add", help="A new person with a first key, which is shown this once.")
@click.argument("name")
@click.option("--limit", "limits", multiple=True, metavar="NAME=VALUE", help="As in [limits]; may be repeated.")
@click.option("--note", default="", help="For yourself; the person never sees it.")
@config_option
@json_option
def add(name: str, limits: tuple[str, ...], note: str, config: str | None, as_json: bool) -> None:
    wanted = _limits(limits)
    made = _run(config, lambda people: people.create_user(name, actor=SHELL, limits=wanted, note=note))
    _show_key({"id": made["id"], "name": made["name"], "key": made["key"]}, as_json)


@command.command("list", help="Everybody, with state and limits.")
@config_option
@json_option
def list_(config: str | None, as_json: bool) -> None:
    async def everybody(people: Users) -> list[dict[str, Any]]:
        rows, cursor = people.list_users()
        while cursor is not None:
            more, cursor = people.list_users(cursor=cursor)
            rows += more
        return rows

    rows = _run(config, everybody)
    if as_json:
        emit(rows)
        return
    cells = [
        (r["id"], r["name"], r["state"], r["keys"], _day(r["created"]), _day(r["last_seen"]), _words(r["limits"]))
        for r in rows
    ]
    empty = "Nobody yet: `pool-server user add NAME` makes the first."
    table(("ID", "NAME", "STATE", "KEYS", "SINCE", "LAST SEEN", "OWN LIMITS"), cells, empty)


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
    row = _patch(config, user, {"limits": _limits(limits)})
    click.echo(f"{user}: {_words(row['limits']) or 'the default limits'}")


@command.command("delete", help="End a person: keys and sessions go, history stays.")
@click.argument("user")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
def delete(user: str, yes: bool, config: str | None) -> None:
    if not yes:
        click.confirm(f"Delete {user} and end all their keys?", abort=True)

    async def gone(people: Users) -> None:
        await people.delete_user(_found(people, user), actor=SHELL)

    _run(config, gone)
    click.echo(f"{user} is deleted")


@command.command("rotate", help="End all keys of a person and make one new, which is shown this once.")
@click.argument("user")
@config_option
@json_option
def rotate(user: str, config: str | None, as_json: bool) -> None:
    async def fresh(people: Users) -> dict[str, Any]:
        return await people.rotate(_found(people, user), actor=SHELL)

    made = _run(config, fresh)
    _show_key({"id": made["id"], "key": made["key"]}, as_json)


def _patch(config: str | None, user: str, patch: dict[str, Any]) -> dict[str, Any]:
    async def change(people: Users) -> dict[str, Any]:
        return await people.patch_user(_found(people, user), patch, actor=SHELL)

    row: dict[str, Any] = _run(config, change)
    return row


def _limits(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`tokens_day=1000000`, `providers=codex,claude`, `cost_day=none` as the users' room takes them."""
    limits: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in Limits.__struct_fields__:
            known = ", ".join(Limits.__struct_fields__)
            raise click.UsageError(f"{json.dumps(pair)}: a limit is NAME=VALUE with one of {known}")
        if text == "none":
            limits[name] = None
        elif name in ("providers", "models"):
            limits[name] = [part for part in text.split(",") if part]
        else:
            try:
                limits[name] = float(text) if name.startswith("cost_") else int(text)
            except ValueError:
                raise click.UsageError(f"{json.dumps(pair)}: the value is a number, or none") from None
    return limits


def _words(limits: dict[str, Any]) -> str:
    return ", ".join(f"{name}={'none' if value is None else value}" for name, value in limits.items())


def _day(at: float | None) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at)) if at else "never"


def _show_key(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit(made)
    else:
        click.echo(f"{made.get('name', made['id'])}: keep this key, it is not shown again", err=True)
        click.echo(made["key"])
