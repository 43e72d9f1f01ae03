"""`pool-server backup` and `restore`."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

import click

from pool_server.app.backup_schedule import list_backups, made_before, open_log_place
from pool_server.cli.common import config_option, one_line, settings, waiting
from pool_server.core.disk import create_private
from pool_server.core.settings import Settings
from pool_server.storage import StoreError, backup_folder, prove, store_keys
from pool_server.storage import restore as put_back
from pool_server.storage.backup import CREDENTIALS
from pool_server.storage.change_log.roll_forward import RolledForward, TooNewError, roll_forward
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
@click.option("--at", "at", metavar="TIME", help="As it was then: the scheduled copy before TIME (2026-11-29T06:00:30) "
              "and, with backup.point_in_time, every change up to it.")  # fmt: skip
@click.option("--check", is_flag=True, help="Restore it for a trial, beside it, and put nothing back.")
@config_option
def restore(file: str | None, at: str | None, check: bool, config: str | None) -> None:
    if (file is None) == (at is None):
        raise click.UsageError("name a FILE, or a time with --at")
    chosen = settings(config)
    with one_line():
        if file is not None:
            with _copy(chosen, file) as source:
                _put_back(chosen, source, check=check)
            return
        moment = _time(at or "")
        for candidate in _copies_before(chosen, moment):
            with contextlib.suppress(TooNewError), _copy(chosen, candidate) as source:
                _put_back(chosen, source, check=check, until=moment)
                return
        raise StoreError(f"there is no scheduled copy from {at} or before")


def _time(text: str) -> float:
    """A moment in unix seconds; local time where no zone is named."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise click.UsageError(f"--at: {text!r} is no time; write it as 2026-11-29T06:00:30") from None


def _put_back(chosen: Settings, source: Path, *, check: bool, until: float | None = None) -> None:
    folder = Path(chosen.data_dir)
    changes: list[RolledForward] = []
    with waiting("Unpacking the copy") as tell:

        def forward(store: Path, scratch: Path) -> None:
            assert until is not None
            try:
                place = open_log_place(chosen.backup)
                keys = store_keys.from_environment()
                told = partial(_tell_progress, tell)
                changes.append(roll_forward(store, place, until, keys, scratch, told))
            except ObjectStoreError as error:
                raise StoreError(f"the log of changes cannot be read: {error}") from None

        wanted = forward if until is not None and chosen.backup.point_in_time else None
        done = prove(source, wanted, tell) if check else put_back(source, folder, wanted, tell)
    log = changes[0] if changes else None
    if log is not None and log.short:
        click.echo(f"later changes are not part of it: {log.short}", err=True)
    if check:
        held = ", ".join(f"{count} entries in {name}" for name, count in done.keys.items())
        click.echo(f"{source} is whole: {held}, {_moment(done.created, log)}")
        return
    aside = f"; what was there is in {done.previous}/" if done.previous else ""
    click.echo(f"{folder}/ is as it was {_moment(done.created, log)}{aside}")
    if done.credentials:
        click.echo(_bring_back(folder / CREDENTIALS, Path(chosen.pool_dir)))


def _tell_progress(tell: Callable[[str], None], done: int, count: int) -> None:
    tell(f"Putting back what changed after the copy: {done} of {count}")


def _moment(created: float, log: RolledForward | None) -> str:
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(log.at if log is not None and log.at else created))
    return f"on {made}" + (f", {log.transactions} changes after the copy" if log is not None else "")


@contextmanager
def _copy(chosen: Settings, file: str) -> Iterator[Path]:
    """A copy as a file here for as long as the block lasts. Raises StoreError, OSError, ValueError."""
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


def _copies_before(chosen: Settings, moment: float) -> Iterator[str]:
    """The files or addresses of scheduled copies from then or before, newest first: of the folder, else of the
    mirror."""
    folder = Path(chosen.backup.folder) if chosen.backup.folder else None
    here = made_before((path.name for path in list_backups(folder)), moment) if folder and folder.is_dir() else []
    yield from (str(folder / name) for name in here if folder is not None)
    mirror = chosen.backup.mirror.rstrip("/")
    try:
        stored = open_place(mirror, chosen.backup.mirror_options).list("") if mirror else []
    except ObjectStoreError as error:
        raise StoreError(f"{mirror}: {error}") from None
    for name in made_before((one.name for one in stored), moment):
        if name not in here:
            yield f"{mirror}/{name}"


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
