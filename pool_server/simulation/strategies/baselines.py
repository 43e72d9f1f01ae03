"""What other pools do, as far as an order of accounts says it; each reads only what the pool itself has seen."""

from __future__ import annotations

from typing import Any

from pool_server.accounts.health import windows as win
from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.score import Candidate
from pool_server.simulation.scenario import DAY, HOUR, PLANS, WEEK
from pool_server.simulation.strategies.base import Baseline

LOW = 20.0  # percent left at which protect_low spares an account


def _left(account: Account, now: float, *, shorter_than: float = WEEK + 1, at_least: float = 0.0) -> float:
    """Percent left in the tightest seen window of these lengths; 100 when none was seen."""
    seen = (w for w in account.health.windows.values() if at_least <= w.seconds < shorter_than and not w.scope)
    return max(0.0, min((win.FULL - win.used(w, now) for w in seen), default=win.FULL))


def _reset(account: Account, now: float) -> float:
    """Seconds to the reset of the longest seen window; its whole length when unknown."""
    seen = [w for w in account.health.windows.values() if w.seconds >= DAY and not w.scope]
    return min((win.time_left(w, now) or float(w.seconds) for w in seen), default=WEEK)


class Random(Baseline):
    """Drawn anew for each conversation."""

    id = "random"

    def key(self, account: Account, candidate: Candidate, now: float) -> Any:
        return self.random.random()


class LeastUsed(Baseline):
    """The fewest requests under way, then the most left in the week."""

    id = "least_used"

    def key(self, account: Account, candidate: Candidate, now: float) -> Any:
        return account.in_flight, -_left(account, now)


class CapacityWeighted(Baseline):
    """Drawn by what is left of the week in absolute size (codex-lb): an exponential race of these rates."""

    id = "capacity_weighted"

    def key(self, account: Account, candidate: Candidate, now: float) -> Any:
        plan = PLANS.get(account.id.partition(":")[2].rpartition("-")[0])
        size = plan.week if plan is not None else 1000.0
        return self.random.expovariate(1.0) / max(1e-9, size * _left(account, now, at_least=DAY))


class ProtectLow(Baseline):
    """Accounts that are low last, of the others the one whose week resets first (subrouter)."""

    id = "protect_low"

    def key(self, account: Account, candidate: Candidate, now: float) -> Any:
        return _left(account, now) < LOW, _reset(account, now)


class HeadroomScore(Baseline):
    """The headroom of both windows, less what is under way, more when a reset is near (codex-pool)."""

    id = "headroom_score"

    def key(self, account: Account, candidate: Candidate, now: float) -> Any:
        short, long = _left(account, now, shorter_than=DAY), _left(account, now, at_least=DAY)
        near = 20.0 if _reset(account, now) < 12 * HOUR else 0.0
        return -(0.4 * short + 0.6 * long + near - 2.0 * account.in_flight)
