"""Files encrypted piece by piece with AES-256-GCM, of any length, without holding them in memory.

A file is a header (magic, name of the key, salt) and pieces. Each file has a key of its own, derived from the named
one by HKDF with the salt; a piece's nonce is its number and whether it is the last, so that pieces cannot be left out,
repeated, put in another order or cut off unnoticed.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"PSENC1\n"
PIECE = 1 << 20  # bytes of plain text in a piece; only the last is shorter
_TAG = 16
_SALT = 32
_INFO = b"pool-server encrypted file 1"


class DecryptionError(Exception):
    """What is encrypted cannot be opened; says why in one line."""


def encrypt(pieces: Iterable[bytes], name: str, key: bytes) -> Iterator[bytes]:
    """The encrypted file of the plain `pieces`, of any length each."""
    salt = os.urandom(_SALT)
    header = MAGIC + bytes([len(name)]) + name.encode("ascii") + salt
    yield header
    seal = _cipher(key, salt).encrypt
    number, held = 0, bytearray()
    for piece in pieces:
        held += piece
        while len(held) > PIECE:
            yield seal(_nonce(number, last=False), bytes(held[:PIECE]), header)
            del held[:PIECE]
            number += 1
    yield seal(_nonce(number, last=True), bytes(held), header)


def decrypt(read: Callable[[int], bytes], keys: Mapping[str, bytes]) -> Iterator[bytes]:
    """The plain pieces of an encrypted file; `read(n)` gives its next n bytes, fewer at the end. What was given out is
    whole up to there. Raises DecryptionError."""
    from cryptography.exceptions import InvalidTag

    if read(len(MAGIC)) != MAGIC:
        raise DecryptionError("this is no encrypted file of the pool's")
    length = read(1)
    name = read(length[0]) if length else b""
    salt = read(_SALT)
    if not length or len(name) != length[0] or len(salt) != _SALT:
        raise DecryptionError("the encrypted file is cut off")
    key = keys.get(name.decode("ascii", "replace"))
    if key is None:
        raise DecryptionError(f"it is encrypted with key {name.decode('ascii', 'replace')!r}, which is not here")
    opened, header = _cipher(key, salt).decrypt, MAGIC + length + name + salt
    number, piece = 0, read(PIECE + _TAG)
    while True:
        following = read(PIECE + _TAG) if len(piece) == PIECE + _TAG else b""
        try:
            yield opened(_nonce(number, last=not following), piece, header)
        except (InvalidTag, ValueError):
            raise DecryptionError("the encrypted file is damaged, cut off, or of another key") from None
        if not following:
            return
        number, piece = number + 1, following


class DecryptedFile(io.RawIOBase):
    """An encrypted file, read as what was encrypted. Raises as `decrypt` does."""

    def __init__(self, read: Callable[[int], bytes], keys: Mapping[str, bytes]) -> None:
        self._pieces = decrypt(read, keys)
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: Buffer) -> int:
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._held = memoryview(piece)
        target = memoryview(into).cast("B")
        taken = self._held[: len(target)]
        target[: len(taken)] = taken
        self._held = self._held[len(taken) :]
        return len(taken)


def is_encrypted(start: bytes) -> bool:
    """Whether a file that begins so is an encrypted one."""
    return start.startswith(MAGIC)


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    """cryptography is loaded where something is encrypted: a start need not wait for it."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return AESGCM(HKDF(SHA256(), 32, salt, _INFO).derive(key))
