"""Where changes wait on this machine until they have left it: files that each process appends to and one process reads.

A folder a generation; in it, files named for the number of their first transaction. Each is held by the process that
writes it, so that whoever ships the log knows when it has ended. They outlive a killed process, not a power cut: the
store does, and then the log has a hole, which is noticed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from pathlib import Path
from typing import NamedTuple

from pool_server.core.disk import try_hold
from pool_server.storage.lmdb.change_frames import Position, read_frame
from pool_server.storage.lmdb.log_file import frame, frames

FOLDER = "change-log"  # in the store's folder
FILE_BYTES = 1 << 20  # a file that is longer is ended
READ_BYTES = 8 << 20  # read ahead at most, so that what piled up is not held in memory at once


class SpoolWriter:
    """The files of one process, one at a time."""

    def __init__(self, store: Path) -> None:
        self._folder = store / FOLDER
        self._fd: int | None = None
        self._generation = ""
        self._size = 0

    def append(self, position: Position, content: bytes) -> None:
        """Raises OSError; the frame is then not there, or cut off, which ends its file."""
        if self._fd is None or self._generation != position.generation or self._size > FILE_BYTES:
            self.close()
            self._begin(position)
        assert self._fd is not None
        data = frame(content, 0)
        try:
            if os.write(self._fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self.close()
            raise
        self._size += len(data)

    def _begin(self, position: Position) -> None:
        folder = self._folder / position.generation
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = f"{position.number:016d}-{os.getpid()}-{secrets.token_hex(4)}"
        fd = os.open(folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        self._fd, self._generation, self._size = fd, position.generation, 0

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Waiting(NamedTuple):
    """A transaction that has not left yet."""

    number: int
    at: float
    content: bytes


class SpoolReader:
    """The files of one generation, of all processes."""

    def __init__(self, store: Path, generation: str) -> None:
        self._folder = store / FOLDER / generation
        self._offsets: dict[str, int] = {}
        self._waiting: dict[int, Waiting] = {}
        self._last: dict[str, int] = {}  # the greatest number that was read of a file

    def after(self, number: int) -> list[Waiting]:
        """What follows `number` without a hole, in its order, as much as is read at once. Raises OSError."""
        for path in self._paths():
            if sum(len(one.content) for one in self._waiting.values()) > READ_BYTES and _first(path) > number + 1:
                break
            self._read(path)
        for known in [known for known in self._waiting if known <= number]:
            del self._waiting[known]
        found: list[Waiting] = []
        while (one := self._waiting.get(number + 1 + len(found))) is not None:
            found.append(one)
        return found

    def oldest(self, number: int) -> float | None:
        """When the first after `number` was made, as far as it was read; unix seconds."""
        found = self._waiting.get(number + 1)
        return None if found is None else found.at

    def _read(self, path: Path) -> None:
        offset = self._offsets.get(path.name, 0)
        try:
            with path.open("rb") as file:
                file.seek(offset)
                contents, end, _ = frames(file.read())
        except FileNotFoundError:
            return
        self._offsets[path.name] = offset + end
        for content in contents:
            try:
                one = read_frame(content)
            except ValueError:
                continue  # of another program: the hole is noticed
            self._waiting[one.number] = Waiting(one.number, one.at, content)
            self._last[path.name] = max(one.number, self._last.get(path.name, 0))

    def forget(self, number: int) -> None:
        """Remove the files whose processes have ended them and of which all up to `number` has left."""
        for path in self._paths():
            try:
                held = try_hold(path) if self._last.get(path.name, 0) <= number else None
            except OSError:
                continue
            if held is not None:
                self._read(path)  # what its process wrote last
                if self._last.get(path.name, 0) <= number:
                    path.unlink(missing_ok=True)
                    self._offsets.pop(path.name, None)
                    self._last.pop(path.name, None)
                os.close(held)

    def _paths(self) -> list[Path]:
        try:
            return sorted(self._folder.iterdir())
        except FileNotFoundError:
            return []


def _first(path: Path) -> int:
    number = path.name.partition("-")[0]
    return int(number) if number.isdigit() else 0


def size(store: Path) -> int:
    """Bytes that wait on this machine."""
    total = 0
    for path in (store / FOLDER).glob("*/*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


def drop_others(store: Path, generations: set[str]) -> None:
    """Remove the files of other generations than these: they are over, and nothing follows."""
    for path in (store / FOLDER).glob("*/"):
        if path.name not in generations:
            shutil.rmtree(path, ignore_errors=True)
