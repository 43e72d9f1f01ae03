"""Reading JSON that may hold anything: what is not of the expected type reads as empty."""

from __future__ import annotations

import json
from collections import Counter
from copy import deepcopy
from typing import Any

from pool_server.core.lenient_json import read_any
from pool_server.language import LazyText, lazy

TOO_DEEP = lazy("nested too deeply")


def decode(raw: bytes | str) -> dict[str, Any]:
    """The JSON object in `raw`; {} for anything else."""
    data = read_any(raw)
    return data if isinstance(data, dict) else {}


def named_twice(text: str) -> LazyText | None:
    """Why the JSON in `text` is not taken when one of its objects has a name twice: programs differ in which of the two
    they read. None when none has. What is nested too deeply to be looked through is not taken either. A MiB of small
    objects takes some 45 ms: what is large is given to a thread."""

    def each_once(pairs: list[tuple[str, Any]]) -> None:
        if len(pairs) > 1 and not found and len(dict(pairs)) < len(pairs):
            found.append(Counter(name for name, _value in pairs).most_common(1)[0][0])

    found: list[str] = []
    try:
        json.loads(text, object_pairs_hook=each_once)
    except RecursionError:
        return TOO_DEEP
    except ValueError:
        return None
    return lazy("{name} is in it twice: keep one", name=found[0][:40]) if found else None


def as_object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def as_text(value: object) -> str:
    return value if isinstance(value, str) else ""


def merged(data: dict[str, Any], updates: dict[str, Any]) -> dict[str, Any]:
    """A copy of `data` with `updates` set, nested alike."""
    both = deepcopy(data)
    merge_into(both, updates)
    return both


def merge_into(data: dict[str, Any], updates: dict[str, Any]) -> None:
    """Set `updates` in `data`; objects are merged, all else is replaced."""
    for name, value in updates.items():
        inner = data.get(name)
        if isinstance(value, dict) and isinstance(inner, dict):
            merge_into(inner, value)
        else:
            data[name] = value
