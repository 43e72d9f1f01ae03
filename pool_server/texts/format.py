"""Figures and times in the form people read: pure functions, the same on every page.

The pages' scripts format nothing again except times: distances are kept fresh, clock times move into the viewer's
own zone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any
from unicodedata import bidirectional
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pool_server.core.enums import CostBasis

UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def count(value: float | None) -> str:
    """12345678 → "12.3 M"; below ten thousand all digits; None → "unknown"."""
    if value is None:
        return "unknown"
    if abs(value) < 10_000:
        return f"{value:,.0f}"
    for size, letter in UNITS:
        if abs(value) >= size * 0.9995:
            figure = value / size
            return f"{figure:.0f} {letter}" if abs(figure) >= 99.95 else f"{figure:.1f} {letter}"
    return f"{value:,.0f}"


def exact(value: float | None) -> str:
    """Every digit, for hovering and for screen readers."""
    return "unknown" if value is None else f"{value:,.0f}"


def percent(value: float | None) -> str:
    """Whole percents, but never a rounded 0 or 100 where something is used or left."""
    if value is None:
        return "unknown"
    if 0 < value < 1:
        return "<1 %"
    if 99 < value < 100:
        return "99 %"
    return f"{value:.0f} %"


def money(value: float | None) -> str:
    """US dollars; None means that the model's price is not known."""
    if value is None:
        return "unknown"
    if 0 < value < 0.01:
        return "<$0.01"
    return f"${value:,.2f}" if value < 1000 else f"${value:,.0f}"


def duration(seconds: float) -> str:
    """The two largest units: 42 s → "42 s", 29160 s → "8 h 6 min", 187200 s → "2 d 4 h". The one rule of pages, shell
    and messages."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(whole / 3600), 24)
    return f"{days} d {hours} h" if hours and days < 14 else f"{days} d"


def ago(at: float | None, now: float) -> str:
    """When something happened, as a distance."""
    if at is None:
        return "never"
    return "just now" if now - at < 5 else f"{duration(now - at)} ago"


def within(at: float | None, now: float) -> str:
    """When something will happen, as a distance; a time that has passed is "any moment"."""
    if at is None:
        return "unknown"
    return "any moment" if at <= now else f"in {duration(at - now)}"


def zone(name: str) -> tzinfo:
    """The operator's time zone; UTC when the machine does not know the name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return UTC


def clock(at: float, now: float, where: tzinfo) -> str:
    """ "16:20" today, "Tue 16:20" within six days, else "3 Mar 16:20" (with the year when it is another one)."""
    moment, today = datetime.fromtimestamp(at, where), datetime.fromtimestamp(now, where)
    if moment.date() == today.date():
        return f"{moment:%H:%M}"
    if abs(at - now) < 6 * 86400:
        return f"{moment:%a %H:%M}"
    year = "" if moment.year == today.year else f" {moment.year}"
    return f"{moment.day} {moment:%b}{year} {moment:%H:%M}"


def day(at: float, where: tzinfo) -> str:
    """ "3 Mar 2027" in a zone."""
    moment = datetime.fromtimestamp(at, where)
    return f"{moment.day} {moment:%b %Y}"


def stamp(at: float) -> str:
    """ISO 8601 in UTC, for `<time datetime>`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def isolated(name: str) -> str:
    """A name for the middle of a sentence: one that is written from right to left must not carry the figures that
    follow it along."""
    rightwards = any(bidirectional(letter) in ("R", "AL") for letter in name)
    return f"\u2068{name}\u2069" if rightwards else name


def took(milliseconds: float) -> str:
    """How long an exchange took: "340 ms", "2.4 s", "3 min"."""
    if 0 < milliseconds < 1:
        return "<1 ms"
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def price(sums: Mapping[str, Any]) -> str:
    """The API price of a sum of the ledger: at least what is known where some models have no price, about that where
    counts are estimated or a price is assumed."""
    missing = sums.get("unpriced", 0)
    if missing and not sums["cost_usd"]:
        return NO_PRICE
    about = sums.get("estimated", 0) or sums.get("assumed", 0)
    return ("≥ " if missing else "≈ " if about else "") + money(sums["cost_usd"])


NO_PRICE = "no price"


def cost(row: Mapping[str, Any]) -> str:
    """The API price of one exchange; see `request_rows.row`."""
    if row["cost_usd"] is None:
        return NO_PRICE if row["usage"]["known"] or row["usage"]["estimated"] else "—"
    about = row["usage"]["estimated"] or row["cost_basis"] == CostBasis.ASSUMED
    return ("≈ " if about else "") + money(row["cost_usd"])


def tokens(row: Mapping[str, Any]) -> str:
    """The tokens of one exchange."""
    if row["total_tokens"] is None:
        return "—"
    return ("≈ " if row["usage"]["estimated"] else "") + count(row["total_tokens"])
