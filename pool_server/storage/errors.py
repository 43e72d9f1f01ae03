"""What can go wrong with a store. Every message is one line that says what to do."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import lmdb

_HARDLY_ANY = 1 << 20  # bytes free
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.PanicError)


class StoreError(Exception):
    """Anything a store could not do."""


class StoreFullError(StoreError):
    """Nothing can be written because the disk, a quota or the allowed size is used up, or the file system read-only.
    Reading still works."""


class StoreDamagedError(StoreError):
    """The files are not what this program wrote; nothing was changed in them."""


class StoreVersionError(StoreError):
    """The files were written by a newer program, or no migration leads from their format to this one."""


class StoreLockedError(StoreError):
    """Another server holds the folder."""


class StoreAwayError(StoreError):
    """The database of several nodes does not answer, or cannot serve just now."""


class StoreRefusedError(StoreError):
    """The database answered, and refused: a right, a role, an object that is not there. `state` is the SQLSTATE."""

    def __init__(self, message: str, state: str = "") -> None:
        super().__init__(message)
        self.state = state


def damaged(folder: Path, why: str) -> StoreDamagedError:
    """The one wording for damage, with the way back."""
    return StoreDamagedError(
        f"the store in {folder} is damaged ({why}): stop the server, then `pool-server restore FILE` "
        f"with the newest backup, or move {folder} away to start empty"
    )


def translate(exc: lmdb.Error, folder: Path) -> StoreError:
    """The store's own error for an engine's error."""
    code = getattr(exc, "code", 0) or 0
    cut_short = code == errno.EIO and _no_space_in(folder)  # how the engine tells of a write that ended early
    if isinstance(exc, (lmdb.MapFullError, lmdb.DiskError)) or code in _NO_SPACE or cut_short:
        return StoreFullError(f"the store in {folder} cannot be written, no space left: free disk space on that volume")
    if isinstance(exc, lmdb.ReadonlyError) or code == errno.EROFS:
        return StoreFullError(
            f"the store in {folder} cannot be written, its file system is read-only: make it writable"
        )
    if isinstance(exc, _DAMAGE):
        return damaged(folder, str(exc))
    return StoreError(f"the store in {folder} failed: {exc}")


def translate_os(exc: OSError, folder: Path) -> StoreError:
    """The same for what the system says of the store's files."""
    if exc.errno in _NO_SPACE:
        return StoreFullError(f"the store in {folder} cannot be written, no space left: free disk space on that volume")
    return StoreError(f"the store in {folder} cannot be used: {exc.strerror or type(exc).__name__}")


def _no_space_in(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _HARDLY_ANY
    except OSError:
        return False
