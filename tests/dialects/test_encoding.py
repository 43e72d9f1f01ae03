"""Content codings: what clients send, what is broken, what would fill the memory."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pool_server.dialects import BadEncodingError, BodyTooLargeError, Inflater, decode_body


def zstd(data: bytes) -> bytes:
    """A frame without its content size, as Codex sends it."""
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(data) + packer.flush()


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


CODINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("zstd", zstd),
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", bare_deflate),
    ("identity", bytes),
    ("", bytes),
]
PACKED = CODINGS[:5]


@pytest.mark.parametrize(("name", "pack"), CODINGS)
def test_a_body_is_decoded(name: str, pack: Callable[[bytes], bytes]) -> None:
    body = b'{"model":"m","input":"' + b"word " * 20000 + b'"}'
    assert decode_body(memoryview(pack(body)), name.upper(), cap=len(body)) == body
    with pytest.raises(BodyTooLargeError):
        decode_body(pack(body), name, cap=len(body) - 1)


def test_several_codings_frames_and_members() -> None:
    assert decode_body(zstd(gzip.compress(b"abc")), "gzip, zstd", cap=100) == b"abc"
    assert decode_body(zstd(b"ab") + zstd(b"c"), "zstd", cap=10) == b"abc"
    assert decode_body(gzip.compress(b"ab") + gzip.compress(b"c"), "gzip", cap=10) == b"abc"
    assert decode_body(b"", "zstd", cap=10) == b""


@pytest.mark.parametrize(("name", "pack"), PACKED)
def test_broken_bodies(name: str, pack: Callable[[bytes], bytes]) -> None:
    good = pack(b"some words of a body, some words of a body")
    for bad in (good[:-3], good[: len(good) // 2], b"\x00" + good, b"not packed at all"):
        with pytest.raises(BadEncodingError) as caught:
            decode_body(bad, name, cap=1000)
        assert "\n" not in str(caught.value) and "words" not in str(caught.value)


@pytest.mark.parametrize("name", ["br", "compress", "gzip;q=1", "gzip, gzip, gzip, gzip, gzip", "zstd, nonsense"])
def test_unknown_codings(name: str) -> None:
    with pytest.raises(BadEncodingError):
        decode_body(b"{}", name, cap=10)


@pytest.mark.parametrize(("name", "pack"), PACKED)
def test_a_bomb_is_refused_without_its_memory(name: str, pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(bytes(96 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError):
            decode_body(bomb, name, cap=4 << 20)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_a_zstd_frame_may_not_ask_for_a_huge_window() -> None:
    wide = zstandard.ZstdCompressionParameters(window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    with pytest.raises(BadEncodingError):
        decode_body(packer.compress(b"x") + packer.flush(), "zstd", cap=1000)


@pytest.mark.parametrize(("name", "pack"), CODINGS)
@given(size=st.integers(1, 50))
def test_an_answer_is_inflated_however_it_was_cut(name: str, pack: Callable[[bytes], bytes], size: int) -> None:
    body = b"data: some words\n\n" * 50
    packed = pack(body)
    inflater = Inflater(name)
    out = b"".join(inflater.feed(packed[at : at + size]) for at in range(0, len(packed), size))
    assert out == body and not inflater.broken


def test_a_broken_answer_only_loses_its_count() -> None:
    packed = gzip.compress(b"abc")
    inflater = Inflater("gzip")
    assert inflater.feed(packed + b"garbage") == b"abc"
    assert inflater.broken and inflater.feed(packed) == b""
    bomb = Inflater("zstd")
    assert len(bomb.feed(zstd(bytes(160 << 20)))) < 128 << 20 and bomb.broken
    for name in ("br", "gzip, zstd"):
        with pytest.raises(BadEncodingError):
            Inflater(name)


@given(st.binary(max_size=4000), st.integers(0, 3_000_000), st.sampled_from(PACKED))
def test_a_body_is_decoded_unless_it_is_packed_as_no_honest_one_is(
    noise: bytes, blanks: int, coding: tuple[str, Callable[[bytes], bytes]]
) -> None:
    body = noise + b" " * blanks
    raw = coding[1](body)
    if len(body) > max(1 << 20, 200 * len(raw)):
        with pytest.raises(BodyTooLargeError):
            decode_body(raw, coding[0], cap=64 << 20)
    else:
        assert decode_body(raw, coding[0], cap=64 << 20) == body


@pytest.mark.parametrize(("name", "pack"), PACKED[:2])
def test_thousands_of_empty_frames_are_not_gone_through(name: str, pack: Callable[[bytes], bytes]) -> None:
    assert decode_body(pack(b"") * 1024, name, cap=1000) == b""
    with pytest.raises(BadEncodingError):
        decode_body(pack(b"") * 1025, name, cap=1000)


@pytest.mark.parametrize(("name", "pack"), PACKED)
@given(noise=st.binary(max_size=20_000), blanks=st.integers(0, 1_000_000), cuts=st.lists(st.integers(0, 5000)))
def test_an_answer_is_inflated_a_little_at_a_time(
    name: str, pack: Callable[[bytes], bytes], noise: bytes, blanks: int, cuts: list[int]
) -> None:
    body = noise + b" " * blanks
    raw = pack(body)
    inflater, out = Inflater(name), b""
    places = sorted({min(cut, len(raw)) for cut in (*cuts, 0)})
    for start, end in zip(places, [*places[1:], len(raw)], strict=True):
        out += inflater.feed(raw[start:end])
        while inflater.more:
            piece = inflater.feed(b"")
            assert len(piece) < 4 << 20
            out += piece
    assert out == body and not inflater.broken


def test_an_answer_that_is_a_bomb_is_broken_early() -> None:
    inflater = Inflater("gzip")
    made = len(inflater.feed(gzip.compress(bytes(300 << 20))))
    while inflater.more:
        made += len(inflater.feed(b""))
    assert inflater.broken and made < 100 << 20
