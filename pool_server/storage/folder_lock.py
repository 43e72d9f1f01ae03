"""One server a data folder: advisory locks that the kernel drops when their holder dies.

The server's lock is exclusive and its supervisor's alone. Its workers share a second one: whoever replaces the
folder's files waits until that is free too, since a worker may end a moment later than a supervisor that is killed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from pool_server.storage.errors import StoreError, StoreLockedError

LOCK_FILE = "server.lock"
WORKERS_FILE = ".workers.lock"
_LOOK_S = 0.02


class FolderLock:
    """Holds a folder until `close()` or the end of the process. Children made by fork share the hold until they close
    theirs."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def fileno(self) -> int:
        """The descriptor that holds it, for another process to inherit. Raises ValueError when it was let go."""
        if self._descriptor is None:
            raise ValueError("the folder is held no more")
        return self._descriptor

    def mark(self) -> None:
        """Name this process as the holder."""
        with contextlib.suppress(OSError):  # a full disk: only the message to a second server misses the number
            os.ftruncate(self.fileno(), 0)
            os.pwrite(self.fileno(), f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let the folder go; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def lock_folder(folder: Path, *, name: str = LOCK_FILE, wait: bool = False) -> FolderLock:
    """Hold `folder` (made if missing) for one server.

    Raises StoreLockedError when another process holds it (naming its pid), StoreError when the folder cannot be
    written or its file system has no locks. `wait` blocks until it is free instead.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = _open(folder / name)
    except OSError as exc:
        raise StoreError(f"the data folder {folder} cannot be used: {exc.strerror}") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as exc:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise StoreLockedError(f"another pool-server (pid {holder}) already uses {folder}: stop it first") from exc
    except OSError as exc:
        os.close(descriptor)
        raise StoreError(
            f"{folder / name} cannot be locked ({exc.strerror}): put the data folder on a file system with locks, a "
            "local disk or NFS with its lock service running"
        ) from exc
    lock = FolderLock(descriptor)
    lock.mark()
    return lock


def _open(path: Path, *, create: bool = True) -> int:
    """A lock's file, made if missing; on a file system that is read-only one that is there. Raises OSError."""
    try:
        return os.open(path, os.O_RDWR | (os.O_CREAT if create else 0) | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        if exc.errno != errno.EROFS or not path.exists():
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def adopt_lock(folder: Path, descriptor: int) -> FolderLock:
    """The hold of `folder` that a running server hands over: both have it until one lets it go. Raises StoreError when
    the descriptor is another file's."""
    try:
        mine, there = os.fstat(descriptor), os.stat(folder / LOCK_FILE)
        os.set_inheritable(descriptor, False)
    except OSError as exc:
        raise StoreError(f"the data folder {folder} cannot be taken over: {exc.strerror}") from exc
    if (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino):
        raise StoreError(f"the running server uses another data folder than {folder}: stop it and start anew")
    return FolderLock(descriptor)


def join_folder(folder: Path) -> FolderLock:
    """Be one of the workers that have `folder` open. Raises StoreError."""
    try:
        descriptor = _open(folder / WORKERS_FILE)
    except OSError as exc:
        raise StoreError(f"the data folder {folder} cannot be used: {exc.strerror}") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except OSError as exc:
        os.close(descriptor)
        raise StoreError(f"{folder / WORKERS_FILE} cannot be locked: {exc.strerror}") from exc
    return FolderLock(descriptor)


def wait_for_workers(folder: Path, within_s: float) -> bool:
    """Whether no worker of a server that is gone has `folder` open any more; looks again until `within_s` are over.
    For the holder of the folder's lock. Raises StoreError."""
    deadline = time.monotonic() + within_s
    try:
        descriptor = _open(folder / WORKERS_FILE, create=False)
    except FileNotFoundError:
        return True
    except OSError as exc:
        raise StoreError(f"the data folder {folder} cannot be used: {exc.strerror}") from exc
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
            time.sleep(_LOOK_S)
    except OSError as exc:
        raise StoreError(f"{folder / WORKERS_FILE} cannot be locked: {exc.strerror}") from exc
    finally:
        os.close(descriptor)
