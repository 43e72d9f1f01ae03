"""Keeps an account's tokens and ids out of what goes down to a client, whatever the upstream echoes.

What is masked keeps its length, so that a Content-Length that was told stays true.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote

from pool_server.providers.credential import Credential
from pool_server.providers.redact import HIDDEN

_SHORTEST = 6  # characters; a shorter value would be found in ordinary words
# What people write where a server wants no key ("ollama", "not-needed"): a model may well say it.
_PLACEHOLDER = re.compile(r"(?!sk-)[a-z_-]{1,19}|sk-no-key-required")
_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "=&<>+'"}  # as some JSON writers have it
Header = tuple[str, str]


class Shield:
    """Masks one account's secrets. `needles` are what is looked for, each form by itself; `feed` keeps what may be the
    beginning of one until the next piece, `rest` hands that out. Data without any come back as they are."""

    __slots__ = ("_carry", "_folded", "needles", "words")

    def __init__(self, credential: Credential) -> None:
        self.words, self.needles, self._folded = _forms(
            credential.api_key,
            credential.access_token,
            credential.refresh_token,
            credential.account_id,
            credential.user_id,
            f"projects/{credential.project}" if credential.private_key else "",
        )
        self._carry = b""

    def whole(self, data: bytes) -> bytes:
        """Data that stand for themselves."""
        for needle in self.needles:
            if needle in data:
                data = data.replace(needle, _mask(len(needle)).encode())
        return data

    def text(self, text: str) -> str:
        """The same for text."""
        for word in self.words:
            if word in text:
                text = text.replace(word, _mask(len(word)))
        return text

    def feed(self, piece: bytes) -> bytes:
        """The next piece of a body, without what may be the beginning of a secret at its end."""
        if self._carry:
            piece = self._carry + piece
        piece = self.whole(piece)
        kept = self._beginning(piece)
        if not kept:
            self._carry = b""
            return piece
        self._carry = piece[-kept:]
        return piece[:-kept]

    def rest(self) -> bytes:
        """What `feed` has kept."""
        carry, self._carry = self._carry, b""
        return carry

    def _beginning(self, piece: bytes) -> int:
        """How many bytes at the end may be the beginning of a secret."""
        most = 0
        for needle in self.needles:
            at = max(0, len(piece) - len(needle) + 1)
            while (at := piece.find(needle[:1], at)) >= 0:
                if needle.startswith(piece[at:]):
                    most = max(most, len(piece) - at)
                    break
                at += 1
        return most

    def headers(self, headers: list[Header]) -> list[Header]:
        """Header lines, in which a secret may be of either case; a line whose name holds one is left out."""
        lines = "\n".join(["\n".join(pair) for pair in headers]).lower()
        for word in self._folded:
            if word in lines:
                break
        else:
            return headers
        return [(name, self._value(value)) for name, value in headers if not self._holds(name)]

    def _holds(self, text: str) -> bool:
        return any(word in text.lower() for word in self._folded)

    def _value(self, value: str) -> str:
        for word in self._folded:
            while (at := value.lower().find(word)) >= 0:
                value = value[:at] + _mask(len(word)) + value[at + len(word) :]
        return value


def _mask(size: int) -> str:
    return HIDDEN + "*" * (size - len(HIDDEN)) if size >= len(HIDDEN) else "*" * size


@lru_cache(maxsize=4096)
def _forms(key: str, *values: str) -> tuple[tuple[str, ...], tuple[bytes, ...], tuple[str, ...]]:
    """The forms in which an API key and other values may be echoed, the longest first: as text, as bytes, in lower
    case."""
    if not _PLACEHOLDER.fullmatch(key):
        values = (*values, key)
    found = dict.fromkeys(form for value in values if len(value) >= _SHORTEST for form in _written(value))
    words = tuple(sorted(found, key=len, reverse=True))
    return words, tuple(word.encode() for word in words), tuple(word.lower() for word in words)


def _written(value: str) -> Iterable[str]:
    """As it is, in JSON and in a URL."""
    yield value
    yield value.replace("/", "\\/")
    yield value.translate(_ESCAPED)
    yield quote(value, safe="")
