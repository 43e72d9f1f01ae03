"""What a friend's Codex shows as its limits: the tighter of the own limits and the pooled window, as headers and as
the event that takes their place within a stream.

The account's own `x-codex-*` figures would jump with every change of account and tell a friend about accounts that
are nobody else's business.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from pool_server.accounts import Accounts
from pool_server.core.enums import Provider
from pool_server.gateway.emulation.quota_windows import QuotaWindow, own, pooled, tightest, two_slots
from pool_server.users import Principal, Users

_FRESH_S = 10.0
_MOST_REMEMBERED = 10_000
_SLOTS = ("primary", "secondary")
_KEPT = frozenset({"x-codex-turn-state"})
Headers = list[tuple[str, str]]


class FriendView:
    """Remembers the view of each user, and of each key, for a few seconds, so that an exchange does not pay for it."""

    def __init__(self, accounts: Accounts, users: Users, clock: Callable[[], float] = time.time) -> None:
        self._accounts = accounts
        self._users = users
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, list[QuotaWindow]]] = {}

    def instead(self, headers: Headers, principal: Principal) -> Headers:
        """The provider's headers with the account's limits replaced by the friend's."""
        kept = [pair for pair in headers if not _is_limit(pair[0])]
        return kept + limit_headers(self._windows(principal), self._clock())

    def event(self, principal: Principal) -> bytes:
        """The JSON that is to stand for the account's own `codex.rate_limits`."""
        return limits_event(self._windows(principal), self._clock())

    def _windows(self, principal: Principal) -> list[QuotaWindow]:
        now = self._clock()
        who = principal.user, principal.key
        known = self._seen.get(who)
        if known is not None and 0 <= now - known[0] < _FRESH_S:
            return known[1]
        if len(self._seen) >= _MOST_REMEMBERED:
            self._seen.clear()
        windows = pooled(self._accounts.glance(Provider.CODEX)[1])
        if not principal.local:
            windows += own(self._users.limits.of_caller(principal.user, principal.key))
        told = tightest(windows)
        self._seen[who] = (now, told)
        return told


def limit_headers(windows: list[QuotaWindow], now: float) -> Headers:
    """`x-codex-primary-…` and `-secondary-…`; `now` in unix seconds stands in for an unknown reset."""
    headers: Headers = []
    for slot, window in zip(_SLOTS, two_slots(windows), strict=False):
        resets_at = window.resets_at if window.resets_at is not None else now + window.seconds
        headers += [
            (f"x-codex-{slot}-used-percent", str(min(100, int(window.used_percent)))),
            (f"x-codex-{slot}-window-minutes", str(window.seconds // 60)),
            (f"x-codex-{slot}-reset-at", str(int(resets_at))),
        ]
    return headers


def limits_event(windows: list[QuotaWindow], now: float) -> bytes:
    """`codex.rate_limits` as the ChatGPT backend writes it, without plan and credits."""
    slots: dict[str, dict[str, int] | None] = dict.fromkeys(_SLOTS)
    for slot, window in zip(_SLOTS, two_slots(windows), strict=False):
        resets_at = window.resets_at if window.resets_at is not None else now + window.seconds
        slots[slot] = {
            "used_percent": min(100, int(window.used_percent)),
            "window_minutes": window.seconds // 60,
            "reset_after_seconds": max(0, int(resets_at - now)),
            "reset_at": int(resets_at),
        }
    reached = any(window.used_percent >= 100 for window in windows)
    limits = {"allowed": not reached, "limit_reached": reached, **slots}
    return msgspec.json.encode({"type": "codex.rate_limits", "rate_limits": limits})


def _is_limit(name: str) -> bool:
    lowered = name.lower()
    return lowered.startswith("x-codex-") and lowered not in _KEPT
