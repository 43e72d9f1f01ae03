"""One worker of the simulated pool: what it has seen of the accounts, and its choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pool_server.accounts.credentials.files import Options
from pool_server.accounts.health import learning
from pool_server.accounts.health.probing import cooling
from pool_server.accounts.health.state import AccountHealth, probe_begun
from pool_server.accounts.health.transitions import StateActor
from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.candidates import Need
from pool_server.accounts.selection.hosts import Hosts
from pool_server.accounts.selection.index import SelectionIndex
from pool_server.accounts.selection.select import Affinity, Decision, SelectionRequest, temporary
from pool_server.accounts.selection.warmth import Warmth
from pool_server.core.enums import CredentialKind, FaultKind, Operation, Provider, Refusal
from pool_server.core.models import Fault, WindowObservation
from pool_server.providers import Credential
from pool_server.simulation.scenario import OPUS, Seat, scope_of
from pool_server.simulation.strategies.base import SimulatedStrategy


class Worker:
    """`clock` gives the pool's time. What another worker did is told by the same methods, later."""

    def __init__(
        self, seats: Iterable[Seat], strategy: SimulatedStrategy, clock: Callable[[], float],
        fits: Callable[[str, str], bool],
    ) -> None:  # fmt: skip
        self._strategy = strategy
        self._fits = fits
        self._clock = clock
        self.index = SelectionIndex(strategy=strategy.order, fit=self._fit, family=_family)
        self.hosts = Hosts(self.index, clock)
        for at, seat in enumerate(seats):
            self.index.put(_account(seat, at))

    def _fit(self, account: Account, need: Need) -> Refusal | None:
        return None if self._fits(account.id, scope_of(need.model)) else Refusal.PLAN_UNFIT

    def scopes(self, model: str) -> tuple[str, ...]:
        return self.index.scopes(Provider.CLAUDE, model, Operation.MESSAGES)

    def choose(self, request: SelectionRequest, pinned: str | None, warmth: Warmth | None = None) -> Decision:
        now = self._clock()
        self.index.advance(now)
        return self._strategy.choose(request, self.index, now, Affinity(pinned, None, warmth))

    def chosen(self, account: str, model: str, *, probe: bool) -> None:
        """A request to the account begins here."""
        entry = self.index.accounts[account]
        entry.local += 1
        self.hosts.begun(entry)
        self.index.chosen(entry)
        found = cooling(entry.health, self.scopes(model), self._clock()) if probe else None
        if found is not None:
            probe_begun(entry.health, found[0], self._clock())

    def ended(self, account: str) -> None:
        """That request is over, served or not."""
        entry = self.index.accounts.get(account)
        if entry is not None:
            entry.local -= 1
            self.index.touch(entry)

    def elsewhere(self, account: str, change: int) -> None:
        """Another worker's request begins (1) or is over (-1)."""
        entry = self.index.accounts.get(account)
        if entry is not None:
            entry.elsewhere += change
            self.index.touch(entry)

    def absorb(self, account: str, seen: list[WindowObservation]) -> None:
        """Figures of an answer, as old as they are."""
        entry = self.index.accounts.get(account)
        if entry is not None:
            learning.absorb(entry.health, seen, self._clock())
            self.index.touch(entry)

    def succeed(self, account: str, model: str) -> None:
        entry = self.index.accounts.get(account)
        if entry is not None:
            learning.succeed(entry.health, self.scopes(model), None, self._clock())
            self.hosts.reached(account)
            self.index.touch(entry)

    def fail(self, account: str, fault: Fault, model: str, *, probe: bool = False) -> None:
        entry = self.index.accounts.get(account)
        if entry is None:
            return
        now = self._clock()
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
        return entry is not None and temporary(entry.health, self.scopes(model), self._clock())


def _account(seat: Seat, at: int) -> Account:
    kind = CredentialKind.API_KEY if seat.plan.budget is not None else CredentialKind.OAUTH
    tier = "" if seat.plan.opus == 0 else "opus"
    options = Options(owner=seat.owner, reserve=seat.reserve)
    credential = Credential(Provider.CLAUDE, seat.name, kind, tier=tier)
    account = Account(credential, options, AccountHealth(jitter=at % 10 / 10))
    account.way = seat.host
    return account


def _family(provider: Provider, model: str) -> str:
    return OPUS if OPUS in model else "sonnet"
