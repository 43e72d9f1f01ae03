"""A long list as a page shows it: searched, filtered, sorted and cut by what the address says. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

PER_PAGE = 50


class PageOfRows(NamedTuple):
    """One page of a list: its rows, how many there are in all and how many were asked for, links to its neighbours
    ("" = none)."""

    rows: list[dict[str, Any]]
    total: int
    found: int
    first: int
    earlier: str
    later: str


def matches(row: Mapping[str, Any], words: str, names: Sequence[str]) -> bool:
    """Whether every word searched for is in one of the row's fields `names`; nothing searched for is everything."""
    if not words:
        return True
    text = " ".join(str(row.get(name) or "") for name in names).casefold()
    return all(word in text for word in words.casefold().split())


def page_of(
    rows: Iterable[dict[str, Any]],
    chosen: Mapping[str, str],
    *,
    path: str,
    keep: Callable[[dict[str, Any]], bool],
    key: Callable[[dict[str, Any]], Any],
) -> PageOfRows:
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
