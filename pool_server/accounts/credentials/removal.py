"""Accounts that were taken out of the pool: their files lie in `pool/.removed/`, each in a folder of its own moment.

What stands there says that a file went on purpose, so that an emptied pool folder is no alarm. A withdrawn account's
file is emptied there: nothing of its credential stays. The folder's name says so from the rename on, and what a killed
process leaves in it is emptied by the next start.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from pool_server.accounts.credentials import leftovers
from pool_server.accounts.credentials.scan import REMOVED, CredentialFile, identify_by_name
from pool_server.core.disk import folder_held, sync_folder

KEPT_S = 30 * 86400.0
_STAMP = "%Y%m%dT%H%M%S"
_WITHDRAWN = "_withdrawn"  # ends the name of a moment's folder


class RemovedFile(msgspec.Struct, frozen=True):
    """A file in `.removed/`. `at` is when it went (unix seconds), `withdrawn`: nothing is left to bring back."""

    account: str
    name: str
    at: float
    path: Path
    withdrawn: bool


def remove(folder: Path, file: CredentialFile, *, now: float) -> Path:
    """Move an account's file out of the pool; returns where it lies. Raises OSError."""
    return _move(folder, file, now, "")


def _move(folder: Path, file: CredentialFile, now: float, mark: str) -> Path:
    stamp = time.strftime(_STAMP, time.gmtime(now)) + f"_{time.time_ns()}{mark}"
    place = folder / REMOVED / stamp / file.name
    place.parent.mkdir(parents=True, mode=0o700)
    try:
        with folder_held(file.path.parent):
            os.rename(file.path, place)
    except OSError:
        place.parent.rmdir()
        raise
    sync_folder(file.path.parent)
    sync_folder(place.parent)
    return place


def withdraw(folder: Path, file: CredentialFile, *, now: float, copies: Iterable[Path] = ()) -> None:
    """Move an account's file out of the pool and delete what it holds; so are `copies` of it, files in `.removed/`.
    A process that dies in between has withdrawn it or not: `finish` does the rest. Raises OSError."""
    target = Path(os.path.realpath(file.path))
    for moment in {folder / REMOVED / path.relative_to(folder / REMOVED).parts[0] for path in copies}:
        os.rename(moment, moment.with_name(moment.name + _WITHDRAWN))
    if file.path.is_symlink():
        _empty(target)  # which the link need not lead to from another folder
    try:
        _move(folder, file, now, _WITHDRAWN)
    except OSError:
        if os.path.lexists(file.path):  # no room for a folder: then nothing tells that it went on purpose
            _delete(file.path)
    leftovers.drop(target)
    finish(folder)


def finish(folder: Path) -> list[RemovedFile]:
    """Delete what withdrawn accounts' files still hold; returns the files. Raises OSError."""
    gone = [file for file in removed(folder) if file.withdrawn]
    for file in gone:
        if not file.path.is_symlink() and file.path.stat().st_size:
            _empty(file.path)
        leftovers.drop(folder / file.name)
    return gone


def _delete(path: Path) -> None:
    with folder_held(path.parent):
        _empty(path)
        path.unlink()
    sync_folder(path.parent)


def _empty(path: Path) -> None:
    with open(path, "r+b") as left:
        size = os.fstat(left.fileno()).st_size
        left.write(b"\0" * size)
        left.flush()
        os.fsync(left.fileno())
        left.truncate(0)
        os.fsync(left.fileno())


def restore(folder: Path, account: str) -> str:
    """Bring back the file of this account that was removed last; returns its name. Raises KeyError when there is none,
    FileExistsError when another file has its name, OSError."""
    found = next((file for file in removed(folder) if file.account == account and not file.withdrawn), None)
    if found is None:
        raise KeyError(account)
    target = folder / found.name
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with folder_held(target.parent):
        os.link(found.path, target)  # which, unlike a rename, replaces nothing
    sync_folder(target.parent)
    shutil.rmtree(folder / REMOVED / found.path.relative_to(folder / REMOVED).parts[0], ignore_errors=True)
    return found.name


def removed(folder: Path) -> list[RemovedFile]:
    """What lies in `.removed/`, newest first; [] when it cannot be read."""
    return sorted(_found(folder / REMOVED), key=lambda file: (-file.at, file.name))


def _found(folder: Path) -> Iterator[RemovedFile]:
    try:
        moments = [entry for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return
    for moment in moments:
        for path in Path(moment.path).rglob("*.json"):
            name = path.relative_to(moment.path).as_posix()
            file = identify_by_name(path, name)
            try:
                seen = path.lstat()
            except OSError:
                continue
            if file is not None:
                withdrawn = moment.name.endswith(_WITHDRAWN) or seen.st_size == 0
                yield RemovedFile(file.account, name, _moment(moment), path, withdrawn)


def _moment(entry: os.DirEntry[str]) -> float:
    """When a folder of `.removed/` was made, by its name, which a copy keeps."""
    _, _, nanoseconds = entry.name.removesuffix(_WITHDRAWN).partition("_")
    return int(nanoseconds) / 1e9 if nanoseconds.isdigit() else entry.stat().st_mtime


def sweep(folder: Path, before: float) -> None:
    """Delete what was removed before that moment (unix seconds)."""
    for file in removed(folder):
        if file.at < before:
            shutil.rmtree(folder / REMOVED / file.path.relative_to(folder / REMOVED).parts[0], ignore_errors=True)
