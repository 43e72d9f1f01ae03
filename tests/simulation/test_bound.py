"""The bound: no strategy passes it, and where the best is plain it is that."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pool_server.simulation.bound import Bound
from pool_server.simulation.demand import generate
from pool_server.simulation.outcome import Goals
from pool_server.simulation.scenario import DAY, HOUR, PRO, START, Event, EventKind, Plan, Scenario, Seat, Talk
from pool_server.simulation.specification import shipped
from pool_server.simulation.strategies import strategies
from pool_server.simulation.week import Week, run
from pool_server.simulation.world import Truth
from tests.simulation.test_scenarios import thinned

SONNET, OPUS = "claude-sonnet-4-5", "claude-opus-4-1"


def talks(
    count: int, every_s: float = 60.0, *, model: str = SONNET, user: str = "u", units: float = 1.0
) -> tuple[Talk, ...]:
    return tuple(Talk(START + n * every_s, user, model, ((0.0, 5.0, units),)) for n in range(count))


def bound(*seats: Seat, asked: tuple[Talk, ...], events: tuple[Event, ...] = ()) -> float:
    return Bound(Scenario("b", seats, asked, events=events)).units()


ONE = Seat("claude:one", PRO, 6 * DAY, 0.0)


def test_little_demand_is_served_whole() -> None:
    assert bound(ONE, asked=talks(50)) == pytest.approx(50)


def test_a_short_window_holds_twice_its_size_in_its_length_and_no_more() -> None:
    assert bound(ONE, asked=talks(290)) == pytest.approx(200)


def test_a_week_holds_what_is_left_of_it() -> None:
    half = msgspec.structs.replace(ONE, used_before=0.5)
    assert bound(half, asked=talks(5000)) == pytest.approx(450)


def test_a_lost_account_and_a_model_it_does_not_serve_give_nothing() -> None:
    lost = msgspec.structs.replace(ONE, lost_after=HOUR)
    assert bound(lost, asked=talks(180)) == pytest.approx(60)
    assert bound(ONE, asked=talks(10, model=OPUS)) == 0.0


def test_others_get_nothing_of_a_reserve() -> None:
    own = msgspec.structs.replace(ONE, owner="me", reserve=0.5, plan=Plan("p", 1000, 900))
    assert bound(own, asked=talks(600)) == pytest.approx(450)
    assert bound(own, asked=talks(600, user="me")) == pytest.approx(600)


def test_a_withdrawn_hung_or_shrunk_account_gives_less() -> None:
    gone = (Event(2 * HOUR, EventKind.WITHDRAW, "claude:one"),)
    assert bound(ONE, asked=talks(180), events=gone) == pytest.approx(120)
    hung = (Event(HOUR, EventKind.HANG, "a", 1.0),)
    assert bound(ONE, asked=talks(180), events=hung) == pytest.approx(120)
    less = (Event(0.0, EventKind.SHRINK, "", 0.1),)
    assert bound(ONE, asked=talks(5000), events=less) <= 90 + 1e-6


@settings(max_examples=15)
@example("family-limits", 854, "balanced")  # windows so small that whole requests pass their size by a hundredth
@given(
    st.sampled_from(sorted(shipped())), st.integers(0, 10_000), st.sampled_from(["balanced", "random", "reset_first"])
)
def test_no_strategy_passes_the_bound(name: str, seed: int, strategy: str) -> None:
    scenario = thinned(shipped()[name], seed, share=300)
    over = 0.0  # units that windows took beyond their size: a request is whole, and begins before its cost is known
    spend = Truth.spend

    def told(window: Truth, units: float, now: float) -> None:
        nonlocal over
        spend(window, units, now)
        over += min(units, max(0.0, window.used - window.capacity))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Truth, "spend", told)
        week = Week(scenario, strategies()[strategy](seed))
        week.run()
    assert week.tally.units - over <= Bound(scenario).units() + 1e-6


def test_the_outcome_says_the_share() -> None:
    scenario = Scenario("b", (ONE,), talks(290))
    row = run(scenario, strategies()["balanced"](1), Goals(0.0, 200.0))
    assert row.served_of_bound == pytest.approx(0.5, abs=0.02)


def test_a_month_can_be_bounded() -> None:
    month = msgspec.structs.replace(shipped()["mixed-plans"], days=28, load=0.05)
    scenario = generate(month, 1)
    assert scenario.end == START + 28 * DAY
    assert Bound(scenario, step=6 * HOUR).units() > 0
