"""Reading JSON that may hold anything: what is not of the expected type reads as empty."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from pool_server.core.lenient_json import read_any


def decode(raw: bytes | str) -> dict[str, Any]:
    """The JSON object in `raw`; {} for anything else."""
    data = read_any(raw)
    return data if isinstance(data, dict) else {}


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
