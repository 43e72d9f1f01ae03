"""The note a running demo leaves in its own folder, so that the shell's commands of the same user find it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from pool_server.app import run_file

PREFIX = "pool-server-demo-"
DATA = "data"
_NOTE = "admin.json"


def leave(folder: Path, url: str, password: str) -> None:
    """Where it is, as every server writes it, and how it is asked, which only its own user can read."""
    run_file.Note(folder / DATA, url).write()
    opened = os.open(folder / _NOTE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "w", encoding="utf-8") as note:
        json.dump({"password": password}, note)


def running() -> tuple[str, str] | None:
    """Base URL and admin password of this user's demo, the one begun last; None when none runs."""
    found = []
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            looked = folder.lstat()
            if looked.st_uid == os.getuid():  # a folder of somebody else's might say anything
                found.append((looked.st_mtime, folder, json.loads((folder / _NOTE).read_text(encoding="utf-8"))))
        except (OSError, ValueError):
            continue
    for _began, folder, told in sorted(found, key=lambda one: -one[0]):
        try:
            url = run_file.find(folder / DATA)
        except PermissionError:
            continue
        if url is not None and isinstance(told, dict) and isinstance(told.get("password"), str):
            return url, told["password"]
    return None
