"""CHANGELOG.md as a page shows it: releases, what changed in them, and the Markdown of its lines. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

UNRELEASED = "Unreleased"
_SPANS = re.compile(r"`([^`]+)`|\[([^\]]+)\]\(([^)\s]+)\)|\*\*([^*]+)\*\*")


class Span(NamedTuple):
    """A piece of a line: its text, as `kind` "" (plain), "code" or "strong", or a link to `href`."""

    text: str
    kind: str = ""
    href: str = ""


class Part(NamedTuple):
    """What was added, changed, mended, or is about security: one heading and its entries."""

    name: str
    entries: list[list[Span]]


class Release(NamedTuple):
    """One version; its date is "" where it is not out."""

    version: str
    date: str
    parts: list[Part]


def releases(text: str) -> list[Release]:
    """The releases, newest first. Lines that belong to none are left out."""
    found: list[Release] = []
    for line in _unfolded(text):
        if line.startswith("## "):
            name, _dash, date = line[3:].strip().partition(" - ")
            found.append(Release(name.strip("[] "), date.strip(), []))
        elif line.startswith("### ") and found:
            found[-1].parts.append(Part(line[4:].strip(), []))
        elif line.startswith("- ") and found and found[-1].parts:
            found[-1].parts[-1].entries.append(spans(line[2:]))
    return found


def since(found: list[Release], before: str) -> list[Release]:
    """The releases after the version `before`: all up to it, or the newest alone where it is not among them."""
    names = [one.version for one in found]
    return found[: names.index(before)] if before in names[1:] else found[:1]


def spans(line: str) -> list[Span]:
    """A line's plain text, code, emphasis and links."""
    told, at = [], 0
    for match in _SPANS.finditer(line):
        if match.start() > at:
            told.append(Span(line[at : match.start()]))
        code, text, href, strong = match.groups()
        told.append(Span(code, "code") if code else Span(strong, "strong") if strong else Span(text, "link", href))
        at = match.end()
    if at < len(line):
        told.append(Span(line[at:]))
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
