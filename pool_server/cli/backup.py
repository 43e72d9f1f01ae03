"""`pool-server backup` and `restore`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import click

from pool_server.app.backup_schedule import list_backups, newest_before
from pool_server.cli.common import config_option, one_line, settings, waiting
from pool_server.core.disk import create_private
from pool_server.core.settings import Settings
from pool_server.storage import StoreError, backup_folder, prove
from pool_server.storage import restore as put_back
from pool_server.storage.backup import CREDENTIALS
from pool_server.storage.object_store import ObjectStoreError, is_address, open_place


@click.command(
    "backup", help="Copy the data folder into FILE, also while the server runs; .zst compresses, .enc encrypts."
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--credentials", is_flag=True, help="The credential files too; FILE must end in .enc.")
@config_option
def command(file: Path, credentials: bool, config: str | None) -> None:
    chosen = settings(config)
    pool_dir = Path(chosen.pool_dir) if credentials else None
    with one_line(), waiting("Copying the data folder"):
        backup_folder(Path(chosen.data_dir), file, now=time.time(), pool_dir=pool_dir)
        size = file.stat().st_size
    click.echo(f"{file}: {size / (1 << 20):.1f} MiB; it holds keys and people, keep it private")


@click.command(
    "restore",
    help="Put a copy back: a FILE, or its address in a bucket. The server must be stopped; what was is kept beside it.",
)
@click.argument("file", required=False)
@click.option("--at", "at", metavar="TIME", help="The newest scheduled copy from TIME or before, as 2026-11-29T06:00.")
@click.option("--check", is_flag=True, help="Restore it for a trial, beside it, and put nothing back.")
@config_option
def restore(file: str | None, at: str | None, check: bool, config: str | None) -> None:
    if (file is None) == (at is None):
        raise click.UsageError("name a FILE, or a time with --at")
    chosen = settings(config)
    with one_line(), _copy(chosen, file, at) as source:
        if check:
            _check(source)
            return
        folder = Path(chosen.data_dir)
        done = put_back(source, folder)
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(done.created))
        aside = f"; what was there is in {done.previous}/" if done.previous else ""
        click.echo(f"{folder}/ is as it was on {made}{aside}")
        if done.credentials:
            click.echo(_bring_back(folder / CREDENTIALS, Path(chosen.pool_dir)))


def _check(source: Path) -> None:
    with waiting("Restoring for a trial"):
        found = prove(source)
    held = ", ".join(f"{count} entries in {name}" for name, count in found.keys.items())
    click.echo(f"{source} is whole: {held}, of {time.strftime('%Y-%m-%d %H:%M', time.localtime(found.created))}")


@contextmanager
def _copy(chosen: Settings, file: str | None, at: str | None) -> Iterator[Path]:
    """The copy that is asked for, as a file here for as long as the block lasts. Raises StoreError, OSError,
    ValueError."""
    if at is not None:
        file = _chosen_by_time(chosen, at)
    assert file is not None
    if not is_address(file):
        yield Path(file)
        return
    place, _, name = file.rpartition("/")
    with tempfile.TemporaryDirectory(dir=Path(chosen.data_dir).absolute().parent, prefix=".restore-") as scratch:
        target = Path(scratch) / name
        try:
            with waiting("Fetching the copy"):
                open_place(place, chosen.backup.mirror_options).fetch(name, target)
        except ObjectStoreError as error:
            raise StoreError(f"{file}: {error}") from None
        yield target


def _chosen_by_time(chosen: Settings, at: str) -> str:
    """The file or address of the newest scheduled copy from then or before: of the folder, else of the mirror."""
    moment = datetime.fromisoformat(at).timestamp()
    folder = Path(chosen.backup.folder) if chosen.backup.folder else None
    here = newest_before((path.name for path in list_backups(folder)), moment) if folder and folder.is_dir() else ""
    if here and folder is not None:
        return str(folder / here)
    mirror = chosen.backup.mirror.rstrip("/")
    try:
        stored = open_place(mirror, chosen.backup.mirror_options).list("") if mirror else []
    except ObjectStoreError as error:
        raise StoreError(f"{mirror}: {error}") from None
    there = newest_before((one.name for one in stored), moment)
    if not there:
        raise StoreError(f"there is no scheduled copy from {at} or before")
    return f"{mirror}/{there}"


def _bring_back(found: Path, pool_dir: Path) -> str:
    """Puts restored credential files into an empty pool folder; says where they are."""
    if found.resolve() == pool_dir.resolve():
        return f"the credential files are in {pool_dir}/"
    if any((*pool_dir.glob("*.json"), *pool_dir.glob("*/*.json"))):
        return f"{pool_dir}/ is not empty: the copy's credential files are in {found}/, take what you want of them"
    for path in sorted(found.rglob("*.json")):
        target = pool_dir / path.relative_to(found)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        create_private(target, path.read_bytes())
        path.unlink()
    for empty in sorted((path for path in (found, *found.rglob("*")) if path.is_dir()), reverse=True):
        empty.rmdir()
    return f"the credential files are in {pool_dir}/; tokens that were renewed since need a sign-in"
