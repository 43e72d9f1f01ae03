"""The simulation: its arithmetic, and what the standard week promises."""

from __future__ import annotations

import msgspec
import pytest

from pool_server.core.enums import FaultKind, Strategy
from pool_server.core.models import OF_ACCOUNT, FamilyScope
from pool_server.simulation.bound import reachable
from pool_server.simulation.demand import generate
from pool_server.simulation.outcome import Goals, WeekOutcome
from pool_server.simulation.scenario import MAX_5, OPUS, PRO, START, WEEK, Scenario, Seat, Talk
from pool_server.simulation.specification import shipped
from pool_server.simulation.strategies import strategies
from pool_server.simulation.week import goals_of, run, simulate
from pool_server.simulation.world import World

HOUR = 3600.0
PROMISED = {
    "strategy", "requests", "refused", "refused_with_room", "moved_share", "usable_room_used", "room_lost",
    "requests_per_s",
}  # fmt: skip


def standard_week(seed: int) -> Scenario:
    return generate(shipped()["standard-week"], seed)


def through(scenario: Scenario, strategy: str = "balanced", goals: Goals | None = None) -> WeekOutcome:
    return run(scenario, strategies()[strategy](1), goals or Goals(1.0))


def small(seed: int, share: int = 14) -> Scenario:
    """The standard week with a part of its talks and of its room: quick, and as hard."""
    whole = standard_week(seed)
    seats = tuple(
        msgspec.structs.replace(
            seat,
            plan=msgspec.structs.replace(
                seat.plan,
                five_hours=seat.plan.five_hours / share,
                week=seat.plan.week / share,
                opus=seat.plan.opus and seat.plan.opus / share,
            ),
        )
        for seat in whole.seats
    )
    return msgspec.structs.replace(whole, seats=seats, talks=whole.talks[::share])


def test_the_same_seed_is_the_same_week() -> None:
    assert standard_week(3) == standard_week(3) != standard_week(4)


def test_the_standard_week_is_what_it_says() -> None:
    week = standard_week(1)
    assert len(week.seats) == 10 and len({seat.plan.name for seat in week.seats}) == 3
    assert len({talk.user for talk in week.talks}) == 30
    assert sum(seat.lost_after is not None for seat in week.seats) == 1
    assert all(0 < seat.resets_after < WEEK for seat in week.seats)


def test_balanced_keeps_its_promises_and_beats_taking_turns() -> None:
    week = small(1)
    goals = goals_of(week, bound=True)
    rows = {s: through(week, s, goals) for s in (Strategy.BALANCED, Strategy.ROUND_ROBIN)}
    best = rows[Strategy.BALANCED]
    assert best.requests > 5_000
    assert best.refused_with_room == 0
    assert best.moved_share <= 0.01
    assert best.usable_room_used >= 0.95
    assert best.served_of_bound is not None and best.served_of_bound >= 0.99
    assert best.room_lost < 0.8 * rows[Strategy.ROUND_ROBIN].room_lost


def one_account(plan: object = PRO, **seat: object) -> Scenario:
    talks = tuple(Talk(START + n * 60.0, "u", "claude-sonnet-4-5", ((0.0, 10.0, 1.0),)) for n in range(300))
    return Scenario("one", (Seat("claude:one", plan, 6 * 86400.0, 0.0, **seat),), talks)  # type: ignore[arg-type]


def test_a_pool_without_room_refuses_and_says_rightly() -> None:
    result = through(one_account())
    assert result.requests == 300 and 190 <= result.refused <= 201
    assert result.refused_with_room == 0


def test_a_lost_account_serves_nobody() -> None:
    result = through(one_account(MAX_5, lost_after=3600.0))
    assert 235 <= result.refused <= 241 and result.refused_with_room == 0


def test_the_world_counts_windows_as_providers_do() -> None:
    week = Scenario("w", (Seat("claude:m", MAX_5, 2 * HOUR, 0.5),), ())
    world = World(week)
    world.serve("claude:m", "", 495.0, START)
    assert world.left("claude:m", "", START) == pytest.approx(1.0)
    world.serve("claude:m", "", 10.0, START + 1)
    fault = world.ask("claude:m", "", START + 2)
    assert fault is not None and (fault.kind, fault.scope) == (FaultKind.QUOTA, OF_ACCOUNT)
    assert fault.retry_at == START + 5 * HOUR
    assert world.ask("claude:m", "", START + 5 * HOUR) is None
    assert [round(c.used) for c in world.closed] == [2755]
    assert world.left("claude:m", OPUS, START + 5 * HOUR) == 100.0


def test_the_large_model_has_a_window_of_its_own() -> None:
    world = World(Scenario("w", (Seat("claude:m", MAX_5, 2 * 86400.0, 0.0), Seat("claude:p", PRO, 86400.0, 0.0)), ()))
    for hour in range(0, 30, 5):
        world.serve("claude:m", OPUS, 450.0, START + hour * HOUR)
    fault = world.ask("claude:m", OPUS, START + 30 * HOUR)
    assert fault is not None and fault.scope == FamilyScope(OPUS)
    assert world.ask("claude:m", "", START + 30 * HOUR) is None
    assert world.left("claude:p", OPUS, START) == 0.0


def test_the_reference_uses_what_ends_first() -> None:
    seats = (Seat("claude:late", PRO, 6 * 86400.0, 0.0), Seat("claude:soon", PRO, 86400.0, 0.0))
    talks = tuple(Talk(START + n * 60.0, "u", "claude-sonnet-4-5", ((0.0, 1.0, 1.0),)) for n in range(50))
    assert reachable(Scenario("two", seats, talks)) == pytest.approx(50.0)
    elsewhere = (seats[0], msgspec.structs.replace(seats[1], lost_after=0.0))
    assert reachable(Scenario("two", elsewhere, talks, length=5 * 86400.0)) == 0.0


def test_rows_carry_what_the_interface_promises() -> None:
    names = [strategy.value for strategy in Strategy]
    rows = simulate(one_account(), names)
    assert [row["strategy"] for row in rows] == names
    assert all(set(row) >= PROMISED for row in rows)


def test_an_unknown_strategy_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        simulate(one_account(), ["luck"])
