"""The note a running server leaves in its data folder, so that the shell's commands find it."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from pool_server import __version__

log = logging.getLogger(__name__)

NOTE = ".server.json"


class Note:
    """One server's own note: pid, address, version, how its last upgrade went, how often the note was written. Only the
    holder of the folder's lock may write it."""

    def __init__(self, folder: Path, url: str) -> None:
        self._path = folder / NOTE
        self._url = url
        self._changes = 0

    def write(self, *, upgrade: str = "") -> None:
        """`upgrade`: "starting", "failed: why", or "" for none yet."""
        draft = self._path.with_name(f"{NOTE}.{os.getpid()}")
        self._changes += 1
        told = {
            "pid": os.getpid(),
            "url": self._url,
            "version": __version__,
            "upgrade": upgrade,
            "changes": self._changes,
        }
        try:
            draft.write_text(json.dumps(told) + "\n", encoding="utf-8")
            draft.replace(self._path)
        except OSError as exc:
            log.warning(
                "the shell's commands will not find this server: %s cannot be written: %s", self._path, exc.strerror
            )
            draft.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Take it away, unless it is another server's by now."""
        if read(self._path.parent).get("pid") == os.getpid():
            self._path.unlink(missing_ok=True)


def read(folder: Path) -> dict[str, Any]:
    """The note in a data folder; {} where there is none that can be read."""
    try:
        found = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def find(folder: Path) -> str | None:
    """The base URL of the server that runs on this data folder; None when none does.

    A note whose process is gone (killed) is not believed. Every-interface addresses are turned into loopback.
    """
    note = read(folder)
    try:
        os.kill(int(note["pid"]), 0)
        url = str(note["url"])
    except PermissionError:
        url = str(note.get("url", ""))  # it lives, under another user
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
