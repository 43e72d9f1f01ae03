"""Pieces of a log as they lie at another place: named for what they hold, compressed, encrypted with a key if any."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import zstandard

from pool_server.storage.encrypted_stream import DecryptionError, decrypt, encrypt, is_encrypted
from pool_server.storage.lmdb.log_file import frame, frames
from pool_server.storage.object_store import StoredObject

PREFIX = "change-log"
_NAME = re.compile(rf"{PREFIX}/([\w-]+)/(\d{{16}})-(\d{{16}})-(\d{{16}})-(\d{{16}})\.zst(\.enc)?")
_MOST_PLAIN = 1 << 30


class SegmentError(Exception):
    """A piece that is not whole, or whose key is not here; one line."""


class Segment(NamedTuple):
    """Transactions `first` to `last` of a generation, whose times lie between two (unix milliseconds)."""

    generation: str
    first: int
    last: int
    since: int
    until: int
    name: str


def segment(generation: str, first: int, last: int, times: Iterable[float], *, encrypted: bool) -> Segment:
    """How the transactions `first` to `last` are called together, whose unix seconds `times` spans."""
    stamps = [max(0, int(at * 1000)) for at in times]
    since, until = min(stamps), max(stamps)
    name = f"{PREFIX}/{generation}/{first:016d}-{last:016d}-{since:016d}-{until:016d}.zst"
    return Segment(generation, first, last, since, until, name + (".enc" if encrypted else ""))


def listed(stored: Iterable[StoredObject]) -> list[Segment]:
    """The segments among what a place holds, by generation and number; of those that begin alike the longest first."""
    found = [(match, one.name) for one in stored if (match := _NAME.fullmatch(one.name))]
    segments = [Segment(m[1], int(m[2]), int(m[3]), int(m[4]), int(m[5]), name) for m, name in found]
    return sorted(segments, key=lambda one: (one.generation, one.first, -one.last))


def following(segments: Sequence[Segment], number: int) -> tuple[list[Segment], bool]:
    """Of one generation's, sorted, those that continue after `number` without a hole, and whether others lie beyond
    one."""
    chosen: list[Segment] = []
    beyond = False
    for one in segments:
        if one.last <= number:
            continue
        beyond = one.first > number + 1
        if beyond:
            break
        chosen.append(one)
        number = one.last
    return chosen, beyond


def outlived(segments: Sequence[Segment], before: float) -> list[Segment]:
    """Which of a place's segments are older than `before`, unix seconds, each with all that precede it in its
    generation: a clock that was wrong for a while tears no hole."""
    gone: list[Segment] = []
    over: set[str] = set()
    for one in segments:
        if one.until >= before * 1000:
            over.add(one.generation)
        elif one.generation not in over:
            gone.append(one)
    return gone


def packed(contents: Iterable[bytes], keys: Mapping[str, bytes]) -> bytes:
    """What a segment holds; encrypted with the first of `keys` if there is one."""
    data = zstandard.ZstdCompressor(level=3).compress(b"".join(frame(content, 0) for content in contents))
    if not keys:
        return data
    name, key = next(iter(keys.items()))
    return b"".join(encrypt([data], name, key))


def unpacked(data: bytes, keys: Mapping[str, bytes], count: int) -> list[bytes]:
    """The frames' contents, `count` of them. Raises SegmentError."""
    try:
        if is_encrypted(data):
            data = b"".join(decrypt(io.BytesIO(data).read, keys))
        plain = zstandard.ZstdDecompressor().decompress(data, max_output_size=_MOST_PLAIN)
    except (DecryptionError, zstandard.ZstdError) as exc:
        raise SegmentError(str(exc)) from None
    contents, end, _ = frames(plain)
    if end != len(plain) or len(contents) != count:
        raise SegmentError("it is cut off or damaged")
    return contents
