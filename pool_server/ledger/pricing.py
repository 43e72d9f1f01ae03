"""What an exchange would have cost at the provider's API list price, and what a subscription costs a month.

The table is the data file beside this module; `[prices]` and `[subscriptions]` in the settings win over it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import msgspec
import tomli

from pool_server.core.models import Usage
from pool_server.core.settings import ModelPrice

MILLION = 1_000_000.0
_STANDARD = frozenset({"", "auto", "default", "standard", "on_demand", "scale"})
# What may follow a listed name without making it another model: dates, revisions, context and effort marks.
_VARIANT = re.compile(
    r"(?:[-@](?:\d{8}|\d{4}-\d{2}-\d{2}|\d{2}-\d{4}|\d{2}-\d{2}|\d{3}|latest|preview|exp|thinking|customtools|"
    r"none|minimal|low|medium|high|xhigh)|-v\d+(?::\d+)?|\[1m\]|:\d+)*"
)
_CACHED_MODELS = 4096


class Tier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prices of a call whose prompt exceeds `above` tokens; US dollars a million tokens."""

    above: int
    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model's list price; US dollars a million tokens, `web_search` dollars each."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    web_search: float = 0.0
    tiers: tuple[Tier, ...] = ()
    service: dict[str, float] = {}
    assumed: bool = False


class PriceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The shape of prices.toml."""

    date: str
    sources: list[str]
    models: dict[str, Price]
    subscriptions: dict[str, float]


class Prices:
    """Price look-up; a model's entry is found once and remembered."""

    def __init__(
        self, overrides: Mapping[str, ModelPrice] | None = None, subscriptions: Mapping[str, float] | None = None
    ) -> None:
        table = shipped()
        self.date = table.date
        self.sources = table.sources
        self._models = dict(table.models)
        for name, price in (overrides or {}).items():
            self._models[_plain(name)] = msgspec.convert(msgspec.to_builtins(price), Price)
        self._by_length = sorted(self._models, key=len, reverse=True)
        self._subscriptions = {**table.subscriptions, **(subscriptions or {})}
        self._found: dict[str, Price | None] = {}

    def find(self, model: str) -> Price | None:
        """The entry for a model id as clients and providers write it; None when no list names it."""
        try:
            return self._found[model]
        except KeyError:
            pass
        if len(self._found) >= _CACHED_MODELS:
            self._found.clear()  # names come from clients: the memory of them stays small
        price = self._found[model] = self._search(_plain(model))
        return price

    def _search(self, name: str) -> Price | None:
        exact = self._models.get(name)
        if exact is not None:
            return exact
        for listed in self._by_length:
            if name.startswith(listed) and _VARIANT.fullmatch(name, len(listed)):
                return self._models[listed]
        return None

    def cost(self, model: str, usage: Usage, service: str = "") -> float | None:
        """US dollars for an exchange; None when the model or its service tier has no known price."""
        price = self.find(model)
        if price is None:
            return None
        factor = 1.0 if service in _STANDARD else _factor(price, service)
        if factor is None:
            return None
        prompt = usage.input + usage.cache_read + usage.cache_write
        rate: Price | Tier = price
        for tier in price.tiers:
            if prompt > tier.above:
                rate = tier
        read = rate.input if rate.cache_read is None else rate.cache_read
        write = rate.input if rate.cache_write is None else rate.cache_write
        hour = write if rate.cache_write_1h is None else rate.cache_write_1h
        tokens = (
            usage.input * rate.input
            + usage.cache_read * read
            + (usage.cache_write - usage.cache_write_1h) * write
            + usage.cache_write_1h * hour
            + usage.output * rate.output
        )
        return tokens * factor / MILLION + usage.web_searches * price.web_search

    def subscription(self, account: str, plan: str) -> float | None:
        """US dollars a month for an account: by its id, by "provider:plan", by plan; None when nobody said."""
        provider = account.partition(":")[0]
        for name in (account, f"{provider}:{plan}", plan):
            if name and name in self._subscriptions:
                return self._subscriptions[name]
        return None

    def describe(self) -> dict[str, Any]:
        """The table's date and sources and every price, for a page."""
        return {"date": self.date, "sources": self.sources, "models": msgspec.to_builtins(self._models)}


@lru_cache(maxsize=1)
def shipped() -> PriceFile:
    """The table in the package."""
    text = (files(__package__) / "prices.toml").read_text("utf-8")
    return msgspec.convert(tomli.loads(text), PriceFile)


def _plain(model: str) -> str:
    """Lower case, without the path some APIs put before a model ("models/…", "anthropic/…")."""
    return model.strip().lower().rpartition("/")[2]


def _factor(price: Price, service: str) -> float | None:
    """A service tier's multiplier; Codex calls the priority tier "fast"."""
    factor = price.service.get(service)
    if factor is None and service == "fast":
        return price.service.get("priority")
    return factor
