"""Request bodies that can be sent more than once: in memory while small, in unlinked files in the data folder beyond,
under budgets of one worker."""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from pool_server.core.budget import BudgetFullError, ByteBudget
from pool_server.core.enums import SpoolFullReason
from pool_server.core.tasks import beside_the_loop
from pool_server.transcripts import HeldFile

MEMORY_LIMIT = 8 << 20  # bytes of a body kept in memory …
CROWDED_LIMIT = 1 << 20  # … while all bodies together take more than half of their budget …
FULL_LIMIT = 64 << 10  # … and while they take all of it
UNANNOUNCED_LIMIT = 2 << 20  # likewise, of a body whose length nobody said
_PIECE = 256 << 10
_LACKING = frozenset({errno.EMFILE, errno.ENFILE})


class SpoolFullError(Exception):
    """A body cannot be kept; `reason` says what stands in the way."""

    def __init__(self, reason: SpoolFullReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Spool:
    """What the bodies of one worker take in memory and on disk. `memory` is a cap in bytes, `files` the budget of the
    files."""

    def __init__(self, folder: Path, *, memory: int, total: int, per_user: int) -> None:
        self.folder = folder
        self.memory = memory
        self.files = ByteBudget(total, per_user)
        self.held = 0  # bytes in memory

    @property
    def memory_limit(self) -> int:
        """How much of a body may stay in memory now."""
        if self.held * 2 < self.memory:
            return MEMORY_LIMIT
        return CROWDED_LIMIT if self.held < self.memory else FULL_LIMIT

    def take(self, owner: str, size: int) -> None:
        """Room in a file. Raises SpoolFullError."""
        try:
            self.files.take(owner, size)
        except BudgetFullError as full:
            raise SpoolFullError(SpoolFullReason.USER if full.owners else SpoolFullReason.TOTAL) from None

    def open(self) -> int:
        """A new file without a name: gone with the process, whatever happens. Raises SpoolFullError."""
        try:
            return _nameless(self.folder)
        except OSError as error:
            raise _full(error) from None


class Body:
    """Grows by `append`, then is read whole (`view`) and sent as often as needed (`payload`). `owner` is the user it
    counts against."""

    __slots__ = ("_chunks", "_fd", "_held", "_map", "_mapped", "_most", "_spool", "_spooled", "_whole", "owner", "size")

    def __init__(self, spool: Spool, owner: str = "") -> None:
        self._spool = spool
        self.owner = owner
        self._chunks: list[bytes] = []
        self._whole: bytes | None = None
        self._held = self._spooled = 0
        self._most = MEMORY_LIMIT
        self._fd = -1
        self._map: mmap.mmap | None = None
        self._mapped = memoryview(b"")
        self.size = 0

    def expect(self, size: int | None) -> None:
        """So much is announced, None = nothing was said. What will not stay in memory goes to its file from the first
        byte, and what may come without end soon does: moving much of it later would hold the event loop."""
        if size is None:
            self._most = UNANNOUNCED_LIMIT
        elif size > self._spool.memory_limit:
            self._most = 0

    def append(self, chunk: bytes) -> None:
        """Adds a piece. Raises SpoolFullError; then the body is to be closed."""
        self.size += len(chunk)
        if self._fd >= 0:
            self._write(chunk)
            return
        self._chunks.append(chunk)
        self._held += len(chunk)
        self._spool.held += len(chunk)
        if self.size > FULL_LIMIT and self.size > min(self._most, self._spool.memory_limit):
            self._move()

    def _move(self) -> None:
        self._fd = self._spool.open()
        chunks, self._chunks = self._chunks, []
        self._spool.held -= self._held
        self._held = 0
        for chunk in chunks:
            self._write(chunk)

    def _write(self, chunk: bytes) -> None:
        self._spool.take(self.owner, len(chunk))
        self._spooled += len(chunk)
        try:
            _write_all(self._fd, chunk)
        except OSError as error:
            raise _full(error) from None

    @property
    def in_file(self) -> bool:
        return self._fd >= 0

    def view(self) -> bytes | memoryview:
        """The whole body; a spooled one is mapped, not read into memory."""
        if self._fd >= 0:
            if self._map is None:
                self._map = mmap.mmap(self._fd, self.size, prot=mmap.PROT_READ)
                self._mapped = memoryview(self._map)
            return self._mapped
        if self._whole is None:
            self._whole = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks = [self._whole]
        return self._whole

    async def whole(self) -> bytes:
        """All of it as bytes. A spooled one is read beside the event loop."""
        if self._fd < 0:
            return bytes(self.view())
        return await asyncio.to_thread(_read_all, os.dup(self._fd), self.size)

    def share(self) -> bytes | HeldFile | None:
        """The whole body for whoever reads it beside the loop, also after `close`; None where descriptors are short."""
        if self._fd < 0:
            whole = self.view()
            return whole if isinstance(whole, bytes) else None
        try:
            return HeldFile(os.dup(self._fd), self.size)
        except OSError:
            return None

    def payload(self) -> bytes | AsyncIterator[bytes]:
        """What the upstream client sends; a fresh iterator each time for a spooled body."""
        if self._fd >= 0:
            return self._pieces()
        whole = self.view()
        assert isinstance(whole, bytes)
        return whole

    async def _pieces(self) -> AsyncIterator[bytes]:
        offset = 0
        while offset < self.size:
            piece = os.pread(self._fd, _PIECE, offset)
            offset += len(piece)
            yield piece

    def close(self) -> None:
        """Frees memory, map and file; safe to call twice."""
        self._chunks = []
        self._whole = None
        self._spool.held -= self._held
        self._held = 0
        mapped, self._map = self._map, None
        if mapped is not None:
            self._mapped.release()
        if self._fd >= 0:
            beside_the_loop(_closed, self._fd, mapped)
            self._fd = -1
            self._spool.files.give_back(self.owner, self._spooled)
            self._spooled = 0


def _read_all(fd: int, size: int) -> bytes:
    """The file's first `size` bytes; closes it."""
    try:
        found = os.pread(fd, size, 0)
        while len(found) < size and (more := os.pread(fd, size - len(found), len(found))):
            found += more
        return found
    finally:
        os.close(fd)


def _closed(fd: int, mapped: mmap.mmap | None) -> None:
    if mapped is not None:
        mapped.close()
    os.close(fd)


def _nameless(folder: Path) -> int:
    nameless = getattr(os, "O_TMPFILE", 0)
    if nameless:
        try:
            return os.open(folder, nameless | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:  # some filesystems know no files without a name
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT) or not folder.is_dir():
                raise
    fd, path = tempfile.mkstemp(prefix=".body-", dir=folder)
    os.unlink(path)
    return fd


def _full(error: OSError) -> SpoolFullError:
    return SpoolFullError(SpoolFullReason.DESCRIPTORS if error.errno in _LACKING else SpoolFullReason.DISK)


def _write_all(fd: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]
