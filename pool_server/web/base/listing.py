"""A long list as a page shows it: searched, filtered, sorted and cut by what the address says. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import urlencode

PER_PAGE = 50


T = TypeVar("T")


class PageOfRows(NamedTuple, Generic[T]):
    """One page of a list: its rows, how many there are in all and how many were asked for, links to its neighbours
    ("" = none)."""

    rows: list[T]
    total: int
    found: int
    first: int
    earlier: str
    later: str


def matches(texts: Iterable[str | None], words: str) -> bool:
    """Whether every word searched for is in one of a row's texts; nothing searched for is everything."""
    if not words:
        return True
    text = " ".join(text or "" for text in texts).casefold()
    return all(word in text for word in words.casefold().split())


def natural(text: str) -> list[tuple[int, int, str]]:
    """A key that sorts names as people do: "acct-9" before "acct-10", large letters beside small ones."""
    parts = re.split("([0-9]+)", text.casefold())
    return [(0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts if part]


def page_of(
    rows: Iterable[T],
    chosen: Mapping[str, str],
    *,
    path: str,
    keep: Callable[[T], bool],
    key: Callable[[T], Any],
) -> PageOfRows[T]:
    """`chosen` is what the address says; its "page" counts from 1, anything else in it is the first page."""
    every = list(rows)
    found = sorted((row for row in every if keep(row)), key=key)
    asked = chosen.get("page", "")
    last = max(1, -(-len(found) // PER_PAGE))
    number = min(last, int(asked)) if asked.isascii() and asked.isdigit() and 0 < len(asked) < 7 and int(asked) else 1
    first = (number - 1) * PER_PAGE

    def link(to: int) -> str:
        left = {name: value for name, value in chosen.items() if value and name != "page"}
        return f"{path}?{urlencode({**left, 'page': str(to)})}"

    return PageOfRows(
        found[first : first + PER_PAGE],
        len(every),
        len(found),
        first + 1,
        link(number - 1) if number > 1 else "",
        link(number + 1) if number < last else "",
    )
