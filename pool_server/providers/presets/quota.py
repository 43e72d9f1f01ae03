"""Readers of quota and balance endpoints, by the names `presets.toml` uses; each takes a good answer's JSON object.

Source: the vendors' documentation and their own clients. What is not of the expected shape reads as unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pool_server.core.enums import Source
from pool_server.core.models import WindowObservation
from pool_server.providers.base import Credits, UsageAnswer
from pool_server.providers.json_fields import as_list, as_object, as_text
from pool_server.providers.times import DAY, HOUR, MINUTE, moment, number
from pool_server.providers.windows import credits_window, observe

Reader = Callable[[dict[str, Any], float], UsageAnswer | None]

_WEEK = 7 * DAY
_UNITS = {3: HOUR, 6: _WEEK}  # GLM's numbers for the unit of a window; 5 is a month of calls to its tools
_KIMI_UNITS = {"TIME_UNIT_MINUTE": MINUTE, "TIME_UNIT_HOUR": HOUR, "TIME_UNIT_DAY": DAY}
_UNLIMITED = 3  # MiniMax's status of a week that does not bind


def _window(seconds: float | None, used: float | None, resets_at: float | None, now: float) -> WindowObservation | None:
    return observe(seconds=seconds, used=used, resets_at=resets_at, source=Source.USAGE_ENDPOINT, now=now)


def _told(*windows: WindowObservation | None) -> tuple[WindowObservation, ...]:
    return tuple(window for window in windows if window is not None)


def glm(data: dict[str, Any], now: float) -> UsageAnswer | None:
    """Z.ai and Zhipu: `data.limits[]` with `percentage` used. `success: false` comes with status 200."""
    if data.get("success") is False:
        return None
    inner = as_object(data.get("data"))
    windows = []
    for limit in map(as_object, as_list(inner.get("limits"))):
        unit, count = number(limit.get("unit")), number(limit.get("number"))
        if limit.get("type") not in ("TOKENS_LIMIT", "CREDIT_LIMIT") or unit not in _UNITS or not count:
            continue
        seconds = _WEEK if unit == 6 else count * HOUR
        windows.append(_window(seconds, number(limit.get("percentage")), moment(limit.get("nextResetTime")), now))
    return UsageAnswer(_told(*windows), plan=as_text(inner.get("level")).lower() or None)


def kimi(data: dict[str, Any], now: float) -> UsageAnswer | None:
    """Kimi Code: `usage` is the week, `limits[]` the shorter windows; numbers are texts, `used` may be absent."""
    windows = [_kimi_window(as_object(data.get("usage")), _WEEK, now)]
    for limit in map(as_object, as_list(data.get("limits"))):
        window = as_object(limit.get("window"))
        unit = _KIMI_UNITS.get(as_text(window.get("timeUnit")))
        length = number(window.get("duration"))
        if unit and length:
            windows.append(_kimi_window(as_object(limit.get("detail")), length * unit, now))
    level = as_text(as_object(as_object(data.get("user")).get("membership")).get("level"))
    return UsageAnswer(_told(*windows), plan=level.lower() or None)


def _kimi_window(row: Mapping[str, Any], seconds: float, now: float) -> WindowObservation | None:
    limit, used, left = (number(row.get(name)) for name in ("limit", "used", "remaining"))
    if used is None and left is not None and limit is not None:
        used = limit - left
    if not limit or used is None:
        return None
    names = ("resetTime", "reset_time", "resetAt", "reset_at")
    reset = next((row[name] for name in names if row.get(name)), None)
    return _window(seconds, 100.0 * used / limit, moment(reset), now)


def minimax(data: dict[str, Any], now: float) -> UsageAnswer | None:
    """MiniMax plans: what *remains* in percent, of the row called "general". An error comes with status 200."""
    if as_object(data.get("base_resp")).get("status_code") not in (None, 0):
        return None
    rows = [
        as_object(row) for row in as_list(data.get("model_remains") or as_object(data.get("data")).get("model_remains"))
    ]
    row = next((row for row in rows if row.get("model_name") == "general"), rows[0] if len(rows) == 1 else {})
    left = number(row.get("current_interval_remaining_percent"))
    windows = [_window(5 * HOUR, None if left is None else 100.0 - left, moment(row.get("end_time")), now)]
    if number(row.get("current_weekly_status")) == 1:
        left = number(row.get("current_weekly_remaining_percent"))
        windows.append(_window(_WEEK, None if left is None else 100.0 - left, moment(row.get("weekly_end_time")), now))
    return UsageAnswer(_told(*windows))


def moonshot(data: dict[str, Any], now: float) -> UsageAnswer | None:
    return _balance(as_object(data.get("data")).get("available_balance"), now)


def siliconflow(data: dict[str, Any], now: float) -> UsageAnswer | None:
    inner = as_object(data.get("data"))
    return _balance(inner.get("totalBalance", inner.get("balance")), now)


def deepseek(data: dict[str, Any], now: float) -> UsageAnswer | None:
    """A balance in each currency; `is_available` is the vendor's word whether calls are taken."""
    rows = [as_object(row) for row in as_list(data.get("balance_infos"))]
    told = [f"{as_text(row.get('total_balance'))} {as_text(row.get('currency'))}".strip() for row in rows]
    available = data.get("is_available")
    if not rows and not isinstance(available, bool):
        return None
    positive = any((number(row.get("total_balance")) or 0.0) > 0 for row in rows)
    credits = Credits(has_credits=positive, balance=", ".join(filter(None, told))[:80])
    allowed = available if isinstance(available, bool) else None
    return UsageAnswer((_credits(0.0 if positive else 100.0, now),), credits=credits, allowed=allowed)


def openrouter(data: dict[str, Any], now: float) -> UsageAnswer | None:
    """A key's own limit in dollars and what is left of it; null = none."""
    inner = as_object(data.get("data"))
    if not inner:
        return None
    limit, left = number(inner.get("limit")), number(inner.get("limit_remaining"))
    if limit is None:
        return UsageAnswer(credits=Credits(has_credits=True, unlimited=True))
    if left is None or limit <= 0:
        return UsageAnswer(credits=Credits(has_credits=True))
    credits = Credits(has_credits=left > 0, balance=f"{left:.2f} USD")
    return UsageAnswer((_credits(100.0 * (limit - left) / limit, now),), credits=credits)


def _balance(value: object, now: float) -> UsageAnswer | None:
    amount = number(value)
    if amount is None:
        return None
    credits = Credits(has_credits=amount > 0, balance=f"{amount:.2f}")
    return UsageAnswer((_credits(0.0 if amount > 0 else 100.0, now),), credits=credits)


def _credits(used: float, now: float) -> WindowObservation:
    return credits_window(used, source=Source.USAGE_ENDPOINT, now=now)


READERS: dict[str, Reader] = {
    reader.__name__: reader for reader in (glm, kimi, minimax, moonshot, siliconflow, deepseek, openrouter)
}
