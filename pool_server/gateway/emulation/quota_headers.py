"""What a friend's Codex shows as its limits: the tighter of the own limits and the pooled room, as headers and as
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
from pool_server.gateway.emulation.headroom import QuotaWindow, own, pooled, tightest, two_slots
from pool_server.users import Principal, Users

_FRESH_S = 10.0
_MOST_REMEMBERED = 10_000
_SLOTS = ("primary", "secondary")
_KEPT = frozenset({"x-codex-turn-state"})
Headers = list[tuple[str, str]]


class FriendView:
    """Remembers each user's view for a few seconds, so that an exchange does not pay for it."""

    def __init__(self, accounts: Accounts, users: Users, clock: Callable[[], float] = time.time) -> None:
        self._accounts = accounts
        self._users = users
        self._clock = clock
        self._seen: dict[str, tuple[float, list[QuotaWindow]]] = {}

    def instead(self, headers: Headers, principal: Principal) -> Headers:
        """The provider's headers with the account's limits replaced by the friend's."""
        kept = [pair for pair in headers if not _is_limit(pair[0])]
        return kept + limit_headers(self._rooms(principal), self._clock())

    def event(self, principal: Principal) -> bytes:
        """The JSON that is to stand for the account's own `codex.rate_limits`."""
        return limits_event(self._rooms(principal), self._clock())

    def _rooms(self, principal: Principal) -> list[QuotaWindow]:
        now = self._clock()
        known = self._seen.get(principal.user)
        if known is not None and 0 <= now - known[0] < _FRESH_S:
            return known[1]
        if len(self._seen) >= _MOST_REMEMBERED:
            self._seen.clear()
        _, windows = self._accounts.glance(Provider.CODEX)
        rooms = pooled(windows)
        if not principal.local:
            rooms += own(*self._users.limits.standing(principal.user))
        view = tightest(rooms)
        self._seen[principal.user] = (now, view)
        return view


def limit_headers(rooms: list[QuotaWindow], now: float) -> Headers:
    """`x-codex-primary-…` and `-secondary-…`; `now` in unix seconds stands in for an unknown reset."""
    headers: Headers = []
    for slot, room in zip(_SLOTS, two_slots(rooms), strict=False):
        resets_at = room.resets_at if room.resets_at is not None else now + room.seconds
        headers += [
            (f"x-codex-{slot}-used-percent", str(min(100, int(room.used_percent)))),
            (f"x-codex-{slot}-window-minutes", str(room.seconds // 60)),
            (f"x-codex-{slot}-reset-at", str(int(resets_at))),
        ]
    return headers


def limits_event(rooms: list[QuotaWindow], now: float) -> bytes:
    """`codex.rate_limits` as the ChatGPT backend writes it, without plan and credits."""
    windows: dict[str, dict[str, int] | None] = dict.fromkeys(_SLOTS)
    for slot, room in zip(_SLOTS, two_slots(rooms), strict=False):
        resets_at = room.resets_at if room.resets_at is not None else now + room.seconds
        windows[slot] = {
            "used_percent": min(100, int(room.used_percent)),
            "window_minutes": room.seconds // 60,
            "reset_after_seconds": max(0, int(resets_at - now)),
            "reset_at": int(resets_at),
        }
    reached = any(room.used_percent >= 100 for room in rooms)
    limits = {"allowed": not reached, "limit_reached": reached, **windows}
    return msgspec.json.encode({"type": "codex.rate_limits", "rate_limits": limits})


def _is_limit(name: str) -> bool:
    lowered = name.lower()
    return lowered.startswith("x-codex-") and lowered not in _KEPT
