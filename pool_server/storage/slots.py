"""What is under way, in a mapped file: it survives the process, however that ends, for the price of a copy in memory.

The kernel keeps what was put into a mapped file when the process is killed; a power cut may lose it, which is why
nothing relies on it that has an end of its own. An entry is a header (CRC-32 and length of the content) and its
content, in a slot of its own; a slot of length 0 is free. The file's room is taken before it is mapped: on a full disk
the kernel would kill whoever touches a page of it that has none.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from pool_server.storage.lmdb.log_file import take_over

log = logging.getLogger(__name__)

PREFIX = "under-way-"
SLOT = 1024  # bytes
SLOTS = 512  # of a file; a process that needs more makes more files …
MOST_FILES = 32  # … up to so many
RETRY_S = 10.0  # after the disk had no room for a file
_head = struct.Struct("<II")
MOST_BYTES = SLOT - _head.size  # of one entry
_ZEROS = bytes(SLOT * 64)


class Slots:
    """One process's entries by key. Use from one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[tuple[Path, int, mmap.mmap]] = []
        self._free: list[tuple[mmap.mmap, int]] = []
        self._taken: dict[str, tuple[mmap.mmap, int]] = {}
        self._no_room_until = 0.0

    def put(self, key: str, content: bytes) -> bool:
        """Keep or replace an entry; False when there is no room for it."""
        if len(content) > MOST_BYTES:
            return False
        slot = self._taken.get(key)
        if slot is None:
            if not self._free and not self._more():
                return False
            slot = self._taken[key] = self._free.pop()
        data, at = slot
        data[at : at + _head.size + len(content)] = _head.pack(zlib.crc32(content), len(content)) + content
        return True

    def drop(self, key: str) -> None:
        """The entry has come to its end; one that is not there is none."""
        slot = self._taken.pop(key, None)
        if slot is not None:
            data, at = slot
            data[at : at + _head.size] = bytes(_head.size)
            self._free.append(slot)

    def __contains__(self, key: str) -> bool:
        return key in self._taken

    def __len__(self) -> int:
        return len(self._taken)

    def close(self) -> None:
        """Remove the files: what is in them has been told otherwise."""
        files, self._files, self._free, self._taken = self._files, [], [], {}
        for path, descriptor, data in files:
            data.close()
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def _more(self) -> bool:
        if len(self._files) >= MOST_FILES or time.monotonic() < self._no_room_until:
            return False
        path = self._folder / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        try:
            descriptor, data = _make(path)
        except OSError as exc:
            log.warning("what is under way is not noted for %.0f s: %s", RETRY_S, exc.strerror)
            self._no_room_until = time.monotonic() + RETRY_S
            return False
        self._files.append((path, descriptor, data))
        self._free += [(data, at) for at in range(0, SLOT * SLOTS, SLOT)]
        return True


def _make(path: Path) -> tuple[int, mmap.mmap]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for at in range(0, SLOT * SLOTS, len(_ZEROS)):
            if os.pwrite(descriptor, _ZEROS, at) != len(_ZEROS):
                raise OSError(28, "No space left on device")
        return descriptor, mmap.mmap(descriptor, SLOT * SLOTS)
    except BaseException:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        raise


def left_under_way(folder: Path) -> Iterator[list[bytes]]:
    """The entries of processes that died, file by file. Each is held while it is looked at, so that one process alone
    makes up for it, and removed when the next one is asked for."""
    for path in sorted(folder.glob(f"{PREFIX}*")):
        descriptor = take_over(path)
        if descriptor is None:
            continue
        try:
            yield _entries(path.read_bytes())
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _entries(data: bytes) -> list[bytes]:
    found: list[bytes] = []
    for at in range(0, len(data) - SLOT + 1, SLOT):
        checksum, length = _head.unpack_from(data, at)
        content = data[at + _head.size : at + _head.size + length]
        if 0 < length <= MOST_BYTES and zlib.crc32(content) == checksum:
            found.append(content)
    return found
