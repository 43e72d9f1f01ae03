"""Anthropic's quota: unified headers and the usage endpoint. Source: observed answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from pool_server.core.enums import Source
from pool_server.core.models import WindowObservation
from pool_server.providers.base import Credits, UsageAnswer
from pool_server.providers.json_fields import as_object
from pool_server.providers.times import DAY, HOUR, MINUTE, moment, number
from pool_server.providers.windows import credits_window, observe, rate_windows

_UNIFIED = re.compile(
    r"^anthropic-ratelimit-unified-((\d{1,3}[mhd])(?:[_-]([a-z0-9_-]{1,40}))?)-(?:status|utilization)$"
)
_USAGE_KEY = re.compile(r"^([a-z]+|\d{1,3})_(minute|hour|day|week|month)s?(?:_([a-z0-9_]{1,40}))?$")
_NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "ten": 10,
            "twelve": 12, "fourteen": 14, "thirty": 30}  # fmt: skip
_UNITS = {
    "m": MINUTE,
    "h": HOUR,
    "d": DAY,
    "minute": MINUTE,
    "hour": HOUR,
    "day": DAY,
    "week": 7 * DAY,
    "month": 30 * DAY,
}

# Model names → the suffix of the windows that bind them; `oi` was seen on answers of the Fable models.
_FAMILIES = (("opus", "opus"), ("sonnet", "sonnet"), ("haiku", "haiku"), ("fable", "oi"))
_PREFIX = "anthropic-ratelimit-unified-"
_OVERAGE = _PREFIX + "overage-utilization"


def family(model: str) -> str:
    """ "claude-opus-4-5" → "opus"; a model of no known family is its own."""
    name = model.lower()
    return next((scope for word, scope in _FAMILIES if word in name), name)


def _scope(suffix: str | None) -> str:
    return (suffix or "").replace("-", "_").strip("_").lower()


def from_headers(headers: Mapping[str, str], *, now: float, scope: str = "") -> list[WindowObservation]:
    """Windows of `anthropic-ratelimit-unified-<window>[_<scope>]-*` by pattern (utilization is a fraction; a
    rejected window is used up whatever it says), of paid extra usage, and of API keys' short limits, which bind
    `scope`."""
    found = [window for window, _ in _unified(headers, now)]
    extra = number(headers.get(_OVERAGE))
    if extra is not None:
        reset = moment(headers.get(f"{_PREFIX}overage-reset"))
        found.append(credits_window(100 * extra, source=Source.HEADERS, now=now, resets_at=reset))
    return found + rate_windows(headers, now=now, scope=scope)


def _unified(headers: Mapping[str, str], now: float) -> list[tuple[WindowObservation, bool]]:
    """The unified windows, and whether each refused the request."""
    windows = {window for name in headers if name.startswith(_PREFIX) and (window := _window_of(name))}
    found: list[tuple[WindowObservation, bool]] = []
    for window in sorted(windows):
        share = number(headers.get(window.utilization))
        rejected = headers.get(window.status, "").lower() == "rejected"
        if rejected:
            share = max(share or 0.0, 1.0)
        sighting = observe(
            seconds=window.seconds,
            used=None if share is None else round(100 * share, 4),
            resets_at=moment(headers.get(window.reset)),
            source=Source.HEADERS,
            now=now,
            scope=window.scope,
        )
        if sighting is not None:
            found.append((sighting, rejected))
    return found


class _Window(NamedTuple):
    """A unified window as its headers name it ("7d_opus"), and those headers."""

    stem: str
    seconds: int
    scope: str
    utilization: str
    status: str
    reset: str


@lru_cache(maxsize=256)
def _window_of(name: str) -> _Window | None:
    """The window of a unified status or utilization header, None of any other."""
    match = _UNIFIED.match(name)
    if match is None:
        return None
    stem, window, suffix = match.groups()
    headers = (f"{_PREFIX}{stem}-{word}" for word in ("utilization", "status", "reset"))
    return _Window(stem, int(window[:-1]) * _UNITS[window[-1]], _scope(suffix), *headers)


def from_usage(data: Mapping[str, Any], *, now: float) -> UsageAnswer:
    """The answer of `/api/oauth/usage`: percentages; `resets_at` null says nothing of the reset."""
    windows: list[WindowObservation] = []
    for key, value in data.items():
        match = _USAGE_KEY.match(key)
        if match is None:
            continue
        count, unit, suffix = match.groups()
        amount = int(count) if count.isdigit() else _NUMBERS.get(count)
        entry = as_object(value)
        window = observe(
            seconds=amount * _UNITS[unit] if amount else None,
            used=number(entry.get("utilization")),
            resets_at=moment(entry.get("resets_at")),
            source=Source.USAGE_ENDPOINT,
            now=now,
            scope=_scope(suffix),
        )
        if window is not None:
            windows.append(window)
    extra = as_object(data.get("extra_usage"))
    enabled = extra.get("is_enabled") is True
    spent = number(extra.get("utilization"))
    if enabled and spent is not None:
        windows.append(credits_window(spent, source=Source.USAGE_ENDPOINT, now=now))
    return UsageAnswer(windows=tuple(windows), credits=Credits(has_credits=enabled) if extra else None)


def refused(headers: Mapping[str, str], now: float) -> list[WindowObservation]:
    """The windows that refused this request; where only the summary says so, the one it names."""
    found = [window for window, rejected in _unified(headers, now) if rejected]
    if found or headers.get(f"{_PREFIX}status", "").lower() != "rejected":
        return found
    claim = headers.get(f"{_PREFIX}representative-claim", "").lower()
    entry = {"utilization": 100, "resets_at": moment(headers.get(f"{_PREFIX}reset"))}
    windows = from_usage({claim: entry}, now=now).windows
    return [msgspec.structs.replace(window, source=Source.HEADERS) for window in windows]
