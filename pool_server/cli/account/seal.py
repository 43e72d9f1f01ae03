"""`pool-server account seal`: credential files that nobody reads without the key."""

from __future__ import annotations

from pathlib import Path

import click

from pool_server.accounts.credentials import files, sealing
from pool_server.accounts.credentials.scan import CredentialFile, scan
from pool_server.app import run_file
from pool_server.cli.common import config_option, one_line, settings
from pool_server.cli.pool import UNKNOWN
from pool_server.language import lazy_of
from pool_server.providers import CredentialRejectedError


@click.command(
    "seal",
    help=f"Encrypt credential files with the first key of {sealing.ENVIRONMENT}; all accounts, or those named. Files "
    "that an older key sealed are sealed anew.",
)
@click.argument("accounts", nargs=-1)
@click.option("--plain", is_flag=True, help="Write them in plain again.")
@click.option("--new-key", is_flag=True, help=f"Print a new entry for {sealing.ENVIRONMENT}, and change nothing.")
@config_option
def command(accounts: tuple[str, ...], plain: bool, new_key: bool, config: str | None) -> None:
    with one_line():
        keys = sealing.environment_keys()
        if new_key:
            click.echo(sealing.new_key(keys.names))
            return
        loaded = settings(config)
        if not plain:
            _check(keys, run_file.read(Path(loaded.data_dir)) if run_file.find(Path(loaded.data_dir)) else None)
        chosen = _chosen(Path(loaded.pool_dir), accounts)
    failed = [file.account for file in chosen if not _write(file, "" if plain else keys.names[0])]
    if failed:
        raise click.ClickException(f"left as they are: {', '.join(failed)}")


def _check(keys: sealing.SealKeys, server: dict[str, object] | None) -> None:
    """A running server has to open what is sealed here. Raises CredentialRejectedError."""
    if not keys.names:
        raise CredentialRejectedError(
            lazy_of(
                f"{sealing.ENVIRONMENT} holds no key: make one with --new-key, give it to the server and to this "
                "command, and keep a copy elsewhere: without it a sealed account is lost"
            )
        )
    held = server.get("seal_keys") if server is not None else None
    if server is not None and not (isinstance(held, list) and keys.names[0] in held):
        raise CredentialRejectedError(
            lazy_of(
                f"the running server does not hold key {keys.names[0]}: start it anew with {sealing.ENVIRONMENT} first"
            )
        )


def _chosen(folder: Path, accounts: tuple[str, ...]) -> list[CredentialFile]:
    found = {file.account: file for file in scan(folder).found} if folder.is_dir() else {}
    if unknown := [account for account in accounts if account not in found]:
        raise CredentialRejectedError(lazy_of(f"{unknown[0]}: {UNKNOWN}"))
    return [found[account] for account in accounts or found]


def _write(file: CredentialFile, key: str) -> bool:
    """Seal one file with `key`, "" = write it in plain; says what was done. False where it could not be."""
    try:
        sealed = files.sealed_with(file.path)
        if sealed == (key or None):
            click.echo(f"{file.account} is {f'sealed with key {key}' if key else 'in plain'} already")
            return True
        files.reseal(file.path, sealed=bool(key))
    except CredentialRejectedError as error:
        click.echo(f"{file.account}: {error}", err=True)
        return False
    except OSError as error:
        click.echo(f"{file.account}: {error.strerror}", err=True)
        return False
    click.echo(f"{file.account} is sealed with key {key}" if key else f"{file.account} is in plain")
    return True
