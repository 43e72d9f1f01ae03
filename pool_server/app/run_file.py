"""The note a running server leaves in its data folder, so that the shell's commands find it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from pool_server import __version__
from pool_server.accounts.credentials.sealing import environment_keys
from pool_server.core import processes

log = logging.getLogger(__name__)

NOTE = ".server.json"


class Note:
    """One server's own note: pid and name of its process, the folder it uses (inode), address, version, how its last
    upgrade went, how often the note was written, the names of the keys that seal its credential files. Only the holder
    of the folder's lock may write it."""

    def __init__(self, folder: Path, url: str) -> None:
        self._path = folder / NOTE
        self._process = processes.name()
        self._url = url
        self._changes = 0
        self._folder = _inode(folder)
        self._upgrade = ""
        self._owed = False  # what was to be written is not on the disk

    def keep(self) -> None:
        """Write again what the disk did not take, or what somebody has removed; to be called now and then. A folder
        that stands in the place of this server's own one is left alone."""
        if not self._owed and os.path.exists(self._path):
            return
        if _inode(self._path.parent) == self._folder:
            self.write(upgrade=self._upgrade)

    def write(self, *, upgrade: str = "") -> None:
        """`upgrade`: "starting", "failed: why", or "" for none yet."""
        draft = self._path.with_name(f"{NOTE}.{os.getpid()}")
        self._changes += 1
        self._upgrade = upgrade
        told = {
            "pid": os.getpid(),
            "process": self._process,
            "folder": _inode(draft.parent),
            "url": self._url,
            "version": __version__,
            "upgrade": upgrade,
            "changes": self._changes,
            "seal_keys": list(environment_keys().names),
        }
        try:
            draft.write_text(json.dumps(told) + "\n", encoding="utf-8")
            draft.replace(self._path)
        except OSError as exc:
            with contextlib.suppress(OSError):  # of a read-only folder nothing can be removed either
                draft.unlink(missing_ok=True)
            said, self._owed = self._owed, True
            if self._is_own():  # it leads here all the same
                if not said:
                    log.warning("%s stays as it is, it cannot be written: %s", self._path, exc.strerror)
                return
            if not said:
                log.warning(
                    "the shell's commands do not find this server: %s cannot be written: %s", self._path, exc.strerror
                )
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            return
        if self._owed:
            self._owed = False
            log.warning("%s could be written: the shell's commands find this server", self._path)

    def remove(self) -> None:
        """Take it away, unless it is another server's by now."""
        with contextlib.suppress(OSError):
            if self._is_own():
                self._path.unlink(missing_ok=True)

    def _is_own(self) -> bool:
        try:
            return read(self._path.parent).get("process") == self._process
        except OSError:
            return False


def read(folder: Path) -> dict[str, Any]:
    """The note in a data folder; {} where there is none that makes sense. Raises PermissionError."""
    try:
        found = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except PermissionError:
        raise
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def find(folder: Path) -> str | None:
    """The base URL of the server that runs on this data folder; None when none does. Raises PermissionError for a
    folder or a note that this user may not read: who cannot look does not know.

    A note whose process is gone (killed) is not believed, also where another one has its number by now; a program of
    before wrote the number alone. Nor is one that came with a copy of the folder: its server uses another one. Only
    inodes are compared, since a volume's device has another number in each container. Every-interface addresses are
    turned into loopback.
    """
    note = read(folder)
    if note.get("folder") not in (None, _inode(folder)):
        return None
    process, pid, url = note.get("process"), note.get("pid"), note.get("url")
    if not isinstance(url, str) or not isinstance(pid, int):
        return None
    if not (processes.same(process) if isinstance(process, str) else processes.runs(pid)):
        return None
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _inode(folder: Path) -> int | None:
    try:
        return folder.stat().st_ino
    except OSError:
        return None
