"""Figures and times in the form people read: pure functions, the same on every page.

The pages' scripts format nothing again except times: distances are kept fresh, clock times move into the viewer's
own zone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, tzinfo
from typing import Any
from unicodedata import bidirectional
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pool_server.core.enums import CostBasis
from pool_server.language import gettext as _
from pool_server.language import ngettext

UNITS = ((1e12, "{figure} T"), (1e9, "{figure} B"), (1e6, "{figure} M"), (1e3, "{figure} k"))
SEPARATORS = "1,234.5"  # a figure as English writes it; its translation says how another language does
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MESSAGES = (*(unit for _size, unit in UNITS), SEPARATORS, *WEEKDAYS, *MONTHS)


def figure(text: str) -> str:
    """A figure written with "," and "." as the language of this task writes it, and a minus with the sign of one."""
    text, example = text.replace("-", "−"), _(SEPARATORS)
    return text if example == SEPARATORS else text.translate({44: example[1], 46: example[5]})


def count(value: float | None) -> str:
    """12345678 → "12.3 M"; below ten thousand all digits; None → "unknown"."""
    if value is None:
        return _("unknown")
    if abs(value) < 10_000:
        return exact(value)
    for size, unit in UNITS:
        if abs(value) >= size * 0.9995:
            scaled = value / size
            return _(unit, figure=figure(f"{scaled:.0f}" if abs(scaled) >= 99.95 else f"{scaled:.1f}"))
    return exact(value)


def exact(value: float | None) -> str:
    """Every digit, for hovering and for screen readers."""
    return _("unknown") if value is None else figure(f"{value:,.0f}")


def percent(value: float | None) -> str:
    """Whole percents, but never a rounded 0 or 100 where something is used or left."""
    if value is None:
        return _("unknown")
    if 0 < value < 1:
        return "<1 %"
    if 99 < value < 100:
        return "99 %"
    return figure(f"{value:.0f} %")


def money(value: float | None) -> str:
    """US dollars; None means that the model's price is not known."""
    if value is None:
        return _("unknown")
    if 0 < value < 0.01:
        return _("<$0.01")
    if value < 0:
        return "−" + money(-value)
    return _("${amount}", amount=figure(f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"))


def signed(value: float) -> str:
    """A term of a sum, with its sign: "+0.22"."""
    return figure(f"{value:+.2f}")


def days(value: float) -> str:
    return ngettext("{n} day", "{n} days", value, n=figure(f"{value:g}"))


def requests(value: int) -> str:
    return ngettext("{n} request", "{n} requests", value, n=count(value))


def of_tokens(value: float) -> str:
    return ngettext("{n} token", "{n} tokens", value, n=count(value))


def duration(seconds: float) -> str:
    """The two largest units: 42 s → "42 s", 29160 s → "8 h 6 min", 187200 s → "2 d 4 h". The one rule of pages, shell
    and messages."""
    whole = max(0, round(seconds))
    if whole < 60:
        return _("{n} s", n=whole)
    minutes = round(whole / 60)
    if minutes < 60:
        return _("{n} min", n=minutes)
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return _("{h} h {m} min", h=hours, m=minutes) if minutes else _("{n} h", n=hours)
    days, hours = divmod(round(whole / 3600), 24)
    return _("{d} d {h} h", d=days, h=hours) if hours and days < 14 else _("{n} d", n=days)


def ago(at: float | None, now: float) -> str:
    """When something happened, as a distance."""
    if at is None:
        return _("never")
    return _("just now") if now - at < 5 else _("{time} ago", time=duration(now - at))


def within(at: float | None, now: float) -> str:
    """When something will happen, as a distance; a time that has passed is "any moment"."""
    if at is None:
        return _("unknown")
    return _("any moment") if at <= now else _("in {time}", time=duration(at - now))


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
        return time_of_day(moment)
    if abs(at - now) < 6 * 86400:
        return _("{weekday} {time}", weekday=weekday(moment), time=time_of_day(moment))
    named, hour = month(moment), time_of_day(moment)
    if moment.year == today.year:
        return _("{day} {month} {time}", day=moment.day, month=named, time=hour)
    return _("{day} {month} {year} {time}", day=moment.day, month=named, year=moment.year, time=hour)


def time_of_day(moment: datetime) -> str:
    """ "02:30" of a moment in a zone; where clocks that are set back show it twice, how far from UTC: "02:30+02:00"."""
    twice = moment.replace(fold=0).utcoffset() != moment.replace(fold=1).utcoffset()
    return f"{moment:%H:%M}" + (moment.isoformat()[-6:] if twice else "")


def weekday(moment: date) -> str:
    return _(WEEKDAYS[moment.weekday()])


def month(moment: date) -> str:
    return _(MONTHS[moment.month - 1])


def written(moment: date) -> str:
    """ "3 Mar 2027"."""
    return _("{day} {month} {year}", day=moment.day, month=month(moment), year=moment.year)


def month_of(moment: date) -> str:
    """ "Mar 2027"."""
    return _("{month} {year}", month=month(moment), year=moment.year)


def day(at: float, where: tzinfo) -> str:
    """ "3 Mar 2027" in a zone."""
    return written(datetime.fromtimestamp(at, where))


def stamp(at: float) -> str:
    """ISO 8601 in UTC, for `<time datetime>`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def end_day(at: float) -> str:
    """An end as people write it: the day alone where it is a day's beginning in UTC, else `stamp`."""
    return stamp(at).removesuffix("T00:00:00Z")


def listed(parts: Iterable[str]) -> str:
    """Names one after the other: "a, b, c"."""
    return _(", ").join(parts)


def clauses(parts: Iterable[str]) -> str:
    """What is said of several things, one after the other: "a is ready; b is not"."""
    return _("; ").join(parts)


def isolated(name: str) -> str:
    """A name for the middle of a sentence: one that is written from right to left must not carry the figures that
    follow it along."""
    rightwards = any(bidirectional(letter) in ("R", "AL") for letter in name)
    return f"\u2068{name}\u2069" if rightwards else name


def took(milliseconds: float) -> str:
    """How long an exchange took: "340 ms", "2.4 s", "3 min"."""
    if 0 < milliseconds < 1:
        return _("<1 ms")
    if milliseconds < 1000:
        return _("{n} ms", n=f"{milliseconds:.0f}")
    seconds = milliseconds / 1000
    return _("{n} s", n=figure(f"{seconds:.1f}")) if seconds < 60 else duration(seconds)


def price(usd: float, unpriced: float = 0, *, about: bool = False) -> str:
    """The API price of a sum of the ledger: at least what is known where some requests have no price, about that where
    counts are estimated or a price is assumed."""
    if unpriced and not usd:
        return no_price()
    return ("≥\u00a0" if unpriced else "≈\u00a0" if about else "") + money(usd)


def no_price() -> str:
    return _("no price")


def cost(row: Mapping[str, Any]) -> str:
    """The API price of one exchange; see `request_rows.row`."""
    if row["cost_usd"] is None:
        return no_price() if row["usage"]["known"] or row["usage"]["estimated"] else "—"
    about = row["usage"]["estimated"] or row["cost_basis"] == CostBasis.ASSUMED
    return ("≈\u00a0" if about else "") + money(row["cost_usd"])


def tokens(row: Mapping[str, Any]) -> str:
    """The tokens of one exchange."""
    if row["total_tokens"] is None:
        return "—"
    return ("≈\u00a0" if row["usage"]["estimated"] else "") + count(row["total_tokens"])
