"""A request body that can be sent more than once: in memory while small, in an unlinked file beyond."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import AsyncIterator

MEMORY_LIMIT = 8 << 20  # bytes kept in memory before spooling
_PIECE = 256 << 10


class Body:
    """Grows by `append`, then is read whole (`view`) and sent as often as needed (`payload`)."""

    __slots__ = ("_chunks", "_fd", "_map", "_mapped", "_whole", "size")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._whole: bytes | None = None
        self._fd = -1
        self._map: mmap.mmap | None = None
        self._mapped = memoryview(b"")
        self.size = 0

    def append(self, chunk: bytes) -> None:
        """Adds a piece; raises OSError when the spool file cannot be written (disk full)."""
        self.size += len(chunk)
        if self._fd >= 0:
            _write_all(self._fd, chunk)
            return
        self._chunks.append(chunk)
        if self.size > MEMORY_LIMIT:
            self._spool()

    def _spool(self) -> None:
        fd, path = tempfile.mkstemp(prefix="pool-body-")
        os.unlink(path)  # gone with the process, whatever happens
        self._fd = fd
        for chunk in self._chunks:
            _write_all(fd, chunk)
        self._chunks = []

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
        if self._map is not None:
            self._mapped.release()
            self._map.close()
            self._map = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _write_all(fd: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]
