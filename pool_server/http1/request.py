"""Heads: a request's as values, and how one is written. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

Pair = tuple[str, str]

HEAD_CAP = 128 << 10  # bytes of a first line and its headers
TARGET_CAP = 8 << 10  # bytes of a request's target; RFC 9112 §3 asks for at least 8000
MOST_FIELDS = 256  # header lines of a request
BODILESS = frozenset({204, 304})  # whose answers have no body, whatever their headers say
_USUAL_NAME = 64  # bytes; longer header names are nobody's and not worth remembering


class Headers(Mapping[str, str]):
    """Header pairs as they came, found by name in any case. `fields`: by lower-case name, doubles joined by a comma
    (RFC 9110 §5.3)."""

    __slots__ = ("fields", "pairs")

    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = pairs
        self.fields: dict[str, str] = {}

    def add(self, name: bytes, value: bytes) -> None:
        """One header, in Latin-1, which keeps every byte."""
        text, lower = _usual(name) if len(name) <= _USUAL_NAME else _spelt(name)
        said = value.decode("latin-1").rstrip(" \t")
        self.pairs.append((text, said))
        fields = self.fields
        fields[lower] = said if lower not in fields else f"{fields[lower]},{said}"

    def get(self, name: str, default: Any = None) -> Any:
        return self.fields.get(name.lower(), default)

    def __getitem__(self, name: str) -> str:
        return self.fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)


def _spelt(name: bytes) -> Pair:
    text = name.decode("latin-1")
    return text, text.lower()


_usual = lru_cache(maxsize=1024)(_spelt)


class Request:
    """`target` as the client wrote it, `path` and `query` its parts before and after the first `?`. `version` is
    "1.1" or "1.0", `remote_ip` the peer's address."""

    __slots__ = ("headers", "method", "path", "query", "remote_ip", "target", "version")

    def __init__(self, method: str, target: str, version: str, headers: Headers, remote_ip: str) -> None:
        self.method = method
        self.target = target
        self.path, _, self.query = target.partition("?")
        self.version = version
        self.headers = headers
        self.remote_ip = remote_ip


def head_bytes(lines: list[str]) -> bytes:
    """A head's first line and its headers as they go out. Latin-1 keeps the bytes that came so.

    Raises ValueError when a header would begin another line.
    """
    text = "\r\n".join(lines)
    breaks = len(lines) - 1
    if text.count("\n") != breaks or text.count("\r") != breaks:
        raise ValueError("a header holds a line break")
    try:
        return text.encode("latin-1") + b"\r\n\r\n"
    except UnicodeEncodeError:
        return text.encode() + b"\r\n\r\n"
