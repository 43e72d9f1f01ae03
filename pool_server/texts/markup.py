"""Texts of a template: found in its source, and put into another language before it is compiled.

A template holds plain English. What stands between two block elements or two statements is one message: an
expression in it is `{1}`, a tag with attributes `<2>…</2>`, so that a translation can order them anew and names no
code. Attributes that people read or hear are messages too. What an expression itself says is marked `_("…")`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

_CODE = r"\{\{.*?\}\}|\{%.*?%\}"
_TOKEN = re.compile(
    r"(?P<comment>\{\#.*?\#\}|<!--.*?-->|<!doctype[^>]*>)"
    r"|(?P<expression>\{\{.*?\}\}|\{%\s*(?:raw|module)\b.*?%\})"
    r"|(?P<statement>\{%.*?%\})"
    rf"|(?P<tag></?[a-zA-Z][a-zA-Z0-9]*(?:{_CODE}|[^>{{]|\{{(?![{{%]))*>)"
    r"|(?P<text>[^<{]+|[<{])",
    re.S,
)
_NAME = re.compile(r"</?([a-zA-Z0-9]+)")
_READ = (
    "placeholder|title|alt|aria-label|data-ask|data-label|data-done|data-waits|data-copied|content|label"  # attributes
)
_ATTRIBUTE = re.compile(rf'(\s(?:{_READ})=")((?:{_CODE}|[^"])*)(")', re.S)
_EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%\s*(?:raw|module)\b.*?%\}", re.S)
_PLACE = re.compile(r"\{(\d+)\}|<(/?)(\d+)>")
_LETTER = re.compile(r"[^\W\d_]")
_LITERAL = r"(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')"
_MARKED = re.compile(rf"\b_\(\s*{_LITERAL}")
COUNTED = re.compile(rf"\bngettext\(\s*{_LITERAL},\s*{_LITERAL}")

_SCRIPTED = re.compile(r"\bt\(\s*\"((?:[^\"\\]|\\.)*)\"")

INLINE = frozenset(
    {
        "a",
        "abbr",
        "b",
        "bdi",
        "br",
        "code",
        "em",
        "i",
        "kbd",
        "small",
        "span",
        "strong",
        "sub",
        "sup",
        "time",
        "var",
        "wbr",
    }
)
VOID = frozenset({"br", "wbr"})
VERBATIM = ("script", "style", "pre", "svg")
UNTOLD = ("code", "kbd", "var")  # part of a message, never the reason for one

Lookup = Callable[[str], str]


class Token(NamedTuple):
    kind: str
    source: str

    @property
    def name(self) -> str:
        found = _NAME.match(self.source) if self.kind == "tag" else None
        return found[1].lower() if found else ""

    @property
    def closes(self) -> bool:
        return self.source.startswith("</")

    @property
    def bare(self) -> bool:
        """A tag without attributes, which a translation may name as it is."""
        return re.fullmatch(r"</?[a-zA-Z0-9]+>", self.source) is not None


def tokens(source: str) -> list[Token]:
    return [Token(found.lastgroup or "text", found[0]) for found in _TOKEN.finditer(source)]


def translated(source: str, look_up: Lookup) -> str:
    """The template's source with every message replaced by what `look_up` has for it."""
    written: list[str] = []
    run: list[Token] = []
    verbatim = ""
    for token in tokens(source):
        if verbatim:
            written.append(token.source)
            verbatim = "" if token.closes and token.name == verbatim else verbatim
        elif token.kind in ("text", "expression") or token.name in INLINE:
            run.append(token)
        else:
            written += _run(run, look_up)
            run = []
            written.append(_attributes(token, look_up))
            verbatim = token.name if token.name in VERBATIM and not token.closes else ""
    written += _run(run, look_up)
    return "".join(written)


def messages(source: str) -> list[str]:
    """Every message of a template, in its order."""
    found: list[str] = []

    def note(message: str) -> str:
        found.append(message)
        return message

    translated(source, note)
    found += [_unquoted(literal[1]) for literal in _MARKED.finditer(source)]
    found += [_unquoted(literal) for both in COUNTED.finditer(source) for literal in both.groups()]
    return found


def scripted(source: str) -> list[str]:
    """Every message of a script: the literals it gives to `t`."""
    return [_unquoted(f'"{literal}"') for literal in _SCRIPTED.findall(source)]


