"""A journal: what was promised to be durable before the engine has it.

A transaction of the engine costs the disk two flushes and new pages; a frame in a file that keeps its size costs one
flush of one page, a quarter of the time. So the promise is kept here, the engine follows in a moment, and the journal
begins anew. Whoever opens the folder after a crash finds the journal of the dead process and makes up for it.

The file is as long as it will ever be from the start, so that a flush has no length to write. A frame is a header
(CRC-32 of all that follows it, length of the content, generation) and its content. Each beginning has a generation of
its own: a frame of another one ends the journal, as does one that was cut off.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

SIZE = 4 << 20  # bytes of a journal file
PREFIX = "journal-"
_head = struct.Struct("<IIQ")
_TAIL = struct.Struct("<IQ")  # the header without its checksum
_ZEROS = bytes(1 << 16)


class LogFile:
    """One process's journal, locked as long as the process lives. Raises OSError where the disk will not."""

    def __init__(self, folder: Path, *, size: int = 0) -> None:
        self._path = folder / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        self._size = size = size or SIZE
        self._at = 0
        self._generation = secrets.randbits(63)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for start in range(0, size, len(_ZEROS)):
                os.pwrite(self._fd, _ZEROS[: size - start], start)
            os.fsync(self._fd)
            sync_folder(folder)
        except BaseException:
            self.close()
            raise

    def append(self, contents: Sequence[bytes]) -> bool:
        """Put frames on the disk, all or (False: there is no room left) none. Returns when they are durable."""
        data = b"".join(self._frame(content) for content in contents)
        if self._at + len(data) > self._size:
            return False
        written = 0
        while written < len(data):
            written += os.pwrite(self._fd, data[written:], self._at + written)
        os.fdatasync(self._fd)
        self._at += len(data)
        return True

    def _frame(self, content: bytes) -> bytes:
        tail = _TAIL.pack(len(content), self._generation) + content
        return zlib.crc32(tail).to_bytes(4, "little") + tail

    def begin_anew(self) -> None:
        """All of it is durable elsewhere. What lies there may still be found after a crash, until the next frame."""
        self._at = 0
        self._generation += 1

    def close(self, *, keep: bool = False) -> None:
        """Let go of the file. It is removed unless something in it is durable nowhere else (`keep`)."""
        if not keep:
            self._path.unlink(missing_ok=True)
        os.close(self._fd)


def read(path: Path) -> list[bytes]:
    """The contents of a journal's frames, oldest first; those that were cut off are none."""
    data = path.read_bytes()
    found: list[bytes] = []
    at = 0
    first: int | None = None
    while at + _head.size <= len(data):
        checksum, length, generation = _head.unpack_from(data, at)
        end = at + _head.size + length
        first = generation if first is None else first
        if end > len(data) or generation != first or zlib.crc32(data[at + 4 : end]) != checksum:
            break
        found.append(data[at + _head.size : end])
        at = end
    return found


def orphans(folder: Path) -> Iterator[list[bytes]]:
    """What the journals of dead processes hold. Each is held while it is looked at, so that one process alone makes
    up for it, and removed when the next one is asked for."""
    for path in sorted(folder.glob(f"{PREFIX}*")):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists():
                yield read(path)
                path.unlink(missing_ok=True)
        except BlockingIOError:
            pass  # its process lives
        finally:
            os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
