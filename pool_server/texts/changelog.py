"""CHANGELOG.md as a page shows it: releases, what changed in them, and the Markdown of its lines. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

_SPANS = re.compile(r"`([^`]+)`|\[([^\]]+)\]\(([^)\s]+)\)|\*\*([^*]+)\*\*")


class TextSpan(NamedTuple):
    """A piece of a line: its text, as `kind` "" (plain), "code" or "strong", or a link to `href`."""

    text: str
    kind: str = ""
    href: str = ""


class ReleasePart(NamedTuple):
    """What was added, changed, mended, or is about security: one heading and its entries."""

    name: str
    entries: list[list[TextSpan]]


class ReleaseNotes(NamedTuple):
    """One version; its date is "" where it is not out."""

    version: str
    date: str
    parts: list[ReleasePart]


def releases(text: str) -> list[ReleaseNotes]:
    """The releases, newest first. Lines that belong to none are left out."""
    found: list[ReleaseNotes] = []
    for line in _unfolded(text):
        if line.startswith("## "):
            name, _dash, date = line[3:].strip().partition(" - ")
            found.append(ReleaseNotes(name.strip("[] "), date.strip(), []))
        elif line.startswith("### ") and found:
            found[-1].parts.append(ReleasePart(line[4:].strip(), []))
        elif line.startswith("- ") and found and found[-1].parts:
            found[-1].parts[-1].entries.append(spans(line[2:]))
    return found


def since(found: list[ReleaseNotes], before: str) -> list[ReleaseNotes]:
    """The releases after the version `before`: all up to it, or the newest alone where it is not among them."""
    names = [one.version for one in found]
    return found[: names.index(before)] if before in names[1:] else found[:1]


def spans(line: str) -> list[TextSpan]:
    """A line's plain text, code, emphasis and links."""
    told, at = [], 0
    for match in _SPANS.finditer(line):
        if match.start() > at:
            told.append(TextSpan(line[at : match.start()]))
        code, text, href, strong = match.groups()
        told.append(
            TextSpan(code, "code") if code else TextSpan(strong, "strong") if strong else TextSpan(text, "link", href)
        )
        at = match.end()
    if at < len(line):
        told.append(TextSpan(line[at:]))
    return told


def _unfolded(text: str) -> list[str]:
    """Entries in one line each, however they were wrapped."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("  ") and lines and lines[-1].startswith("- "):
            lines[-1] += " " + line.strip()
        else:
            lines.append(line.rstrip())
    return lines
