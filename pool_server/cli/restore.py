"""`pool-server restore`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pool_server.cli.common import config_option, one_line, settings
from pool_server.storage import restore


@click.command("restore", help="Put a copy back. The server must be stopped; what was there is kept beside it.")
@click.argument("file", type=click.Path(path_type=Path))
@config_option
def command(file: Path, config: str | None) -> None:
    folder = Path(settings(config).data_dir)
    with one_line():
        done = restore(file, folder)
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(done.created))
    aside = f"; what was there is in {done.previous}/" if done.previous else ""
    click.echo(f"{folder}/ is as it was on {made}{aside}")
