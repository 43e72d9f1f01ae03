"""What a usage costs at one price. Pure arithmetic, in the order the vendors multiply in."""

from __future__ import annotations

from pool_server.core.models import Usage
from pool_server.ledger.pricing.price_table import Price, Rates

MILLION = 1_000_000.0
STANDARD = frozenset({"", "auto", "default", "standard", "on_demand", "scale", "unspecified"})
_NOWHERE = frozenset({"", "global", "not_available"})
_PLACES = frozenset({"us", "regional"})  # places some models cost more at; the others cost the same everywhere
_READS = frozenset({"cache_read", "cache_read_explicit", "audio_cache_read", "image_cache_read"})
_KINDS = (
    ("input", ("audio_in", "image_in", "video_in")),
    ("cache_read", ("cache_read_explicit", "audio_cache_read", "image_cache_read")),
    ("cache_write", ("cache_write_1h", "cache_write_12h")),
    ("output", ("audio_out", "image_out")),
)
_SAME_TIER = {"fast": "priority", "priority": "fast"}  # OpenAI's newer and older word


class UnknownPriceError(Exception):
    """No price is known for a tier, speed, place or kind of token: the cost is unknown, not standard."""


def tokens_cost(price: Price, usage: Usage, tier: str) -> float:
    """US dollars of a usage's tokens at a service tier. Raises UnknownPriceError."""
    prompt = usage.prompt / max(1, usage.calls)
    if tier in price.short_only and price.tiers and prompt > price.tiers[0].above:
        tier = ""  # sold for short prompts only: this one was served as default
    rates: Rates = price
    for step in price.tiers:
        if prompt > step.above:
            rates = step
    factor, own = _service(price, tier)
    total = 0.0
    for name, count in _counts(usage):
        if name in own:
            total += count * own[name]
        elif name in _READS and tier in price.flat_cache:
            total += count * _rate(price, rates, name, usage)
        else:
            total += count * _rate(price, rates, name, usage) * factor
    return total / MILLION


def multiplier(price: Price, speed: str, place: str, *, peak: bool) -> float:
    """What all tokens are multiplied by for how fast, where and when they were served. Raises UnknownPriceError."""
    factor = 1.0
    if speed not in STANDARD:
        if speed not in price.speed:
            raise UnknownPriceError(f"speed {speed}")
        factor *= price.speed[speed]
    if place in price.geo:
        factor *= price.geo[place]
    elif place not in _NOWHERE and place not in _PLACES:
        raise UnknownPriceError(f"place {place}")
    return factor * price.peak if peak else factor


def searches_cost(price: Price, searches: int) -> float:
    """Searches are never multiplied. Raises UnknownPriceError where there is no price for them."""
    if searches and price.web_search is None:
        raise UnknownPriceError("web searches")
    return searches * (price.web_search or 0.0)


def _service(price: Price, tier: str) -> tuple[float, dict[str, float]]:
    """A service tier's multiplier and the prices of its own that it has instead."""
    if tier in STANDARD:
        return 1.0, {}
    own = price.service_rates.get(tier, {})
    factor = price.service.get(tier)
    if factor is None and tier in _SAME_TIER and not price.speed:
        factor = price.service.get(_SAME_TIER[tier])
    if factor is None:
        raise UnknownPriceError(f"service tier {tier}")
    return factor, own


def _counts(usage: Usage) -> list[tuple[str, int]]:
    """A usage as separate kinds that add up to the whole, without those there are none of."""
    if usage.other_kinds:
        raise UnknownPriceError("a kind of tokens")
    found: list[tuple[str, int]] = []
    for whole, parts in _KINDS:
        count = getattr(usage, whole)
        if not count:
            continue
        for name in parts:
            part = getattr(usage, name)
            if part:
                found.append((name, part))
                count -= part
        if count > 0:
            found.append((whole, count))
    return found


def _rate(price: Price, rates: Rates, name: str, usage: Usage) -> float:
    """The price of a million tokens of a kind, or of what stands in for it. Raises UnknownPriceError."""
    if name == "output":
        thought = usage.reasoning > 0 and price.output_thinking is not None
        found = rates.output_thinking if thought else rates.output
    elif name in ("cache_write_1h", "cache_read_explicit"):
        base = "cache_write" if name == "cache_write_1h" else "cache_read"
        found = getattr(rates, name)
        found = _or_input(rates, base) if found is None else found
    elif name in Rates.__struct_fields__:
        found = rates.cache_write_12h if name == "cache_write_12h" else _or_input(rates, name)
    else:
        found = _modal(price, rates, name)
    if found is None:
        raise UnknownPriceError(name)
    return found


def _or_input(rates: Rates, name: str) -> float:
    found: float | None = getattr(rates, name)
    return rates.input if found is None else found


def _modal(price: Price, rates: Rates, name: str) -> float | None:
    """Tokens that are no text: input of a kind without a price of its own costs what text costs, output does not."""
    own = price.modal.get(name)
    if own is not None or name.endswith("_out"):
        return own
    if name.endswith("_cache_read"):
        uncached = price.modal.get(name.replace("_cache_read", "_in"))
        return _or_input(rates, "cache_read") if uncached is None else uncached
    return rates.input
