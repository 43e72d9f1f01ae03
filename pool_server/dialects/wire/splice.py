"""Changing single fields of a JSON body and nothing around them: prompt caches hang on byte-stable prefixes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from pool_server.dialects.types import RAW_FIELDS, TEXT, BadBodyError, dumps, loads

_SPACE = re.compile(rb"[ \t\r\n]*")
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]|[^\s{}\[\]",:]+', re.DOTALL)


def splice(body: bytes, fields: dict[str, Any]) -> bytes:
    """Set top-level fields of a JSON object, touching only their values' bytes; a missing field is added last.

    Raises BadBody when the body is not a JSON object.
    """
    found = loads(body, RAW_FIELDS)
    if found is None:
        raise BadBodyError("the request body is not a JSON object")
    spans, end = _spans(body, found)
    edits: list[tuple[int, int, bytes]] = []
    added = b""
    for name, value in fields.items():
        if name in spans:
            edits += [(start, stop, dumps(value)) for start, stop in spans[name]]
        else:
            comma = b"," if spans or added else b""
            added += comma + dumps(name) + b":" + dumps(value)
    if added:
        edits.append((end, end, added))
    parts, at = [], 0
    for start, stop, new in sorted(edits):
        parts += [body[at:start], new]
        at = stop
    return b"".join((*parts, body[at:]))


def without(body: bytes, names: Iterable[str]) -> bytes:
    """A JSON object's bytes without these top-level fields. Raises BadBody when the body is not a JSON object."""
    found = loads(body, RAW_FIELDS)
    if found is None:
        raise BadBodyError("the request body is not a JSON object")
    gone = {name for name in names if name in found}
    if not gone:
        return body
    members = _members(body, _spans(body, found)[0])
    start, end = members[0][1], members[-1][2]
    kept = [body[begin:stop] for name, begin, stop in members if name not in gone]
    return body[:start] + b",".join(kept) + body[end:]


def _members(body: bytes, spans: dict[str, list[tuple[int, int]]]) -> list[tuple[str, int, int]]:
    """Name, beginning and end of each member of a JSON object, in their order."""
    at = _skip(body, _skip(body, 0) + 1)
    members = []
    for stop, name in sorted((stop, name) for name, places in spans.items() for _, stop in places):
        members.append((name, at, stop))
        at = _skip(body, _skip(body, stop) + 1)
    return members


def _spans(body: bytes, found: dict[str, msgspec.Raw]) -> tuple[dict[str, list[tuple[int, int]]], int]:
    """Where the values of a valid JSON object's fields are, and where a further field would go."""
    spans: dict[str, list[tuple[int, int]]] = {}
    at = end = _skip(body, _skip(body, 0) + 1)
    while body[at : at + 1] == b'"':
        stop = _value_end(body, at)
        name = TEXT.decode(body[at:stop])
        start = _skip(body, _skip(body, stop) + 1)
        raw = bytes(found[name])
        # A repeated name keeps only its last value, so the others have to be walked.
        end = start + len(raw) if body.startswith(raw, start) and name not in spans else _value_end(body, start)
        if body[_skip(body, end) : _skip(body, end) + 1] not in (b",", b"}"):
            end = _value_end(body, start)
        spans.setdefault(name, []).append((start, end))
        at = _skip(body, end)
        if body[at : at + 1] == b",":
            at = _skip(body, at + 1)
    return spans, end


def _skip(body: bytes, at: int) -> int:
    match = _SPACE.match(body, at)
    return match.end() if match else at


def _value_end(body: bytes, at: int) -> int:
    """Where the JSON value that starts at `at` ends."""
    depth = 0
    for token in _TOKEN.finditer(body, at):
        first = token[0][:1]
        if first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
        if depth == 0:
            return token.end()
    raise BadBodyError("the request body is not a JSON object")
