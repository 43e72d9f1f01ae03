"""One server a data folder: an advisory lock that the kernel drops when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from types import TracebackType

from pool_server.storage.errors import StoreError, StoreLockedError

LOCK_FILE = "server.lock"


class FolderLock:
    """Holds a folder until `close()` or the end of the process. Children made by fork share the hold."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

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
        descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
    with contextlib.suppress(OSError):  # a full disk: only the message above misses the number
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return FolderLock(descriptor)
