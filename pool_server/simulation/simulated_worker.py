"""One worker of the simulated pool: what it has seen of the accounts, and its choice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from pool_server.accounts.health import learning
from pool_server.accounts.health.demand_clock import HOUR
from pool_server.accounts.health.probing import cooling
from pool_server.accounts.health.share_use import ShareUse, renewed
from pool_server.accounts.health.state import probe_begun
from pool_server.accounts.health.transitions import StateActor
from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.hosts import Hosts
from pool_server.accounts.selection.index import Family, Fit, SelectionIndex
from pool_server.accounts.selection.select import Affinity, Decision, SelectionRequest, temporary
from pool_server.accounts.selection.warmth import Warmth
from pool_server.core.enums import FaultKind, Operation
from pool_server.core.models import Fault, WindowObservation
from pool_server.simulation.strategies.base import SimulatedStrategy

LEARN_S = 6 * HOUR  # between looks at what was used


class Worker:
    """`clock` gives the pool's time. What another worker did is told by the same methods, later. `before`: (time,
    amount) of what was used before the first request."""

    def __init__(
        self,
        accounts: Iterable[Account],
        strategy: SimulatedStrategy,
        clock: Callable[[], float],
        fit: Fit,
        family: Family,
        before: Iterable[tuple[float, float]] = (),
    ) -> None:
        self._strategy = strategy
        self._clock = clock
        self.index = SelectionIndex(strategy=strategy.order, fit=fit, family=family)
        self.hosts = Hosts(self.index, clock)
        for account in accounts:
            self.index.put(account)
        self._used: defaultdict[float, float] = defaultdict(float)
        for at, amount in before:
            self._used[at // HOUR * HOUR] += amount
        self._learn()

    def used(self, amount: float) -> None:
        """What an answer used, here or in another worker: the books are those of all."""
        now = self._clock()
        if amount > 0:
            self._used[now // HOUR * HOUR] += amount
        if not 0 <= now - self._learnt_at < LEARN_S:
            self._learn()

    def _learn(self) -> None:
        self._learnt_at = self._clock()
        self.index.clock.learn(self._used.items(), self._learnt_at)

    def _scopes(self, entry: Account, model: str) -> tuple[str, ...]:
        return self.index.scopes(entry.provider, model, Operation.MESSAGES)

    def choose(self, request: SelectionRequest, pinned: str | None, warmth: Warmth | None = None) -> Decision:
        now = self._clock()
        self.index.advance(now)
        return self._strategy.choose(request, self.index, now, Affinity(pinned, None, warmth))

    def chosen(self, account: str, model: str, *, probe: bool) -> None:
        """A request to the account begins here."""
        entry = self.index.accounts[account]
        entry.local += 1
        self._count_share(entry)
        self.hosts.begun(entry)
        self.index.chosen(entry)
        if probe:
            self._probe(entry, model)

    def _probe(self, entry: Account, model: str) -> None:
        found = cooling(entry.health, self._scopes(entry, model), self._clock())
        if found is not None:
            probe_begun(entry.health, found[0], self._clock())

    def ended(self, account: str) -> None:
        """That request is over, served or not."""
        entry = self.index.accounts.get(account)
        if entry is not None:
            entry.local -= 1
            self._count_share(entry)
            self.index.touch(entry)

    def elsewhere(self, account: str, change: int) -> None:
        """Another worker's request begins (1) or is over (-1)."""
        entry = self.index.accounts.get(account)
        if entry is not None:
            entry.elsewhere += change
            self._count_share(entry)
            self.index.touch(entry)

    def _count_share(self, entry: Account) -> None:
        """What is under way counts for the part that the account's owner gives."""
        if entry.keeps:
            use = entry.health.share_use = entry.health.share_use or ShareUse()
            renewed(use, "here", entry.local, self._clock())
            renewed(use, "elsewhere", entry.elsewhere, self._clock())

    def absorb(self, account: str, seen: list[WindowObservation]) -> None:
        """Figures of an answer, as old as they are."""
        entry = self.index.accounts.get(account)
        if entry is not None:
            learning.absorb(entry.health, seen, self._clock())
            self.index.touch(entry)

    def succeed(self, account: str, model: str) -> None:
        entry = self.index.accounts.get(account)
        if entry is not None:
            learning.succeed(entry.health, self._scopes(entry, model), None, self._clock())
            self.hosts.reached(account)
            self.index.touch(entry)

    def fail(self, account: str, fault: Fault, model: str, *, probe: bool = False) -> None:
        entry = self.index.accounts.get(account)
        if entry is None:
            return
        now = self._clock()
        if probe:
            self._probe(entry, model)
        if probe and fault.kind is FaultKind.QUOTA:
            for cooldown in entry.health.cooldowns.values():
                cooldown.probed_at = max(cooldown.probed_at, cooldown.probing)
        if fault.kind is FaultKind.AUTH:
            learning.login_lost(entry.health, now, "", "", StateActor.REFRESH)
        else:
            learning.fail(entry.health, fault, now, model=model, operation=Operation.MESSAGES, token="", current="")
        if fault.kind is FaultKind.NETWORK:
            self.hosts.unreached(account)
        else:
            self.hosts.reached(account)
        self.index.touch(entry)

    def remove(self, account: str) -> None:
        self.index.remove(account)

    def returns(self, account: str, model: str) -> bool:
        """Does a pin to this account outlast what keeps it off now?"""
        entry = self.index.accounts.get(account)
        return entry is not None and temporary(entry.health, self._scopes(entry, model), self._clock())
