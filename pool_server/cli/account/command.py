"""`pool-server account …`: the pool from the shell, through the running server or, without one, on the files."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

import click

from pool_server.accounts import create_file
from pool_server.cli.account import change, login, reconcile, seal, transfer
from pool_server.cli.common import config_option, emit, json_option, one_line, settings, table
from pool_server.cli.pool import open_pool
from pool_server.core.enums import Dialect, FaultKind, Provider
from pool_server.language import lazy_of
from pool_server.providers import SPECS, CredentialRejectedError, provider_module

_SPOKEN = [
    dialect.value for dialect in Dialect if dialect is not Dialect.CODE_ASSIST
]  # of which no endpoint is one's own
_STEPS = {
    FaultKind.AUTH: "sign in again with its own client, or write a new key, and replace the file",
    FaultKind.PAYMENT: "add credit where the key was made, or wait until its budget resets",
    FaultKind.SUSPENDED: "the provider stopped the account: only its owner can have that undone",
    FaultKind.NEEDS_USER: "its owner has to sign in at the provider and confirm what it asks for",
    FaultKind.QUOTA: "nothing: it is used again when its window resets",
    FaultKind.RATE: "nothing: try again in a minute",
    FaultKind.NETWORK: "check base_url and proxy_url in its file, and the route from this machine to that host",
    FaultKind.CHALLENGE: "the host sends a bot check to this machine's address: give the account a proxy_url",
}


@click.group("account", help="Accounts of the pool: their state, and what to do about it.")
def command() -> None:
    pass


@command.command("list", help="Every account: state, use, its secret's host; and files that cannot be used.")
@config_option
@json_option
def list_(config: str | None, as_json: bool) -> None:
    with open_pool(settings(config)) as pool:
        rows, rejected = pool.listing()
    if as_json:
        emit(rows)
        return
    cells = [(r["id"], r["plan"], r["state"], _used(r["windows"]), r["hosts"][0], r["message"]) for r in rows]
    empty = "No accounts: put their files into the pool folder."
    table(("ID", "PLAN", "STATE", "USED", "HOST", "WHY"), cells, empty)
    if rejected:
        click.echo()
        table(("FILE", "CANNOT BE USED"), [(r["file"], r["reason"]) for r in rejected], "")


@command.command("test", help="One minimal real call with the account, and what came back.")
@click.argument("account")
@config_option
@json_option
def test(account: str, config: str | None, as_json: bool) -> int:
    with open_pool(settings(config)) as pool:
        result = pool.act(account, "test")
    if as_json:
        emit(result)
    else:
        click.echo(f"{account} {_sentence(result)}")
    return 0 if result.get("ok") else 1


for one in (change.set_, change.remove, change.restore):
    command.add_command(one)
command.add_command(reconcile.command)
command.add_command(login.command)
command.add_command(transfer.import_)
command.add_command(transfer.export)
command.add_command(seal.command)


@command.command("enable", help="Let new requests go to a disabled account again.")
@click.argument("account")
@config_option
def enable(account: str, config: str | None) -> None:
    with open_pool(settings(config)) as pool:
        pool.act(account, "enable")
    click.echo(f"{account} is enabled")


@command.command("disable", help="Send no new request to an account; running ones finish.")
@click.argument("account")
@config_option
def disable(account: str, config: str | None) -> None:
    with open_pool(settings(config)) as pool:
        pool.act(account, "disable")
    click.echo(f"{account} is disabled")


@command.command("add-key", help="A new account from an API key, read from the prompt or from standard input.")
@click.argument("provider", type=click.Choice([one.value for one, spec in SPECS.items() if spec.keys.fields]))
@click.option("--name", help="The account's name; made up when left out.")
@click.option("--base-url", help="Where the key is good, if not at the provider's own address.")
@click.option("--dialect", "dialects", multiple=True, help=f"What the endpoint speaks: {', '.join(_SPOKEN)}.")
@click.option("--auth", help="How the key is shown: bearer, x-api-key or api-key.")
@click.option("--model", "models", multiple=True, help="A model it serves, or a pattern; all when left out.")
@click.option("--region", help="Where the vendor has several: which.")
@click.option("--resource", help="Azure's name for what was made there.")
@click.option("--label", help="What the pages call it.")
@config_option
def add_key(provider: str, name: str | None, config: str | None, **said: Any) -> None:
    folder = Path(settings(config).pool_dir)
    if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise click.UsageError("--name takes letters, digits, dots, dashes and underscores")
    data: dict[str, Any] = {provider_module(Provider(provider)).spec.keys.fields[0]: _read_key()}
    data |= {field: list(value) if isinstance(value, tuple) else value for field, value in said.items() if value}
    path = folder / f"{provider}_{name or _free_name(folder, provider)}.json"
    account = f"{provider}:{path.stem.removeprefix(f'{provider}_')}"
    with one_line():
        provider_module(Provider(provider)).parse(data, account, now=time.time())
        try:
            create_file(path, data)
        except FileExistsError:
            raise CredentialRejectedError(lazy_of(f"{path} is there already; choose another --name")) from None
    click.echo(f"{account} is in {path}")
    click.echo(f"`pool-server account test {account}` asks whether it works", err=True)


def _read_key() -> str:
    if sys.stdin.isatty():
        key: str = click.prompt("API key", hide_input=True)
    else:
        key = sys.stdin.readline()
    if not key.strip():
        raise click.UsageError("no key was given: type it at the prompt or pipe it to standard input")
    return key.strip()


def _free_name(folder: Path, provider: str) -> str:
    names = ("key", *(f"key-{number}" for number in range(2, 10_000)))
    return next(name for name in names if not (folder / f"{provider}_{name}.json").exists())


def _used(windows: list[dict[str, Any]]) -> str:
    known = [w for w in windows if w["used_percent"] is not None]
    return ", ".join(f"{w['window']} {w['used_percent']:.0f} %" for w in known)


def _sentence(result: dict[str, Any]) -> str:
    """What a test showed, and what to do about it."""
    if result["ok"]:
        return f"works: {result['host']} answered {result['status']} in {result['ms']:.0f} ms"
    said = f" ({result['message']})" if result["message"] else ""
    answered = f"answered {result['status']}" if result["status"] else "did not answer"
    step = _STEPS.get(FaultKind(result["fault"]), "") if result["fault"] else ""
    return f"does not work: {result['host']} {answered}{said}" + (f"\n→ {step}" if step else "")
