"""`pool-server upgrade`: the installed version takes over from the running one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import click

from pool_server.app import run_file
from pool_server.cli.common import config_option, one_line, settings

LOOK_S = 0.05
WITHIN_S = 150.0  # longer than a server waits for the one it starts


@click.command("upgrade", help="Put the version that is installed now in the place of the running one; nothing is cut.")
@config_option
@click.option("--data", metavar="FOLDER", help="The data folder, where it is not the settings' own.")
def upgrade(config: str | None, data: str | None) -> None:
    folder = Path(data if data is not None else settings(config).data_dir)
    with one_line():
        before = run_file.read(folder)
        if run_file.find(folder) is None:
            raise click.ClickException(f"no server runs on {folder}")
    try:
        os.kill(int(before["pid"]), signal.SIGUSR2)
    except PermissionError:
        raise click.ClickException(f"process {before['pid']} is another user's: run this as that user") from None
    after = _wait(folder, before)
    click.echo(
        f"process {after['pid']} ({after['version']}) serves; process {before['pid']} ({before.get('version', '?')}) "
        "ends when its running answers have"
    )


def _wait(folder: Path, before: dict[str, object]) -> dict[str, object]:
    """The note of the server that has taken over. Raises ClickException."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        note = run_file.read(folder)
        if note and note["pid"] != before["pid"]:
            return note
        if not note or run_file.find(folder) is None:
            raise click.ClickException("the server has ended, and no new one serves: look into its log")
        if note["changes"] != before["changes"] and str(note["upgrade"]).startswith("failed"):
            raise click.ClickException(f"the upgrade {note['upgrade']}; this server goes on")
        time.sleep(LOOK_S)
    raise click.ClickException("no new server came in time: look into the log")
