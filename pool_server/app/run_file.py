"""The note a running server leaves in its data folder, so that the shell's commands find it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

NOTE = ".server.json"


@contextlib.contextmanager
def announced(folder: Path, url: str) -> Iterator[None]:
    """Leave the note for as long as the block lasts. Only the holder of the folder's lock may."""
    note = folder / NOTE
    draft = folder / f"{NOTE}.{os.getpid()}"
    try:
        draft.write_text(json.dumps({"pid": os.getpid(), "url": url}) + "\n", encoding="utf-8")
        draft.replace(note)
    except OSError as exc:
        log.warning("the shell's commands will not find this server: %s cannot be written: %s", note, exc.strerror)
        draft.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def find(folder: Path) -> str | None:
    """The base URL of the server that runs on this data folder; None when none does.

    A note whose process is gone (killed) is not believed. Every-interface addresses are turned into loopback.
    """
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        os.kill(int(note["pid"]), 0)
    except PermissionError:
        pass  # it lives, under another user
    except (OSError, ValueError, KeyError, TypeError):
        return None
    url: str = note["url"]
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