def places(message: str) -> list[str]:
    """What a translation of the message must hold as well: places of expressions and tags, tags, fields."""
    return sorted(re.findall(r"\{\w*\}|</?\w+>|%\w", message))


def _unquoted(literal: str) -> str:
    return re.sub(r"\\(.)", r"\1", literal[1:-1])


def _attributes(token: Token, look_up: Lookup) -> str:
    if token.kind != "tag":
        return token.source
    meta = token.name == "meta"

    def one(found: re.Match[str]) -> str:
        if meta or "{%" in _EXPRESSION.sub("", found[2]):
            return found[0]
        parts = [Token("expression" if _EXPRESSION.fullmatch(part) else "text", part) for part in _parts(found[2])]
        return found[1] + "".join(_message(parts, look_up)) + found[3]

    return _ATTRIBUTE.sub(one, token.source)


def _parts(value: str) -> Iterator[str]:
    end = 0
    for found in _EXPRESSION.finditer(value):
        if found.start() > end:
            yield value[end : found.start()]
        yield found[0]
        end = found.end()
    if end < len(value):
        yield value[end:]


def _run(run: list[Token], look_up: Lookup) -> list[str]:
    """A run of text and inline tags, cut where a tag has no partner in it."""
    lonely = _unpaired(run)
    if lonely is None:
        return _message(run, look_up)
    before = _run(run[:lonely], look_up)
    return [*before, _attributes(run[lonely], look_up), *_run(run[lonely + 1 :], look_up)]


def _unpaired(run: list[Token]) -> int | None:
    open_at: list[int] = []
    for index, token in enumerate(run):
        if token.kind != "tag" or token.name in VOID:
            continue
        if not token.closes:
            open_at.append(index)
        elif open_at and run[open_at[-1]].name == token.name:
            open_at.pop()
        else:
            return index
    return open_at[0] if open_at else None


def _partner(run: list[Token], start: int) -> int:
    depth = 0
    for index in range(start, len(run)):
        token = run[index]
        if token.kind == "tag" and token.name not in VOID:
            depth += -1 if token.closes else 1
        if depth == 0:
            return index
    return start


def _bounds(run: list[Token]) -> tuple[int, int]:
    """Where the message begins and ends: tags around all of it, and tags without text at its edges, are none of it."""
    first, last = 0, len(run)
    while first < last:
        head = run[first]
        if head.kind == "text" and not head.source.strip():
            first += 1
        elif run[last - 1].kind == "text" and not run[last - 1].source.strip():
            last -= 1
        elif head.kind == "tag":
            end = _partner(run, first)
            if end == last - 1 and end > first:
                first, last = first + 1, last - 1
            elif not any(token.kind != "tag" for token in run[first : end + 1]):
                first = end + 1
            else:
                break
        else:
            break
    return first, last


def _tells(run: list[Token]) -> bool:
    """Whether the run says anything outside code."""
    inside = 0
    for token in run:
        if token.name in UNTOLD:
            inside += -1 if token.closes else 1
        elif token.kind == "text" and not inside and _LETTER.search(re.sub(r"&\w+;", "", token.source)):
            return True
    return False


def _message(run: list[Token], look_up: Lookup) -> list[str]:
    run = [Token(token.kind, _attributes(token, look_up)) for token in run]
    first, last = _bounds(run)
    inner = run[first:last]
    if not _tells(run):
        return [token.source for token in run]
    text = "".join(token.source for token in inner)
    lead, tail = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    message, held = _numbered(inner)
    found = look_up(message)
    shown = text.strip() if found == message else _PLACE.sub(lambda place: held[place[0]], found)
    return [*(one.source for one in run[:first]), lead + shown + tail, *(one.source for one in run[last:])]


def _numbered(run: list[Token]) -> tuple[str, dict[str, str]]:
    """The message with numbers for its expressions and tags, and what each stands for."""
    said: list[str] = []
    held: dict[str, str] = {}
    open_tags: list[str] = []
    for token in run:
        if token.kind == "text":
            said.append(token.source)
            continue
        number = str(sum(not place.startswith("</") for place in held) + 1)
        if token.kind == "expression":
            place = f"{{{number}}}"
        elif token.closes:
            place = open_tags.pop() if open_tags else token.source
        else:
            place = token.source if token.bare else f"<{number}>"
            if token.name not in VOID:
                open_tags.append(place.replace("<", "</", 1))
        said.append(place)
        if place != token.source:
            held[place] = token.source
    return re.sub(r"\s+", " ", "".join(said)).strip(), held
