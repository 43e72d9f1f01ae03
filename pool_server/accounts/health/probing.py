"""When a cooldown may be tested by one half-open request. A long cooldown is never trusted for days."""

from __future__ import annotations

from pool_server.accounts.health.state import AccountHealth, Cooldown
from pool_server.core.enums import AccountState, FaultKind

SHORTEST_TESTED_S = 600.0  # a shorter cooldown is simply waited out
FIRST_PROBE_S = 3600.0  # after the cooldown began
NEXT_PROBE_S = 1200.0  # after the last test, by a request or by the usage endpoint
LAST_RESORT_S = 300.0  # between tests when no other account can serve
LAST_RESORT_SLOW_S = 900.0  # the same for faults that room does not cure


def cooling(health: AccountHealth, scopes: tuple[str, ...], now: float) -> tuple[str, Cooldown] | None:
    """The cooldown that keeps a request of these scopes off longest, with its scope."""
    found: tuple[str, Cooldown] | None = None
    for scope in ("", *scopes):
        cooldown = health.cooldowns.get(scope)
        if cooldown is not None and now < cooldown.until and (found is None or cooldown.until > found[1].until):
            found = (scope, cooldown)
    return found


def probe_due(health: AccountHealth, scopes: tuple[str, ...], now: float) -> float | None:
    """When a half-open request is due although others may be ready; None when the cooldown is to be waited out."""
    found = _testable(health, scopes, now)
    if found is None or not found.confirmed:
        return None
    due = max(found.since + FIRST_PROBE_S, found.probed_at + NEXT_PROBE_S)
    return due if due < found.until else None


def last_resort(health: AccountHealth, scopes: tuple[str, ...], now: float) -> bool:
    """May one request test this cooldown because nobody else can serve it?

    A window that merely reads full was never refused, so it may be tested at once.
    """
    found = _testable(health, scopes, now)
    if found is None:
        return False
    if not found.confirmed and not found.probed_at:
        return True
    slow = found.kind not in (FaultKind.QUOTA, FaultKind.RATE)
    return now >= max(found.since, found.probed_at) + (LAST_RESORT_SLOW_S if slow else LAST_RESORT_S)


def _testable(health: AccountHealth, scopes: tuple[str, ...], now: float) -> Cooldown | None:
    found = cooling(health, scopes, now)
    if found is None or health.state is AccountState.PROBING:
        return None
    cooldowns = [r for s in ("", *scopes) if (r := health.cooldowns.get(s)) is not None and now < r.until]
    if any(r.probing for r in cooldowns) or found[1].until - found[1].since <= SHORTEST_TESTED_S:
        return None
    return found[1]
