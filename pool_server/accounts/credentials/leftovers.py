"""Rewrites of credential files that a killed process left between the new content and the rename: they are finished.

Such a file beside the credential file may hold the only copy of a rotated token. Rewrites run under the folder's lock
(see `files`), so whoever holds it knows that no writer of what it finds is alive.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pool_server.accounts.credentials import files
from pool_server.core.disk import folder_held, sync_folder
from pool_server.providers import CredentialRejectedError

log = logging.getLogger(__name__)

Judge = Callable[[Path, dict[str, Any], dict[str, Any]], bool]
_NAME = re.compile(rf"\.(.+)\.[0-9a-f]{{12}}{re.escape(files.TEMPORARY)}")


def finish(targets: Iterable[Path], judge: Judge, *, newer: bool) -> list[Path]:
    """Finish what was left beside the credential files `targets`; returns the files that have new content.

    `judge(target, left, there)` says whether the left content is the same account's and worth having instead of what
    is there. `newer`: only what was written after the file's last change.
    """
    done: list[Path] = []
    by_folder: dict[Path, dict[str, Path]] = {}
    for target in targets:
        real = Path(os.path.realpath(target))
        by_folder.setdefault(real.parent, {})[real.name] = target
    for folder, names in by_folder.items():
        if _left_in(folder, names):
            done += _finish_in(folder, names, judge, newer)
    return done


def drop(target: Path) -> None:
    """Delete what was left beside a credential file that was withdrawn, and is not there again. Raises OSError."""
    if not _left_in(target.parent, {target.name: target}):
        return
    with folder_held(target.parent):
        if not os.path.lexists(target) or not target.stat().st_size:
            for left, _ in _left_in(target.parent, {target.name: target}):
                left.unlink(missing_ok=True)


def _left_in(folder: Path, names: Mapping[str, Path]) -> list[tuple[Path, str]]:
    """The leftovers of these files, oldest first, and whose they are."""
    try:
        entries = [entry.name for entry in os.scandir(folder) if entry.name.endswith(files.TEMPORARY)]
        found = [(folder / name, match[1]) for name in entries if (match := _NAME.fullmatch(name))]
        return sorted((one for one in found if one[1] in names), key=lambda one: one[0].lstat().st_mtime_ns)
    except OSError:
        return []


def _finish_in(folder: Path, names: dict[str, Path], judge: Judge, newer: bool) -> list[Path]:
    done: list[Path] = []
    try:
        with folder_held(folder):
            for left, name in reversed(_left_in(folder, names)):
                target = names[name]
                if target not in done and _is_better(left, target, judge, newer):
                    os.replace(left, folder / name)
                    done.append(target)
            if done:
                sync_folder(folder)
    except OSError as exc:
        log.error("an unfinished write in %s could not be finished: %s", folder, exc.strerror)
    return done


def _is_better(left: Path, target: Path, judge: Judge, newer: bool) -> bool:
    try:
        if newer and left.lstat().st_mtime_ns < target.stat().st_ctime_ns:
            return False
        return judge(target, files.read(left)[0], files.read(target)[0])
    except (OSError, CredentialRejectedError):
        return False  # cut off, or its file is gone
