"""Content codings: request bodies decoded for a look, answers decoded for their usage. Memory stays bounded."""

from __future__ import annotations

import zlib

import zstandard

from pool_server.dialects.words import BadEncoding, TooLarge

_OUT = 1 << 20  # bytes of output a step
_WINDOW = 1 << 27  # zstd frames that ask for a larger window are refused (128 MiB, the format's usual limit)


def decode_body(raw: bytes | bytearray | memoryview, encoding: str, *, cap: int) -> bytes:
    """Decode a whole request body. `encoding` is the Content-Encoding value, `cap` the largest result in bytes.

    Raises BadEncoding when the coding is not known or the data are broken or cut, TooLarge beyond the cap.
    Codex sends zstd frames that do not say their content size.
    """
    data = bytes(raw)
    for name in reversed(_names(encoding)):
        data = _zstd(data, cap) if name == "zstd" else _zlib(data, name, cap)
    if len(data) > cap:
        raise TooLarge(f"the body is larger than {cap} bytes")
    return data


def _names(encoding: str) -> list[str]:
    names = [part.strip().lower() for part in encoding.split(",")]
    known = {"zstd": "zstd", "gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate", "identity": "", "": ""}
    unknown = [name for name in names if name not in known]
    if unknown or len(names) > 4:
        raise BadEncoding("the request's Content-Encoding is not one of zstd, gzip, deflate, identity")
    return [known[name] for name in names if known[name]]


def _zstd(data: bytes, cap: int) -> bytes:
    """All frames of a zstd body. A frame may hide gigabytes, so the output is read in steps."""
    decoder = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    parts, size = [], 0
    try:
        with decoder.stream_reader(data, read_across_frames=True) as reader:
            while part := reader.read(_OUT):
                size += len(part)
                if size > cap:
                    raise TooLarge(f"the decoded body is larger than {cap} bytes")
                parts.append(part)
    except zstandard.ZstdError:
        raise BadEncoding("the request body is not valid zstd") from None
    return b"".join(parts)


def _zlib(data: bytes, name: str, cap: int) -> bytes:
    """A gzip body (one or more members) or a deflate body (zlib-wrapped or bare)."""
    parts, size = [], 0
    try:
        while data:
            inflater = zlib.decompressobj(_bits(data, name))
            while not inflater.eof:
                part = inflater.decompress(data, _OUT)
                size += len(part)
                if size > cap:
                    raise TooLarge(f"the decoded body is larger than {cap} bytes")
                parts.append(part)
                data = inflater.unconsumed_tail
                if not part and not data and not inflater.eof:
                    raise BadEncoding(f"the request body is cut {name}")
            data = inflater.unused_data
    except zlib.error:
        raise BadEncoding(f"the request body is not valid {name}") from None
    return b"".join(parts)


def _bits(data: bytes, name: str) -> int:
    """zlib's window argument; senders of "deflate" disagree about the zlib header, so its first bytes decide."""
    if name == "gzip":
        return 16 + zlib.MAX_WBITS
    wrapped = len(data) >= 2 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
    return zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS


class Inflater:
    """Decodes an answer piece by piece for its meter. After a defect it yields nothing more: the client gets the
    bytes as they are, only the count is lost (`broken` says so)."""

    def __init__(self, encoding: str) -> None:
        """Raises BadEncoding when the coding cannot be decoded here (brotli, several codings)."""
        names = _names(encoding)
        if len(names) > 1:
            raise BadEncoding("the answer has several content codings")
        self._name = names[0] if names else ""
        self._engine: zstandard.ZstdDecompressionObj | zlib._Decompress | None = None
        self.broken = False

    def feed(self, chunk: bytes) -> bytes:
        """The decoded bytes this chunk completes."""
        if not self._name or self.broken:
            return b"" if self.broken else chunk
        try:
            if self._engine is None and chunk:
                self._engine = self._start(chunk)
            return self._engine.decompress(chunk) if self._engine is not None else b""
        except (zlib.error, zstandard.ZstdError, EOFError):
            self.broken = True
            return b""

    def _start(self, chunk: bytes) -> zstandard.ZstdDecompressionObj | zlib._Decompress:
        if self._name == "zstd":
            decoder = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
            return decoder.decompressobj(read_across_frames=True)
        return zlib.decompressobj(_bits(chunk, self._name))
