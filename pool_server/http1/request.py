"""Heads: a request's as values, and how one is written. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

Pair = tuple[str, str]

HEAD_CAP = 128 << 10  # bytes of a first line and its headers
TARGET_CAP = 8 << 10  # bytes of a request's target; RFC 9112 §3 asks for at least 8000
MOST_FIELDS = 256  # header lines of a request
BODILESS = frozenset({204, 304})  # whose answers have no body, whatever their headers say
USUAL_NAME = 64  # bytes; longer header names are nobody's and not worth remembering
REMEMBERED = 256  # heads, …
REMEMBERED_CAP = 4 << 10  # … of at most so many bytes each
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?([0-9]{1,15})\r\n")


class Headers(Mapping[str, str]):
    """Header pairs as they came, found by name in any case. `fields`: by lower-case name, doubles joined by a comma
    (RFC 9110 §5.3)."""

    __slots__ = ("fields", "pairs")

    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = pairs
        self.fields: dict[str, str] = {}

    def add(self, name: bytes, value: bytes) -> None:
        """One header, in Latin-1, which keeps every byte."""
        text, lower = usual(name) if len(name) <= USUAL_NAME else spelt(name)
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


def spelt(name: bytes) -> Pair:
    """A header's name as it came, and in lower case."""
    text = name.decode("latin-1")
    return text, text.lower()


usual = lru_cache(maxsize=1024)(spelt)


class Request:
    """`target` as the client wrote it, `path` and `query` its parts before and after the first `?`. `version` is
    "1.1" or "1.0", `remote_ip` the peer's address. `made_of_head` keeps what others make of the head, by a name of
    theirs, for the next request with the same one: nothing there may hang on Content-Length or on the peer."""

    __slots__ = ("headers", "made_of_head", "method", "path", "query", "remote_ip", "target", "version")

    def __init__(self, method: str, target: str, version: str, headers: Headers, remote_ip: str) -> None:
        self.method = method
        self.target = target
        self.path, _, self.query = target.partition("?")
        self.version = version
        self.headers = headers
        self.remote_ip = remote_ip
        self.made_of_head: dict[str, Any] = {}


class KnownHead(NamedTuple):
    """A head that was parsed before: `head` is its request, with another Content-Length, whose place among the header
    pairs is `at`; `last` says that its connection ends with the response."""

    head: Request
    at: int
    last: bool

    def request(self, length: str, remote_ip: str) -> Request:
        """The request whose head differs in the digits of its Content-Length alone."""
        known = self.head
        headers = Headers(known.headers.pairs.copy())
        headers.pairs[self.at] = (headers.pairs[self.at][0], length)
        headers.fields = {**known.headers.fields, "content-length": length}
        request = Request.__new__(Request)
        request.method, request.target, request.version = known.method, known.target, known.version
        request.path, request.query = known.path, known.query
        request.headers, request.remote_ip, request.made_of_head = headers, remote_ip, known.made_of_head
        return request


class HeadMemory:
    """Heads that were parsed lately, by their bytes without the digits of Content-Length: a client sends the same one
    with each of its requests. Whatever the parser has said of such bytes it would say again."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._known: dict[bytes, KnownHead] = {}

    def find(self, head: bytes) -> tuple[KnownHead, str] | None:
        """What is known of a head, and its Content-Length."""
        found = _LENGTH.search(head)
        if found is None:
            return None
        known = self._known.get(head[: found.start(1)] + head[found.end(1) :])
        return None if known is None else (known, found[1].decode())

    def keep(self, head: bytes, request: Request, *, last: bool) -> None:
        """Remembers a request whose head was parsed, if it is of the usual kind."""
        found = _LENGTH.search(head)
        if found is None or len(head) > REMEMBERED_CAP or not self._most:
            return
        places = [at for at, (name, _) in enumerate(request.headers.pairs) if name.lower() == "content-length"]
        fields = request.headers.fields
        if len(places) != 1 or "upgrade" in fields or fields["content-length"] != found[1].decode():
            return
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[head[: found.start(1)] + head[found.end(1) :]] = KnownHead(request, places[0], last)


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
