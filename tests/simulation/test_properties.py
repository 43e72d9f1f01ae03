"""What must hold of the choice in any week: order and names of accounts decide nothing, and more is never less."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.simulation.demand import generate
from pool_server.simulation.scenario import Scenario, Seat
from pool_server.simulation.specification import shipped
from pool_server.simulation.strategies import strategies
from pool_server.simulation.week import Week
from tests.simulation.test_scenarios import thinned

NAMES = st.sampled_from(
    ["mixed-plans", "tight-weeks", "impatient-clients", "late-figures", "own-accounts", "one-whale"]
)


def played(scenario: Scenario) -> Week:
    week = Week(scenario, strategies()["balanced"](1))
    week.run()
    return week


def larger(seat: Seat, factor: float) -> Seat:
    plan = seat.plan
    grown = msgspec.structs.replace(
        plan, five_hours=plan.five_hours * factor, week=plan.week * factor, opus=plan.opus and plan.opus * factor
    )
    return msgspec.structs.replace(seat, plan=grown)


@settings(max_examples=6)
@given(NAMES, st.integers(0, 10_000), st.floats(2.0, 5.0))
def test_more_headroom_never_serves_less(name: str, seed: int, factor: float) -> None:
    scenario = thinned(shipped()[name], seed, share=150)
    more = msgspec.structs.replace(scenario, seats=tuple(larger(seat, factor) for seat in scenario.seats))
    assert played(more).tally.units >= played(scenario).tally.units - 1e-6


@settings(max_examples=6)
@given(NAMES, st.integers(0, 10_000))
def test_another_account_never_refuses_more(name: str, seed: int) -> None:
    scenario = thinned(shipped()[name], seed, share=150)
    largest = max(scenario.seats, key=lambda seat: seat.plan.week)
    extra = msgspec.structs.replace(larger(largest, 3.0), name="claude:extra-99", owner="", reserve=0.0)
    more = msgspec.structs.replace(scenario, seats=(*scenario.seats, extra))
    assert played(more).tally.refused <= played(scenario).tally.refused


@settings(max_examples=6)
@given(NAMES, st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_the_order_of_the_accounts_changes_nothing_but_ties(name: str, seed: int, rnd: object) -> None:
    scenario = thinned(shipped()[name], seed, share=150)
    seats = list(scenario.seats)
    rnd.shuffle(seats)  # type: ignore[attr-defined]
    one, other = played(scenario).tally, played(msgspec.structs.replace(scenario, seats=tuple(seats))).tally
    assert one.requests == other.requests
    assert abs(one.refused - other.refused) <= 0.02 * one.requests + 2


@pytest.mark.parametrize("name", ["mixed-plans", "own-accounts"])
def test_a_choice_changes_nothing_it_reads(name: str) -> None:
    """The same question twice has the same answer: a choice is a function of its view."""
    week = played(thinned(shipped()[name], 5, share=150))
    worker = week.workers[0]
    from pool_server.accounts.selection.select import SelectionRequest
    from pool_server.core.enums import Dialect, Operation, Provider

    for user in ("user0", "user9"):
        ask = SelectionRequest((Provider.CLAUDE,), Operation.MESSAGES, Dialect.MESSAGES, "claude-sonnet-4-5", user)
        first, second = (worker.choose(ask, None) for _ in range(2))
        assert first == second and first.account is not None


def test_nobody_starves() -> None:
    """In a week with room for all everybody is served, whoever they are."""
    scenario = thinned(msgspec.structs.replace(shipped()["one-whale"], load=0.5), 3)
    assert played(scenario).tally.refused == 0
    assert len({talk.user for talk in generate(shipped()["one-whale"], 3).talks}) == 30
