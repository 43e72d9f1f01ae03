"""A dialect is whole: every table that has a row for each of the others has one for it too."""

from __future__ import annotations

import ast
import functools
from collections.abc import Set

from pool_server.core.enums import Dialect
from tests.test_house import PACKAGE, modules

MEMBERS = frozenset(Dialect.__members__)
MOST = len(MEMBERS) - 1  # a table with so many rows is meant to have them all

# Tables that leave one out, and why.
WITHOUT = {
    ("dialects/translation/seals.py", "CHAT"): "it has no sealed reasoning",
    ("providers/keys/endpoint.py", "CODE_ASSIST"): "no API key is for it",
}


@functools.cache
def tables() -> list[tuple[str, int, set[str]]]:
    """(file, line, members) of each table that is keyed by nearly all dialects."""
    found = []
    for path in modules():
        text = path.read_text(encoding="utf-8")
        if text.count("Dialect.") < MOST:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Dict):
                keys = {
                    key.attr
                    for key in node.keys
                    if isinstance(key, ast.Attribute) and isinstance(key.value, ast.Name) and key.value.id == "Dialect"
                }
                if len(keys) >= MOST:
                    found.append((path.relative_to(PACKAGE).as_posix(), node.lineno, keys))
    return found


def missing(members: Set[str]) -> list[str]:
    """What these dialects lack, a line a row."""
    return [
        f"{file}:{line} has no row for {member}"
        for file, line, keys in tables()
        for member in sorted(members - keys)
        if (file, member) not in WITHOUT
    ]


def test_every_dialect_has_all_its_parts() -> None:
    assert missing(MEMBERS) == []
    assert {(file, member) for file, _, keys in tables() for member in MEMBERS - keys} == WITHOUT.keys()


def test_a_dialect_without_its_parts_is_told_where_they_belong() -> None:
    told = missing({*MEMBERS, "NEW"})
    assert len(told) == len(tables()) >= 7
    assert any(line.startswith("dialects/meters.py:") and line.endswith(" NEW") for line in told)
