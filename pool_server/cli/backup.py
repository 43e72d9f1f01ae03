"""`pool-server backup`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pool_server.cli.common import config_option, one_line, settings, waiting
from pool_server.storage import backup_folder


@click.command("backup", help="Copy the data folder into FILE, also while the server runs; .zst compresses.")
@click.argument("file", type=click.Path(path_type=Path))
@config_option
def command(file: Path, config: str | None) -> None:
    with one_line(), waiting("Copying the data folder"):
        backup_folder(Path(settings(config).data_dir), file, now=time.time())
        size = file.stat().st_size
    click.echo(f"{file}: {size / (1 << 20):.1f} MiB; it holds keys and people, keep it private")
