"""One setting changed in the text of a `config.toml`: comments, order and everything else stay as they are. Pure.

A line is exchanged, added or taken away, and the text that results is read again: unless it says exactly what was asked
for and nothing else has changed, it is refused. So a way of writing TOML that this does not know costs an error, not a
setting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import tomli

from pool_server.language import gettext as _

_HEADER = re.compile(r"\s*\[")
_END = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^#"'])*""")  # a value on one line, up to its comment


class NotEditableError(ValueError):
    """The file is written in a way that is not understood here."""


def changed(text: str, key: str, value: Any) -> str:
    """`text` with the setting of that dotted key at `value` (a bool, number or str; None = back to its default). Raises
    NotEditableError, also where the text is no TOML."""
    section, _dot, name = key.rpartition(".")
    before = _parsed(text)
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    start, stop = _range(lines, section)
    at = next((n for n in range(start, stop) if re.match(rf"\s*{name}\s*=", lines[n])), None)
    if at is not None:
        lines[at : at + 1] = [] if value is None else [_line(lines[at], name, value)]
    elif value is not None:
        made = f"{name} = {_literal(value)}\n"
        if section and start == 0:
            lines += ["\n" if lines else "", f"[{section}]\n", made]
        else:
            lines.insert(start if section else _end_of_top(lines, stop), made)
    result = "".join(lines)
    if _parsed(result) != _wanted(before, section, name, value):
        raise NotEditableError(
            _("{key} is written in a way that cannot be changed here: change it in the file", key=key)
        )
    return result


def _parsed(text: str) -> dict[str, object]:
    try:
        return tomli.loads(text)
    except (tomli.TOMLDecodeError, RecursionError):
        raise NotEditableError(_("the file cannot be changed here: change it by hand")) from None


def _wanted(before: Mapping[str, object], section: str, name: str, value: object) -> dict[str, object]:
    after = {**before}
    table = after
    if section:
        found = after.get(section, {})
        table = after[section] = {**found} if isinstance(found, dict) else {}
    table.pop(name, None)
    if value is not None:
        table[name] = value
    elif section and section not in before:
        del after[section]
    return after


def _range(lines: list[str], section: str) -> tuple[int, int]:
    """The lines of a table, without its header; (0, 0) for one that is not there. "" is what stands before all."""
    start = 0
    if section:
        header = re.compile(rf"\s*\[\s*{section}\s*\]\s*(#.*)?$")
        start = next((n + 1 for n, line in enumerate(lines) if header.match(line)), 0)
        if not start:
            return 0, 0
    stop = next((n for n in range(start, len(lines)) if _HEADER.match(lines[n])), len(lines))
    return start, stop


def _end_of_top(lines: list[str], stop: int) -> int:
    """Where a new key of the top level goes: after the last one, before the first table and what is said of it."""
    last = [n for n in range(stop) if re.match(r"\s*[\w\"'.-]+\s*=", lines[n])]
    return last[-1] + 1 if last else 0


def _line(line: str, name: str, value: Any) -> str:
    head, _sign, rest = line.partition("=")
    said = _END.match(rest)
    old = said[0] if said else rest
    comment = rest[len(old) :].rstrip("\r\n")
    made = f"{head}= {_literal(value)}"
    if comment:
        made = made.ljust(len(head) + 1 + len(old.rstrip("\r\n"))) + (
            " " if len(made) >= len(head) + 1 + len(old) else ""
        )
    return made + comment + "\n"


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)
