"""Encrypted files: whole or refused, whatever was done to them."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.storage import encrypted_stream
from pool_server.storage.encrypted_stream import PIECE, DecryptionError, decrypt, encrypt

KEYS = {"k1": b"1" * 32, "k2": b"2" * 32}


def sealed(plain: bytes, name: str = "k1", step: int = 70_001) -> bytes:
    return b"".join(encrypt((plain[at : at + step] for at in range(0, len(plain), step)), name, KEYS[name]))


def opened(data: bytes, keys: dict[str, bytes] = KEYS) -> bytes:
    return b"".join(decrypt(io.BytesIO(data).read, keys))


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 7])
def test_what_goes_in_comes_out(size: int) -> None:
    plain = random.Random(size).randbytes(size)
    data = sealed(plain, "k2")
    assert encrypted_stream.is_encrypted(data) and opened(data) == plain
    assert plain[:64] not in data or size == 0 or size == 1


@given(st.data())
def test_a_byte_that_was_changed_is_noticed(data: st.DataObject) -> None:
    found = bytearray(sealed(b"something" * 50))
    at = data.draw(st.integers(0, len(found) - 1))
    found[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DecryptionError):
        opened(bytes(found))


@given(st.integers(0, 600))
def test_a_file_that_was_cut_off_is_noticed(length: int) -> None:
    whole = sealed(b"something" * 50)
    if length < len(whole):
        with pytest.raises(DecryptionError):
            opened(whole[:length])


def test_pieces_keep_their_place_and_their_end() -> None:
    whole = sealed(random.Random(1).randbytes(3 * PIECE))
    start = len(encrypted_stream.MAGIC) + 1 + 2 + 32
    sealed_piece = PIECE + 16
    pieces = [whole[at : at + sealed_piece] for at in range(start, len(whole), sealed_piece)]
    assert len(pieces) == 3
    wrong = (
        [pieces[1], pieces[0], pieces[2]],
        [pieces[0], pieces[2]],
        pieces[:2],
        [*pieces, pieces[2]],
        [*pieces, b""[:0] + b"x"],
    )
    for order in wrong:
        with pytest.raises(DecryptionError):
            opened(whole[:start] + b"".join(order))


def test_another_key_opens_nothing() -> None:
    with pytest.raises(DecryptionError, match="not here"):
        opened(sealed(b"x"), {"k2": KEYS["k2"]})
    with pytest.raises(DecryptionError):
        opened(sealed(b"x"), {"k1": KEYS["k2"]})
    with pytest.raises(DecryptionError, match="no encrypted file"):
        opened(b"PK\x03\x04")
