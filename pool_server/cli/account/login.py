"""`pool-server account login PROVIDER`: runs the vendor's own program in a temporary home and takes the sign-in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from pool_server.cli.common import config_option, settings
from pool_server.cli.pool import open_pool
from pool_server.core.enums import Provider
from pool_server.providers import SPECS
from pool_server.texts.client_settings import INSTALL
from pool_server.web.onboarding.programs import PROGRAMS, SignInProgram


@click.command("login", help="Sign in with the vendor's own program, in a temporary home, and add the account.")
@click.argument("provider", type=click.Choice([one.value for one in PROGRAMS]))
@click.option("--name", default="", help="The account's name; made up when left out.")
@click.option("--yes", is_flag=True, help="You know what the vendor's terms say of sharing, and share it.")
@config_option
def command(provider: str, name: str, yes: bool, config: str | None) -> None:
    vendor, loaded = Provider(provider), settings(config)
    program = PROGRAMS[vendor]
    if shutil.which(program.argv[0]) is None:
        raise click.ClickException(f"{program.argv[0]} is not on this machine; get it with: {INSTALL[provider]}")
    click.echo(SPECS[vendor].consent)
    if SPECS[vendor].notice:
        click.echo(f"{SPECS[vendor].notice}.")
    if not yes and not click.confirm("Share it all the same?"):
        raise click.Abort
    with tempfile.TemporaryDirectory(prefix="pool-server.") as home:
        credential = _signed_in(program, Path(home))
    with open_pool(loaded) as pool:
        made = pool.sign_in({"provider": provider, "name": name, "credential": credential, "consent": True})
    said = made["test"] or {}
    click.echo(f"{made['id']} is in the pool" + ("" if said.get("ok") else f": {said.get('message', '')}"))


def _said(argv: tuple[str, ...], environment: dict[str, str]) -> str:
    asked = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return (asked.stdout + asked.stderr).decode("utf-8", "replace")


def _signed_in(program: SignInProgram, home: Path) -> str:
    """Run the program; the credential it leaves."""
    for file, text in program.prepared:
        path = home / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    environment = {**os.environ, **{name: str(home) for name in (program.home, program.older_home) if name}}
    here = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) or not os.environ.get("SSH_CONNECTION")
    if program.ended and program.ended[1] in _said(program.ended[0], environment):
        raise click.ClickException(f"this {program.argv[0]} signs nobody in any more; add an API key instead")
    if program.leave:
        click.echo(f"Sign in when it asks, and leave it with {program.leave} when it greets you.")
    subprocess.run(
        program.argv if here or not program.remote else program.remote, env=environment, cwd=home, check=False
    )
    try:
        left = program.left(home)
    except (OSError, TypeError, ValueError):
        raise click.ClickException("what the program left cannot be read; sign in again") from None
    if left:
        return left
    if program.token:
        click.echo("Making a setup token instead, which lasts for up to a year.")
        subprocess.run(program.token, env=environment, check=False)
        if not sys.stdin.isatty():
            return sys.stdin.readline()
        token: str = click.prompt("The token it shows", hide_input=True)
        return token
    raise click.ClickException("the program left no sign-in behind")
