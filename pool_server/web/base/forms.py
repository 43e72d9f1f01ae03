"""Fields of an HTML form as the JSON a program would send. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LISTS = frozenset({"providers", "models"})  # limits that name things; every other limit is a number
_KEPT_EMPTY = frozenset(
    {"name", "note", "new", "current", "label", "plan_type", "owner", "proxy_url", "models", "people", "groups", "wait"}
)  # empty says something; elsewhere it means "not given"


def nested(fields: Mapping[str, str]) -> dict[str, Any]:
    """`{"limits.tokens_day": "5"}` → `{"limits": {"tokens_day": 5}}`.

    Names that begin with `_` are the page's own; `_limits` says that these are all limits, were every field empty.
    `none.limits.X` (a ticked box) means no limit. Raises ValueError in one line for a limit that is no number.
    """
    body: dict[str, Any] = {"limits": {}} if "_limits" in fields else {}
    for name, value in fields.items():
        if name.startswith(("_", "none.")) or (value == "" and name not in _KEPT_EMPTY):
            continue
        group, _, limit = name.partition(".")
        if limit:
            body.setdefault(group, {})[limit] = _term(value) if group == "terms" else _limit(limit, value)
        else:
            body[name] = value
    for name in fields:
        if name.startswith("none."):
            group, _, limit = name.removeprefix("none.").partition(".")
            body.setdefault(group, {})[limit] = None
    return body


def _term(value: str) -> str | bool:
    return {"true": True, "false": False}.get(value, value)


def _limit(name: str, value: str) -> int | float | list[str]:
    if name in _LISTS:
        return value.replace(",", " ").split()
    try:
        return int(value)
    except ValueError:
        pass
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{name} must be a number") from None
