"""How an answer was served, as far as it tells: the facts that choose its price beside the tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pool_server.core.models import MOST_DOLLARS

_TICK = 1e-10  # dollars; docs.x.ai, "Cost tracking"
_WORD = 40
_TELLING = frozenset(("service_tier", "speed", "inference_geo"))


class Served(msgspec.Struct):
    """The last word on each fact; "" or None = not told.

    `tier` is the service tier, `speed` Anthropic's speed of serving, `geo` where it was served, `cost` US dollars.
    """

    tier: str = ""
    speed: str = ""
    geo: str = ""
    cost: float | None = None

    def read(self, usage: Any) -> None:
        """Take in what a usage object tells beside tokens."""
        if not isinstance(usage, dict):
            return
        if not _TELLING.isdisjoint(usage):  # few do
            self.tier = word(usage.get("service_tier")) or self.tier
            self.speed = word(usage.get("speed")) or self.speed
            self.geo = word(usage.get("inference_geo")) or self.geo
        if "cost" in usage or "cost_in_usd_ticks" in usage:
            cost = _cost(usage)
            self.cost = self.cost if cost is None else cost


def header_tier(headers: Mapping[str, str]) -> str:
    """The service tier Gemini names in a header, "" without one; a request that asked for more may have been served,
    and is billed, as standard (ai.google.dev, "Priority inference"). Header names lower case."""
    told = headers.get("x-gemini-service-tier")
    return word(told.removeprefix("SERVICE_TIER_")) if told else ""


def word(value: Any) -> str:
    """A short plain word in lower case, "" for anything else."""
    if not value:  # nothing is told, as nearly always
        return ""
    return value.lower() if isinstance(value, str) and len(value) <= _WORD and value.isprintable() else ""


def _cost(usage: dict[str, Any]) -> float | None:
    """Dollars as told: xAI's ticks, OpenRouter's `cost` (with what the caller's own key was charged upstream) or an
    object with a total, as Perplexity sends."""
    ticks = _dollars(usage.get("cost_in_usd_ticks"), _TICK)
    if ticks is not None:
        return ticks
    told = usage.get("cost")
    if isinstance(told, dict):
        return _dollars(told.get("total_cost"))
    cost = _dollars(told)
    details = usage.get("cost_details")
    if cost is not None and usage.get("is_byok") is True and isinstance(details, dict):
        cost += _dollars(details.get("upstream_inference_cost")) or 0.0
    return cost


def _dollars(value: Any, unit: float = 1.0) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value * unit if 0 <= value <= MOST_DOLLARS / unit else None  # false for NaN
