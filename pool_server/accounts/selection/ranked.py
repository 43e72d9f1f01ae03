"""A sorted collection of keys that changes cheaply: what `choose` takes its shortlist from.

Keys are tuples that compare and differ. They live in blocks of at most 512, so a change costs two binary searches
and a move within one block, however many accounts there are.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any

Key = tuple[Any, ...]
_BLOCK = 512


class Ranked:
    """Keys in ascending order."""

    __slots__ = ("_blocks", "_last", "_size")

    def __init__(self) -> None:
        self._blocks: list[list[Key]] = []
        self._last: list[Key] = []  # the greatest key of each block
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Key]:
        for block in self._blocks:
            yield from block

    def add(self, key: Key) -> None:
        self._size += 1
        if not self._blocks:
            self._blocks.append([key])
            self._last.append(key)
            return
        at = min(bisect_left(self._last, key), len(self._blocks) - 1)
        block = self._blocks[at]
        insort(block, key)
        if len(block) > _BLOCK:
            half = len(block) // 2
            self._blocks.insert(at + 1, block[half:])
            self._last.insert(at + 1, block[-1])
            del block[half:]
        self._last[at] = self._blocks[at][-1]

    def remove(self, key: Key) -> None:
        """Raises KeyError when the key is not there."""
        at = bisect_left(self._last, key)
        if at == len(self._blocks):
            raise KeyError(key)
        block = self._blocks[at]
        place = bisect_left(block, key)
        if place == len(block) or block[place] != key:
            raise KeyError(key)
        del block[place]
        self._size -= 1
        if block:
            self._last[at] = block[-1]
        else:
            del self._blocks[at], self._last[at]

    def first(self, n: int) -> list[Key]:
        """The n least keys."""
        if not self._blocks:
            return []
        found = self._blocks[0][:n]
        at = 1
        while len(found) < n and at < len(self._blocks):
            found += self._blocks[at][: n - len(found)]
            at += 1
        return found
