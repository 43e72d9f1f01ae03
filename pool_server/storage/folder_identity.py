"""Whether a data folder is still the one that was opened.

A process goes on writing into files that were deleted or moved away under it, and nothing it writes is ever found
again. So what stands at the paths is compared with what was opened.
"""

from __future__ import annotations

import os
from pathlib import Path

from pool_server.storage.backup import ENVIRONMENTS, small_files
from pool_server.storage.folder_lock import LOCK_FILE
from pool_server.storage.lmdb.integrity import DATA_FILE

Id = tuple[int, int]  # device and inode


class FolderIdentity:
    """A data folder and its stores as they stood when this was made, or when they were seen first. `small` holds the
    folder's small files as they were when all was well for the last time."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir
        self.small: dict[str, bytes] = {}
        paths = [data_dir, data_dir / LOCK_FILE, *(data_dir / name / DATA_FILE for name in ENVIRONMENTS)]
        self._known: dict[Path, Id | None] = dict.fromkeys(paths)
        self.changed()

    def changed(self) -> str:
        """What is not what was opened any more, "" when all is. A path that cannot be looked at tells nothing."""
        for path, before in self._known.items():
            try:
                now = _id(path)
            except OSError:
                continue
            if before is None:
                self._known[path] = now
            elif now is None:
                return f"{path} was removed"
            elif now != before:
                return f"another {path} is in the place of the one that is used"
        self._remember()
        return ""

    def _remember(self) -> None:
        try:
            self.small = {name: path.read_bytes() for name, path in small_files(self.folder)}
        except OSError:
            pass  # the next look may


def _id(path: Path) -> Id | None:
    """None when nothing is there. Raises OSError when that cannot be told."""
    try:
        seen = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return seen.st_dev, seen.st_ino
