"""`pool-server account import FILE` and `account export ID`: one credential, into the pool and out of it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import IO

import click

from pool_server.accounts import PoolFile, PoolFiles
from pool_server.cli.common import config_option, one_line, settings
from pool_server.cli.pool import UNKNOWN, open_pool
from pool_server.core.disk import create_private
from pool_server.core.enums import Provider
from pool_server.language import lazy_of
from pool_server.providers import CredentialRejectedError, provider_module
from pool_server.providers.keys.pasted import MAX_TEXT, recognise


@click.command("import", help="Add an account from a credential file of a CLI, or - for standard input.")
@click.argument("file", type=click.File("r", encoding="utf-8-sig"))
@click.option("--provider", type=click.Choice([one.value for one in Provider]), help="Where the file does not tell it.")
@click.option("--name", default="", help="The account's name; made up when left out.")
@click.option("--yes", is_flag=True, help="You know what the vendor's terms say of sharing, and share it.")
@config_option
def import_(file: IO[str], provider: str | None, name: str, yes: bool, config: str | None) -> None:
    loaded, now = settings(config), time.time()
    with one_line():
        text = _text(file)
        found = recognise(text, now=now)
        vendor = Provider(provider) if provider else found.provider
        if vendor is None:
            raise CredentialRejectedError(lazy_of("it does not tell whose it is: name the vendor with --provider"))
        module = provider_module(vendor)
        consent = module.consent_for(module.parse(found.data, f"{vendor.value}:{name or 'new'}", now=now))
    if consent:
        click.echo(consent)
        if not yes and not click.confirm("Share it all the same?"):
            raise click.Abort
    with open_pool(loaded) as pool:
        made = pool.add({"provider": vendor.value, "name": name, "credential": text, "consent": bool(consent)})
    said = made["test"] or {}
    click.echo(f"{made['id']} is in the pool" + ("" if said.get("ok") else f": {said.get('message', '')}"))


def _text(file: IO[str]) -> str:
    try:
        return file.read(MAX_TEXT + 1)
    except UnicodeDecodeError:
        raise CredentialRejectedError(lazy_of("it is no UTF-8 text")) from None


@click.command("export", help="Print an account's credential in plain: whoever reads it has the account.")
@click.argument("account")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write a new file, 0600, instead."
)
@config_option
def export(account: str, output: Path | None, config: str | None) -> None:
    found = _found(Path(settings(config).pool_dir), account)
    text = json.dumps(found.data, indent=2, ensure_ascii=False) + "\n"
    if output is None:
        sys.stdout.write(text)
        return
    try:
        create_private(output, text.encode())
    except FileExistsError:
        raise click.ClickException(f"{output} is there already") from None
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror}") from None
    click.echo(f"{account} is in {output}")


def _found(folder: Path, account: str) -> PoolFile:
    found = PoolFiles(folder, now=time.time()).find(account)
    if found is None:
        raise click.ClickException(UNKNOWN)
    return found
