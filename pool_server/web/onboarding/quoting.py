"""One helper a shell: the only way a value gets into a set-up script, a command line or a file they write."""

from __future__ import annotations

import base64
import json
import re

_PLAIN = re.compile(r"[A-Za-z0-9._/-]+")


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("a value for a set-up script holds a control character")
    return value


def sh(value: str) -> str:
    """A word for a POSIX shell. Raises ValueError for control characters."""
    return "'" + _printable(value).replace("'", "'\\''") + "'"


def word(value: str) -> str:
    """A word for either kind of shell: as it is where it may stand so. Raises ValueError for control characters."""
    return value if _PLAIN.fullmatch(value) else sh(value)


def ps(value: str) -> str:
    """A literal string for PowerShell 5.1 and later, which also ends one at typographic single quotes."""
    doubled = "".join(char * 2 if char in "'\u2018\u2019\u201a\u201b" else char for char in _printable(value))
    return f"'{doubled}'"


def toml(value: str) -> str:
    """A basic string for TOML."""
    return json.dumps(_printable(value), ensure_ascii=False)


def js(value: object) -> str:
    """A JSON text, safe within any script."""
    return json.dumps(value, ensure_ascii=True)


def encoded(text: str) -> str:
    """A file's text as base64, so that no shell reads any of it."""
    return base64.b64encode(text.encode()).decode()
