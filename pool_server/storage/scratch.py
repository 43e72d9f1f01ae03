"""Folders for work in progress, which the kernel tells apart from those that a killed process left."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

YOUNG_S = 60.0  # one so new may be about to be locked


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A private folder in `parent`, held for as long as the block lasts, removed after it. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Path(name)
        finally:
            os.close(descriptor)


def sweep(parent: Path, prefix: str, holds: Collection[str], *, now: float | None = None) -> int:
    """Remove the scratch folders of dead processes; returns how many.

    Only one that is this user's and has nothing in it but what `holds` names is taken for one.
    """
    now = time.time() if now is None else now
    gone = 0
    try:
        found = [path for path in parent.glob(f"{prefix}*") if _is_left(path, holds, now)]
    except OSError:
        return 0
    for path in found:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
            gone += 1
        except OSError:
            continue  # its process lives, or it cannot be removed
        finally:
            os.close(descriptor)
    return gone


def _is_left(path: Path, holds: Collection[str], now: float) -> bool:
    try:
        seen = path.lstat()
        if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or now - seen.st_mtime < YOUNG_S:
            return False
        return all(entry.name in holds for entry in path.iterdir())
    except OSError:
        return False
