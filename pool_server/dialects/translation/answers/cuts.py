"""Where an answer is cut: a text at a stop string, arguments at the limit of the output."""

from __future__ import annotations

import re

from pool_server.dialects.translation.tools import arguments_object

_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]|"', re.DOTALL)
_ENDINGS = ("", '"', "null", ":null", '":null', '"":null', "0", "e", "ue", "rue", "se", "lse", "alse", "l", "ll", "ull")
# What an escape lacks that was cut, alone or as half of a surrogate pair.
_ESCAPES = ("\\", "0", "00", "000", "0000", "\\udc00", "udc00", "dc00", "c00", "00\\udc00", "0\\udc00")
_ESCAPE = re.compile(r"\\(?:u[0-9A-Fa-f]{0,4})?(?:\\(?:u[0-9A-Fa-f]{0,3})?)?$")
_CUT_SIZE = 1 << 20  # characters; longer arguments that were cut are an error


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


def completion(text: str) -> str | None:
    """What makes a JSON object of its beginning; None where it is none."""
    if len(text) > _CUT_SIZE:
        return None
    stack: list[str] = []
    for match in _JSON_TOKEN.finditer(text):
        token = match[0]
        if token == '"':
            break  # a string that was cut: what is within it is no structure
        if token in "{[":
            stack.append("}" if token == "{" else "]")
        elif token in "}]" and stack:
            stack.pop()
    closers = "".join(reversed(stack))
    escapes: tuple[str, ...] = ("", *_ESCAPES) if _ESCAPE.search(text[-12:]) else ("",)
    for escape in escapes:
        for ending in _ENDINGS:
            if arguments_object(text + escape + ending + closers)[1]:
                return escape + ending + closers
    return None
