"""The figures of one answer's usage objects, under the pool's own names, the last word on each kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pool_server.core.models import MOST_TOKENS

# A vendor's key → the pool's name of the figure, or the names within the object under that key.
Names = Mapping[str, "str | Names"]
Figures = dict[str, int]
_DEPTH = 4


def figure(value: Any) -> int | None:
    """A token count as told; None for what is none: null, negative, not finite, absurd, not a number."""
    if type(value) is int:  # as it nearly always is
        return value if 0 <= value <= MOST_TOKENS else None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        return figure(int(value))
    if isinstance(value, float) and 0 <= value <= MOST_TOKENS:  # false for NaN
        return int(value)
    return None


def collect(names: Names, raw: Any) -> Figures:
    """Every figure of a usage object that `names` knows. Of two keys for one figure the first that is not 0 counts:
    relays fill both spellings and leave one of them empty."""
    found: Figures = {}
    if isinstance(raw, dict):
        _collect(names, raw, found, _DEPTH)
    return found


def _collect(names: Names, raw: dict[str, Any], found: Figures, depth: int) -> None:
    for key, value in raw.items():
        if value is None or key not in names:
            continue
        name = names[key]
        if type(name) is not str:
            if isinstance(value, dict) and depth:
                _collect(name, value, found, depth - 1)  # type: ignore[arg-type]
        elif type(value) is int and 0 <= value <= MOST_TOKENS and name not in found:  # as it nearly always is
            found[name] = value
        elif not found.get(name) and (count := figure(value)) is not None:
            found[name] = count


def within(whole: int, *parts: int) -> list[int]:
    """Parts of a count, cut so that none is negative and together they do not exceed it."""
    cut = []
    for part in parts:
        cut.append(max(0, min(part, whole)))
        whole -= cut[-1]
    return cut


class Told:
    """Takes usage objects in as they come and keeps the last word on each figure.

    Counts of output only grow while an answer is written, so the object that tells more output is the later one, also
    where a relay repeats an older one or ends with an empty one. A figure that an object leaves out stays.
    """

    __slots__ = ("_progress", "_rank", "_ranks", "figures")

    def __init__(self, progress: Callable[[Figures], int | None]) -> None:
        """`progress` reads the output told so far from one object's figures, None where it tells none."""
        self.figures: Figures = {}
        self._progress = progress
        self._ranks: dict[str, tuple[int, int]] = {}
        self._rank = (0, 0)

    def take(self, found: Figures, stage: int = 0) -> bool:
        """Take one object's figures in; `stage` orders objects of different kinds. True when it is the latest."""
        output = self._progress(found)
        rank = (stage, self._rank[1] if output is None else output)
        if not self._ranks:  # the first one, as nearly always the only one
            self.figures = {**found}
            self._ranks = dict.fromkeys(found, rank)
            latest = rank >= self._rank
            if latest:
                self._rank = rank
            return latest
        for name, count in found.items():
            if rank >= self._ranks.get(name, rank):
                self.figures[name] = count
                self._ranks[name] = rank
        latest = rank >= self._rank
        self._rank = max(self._rank, rank)
        return latest
