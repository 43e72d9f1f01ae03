"""What a simulated strategy is: a type with an id and an order. A module beside this one adds another."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.candidates import Need, judge
from pool_server.accounts.selection.index import SelectionIndex
from pool_server.accounts.selection.score import Candidate
from pool_server.accounts.selection.select import Affinity, Decision, SelectionRequest, select
from pool_server.core.enums import ChoiceReason, Refusal, Strategy

_ORDERED = frozenset({ChoiceReason.BEST, ChoiceReason.OWN, ChoiceReason.BORROWED})


class SimulatedStrategy(ABC):
    """One way to choose. Subclasses with an `id` are registered when their module is read."""

    id: ClassVar[str] = ""
    registry: ClassVar[dict[str, type[SimulatedStrategy]]] = {}

    def __init_subclass__(cls) -> None:
        if cls.id:
            SimulatedStrategy.registry[cls.id] = cls

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"{self.id} {seed}")

    @property
    def order(self) -> Strategy:
        """The pool's own order underneath; it decides who is eligible, and the pins."""
        return Strategy.BALANCED

    @abstractmethod
    def choose(self, request: SelectionRequest, index: SelectionIndex, now: float, affinity: Affinity) -> Decision:
        """Choose an account for `request`; `index` was brought up to `now`."""


class Baseline(SimulatedStrategy):
    """A new conversation goes to the eligible account of the least key. Pins, cooldowns, probes and failover are the
    pool's, so that only the order differs."""

    @abstractmethod
    def key(self, account: Account, candidate: Candidate, now: float) -> Any:
        """The place of an eligible account; the least is chosen."""

    def choose(self, request: SelectionRequest, index: SelectionIndex, now: float, affinity: Affinity) -> Decision:
        decision = select(request, index, now, affinity, explain=False)
        if decision.reason not in _ORDERED:
            return decision
        need = Need(request.operation, request.dialect, request.model)
        found = []
        for account in index.accounts.values():
            if account.id in request.exclude or index.unfit(index.cohort_of(account.id), need):
                continue
            scopes = index.scopes(account.provider, request.model, request.operation)
            candidate = judge(account, scopes, now, None, index.clock).candidate
            mine = candidate.refusal is Refusal.RESERVED and account.owner == request.user
            if candidate.score is not None and (candidate.refusal is None or mine):
                found.append((self.key(account, candidate, now), account.id))
        if found:
            decision.account = min(found)[1]
        return decision
