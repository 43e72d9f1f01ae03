"""The file of a write-ahead log: what is durable before the engine has it.

A transaction of the engine costs the disk two flushes and new pages; a frame in a file that keeps its size costs one
flush of one page, a quarter of the time. So it is written here first, the engine follows in a moment, and the log
begins anew. Whoever opens the folder after a crash finds the log of the dead process and makes up for it.

The file is as long as it will ever be from the start, so that a flush has no length to write. A frame is a header
(CRC-32 of all that follows it, length of the content, generation) and its content. Each beginning has a generation of
its own: a frame of another one ends the log, as does one that was cut off.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import secrets
import stat
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from pool_server.core.disk import create_private, sync_folder

log = logging.getLogger(__name__)

SIZE = 4 << 20  # bytes of a log file
LEAST = 64 << 10  # bytes of the smallest one, for a disk with hardly any room
PREFIX = "journal-"
_ELSEWHERE = "pool-server-{}-"  # begins the name of one that lies outside of the folder it belongs to
_head = struct.Struct("<IIQ")
_TAIL = struct.Struct("<IQ")  # the header without its checksum
_ZEROS = bytes(1 << 16)


class LogFile:
    """One process's log, locked as long as the process lives. Raises OSError where the disk will not."""

    def __init__(self, folder: Path, *, size: int = 0) -> None:
        """Makes the file; a smaller one, where the disk has no room for `size` bytes."""
        self._path = folder / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        self._at = 0
        self._generation = secrets.randbits(63)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._size = _allocate(self._fd, size or SIZE)
            sync_folder(folder)
        except BaseException:
            self.close()
            raise

    @classmethod
    def adopt(cls, folder: Path) -> tuple[LogFile, list[bytes]] | None:
        """Go on with the log of a process that died, whose place on the disk is taken already: it, and what it
        holds, which is this process's to keep from now on. None when there is none."""
        for path in sorted(folder.glob(f"{PREFIX}*")):
            fd = take_over(path)
            if fd is None:
                continue
            contents, at, generation = frames(path.read_bytes())
            file = cls.__new__(cls)
            file._path, file._fd = path, fd
            file._size, file._at = os.fstat(fd).st_size, at
            file._generation = secrets.randbits(63) if generation is None else generation
            return file, contents
        return None

    @property
    def contents(self) -> list[bytes]:
        """What it holds, as whoever opens the folder after a crash would find it."""
        return read(self._path)

    def append(self, contents: Sequence[bytes]) -> bool:
        """Put frames on the disk, all or (False: there is no room left) none. Returns when they are durable."""
        data = b"".join(frame(content, self._generation) for content in contents)
        if self._at + len(data) > self._size:
            return False
        _write(self._fd, data, self._at)
        os.fdatasync(self._fd)
        self._at += len(data)
        return True

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
    """The contents of a log's frames, oldest first; those that were cut off are none."""
    return frames(path.read_bytes())[0]


def pending(folder: Path) -> list[bytes]:
    """What the logs of a folder hold, of living processes too, those that lie elsewhere included: for a copy of the
    folder, which whoever opens it looks at once more. Raises OSError."""
    found: list[bytes] = []
    for path in _paths(folder, everywhere=True):
        try:
            found += read(path)
        except FileNotFoundError:
            continue  # its process ended well meanwhile, or another one has taken it in
    return found


def write_for_copy(path: Path, contents: Sequence[bytes]) -> None:
    """Make a log that `orphans` finds in the folder in which `path` will lie. Raises OSError."""
    create_private(path, b"".join(frame(content, 0) for content in contents))


def _paths(folder: Path, *, everywhere: bool) -> list[Path]:
    found = sorted(folder.glob(f"{PREFIX}*"))
    for place in places(folder)[1:] if everywhere else ():
        found += [path for path in _listed(place, f"{_name_elsewhere(folder)}*") if _is_mine(path)]
    return found


def orphans(folder: Path, *, everywhere: bool = False) -> Iterator[list[bytes]]:
    """What the logs of dead processes hold, `everywhere`: also those that `leave` wrote outside of the folder.
    Each is held while it is looked at, so that one process alone makes up for it, and removed when the next one is
    asked for."""
    for path in _paths(folder, everywhere=everywhere):
        fd = take_over(path)
        if fd is None:
            continue
        try:
            yield read(path)
            path.unlink(missing_ok=True)
        finally:
            os.close(fd)


def leave(folder: Path, contents: Sequence[bytes]) -> Path:
    """Write what found no room in a log of `folder` to the first place that takes it, for `orphans` to find.

    Raises OSError when no place does.
    """
    last = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for place in places(folder):
        name = PREFIX if place == folder else _name_elsewhere(folder)
        path = place / f"{name}{os.getpid()}-{secrets.token_hex(4)}"
        try:
            write_for_copy(path, contents)
            return path
        except OSError as exc:
            last = exc
    raise last


def places(folder: Path) -> list[Path]:
    """Where records of the store in `folder` may be left, best first: its own disk, then what other disks there may
    be, those that are emptied at a reboot last."""
    found = [folder, folder.parent]
    for one in (Path.cwd, Path.home, lambda: Path("/var/tmp"), lambda: Path(tempfile.gettempdir())):
        try:
            found.append(one())
        except (OSError, RuntimeError):  # it was removed; there is none
            continue
    return list(dict.fromkeys(found))


def _allocate(fd: int, size: int) -> int:
    """Write zeros to the new file, down to LEAST bytes where there is no room for `size`; returns how many."""
    while True:
        try:
            for start in range(0, size, len(_ZEROS)):
                _write(fd, _ZEROS[: size - start], start)
            os.fsync(fd)
            return size
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or size // 2 < LEAST:
                raise
            os.ftruncate(fd, 0)
            size //= 2


def _write(fd: int, data: bytes, at: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(fd, data[written:], at + written)


def frame(content: bytes, generation: int) -> bytes:
    """A content as it lies in a log."""
    tail = _TAIL.pack(len(content), generation) + content
    return zlib.crc32(tail).to_bytes(4, "little") + tail


def frames(data: bytes) -> tuple[list[bytes], int, int | None]:
    """The contents of a log, where they end, and their generation (None: it holds nothing)."""
    found: list[bytes] = []
    at = 0
    first: int | None = None
    while at + _head.size <= len(data):
        checksum, length, generation = _head.unpack_from(data, at)
        end = at + _head.size + length
        if end > len(data) or generation != (generation if first is None else first):
            break
        if zlib.crc32(data[at + 4 : end]) != checksum:
            break
        first = generation
        found.append(data[at + _head.size : end])
        at = end
    return found, at, first


def take_over(path: Path) -> int | None:
    """Hold a file that its process held while it lived; None when it lives, or the file is gone or cannot be opened."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as exc:
        log.error("what %s holds is not counted: %s", path, exc.strerror)
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists():
            return fd
    except BlockingIOError:
        pass  # its process lives
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _is_mine(path: Path) -> bool:
    """Outside of the folder anybody may put a file of any name."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def _name_elsewhere(folder: Path) -> str:
    return _ELSEWHERE.format(hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:12])


def _listed(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []
