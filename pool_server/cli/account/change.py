"""`pool-server account set|remove|restore`: an account's options, and taking it out and back."""

from __future__ import annotations

import math
from typing import Any

import click

from pool_server.cli.common import config_option, given, settings
from pool_server.cli.pool import open_pool

_LISTS = ("models", "people", "groups")


@click.command("set", help="An account's options; an empty value takes one away, what is not named stays.")
@click.argument("account")
@click.option("--label", help="What the pages call it.")
@click.option("--plan", "plan_type", help="The plan, where the provider does not say.")
@click.option("--priority", help="Lower goes first; 100 unless said.")
@click.option("--weight", help="How much of the load, against accounts of the same kind; 1 unless said.")
@click.option("--models", help="Names or patterns it serves, with commas between.")
@click.option("--proxy", "proxy_url", help="A proxy for this account alone: http://, https:// or socks5://.")
@click.option("--owner", help="Whom it belongs to: a name or an id.")
@click.option("--reserve", help="The share of its headroom kept for the owner, 0 to 1.")
@click.option("--people", help="Who may use it beside its owner, by name or id, with commas between.")
@click.option("--groups", help="Groups whose members may use it, with commas between.")
@config_option
def set_(account: str, config: str | None, **said: str | None) -> None:
    changes = {name: _value(name, text) for name, text in given(**said).items()}
    if not changes:
        raise click.UsageError("nothing to set: name an option; --help lists them")
    with open_pool(settings(config)) as pool:
        pool.change(account, changes)
    click.echo(f"{account} is changed")


def _value(name: str, text: str) -> Any:
    """An option as `PATCH /admin/accounts/ID` takes it."""
    if not text.strip():
        return None
    if name in _LISTS:
        return [part for one in text.split(",") if (part := one.strip())]
    if name not in ("priority", "weight", "reserve"):
        return text.strip()
    try:
        number = int(text) if name == "priority" else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise click.UsageError(f"--{name} takes a {'whole ' if name == 'priority' else ''}number")
    return number


@click.command("remove", help="Take an account out; its file can be brought back for 30 days.")
@click.argument("account")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
def remove(account: str, yes: bool, config: str | None) -> None:
    if not yes:
        click.confirm(f"Take {account} out of the pool?", abort=True)
    with open_pool(settings(config)) as pool:
        pool.remove(account)
    click.echo(f"{account} is out; `pool-server account restore {account}` brings it back")


@click.command("restore", help="Bring back the account that was removed last under this name.")
@click.argument("account")
@config_option
def restore(account: str, config: str | None) -> None:
    with open_pool(settings(config)) as pool:
        pool.restore(account)
    click.echo(f"{account} is back")
