"""Files that must outlive a crash."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DRAFT = ".draft"  # ends the name of a file that was not finished


@contextmanager
def folder_held(folder: Path) -> Iterator[int]:
    """One writer at a time in a folder, also across processes."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def try_hold(path: Path) -> int | None:
    """A descriptor that holds a file until it is closed, also across processes; None while another one does. Needs no
    room on the disk. Raises OSError where the file cannot be opened or its file system has no locks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_read_only(folder: Path) -> bool:
    """Whether a folder lies on a file system that takes no writes. Raises OSError."""
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def unwritable(folder: Path) -> str:
    """Why nothing can be written into a folder, "" when it can, as far as that is told without trying."""
    try:
        volume = os.statvfs(folder)
        if volume.f_flag & os.ST_RDONLY:
            return os.strerror(errno.EROFS)
        if not os.access(folder, os.W_OK | os.X_OK):
            return os.strerror(errno.EACCES)
    except OSError as exc:
        return exc.strerror or type(exc).__name__
    return os.strerror(errno.ENOSPC) if volume.f_blocks and not volume.f_bavail else ""


def read_at_most(path: Path, most: int) -> bytes:
    """What a file holds. Raises OSError, EFBIG where it holds more: a device may have no end."""
    with path.open("rb") as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return found


def create_private(path: Path, data: bytes) -> None:
    """Make a file that only its owner may read; durable on return. A crash may leave it cut off.

    Raises FileExistsError, or OSError; there is no file then.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write_private(path: Path, data: bytes) -> None:
    """Put `data` into a file that only its owner may read, in place of what was there; durable on return.

    Whoever dies in between leaves the old content or the new one. Raises OSError; nothing has changed then.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}{DRAFT}")
    create_private(draft, data)
    try:
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
