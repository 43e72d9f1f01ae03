"""Content codings: request bodies decoded for a look, answers decoded for their usage. Memory stays bounded."""

from __future__ import annotations

import zlib
from typing import Protocol

import zstandard

from pool_server.dialects.types import BadEncodingError, BodyTooLargeError

# Bytes of compressed input a step. zstd makes at most 128 KiB of four bytes, so a step stays within 32 MiB.
_SLICE = 1 << 10
_BURST = 256 << 10  # bytes of an answer decoded at a time, or little more
_RATIO = 200  # what is decoded is at most so many times as long; words, JSON and code stay below 50
_SMALL = 1 << 20  # bytes that any body may become
_MOST_FRAMES = 1024  # of zstd, or members of gzip
_WINDOW = 8 << 20  # bytes a zstd frame may ask for: RFC 9659's limit for Content-Encoding


def decode_body(raw: bytes | bytearray | memoryview, encoding: str, *, cap: int) -> bytes:
    """Decode a whole request body. `encoding` is the Content-Encoding value, `cap` the largest result in bytes.

    Raises BadEncodingError when the coding is not known or the data are broken or cut, BodyTooLargeError beyond the
    cap or where the data are packed as tightly as only a bomb is. Codex sends zstd frames that do not say their size.
    """
    data = bytes(raw)
    most = max(_SMALL, _RATIO * len(data))
    for name in reversed(_names(encoding)):
        data = _decode(data, name, min(cap, most))
    if len(data) > cap:
        raise BodyTooLargeError(_too_large(cap))
    return data


def _too_large(cap: int) -> str:
    return f"the decoded body is larger than {cap} bytes, or than {_RATIO} times what was sent"


def _names(encoding: str) -> list[str]:
    names = [part.strip().lower() for part in encoding.split(",")]
    known = {"zstd": "zstd", "gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate", "identity": "", "": ""}
    unknown = [name for name in names if name not in known]
    if unknown or len(names) > 4:
        raise BadEncodingError("the request's Content-Encoding is not one of zstd, gzip, deflate, identity")
    return [known[name] for name in names if known[name]]


class _Engine(Protocol):
    """What zlib's and zstandard's decompressors have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def _decode(data: bytes, name: str, cap: int) -> bytes:
    """Undo one coding: all its members or frames, taken in slices so that a bomb is noticed early."""
    parts, size, at, frames = [], 0, 0, 0
    try:
        while at < len(data):
            frames += 1
            if frames > _MOST_FRAMES:
                raise BadEncodingError(f"the request body has more than {_MOST_FRAMES} {name} frames")
            engine = _engine(data[at : at + 2], name)
            while not engine.eof:
                if at >= len(data):
                    raise BadEncodingError(f"the request body is cut {name}")
                piece = data[at : at + _SLICE]
                part = engine.decompress(piece)
                at += len(piece)
                size += len(part)
                if size > cap:
                    raise BodyTooLargeError(_too_large(cap))
                parts.append(part)
            at -= len(engine.unused_data)
    except (zlib.error, zstandard.ZstdError):
        raise BadEncodingError(f"the request body is not valid {name}") from None
    return b"".join(parts)


def _engine(head: bytes, name: str) -> _Engine:
    if name == "zstd":
        return zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
    return zlib.decompressobj(_bits(head, name))


def _bits(data: bytes, name: str) -> int:
    """zlib's window argument; senders of "deflate" disagree about the zlib header, so its first bytes decide."""
    if name == "gzip":
        return 16 + zlib.MAX_WBITS
    wrapped = len(data) >= 2 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
    return zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS


class Inflater:
    """Decodes an answer piece by piece, a little at a time: after each `feed`, ask for the rest with `feed(b"")` while
    there is `more`, and let others have their turn between. After a defect, or where no honest answer is packed so
    tightly, it yields nothing more (`broken` says so)."""

    def __init__(self, encoding: str) -> None:
        """Raises BadEncodingError when the coding cannot be decoded here (brotli, several codings)."""
        names = _names(encoding)
        if len(names) > 1:
            raise BadEncodingError("the answer has several content codings")
        self._name = names[0] if names else ""
        self._engine: _Engine | None = None
        self._held = b""
        self._fed = self._made = 0
        self.broken = False
        self.more = False

    def feed(self, chunk: bytes) -> bytes:
        """Some of the decoded bytes this chunk completes."""
        if not self._name or self.broken:
            return b"" if self.broken else chunk
        self._fed += len(chunk)
        parts: list[bytes] = []
        try:
            self._inflate(self._held + chunk if self._held else chunk, parts)
        except (zlib.error, zstandard.ZstdError):
            self.broken = True
        if self.broken:
            self.more = False
        return b"".join(parts)

    def _inflate(self, data: bytes, parts: list[bytes]) -> None:
        at, size, self._held, self.more = 0, 0, b"", False
        while at < len(data) and not self.broken:
            if size >= _BURST:
                self._held, self.more = data[at:], True
                return
            if self._engine is None:
                if len(data) - at < 2:
                    self._held = data[at:]
                    return
                self._engine = _engine(data[at : at + 2], self._name)
            piece = data[at : at + _SLICE]
            parts.append(self._engine.decompress(piece))
            at += len(piece)
            size += len(parts[-1])
            self._made += len(parts[-1])
            self.broken = self._made > max(_SMALL, _RATIO * self._fed)
            if self._engine.eof:
                at -= len(self._engine.unused_data)
                self._engine = None
