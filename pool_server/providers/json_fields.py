"""Reading JSON that may hold anything: what is not of the expected type reads as empty."""

from __future__ import annotations

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
