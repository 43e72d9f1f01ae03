"""Price look-up: the entry for a model, the price of a day, the cost of an exchange."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from pool_server.core.enums import CostBasis
from pool_server.core.models import Usage
from pool_server.core.settings import ModelPrice
from pool_server.ledger.pricing import model_ids
from pool_server.ledger.pricing.arithmetic import UnknownPriceError, multiplier, searches_cost, tokens_cost
from pool_server.ledger.pricing.price_table import Entry, Listed, PriceFile, by_name, shipped

OLD_AFTER_DAYS = 60  # vendors change prices every few weeks: an older table is said to be old
_CACHED_MODELS = 4096
_CACHED_HOSTS = 256
_FREE = Entry(model_ids.FREE, Listed(0.0, 0.0, web_search=0.0))
_DAY_S = 86_400.0


class PriceFacts(msgspec.Struct, frozen=True):
    """What chooses a price beside the model: facts of the answer, of the account and of the clock.

    `at` is unix seconds (None = when the table was written); `host` the name of the upstream host; `tier`, `speed` and
    `geo` are what the answer says; `answered` is the model that answered where the answer names one; `told` is a price
    in US dollars that came with the answer.
    """

    at: float | None = None
    host: str = ""
    tier: str = ""
    speed: str = ""
    geo: str = ""
    answered: str = ""
    told: float | None = None


class Quote(msgspec.Struct, frozen=True):
    """A cost in US dollars and what it rests on; `dollars` None = no price is known."""

    dollars: float | None
    basis: CostBasis = CostBasis.LIST


_STANDARD = PriceFacts()
_UNKNOWN = Quote(None)


class Entries(NamedTuple):
    """What a table names: its models, and those of each host that has prices of its own."""

    models: dict[str, Entry]
    hosts: dict[str, dict[str, Entry]]


def entries(table: PriceFile) -> Entries:
    """Raises ValueError for a table that contradicts itself."""
    hosts: dict[str, dict[str, Entry]] = {}
    for host in table.hosts.values():
        named = by_name({model_ids.spelt(name): listed for name, listed in host.models.items()})
        hosts.update(dict.fromkeys(host.at, named))
    return Entries(by_name(table.models), hosts)


@lru_cache(maxsize=1)
def shipped_entries() -> Entries:
    """Those of the table in the package; nobody changes them."""
    return entries(shipped())


class Prices:
    """Price look-up; a model's entry is found once and remembered."""

    def __init__(
        self,
        overrides: Mapping[str, ModelPrice] | None = None,
        subscriptions: Mapping[str, float] | None = None,
        table: PriceFile | None = None,
    ) -> None:
        """`table` is the shipped one where none is given. Raises ValueError for a table that contradicts itself."""
        named = entries(table) if table else shipped_entries()
        table = table or shipped()
        self.date = table.date
        self.sources = {key: source.what for key, source in table.sources.items()}
        self._table = table
        own = {model_ids.plain(model_ids.spelt(name)): price for name, price in (overrides or {}).items()}
        self._own = {name: Entry(name, Listed(**msgspec.structs.asdict(price))) for name, price in own.items()}
        self._entries = named.models | self._own
        self._by_length = sorted(self._entries, key=len, reverse=True)
        self._hosts = named.hosts
        self._subscriptions = {**table.subscriptions, **(subscriptions or {})}
        self._found: dict[str, Entry | None] = {}
        self._entered: dict[tuple[str, str, str], Entry | None] = {}  # by model, host and the model that answered
        self._known_hosts: dict[str, tuple[Mapping[str, Entry], str]] = {}

    def find(self, model: str) -> Entry | None:
        """The entry for a model id as clients and providers write it; None when no list names it."""
        try:
            return self._found[model]
        except KeyError:
            pass
        if len(self._found) >= _CACHED_MODELS:
            self._found.clear()  # names come from clients: the memory of them stays small
        name = model_ids.spelt(model)
        found = (
            _FREE
            if name.endswith(model_ids.FREE)
            else model_ids.search(self._entries, self._by_length, model_ids.plain(name))
        )
        self._found[model] = found
        return found

    def cost(self, model: str, usage: Usage, facts: PriceFacts = _STANDARD) -> float | None:
        """US dollars for an exchange; None when the model, its tier, speed or a kind of token has no known price."""
        return self.quote(model, usage, facts).dollars

    def reread(self, model: str, tokens: int) -> float | None:
        """US dollars that so many tokens cost more when they are read anew than from a cache, by the list; None without
        a price."""
        if not tokens:
            return 0.0
        full = self.cost(model, Usage(input=tokens, known=True))
        cached = self.cost(model, Usage(cache_read=tokens, known=True))
        return None if full is None or cached is None else max(0.0, full - cached)

    def quote(self, model: str, usage: Usage, facts: PriceFacts = _STANDARD) -> Quote:
        """The cost of an exchange and what it rests on. The model that answered sets the price; `model`, the one asked
        for, does where the answer names none, or where only the asked one has a price in the settings."""
        if facts.told is not None:
            return Quote(facts.told, CostBasis.TOLD)
        entry = self._entry(model, facts)
        if entry is None and not usage.parts and not usage.model:
            return _UNKNOWN
        try:
            dollars, assumed = self._cost(entry, usage, facts)
        except UnknownPriceError:
            return _UNKNOWN
        return Quote(dollars, CostBasis.ASSUMED if assumed else CostBasis.LIST)

    def _entry(self, model: str, facts: PriceFacts) -> Entry | None:
        asked_of = model, facts.host, facts.answered
        try:
            return self._entered[asked_of]
        except KeyError:
            pass
        if len(self._entered) >= _CACHED_MODELS:
            self._entered.clear()
        entry = self._at_host(facts.answered or model, facts.host)
        if entry is None and facts.answered:
            asked = self.find(model)
            entry = asked if asked in self._own.values() else None
        self._entered[asked_of] = entry
        return entry

    def _at_host(self, model: str, host: str) -> Entry | None:
        """The entry that holds at a host, else the model's."""
        listed, _ = self._host(host)
        if listed:
            name = model_ids.spelt(model)
            plain = model_ids.plain(name)
            entry = listed.get(name) or listed.get(plain)
            if entry is not None and plain not in self._own:
                return entry
        return self.find(model)

    def _host(self, host: str) -> tuple[Mapping[str, Entry], str]:
        """The prices that hold at a host only, and the place its name says."""
        found = self._known_hosts.get(host)
        if found is None:
            if len(self._known_hosts) >= _CACHED_HOSTS:
                self._known_hosts.clear()
            found = _below(self._hosts, host) or {}, _below(self._table.places, host) or ""
            self._known_hosts[host] = found
        return found

    def _cost(self, entry: Entry | None, usage: Usage, facts: PriceFacts) -> tuple[float, bool]:
        """Dollars, and whether any price in them is assumed. Raises UnknownPriceError."""
        total, assumed, searches = 0.0, False, usage.web_searches
        place = facts.geo or self._host(facts.host)[1]
        for part in usage.parts or (usage,):
            own = self._at_host(part.model, facts.host) if part.model else entry
            if own is None:
                raise UnknownPriceError(part.model)
            price = own.at(facts.at)
            factor = multiplier(price, facts.speed, place, peak=price.peak != 1.0 and self._peak(own, facts.at))
            total += tokens_cost(price, part, facts.tier) * factor
            total += searches_cost(price, part.web_searches)
            searches -= part.web_searches
            assumed = assumed or price.assumed
        if searches > 0 and entry is None:
            raise UnknownPriceError("web searches")
        return total + (searches_cost(entry.at(facts.at), searches) if entry is not None else 0.0), assumed

    def _peak(self, entry: Entry, at: float | None) -> bool:
        hours = self._table.peak.get(entry.vendor)
        return hours is not None and at is not None and hours.include(at)

    def subscription(self, account: str, plan: str) -> float | None:
        """US dollars a month for an account: by its id, by "provider:plan", by plan; None when nobody said."""
        provider = account.partition(":")[0]
        for name in (account, f"{provider}:{plan}", plan, f"{provider}:{plan.lower()}", plan.lower()):
            if name and name in self._subscriptions:
                return self._subscriptions[name]
        return None

    def age_days(self, now: float) -> int:
        """Whole days since the table was written; `now` is unix seconds."""
        written = datetime.strptime(self.date, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
        return max(0, int((now - written) // _DAY_S))

    def describe(self) -> dict[str, Any]:
        """The table's date and sources and every model's price of today, for a page."""
        models = {name: msgspec.to_builtins(entry.base) for name, entry in self._entries.items()}
        return {"date": self.date, "sources": self.sources, "models": models}


def _below(table: Mapping[str, Any], host: str) -> Any:
    """What a table of host names says of a host: of its own name, else of the nearest name above it."""
    name = host.lower()
    while name:
        if name in table:
            return table[name]
        name = name.partition(".")[2]
    return None
