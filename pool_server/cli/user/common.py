"""What the commands about people share."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import click

from pool_server.app.server import people_of
from pool_server.cli.common import emit, one_line, settings
from pool_server.core.settings import Limits
from pool_server.users import AuditActor, Users

SHELL = AuditActor("shell", name="shell")


def run(config: str | None, work: Callable[[Users], Awaitable[Any]]) -> Any:
    """Do something with the people of the pool."""

    async def opened() -> Any:
        async with people_of(settings(config)) as users:
            try:
                return await work(users)
            finally:
                await users.close()

    with one_line():
        return asyncio.run(opened())


def found(users: Users, who: str) -> str:
    """The id of a person by name or by id."""
    row = users.people.named(who)
    if row is not None:
        return str(row["id"])
    if who.startswith("u_"):
        return str(users.people.get(who)["id"])
    raise click.ClickException(f"there is no user {json.dumps(who)}; `pool-server user list` shows them")


def limits(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`tokens_day=1000000`, `providers=codex,claude`, `cost_day=none` as `Users` takes them."""
    wanted: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in Limits.__struct_fields__:
            known = ", ".join(Limits.__struct_fields__)
            raise click.UsageError(f"{json.dumps(pair)}: a limit is NAME=VALUE with one of {known}")
        if text == "none":
            wanted[name] = None
        elif name in ("providers", "models"):
            wanted[name] = [part for part in text.split(",") if part]
        else:
            try:
                wanted[name] = float(text) if name.startswith("cost_") else int(text)
            except ValueError:
                raise click.UsageError(f"{json.dumps(pair)}: the value is a number, or none") from None
    return wanted


def words(limits: dict[str, Any]) -> str:
    """Limits as they are typed."""
    return ", ".join(f"{name}={'none' if value is None else value}" for name, value in limits.items())


def amount(value: Any) -> str:
    """A limit, or what is used of one."""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.2f}"
    return f"{value:,.0f}" if isinstance(value, int | float) else ", ".join(value or ())


def standing(found: dict[str, Any] | None) -> str:
    """Limits with what is used of them: "tokens_day 1,200 of 5,000, models gpt-*"."""
    limits = {} if found is None else {name: value for name, value in found["limits"].items() if value is not None}
    used = {} if found is None else found["used"]
    return ", ".join(
        f"{name} {amount(used[name])} of {amount(value)}" if used[name] is not None else f"{name} {amount(value)}"
        for name, value in limits.items()
    )


def day(at: float | None) -> str:
    """A moment as its date."""
    return time.strftime("%Y-%m-%d", time.localtime(at)) if at else "never"


def in_days(days: float | None) -> float | None:
    """The moment so many days from now, unix seconds."""
    return None if days is None else time.time() + days * 86_400


def show_secret(made: dict[str, Any], secret: str, name: str, as_json: bool) -> None:
    """A new key or code: alone on stdout, so that it can be piped; what to do with it on stderr."""
    if as_json:
        emit(made)
    else:
        click.echo(f"{name}: keep this, it is not shown again", err=True)
        click.echo(made[secret])
