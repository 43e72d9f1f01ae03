"""The shape of the price table, its reading, and the price of a day."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from importlib.resources import files
from operator import itemgetter
from typing import Annotated, Any

import msgspec
import tomli

_ALWAYS = float("-inf")
_HOURS = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d-(?:(?:[01]\d|2[0-3]):[0-5]\d|24:00)")
Number = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class Rates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """US dollars a million tokens; None = no price of its own (see prices.toml for what stands in)."""

    input: Number
    output: Number
    cache_read: Number | None = None
    cache_read_explicit: Number | None = None
    cache_write: Number | None = None
    cache_write_1h: Number | None = None
    cache_write_12h: Number | None = None
    output_thinking: Number | None = None


class Tier(Rates, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Prices of a call whose prompt exceeds `above` tokens."""

    above: int


class Price(Rates, frozen=True, forbid_unknown_fields=True):
    """One model's list price at one time; `web_search` dollars each, multipliers and the rest as prices.toml says."""

    web_search: Number | None = None
    tiers: tuple[Tier, ...] = ()
    modal: dict[str, Number] = {}
    service: dict[str, Number] = {}
    service_rates: dict[str, dict[str, Number]] = {}
    short_only: tuple[str, ...] = ()
    flat_cache: tuple[str, ...] = ()
    speed: dict[str, Number] = {}
    geo: dict[str, Number] = {}
    peak: Number = 1.0
    cache_hour: Number | None = None
    assumed: bool = False


class Listed(Price, frozen=True, forbid_unknown_fields=True):
    """An entry as the file has it: a price, its dates, its names and where it comes from."""

    dated: tuple[dict[str, Any], ...] = ()
    aliases: tuple[str, ...] = ()
    kind: str = "chat"
    retired: str = ""
    note: str = ""
    source: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    checked: str = ""


class PriceSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a key in an entry's `source` stands for."""

    what: str
    as_of: str


class Host(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prices that hold at some hosts only; a name in `at` also stands for everything below it."""

    at: tuple[str, ...]
    models: dict[str, Listed]


class PeakHours(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"excepted": "except"}):
    """Ranges of UTC time ("01:00-04:00", within a day), ISO weekdays (Monday = 1), and dates that do not count."""

    utc: tuple[str, ...]
    weekdays: tuple[Annotated[int, msgspec.Meta(ge=1, le=7)], ...]
    excepted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for hours in self.utc:
            if _HOURS.fullmatch(hours) is None or hours[:5] >= hours[6:]:
                raise ValueError(f"peak hours {hours!r} are not like 01:00-04:00 of one day")
        for listed in self.excepted:
            if date.fromisoformat(listed).isoformat() != listed:
                raise ValueError(f"{listed!r} is not a date like 2026-12-31")

    def include(self, at: float) -> bool:
        """Whether unix time `at` is within them."""
        moment = datetime.fromtimestamp(at, UTC)
        if moment.isoweekday() not in self.weekdays or moment.date().isoformat() in self.excepted:
            return False
        clock = moment.strftime("%H:%M")
        return any(start <= clock < end for start, _, end in (hours.partition("-") for hours in self.utc))


class PriceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The shape of prices.toml."""

    date: str
    sources: dict[str, PriceSource]
    models: dict[str, Listed]
    subscriptions: dict[str, Number]
    hosts: dict[str, Host] = {}
    places: dict[str, str] = {}
    peak: dict[str, PeakHours] = {}

    def __post_init__(self) -> None:
        _midnight(self.date)


class Entry:
    """One model's prices over time; `listed` is the entry as the file has it, `vendor` the first word of its id."""

    __slots__ = ("_prices", "_starts", "base", "listed", "vendor")

    def __init__(self, name: str, listed: Listed) -> None:
        """Raises ValueError for a date or a change that is none."""
        self.vendor = name.partition("-")[0]
        self.listed = listed
        fields = msgspec.to_builtins(listed)
        base = {name: fields[name] for name in Price.__struct_fields__}
        self.base = msgspec.convert(base, Price)
        before, after = _dated(listed, "until"), _dated(listed, "from")
        if len(before) + len(after) != len(listed.dated):
            raise ValueError("a dated price says either until or from")
        self._starts = [_ALWAYS, *(moment for moment, _ in before), *(moment for moment, _ in after)]
        self._prices = [_changed(base, change) for _, change in before]
        self._prices.append(self.base)
        for _, change in after:
            self._prices.append(_changed(msgspec.to_builtins(self._prices[-1]), change))

    def at(self, moment: float | None) -> Price:
        """The price at a unix time; None = when the table was written."""
        if moment is None or len(self._prices) == 1:
            return self.base
        return self._prices[bisect_right(self._starts, moment) - 1]


def _dated(listed: Listed, bound: str) -> list[tuple[float, dict[str, Any]]]:
    """The changes with this bound and its unix time, in the order of time."""
    return sorted(((_midnight(one[bound]), one) for one in listed.dated if bound in one), key=itemgetter(0))


def _changed(fields: dict[str, Any], change: Mapping[str, Any]) -> Price:
    """A price with some fields replaced; of a table of factors only the keys that are named."""
    new = dict(fields)
    for name, value in change.items():
        if name not in ("until", "from"):
            new[name] = fields[name] | value if isinstance(fields.get(name), dict) else value
    return msgspec.convert(new, Price)


def _midnight(day: object) -> float:
    """Unix seconds of a UTC date ("2026-12-01")."""
    return datetime.strptime(str(day), "%Y-%m-%d").replace(tzinfo=UTC).timestamp()


def by_name(models: Mapping[str, Listed]) -> dict[str, Entry]:
    """Every entry under its id and its aliases. Raises ValueError for an alias that is an id or another's alias."""
    found = {name: Entry(name, listed) for name, listed in models.items()}
    aliases: dict[str, Entry] = {}
    for name, entry in found.items():
        for alias in entry.listed.aliases:
            if alias in found or alias in aliases:
                raise ValueError(f"{alias!r}, an alias of {name!r}, is listed twice")
            aliases[alias] = entry
    return found | aliases


def read(text: str) -> PriceFile:
    """A price table. Raises ValueError, in one line, for one that is not what it has to be."""
    try:
        return msgspec.convert(tomli.loads(text), PriceFile)
    except (tomli.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise ValueError(f"the price table cannot be read: {exc}") from None


@lru_cache(maxsize=1)
def shipped() -> PriceFile:
    """The table in the package."""
    return read((files(__package__) / "prices.toml").read_text("utf-8"))
