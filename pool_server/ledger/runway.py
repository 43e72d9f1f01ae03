"""The days ahead: burn, time to empty, resets, headroom that will be lost; and what a percent and a plan are worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import msgspec

from pool_server.ledger.forecast import Confidence, Forecast, WindowHeadroom, foretell, lasts_until
from pool_server.ledger.ports import LedgerPort
from pool_server.ledger.pricing import Prices
from pool_server.ledger.query import Queries
from pool_server.ledger.quota_history import Series, Sighting
from pool_server.ledger.rollups.reader import Filters
from pool_server.ledger.rollups.sums import NANO, Sums
from pool_server.ledger.rollups.usage_sums import AccountValue

DAY_S = 86_400.0
LOOK_BACK_S = 15 * DAY_S
LEAST_GROWTH = 1.0  # percent points of use before a percent's worth is told
MONTH_DAYS = 30


class Runway:
    """Reads one store's quota history and rollups. Safe in any thread."""

    def __init__(self, port: LedgerPort, queries: Queries, prices: Prices) -> None:
        self._port = port
        self._queries = queries
        self._prices = prices

    def sightings(self, series: Series, frm: float, to: float, *, limit: int = 5_000) -> list[Sighting]:
        """The quota history of one window, oldest first; of more than `limit`, the newest."""
        with self._port.read() as reader:
            return reader.sightings(series, frm, to, limit)

    def series(self) -> list[Series]:
        """Every window of every account that was ever seen."""
        with self._port.read() as reader:
            return reader.series()

    def forecast(self, account: str, now: float) -> list[dict[str, Any]]:
        """Each window of an account: its names, everything of `Forecast`, and what one percent is worth."""
        return [self._window(series, now)[0] for series in self.series() if series.account == account]

    def all(self, now: float, accounts: Iterable[str] | None = None) -> dict[str, Any]:
        """{"accounts":{id:[window…]},"providers":{name:{…}},"resets":[…]} for all accounts, or those given.

        A provider's "lasts_until" is the earliest end of its kinds of window, unix seconds, None = beyond two
        weeks or nothing burns; "confidence" is that of its weakest forecast. "resets" are in the order of time.
        """
        wanted = None if accounts is None else set(accounts)
        by_account: dict[str, list[dict[str, Any]]] = {}
        for series in self.series():
            if wanted is None or series.account in wanted:
                by_account.setdefault(series.account, []).append(self._window(series, now)[0])
        resets = [row for windows in by_account.values() for row in windows if row["resets_at"] is not None]
        return {
            "accounts": by_account,
            "providers": _providers(by_account, now),
            "resets": [_reset(row) for row in sorted(resets, key=lambda row: row["resets_at"])],
        }

    def _window(self, series: Series, now: float) -> tuple[dict[str, Any], Forecast]:
        sightings = self.sightings(series, now - LOOK_BACK_S, now + 1)
        forecast = foretell(sightings, now)
        worth = self._worth(series, sightings)
        names = msgspec.structs.asdict(series)
        return {**names, **msgspec.structs.asdict(forecast), **worth}, forecast

    def _worth(self, series: Series, sightings: list[Sighting]) -> dict[str, float | None]:
        """Tokens and API dollars that one percent of the window stood for; None where it cannot be told."""
        grown = sum(
            later.used_percent - before.used_percent
            for before, later in pairwise(sightings)
            if later.used_percent > before.used_percent
        )
        if series.scope or grown < LEAST_GROWTH:
            return {"tokens_per_percent": None, "cost_per_percent": None}
        used = self._queries.total(sightings[0].at, sightings[-1].at, Filters(account=series.account))
        tokens = used["input"] + used["cache_read"] + used["cache_write"] + used["output"]
        if not tokens:
            return {"tokens_per_percent": None, "cost_per_percent": None}
        return {"tokens_per_percent": tokens / grown, "cost_per_percent": used["cost_nano"] / NANO / grown}

    def value(self, plans: Mapping[str, str], now: float) -> list[AccountValue]:
        """Value for money of each account (id → plan) over the last 30 days."""
        rows = []
        for account, plan in sorted(plans.items()):
            used = self._queries.total(now - MONTH_DAYS * DAY_S, now, Filters(account=account))
            rows.append(_value(account, plan, used, self._prices.subscription(account, plan)))
        return rows


def _value(account: str, plan: str, used: Sums, monthly: float | None) -> AccountValue:
    sums = used.tokens()
    ratio = sums.cost_usd / monthly if monthly else None
    return AccountValue(
        **msgspec.structs.asdict(sums),
        unpriced=used["unpriced"],
        account=account,
        plan=plan,
        subscription_usd=monthly,
        api_cost_usd=sums.cost_usd,
        ratio=ratio,
    )


def _reset(row: dict[str, Any]) -> dict[str, Any]:
    keys = ("account", "scope", "window", "resets_at", "used_percent", "unused_at_reset", "confidence")
    return {key: row[key] for key in keys}


def _providers(by_account: Mapping[str, list[dict[str, Any]]], now: float) -> dict[str, dict[str, Any]]:
    kinds: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for account, windows in by_account.items():
        for row in windows:
            if not row["scope"]:
                kinds.setdefault(account.partition(":")[0], {}).setdefault(row["window"], []).append(row)
    return {provider: _provider(windows, now) for provider, windows in sorted(kinds.items())}


def _provider(kinds: Mapping[str, list[dict[str, Any]]], now: float) -> dict[str, Any]:
    windows: list[dict[str, Any]] = []
    ends: list[float] = []
    for window, rows in sorted(kinds.items()):
        headrooms = _headrooms(rows)
        weight = sum(one.weight for one in headrooms)
        end = lasts_until(headrooms, now)
        if end is not None:
            ends.append(end)
        left = sum(one.left * one.weight for one in headrooms) / weight
        burn = sum(one.burn_per_h * one.weight for one in headrooms) / weight
        windows.append({"window": window, "room_percent": left, "burn_per_h": burn, "lasts_until": end})
    order = list(Confidence)
    trust = [row["confidence"] for rows in kinds.values() for row in rows]
    return {
        "windows": windows,
        "lasts_until": min(ends, default=None),
        "confidence": min(trust, key=order.index),
    }


def _headrooms(rows: list[dict[str, Any]]) -> list[WindowHeadroom]:
    """Accounts weigh by what their percent is worth when that is known of all of them, else equally."""
    known = all(row["tokens_per_percent"] for row in rows)
    return [
        WindowHeadroom(
            left=max(0.0, 100.0 - (row["used_percent"] or 0.0)),  # a window that began anew is full
            resets_at=row["resets_at"],
            seconds=row["seconds"],
            burn_per_h=row["burn_per_h"] or 0.0,
            weight=row["tokens_per_percent"] if known else 1.0,
        )
        for row in rows
    ]
