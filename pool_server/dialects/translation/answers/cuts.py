"""Where a text is cut at a stop string, and arguments that were put together wrongly."""

from __future__ import annotations

import re
from json import JSONDecodeError, JSONDecoder
from typing import Any

from pool_server.dialects.translation.tools import arguments_object

_MOST = 1 << 20  # characters; longer arguments stay as they are


class StopStrings:
    """Ends a text where one of the strings begins, however the text was cut."""

    def __init__(self, strings: tuple[str, ...]) -> None:
        self._strings = strings
        self._longest = max(map(len, strings))
        self._tail = ""

    def feed(self, piece: str) -> tuple[str, str]:
        """(what can be told, the string met or "")."""
        text = self._tail + piece
        hits = [(at, s) for s in self._strings if (at := text.find(s)) >= 0]
        if hits:
            at, met = min(hits, key=lambda hit: (hit[0], -len(hit[1])))
            self._tail = ""
            return text[:at], met
        keep = next((n for n in range(min(self._longest - 1, len(text)), 0, -1) if self._begins(text[-n:])), 0)
        self._tail = text[len(text) - keep :]
        return text[: len(text) - keep], ""

    def _begins(self, tail: str) -> bool:
        return any(s.startswith(tail) for s in self._strings)

    def rest(self) -> str:
        """What was kept back when the text ended."""
        tail, self._tail = self._tail, ""
        return tail


_VALUES = JSONDecoder()
_BLANKS = re.compile(r"\s+")
_MARK = re.compile(r'["\\{}\[\]]')


def put_right(arguments: str) -> str:
    """Arguments as the object they stand for: null for none, an object within a string, and one that is told twice or
    behind an empty one, as some endpoints' parsers of calls do. What is none of these stays as it is."""
    if len(arguments) > _MOST or arguments_object(arguments)[1]:
        return arguments
    found: list[Any] = []
    spans: list[tuple[int, int]] = []
    at = len(arguments) - len(arguments.lstrip())
    try:
        while at < len(arguments):
            value, end = _VALUES.raw_decode(arguments, at)
            found.append(value)
            spans.append((at, end))
            blanks = _BLANKS.match(arguments, end)
            at = blanks.end() if blanks else end
    except (JSONDecodeError, RecursionError):
        return arguments
    if len(found) == 1 and isinstance(found[0], str):
        return found[0] if arguments_object(found[0])[1] and found[0].strip() else arguments
    told = [value for value in found if value not in (None, {})]
    if not told:
        return "{}"
    if not isinstance(told[0], dict) or any(value != told[0] for value in told):
        return arguments
    at, end = spans[found.index(told[0])]
    return arguments[at:end]


class LivePieces:
    """Which pieces of a call's arguments can be told as they come: what is no object yet, and what follows one, waits
    for the end."""

    __slots__ = ("_before", "_depth", "_escaped", "_held", "_odd", "_scanned", "_string", "_told")

    def __init__(self) -> None:
        self._before = self._told = 0  # characters before what was told, and of that
        self._held = self._odd = False  # `_odd`: a value has ended that is no object
        self._scanned = self._depth = 0  # pieces looked at, and brackets open in them
        self._string = self._escaped = False

    def feed(self, piece: str, before: list[str]) -> bool:
        """Whether the piece is told; `before` are those before it."""
        if self._held:
            return False
        start = piece.lstrip()
        if not self._told:
            if not start:
                self._before += len(piece)
                return False
            self._held = not start.startswith("{") or start.rstrip() == "{}"
        elif start.startswith("{") and before[-1].rstrip().endswith("}"):
            self._held = self._whole(before)
        self._told += 0 if self._held else len(piece)
        return not self._held

    def _whole(self, pieces: list[str]) -> bool:
        """Whether these are an object by now. Each is looked at once, however often this is asked."""
        for piece in pieces[self._scanned :]:
            self._scan(piece)
        self._scanned = len(pieces)
        if self._odd or self._depth > 0 or self._string:
            return False
        whole = arguments_object("".join(pieces))[1]
        self._odd = not whole
        return whole

    def _scan(self, piece: str) -> None:
        start = 1 if self._escaped and piece else 0
        self._escaped = self._escaped and not piece
        for mark in _MARK.finditer(piece):
            if mark.start() < start:
                continue
            char = mark.group()
            if self._string:
                if char == "\\":
                    start = mark.start() + 2
                    self._escaped = start > len(piece)
                self._string = char != '"'
            elif char == '"':
                self._string = True
            elif char != "\\":
                self._depth += 1 if char in "{[" else -1

    def rest(self, arguments: str, right: str) -> str:
        """What is still to be told of `arguments`, which are put `right`."""
        told = arguments[self._before : self._before + self._told].lstrip()
        if right != arguments and right.startswith(told):
            return right[len(told) :]
        return arguments[self._before + self._told :]
