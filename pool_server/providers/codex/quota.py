"""What Codex tells of its quota: headers, stream events, the usage endpoint.

Source: the open source of the vendor's CLI, which reads the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pool_server.core.enums import Source
from pool_server.core.models import WindowObservation
from pool_server.providers.base import Credits, UsageAnswer
from pool_server.providers.json_fields import as_list, as_object, as_text, decode
from pool_server.providers.times import moment, number
from pool_server.providers.windows import credits_window, observe, rate_windows

_SLOT = re.compile(r"^x-([a-z0-9][a-z0-9_-]{0,80}?)-(primary|secondary)-used-percent$")
_USED = "-used-percent"
_MAIN = "codex"
_MAIN_IDS = ("", _MAIN, "primary", "secondary", "premium")


@lru_cache(maxsize=1024)
def family(model: str) -> str:
    """The scope of the metered limits that bind a model: the vendor names such a limit after the model; the spark
    models share one."""
    name = _slug(model)
    return "spark" if "spark" in name else name


@lru_cache(maxsize=1024)
def limit_scope(limit_id: str, limit_name: str = "") -> str:
    """The scope of a limit: "" for the account's own, else by its name ("GPT-5.3-Codex-Spark" → "spark") or its
    id."""
    if _slug(limit_id or limit_name) in _MAIN_IDS:
        return ""
    return family(limit_name or limit_id)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text[:120].lower()).strip("-")


def from_headers(headers: Mapping[str, str], *, now: float, scope: str = "") -> list[WindowObservation]:
    """Windows of `x-codex-*` and of further limit families (`x-codex-bengalfox-*`), credits, and the plain
    `x-ratelimit-*` of API keys, which bind `scope`."""
    found: list[WindowObservation] = []
    for name, value in headers.items():
        slot = _slot_of(name) if name.endswith(_USED) else None
        if slot is None:
            continue
        minutes = number(headers.get(slot.minutes))
        window = observe(
            seconds=minutes * 60 if minutes is not None else None,
            used=number(value),
            resets_at=_reset(headers.get(slot.reset_at), headers.get(slot.reset_after), now),
            source=Source.HEADERS,
            now=now,
            scope=limit_scope(slot.limit, headers.get(slot.limit_name, "") if slot.limit != _MAIN else ""),
        )
        if window is not None:
            found.append(window)
    has_credits = headers.get("x-codex-credits-has-credits", "").lower()
    unlimited = headers.get("x-codex-credits-unlimited", "").lower()
    if has_credits in ("true", "false"):
        room = "true" in (has_credits, unlimited)
        found.append(credits_window(0.0 if room else 100.0, source=Source.HEADERS, now=now))
    return found + rate_windows(headers, now=now, scope=scope)


class _Slot(NamedTuple):
    """A window of a limit, and the headers beside the one that tells its use."""

    limit: str
    limit_name: str
    minutes: str
    reset_at: str
    reset_after: str


@lru_cache(maxsize=256)
def _slot_of(name: str) -> _Slot | None:
    """The window a `…-used-percent` header speaks of, None for any other header."""
    match = _SLOT.match(name)
    if match is None:
        return None
    limit, prefix = match.group(1), name.removesuffix(_USED)
    beside = (prefix + word for word in ("-window-minutes", "-reset-at", "-reset-after-seconds"))
    return _Slot(limit, f"x-{limit}-limit-name", *beside)


def _reset(at: object, after: object, now: float) -> float | None:
    stamp = moment(at)
    if stamp is not None:
        return stamp
    seconds = number(after)
    return now + seconds if seconds is not None and seconds >= 0 else None


def from_event(raw: bytes, *, now: float) -> list[WindowObservation]:
    """Windows of a `codex.rate_limits` event; a metadata event may carry the answer's headers instead."""
    event = decode(raw)
    headers = event.get("headers")
    if isinstance(headers, dict):
        return from_headers({str(k).lower(): str(v) for k, v in headers.items()}, now=now)
    limits = as_object(event.get("rate_limits"))
    scope = limit_scope(as_text(event.get("metered_limit_name")), as_text(event.get("limit_name")))
    found = [_slot(limits.get(name), now, Source.STREAM, scope) for name in ("primary", "secondary")]
    credits = _credits(event.get("credits"))
    if credits is not None:
        found.append(_credits_window(credits, now, Source.STREAM))
    return [window for window in found if window is not None]


def _slot(value: object, now: float, source: Source, scope: str) -> WindowObservation | None:
    """A window in the shape of events (`window_minutes`) or of the usage endpoint (`limit_window_seconds`)."""
    data = as_object(value)
    seconds = number(data.get("limit_window_seconds"))
    if seconds is None:
        minutes = number(data.get("window_minutes"))
        seconds = minutes * 60 if minutes is not None else None
    reset = _reset(data.get("reset_at") or data.get("resets_at"), data.get("reset_after_seconds"), now)
    used = number(data.get("used_percent"))
    return observe(seconds=seconds, used=used, resets_at=reset, source=source, now=now, scope=scope)


def _credits(value: object) -> Credits | None:
    data = as_object(value)
    if not isinstance(data.get("has_credits"), bool):
        return None
    balance = data.get("balance")
    known = isinstance(balance, (str, int, float)) and not isinstance(balance, bool)
    return Credits(data["has_credits"], data.get("unlimited") is True, str(balance)[:32] if known else "")


def _credits_window(credits: Credits, now: float, source: Source) -> WindowObservation:
    return credits_window(0.0 if credits.has_credits or credits.unlimited else 100.0, source=source, now=now)


def from_usage(data: Mapping[str, Any], *, now: float) -> UsageAnswer:
    """The answer of `wham/usage`: main and additional limits, credits, the plan as it is now, spending control."""
    main = as_object(data.get("rate_limit"))
    windows = _limit_windows(main, now, "")
    for item in as_list(data.get("additional_rate_limits")):
        limit = as_object(item)
        scope = limit_scope(as_text(limit.get("metered_feature")) or "extra", as_text(limit.get("limit_name")))
        windows += _limit_windows(as_object(limit.get("rate_limit")), now, scope)
    credits = _credits(data.get("credits"))
    if credits is not None:
        windows.append(_credits_window(credits, now, Source.USAGE_ENDPOINT))
    return UsageAnswer(
        windows=tuple(windows),
        plan=as_text(data.get("plan_type")).lower() or None,
        credits=credits,
        allowed=_allowed(data, main),
        reset_credits=int(number(as_object(data.get("rate_limit_reset_credits")).get("available_count")) or 0),
    )


def _limit_windows(limit: Mapping[str, Any], now: float, scope: str) -> list[WindowObservation]:
    found = [
        _slot(limit.get(name), now, Source.USAGE_ENDPOINT, scope) for name in ("primary_window", "secondary_window")
    ]
    return [window for window in found if window is not None]


def _allowed(data: Mapping[str, Any], main: Mapping[str, Any]) -> bool | None:
    """Only `rate_limit.allowed` and a reached spending limit say that the account stands still."""
    if as_object(data.get("spend_control")).get("reached") is True:
        return False
    allowed = main.get("allowed")
    return allowed if isinstance(allowed, bool) else None
