"""The pool's own strategies, by the real choice."""

from __future__ import annotations

from pool_server.accounts.selection.index import SelectionIndex
from pool_server.accounts.selection.select import Affinity, Decision, SelectionRequest, select
from pool_server.core.enums import Strategy
from pool_server.simulation.strategies.base import SimulatedStrategy


class OwnStrategy(SimulatedStrategy):
    """`select` as the server calls it."""

    @property
    def order(self) -> Strategy:
        return Strategy(self.id)

    def choose(self, request: SelectionRequest, index: SelectionIndex, now: float, affinity: Affinity) -> Decision:
        return select(request, index, now, affinity, explain=False)


class Balanced(OwnStrategy):
    """What would be lost at a reset first, what must last later (the default)."""

    id = Strategy.BALANCED.value


class FillFirst(OwnStrategy):
    """The fullest account until it is used up."""

    id = Strategy.FILL_FIRST.value


class RoundRobin(OwnStrategy):
    """One after another, by weight."""

    id = Strategy.ROUND_ROBIN.value


class ByPriority(OwnStrategy):
    """By the operator's numbers, then one after another."""

    id = Strategy.PRIORITY.value


class ResetFirst(OwnStrategy):
    """The account whose week resets first."""

    id = Strategy.RESET_FIRST.value
