"""`pool-server backup` and `restore`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pool_server.cli.common import config_option, one_line, settings, waiting
from pool_server.storage import backup_folder, prove
from pool_server.storage import restore as put_back


@click.command("backup", help="Copy the data folder into FILE, also while the server runs; .zst compresses.")
@click.argument("file", type=click.Path(path_type=Path))
@config_option
def command(file: Path, config: str | None) -> None:
    with one_line(), waiting("Copying the data folder"):
        backup_folder(Path(settings(config).data_dir), file, now=time.time())
        size = file.stat().st_size
    click.echo(f"{file}: {size / (1 << 20):.1f} MiB; it holds keys and people, keep it private")


@click.command("restore", help="Put a copy back. The server must be stopped; what was there is kept beside it.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Restore it for a trial, beside it, and put nothing back.")
@config_option
def restore(file: Path, check: bool, config: str | None) -> None:
    if check:
        with one_line(), waiting("Restoring for a trial"):
            found = prove(file)
        held = ", ".join(f"{count} entries in {name}" for name, count in found.keys.items())
        click.echo(f"{file} is whole: {held}, of {time.strftime('%Y-%m-%d %H:%M', time.localtime(found.created))}")
        return
    folder = Path(settings(config).data_dir)
    with one_line():
        done = put_back(file, folder)
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(done.created))
    aside = f"; what was there is in {done.previous}/" if done.previous else ""
    click.echo(f"{folder}/ is as it was on {made}{aside}")
