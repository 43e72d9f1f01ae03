"""Time as demand passes: quiet hours are short, and what is left before them is worth less."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.accounts.health import windows as win
from pool_server.accounts.health.demand_clock import DAY, HOUR, LEARNS_FROM_S, WEEK, DemandClock
from pool_server.accounts.selection.score import rate
from pool_server.core.enums import Source
from pool_server.core.models import WindowObservation
from tests.accounts.kit import NOW, entry, week, window

MONDAY = datetime(2026, 11, 2, tzinfo=UTC).timestamp()
FRIDAY_NOON = MONDAY + 4 * DAY + 12 * HOUR
SATURDAY, NEXT_MONDAY = MONDAY + 5 * DAY, MONDAY + WEEK
moments = st.floats(MONDAY - 2 * WEEK, MONDAY + 2 * WEEK)
amounts = st.floats(0, 1e9) | st.floats()


def office(weeks: int = 4) -> list[tuple[float, float]]:
    """Four weeks of people who work from nine to five on weekdays."""
    days = (MONDAY - back * WEEK + day * DAY for back in range(1, weeks + 1) for day in range(5))
    return [(day + hour * HOUR, 10.0) for day in days for hour in range(9, 17)]


def learnt(asked: list[tuple[float, float]], now: float = MONDAY) -> DemandClock:
    clock = DemandClock()
    clock.learn(asked, now)
    return clock


@given(st.lists(st.tuples(moments, amounts), max_size=40), moments, st.floats(0, WEEK), st.floats(0, WEEK))
def test_it_goes_on_and_every_week_is_a_week(
    asked: list[tuple[float, float]], frm: float, first: float, then: float
) -> None:
    clock = learnt(asked)
    assert clock.between(frm, frm + WEEK) == pytest.approx(WEEK, abs=1e-3)
    a, b = clock.between(frm, frm + first), clock.between(frm + first, frm + first + then)
    assert a >= 0 and b >= 0
    assert clock.between(frm, frm + first + then) == pytest.approx(a + b, abs=1e-3)
    if first >= HOUR:
        assert a >= first / 168  # even hours that nobody has used are expected to see somebody


@pytest.mark.parametrize("asked", [[], [(MONDAY - HOUR, 5.0)], [(MONDAY + HOUR, 5.0)], [(MONDAY - 2 * DAY, 0.0)]])
def test_nothing_is_learnt_from_less_than_a_day(asked: list[tuple[float, float]]) -> None:
    assert learnt(asked).between(MONDAY, MONDAY + DAY) == DAY


def test_demand_without_a_rhythm_leaves_time_even() -> None:
    clock = learnt([(MONDAY - n * HOUR, 3.0) for n in range(1, 28 * 24 + 1)])
    for frm, to in ((MONDAY, SATURDAY), (FRIDAY_NOON, NEXT_MONDAY), (MONDAY + 1, MONDAY + 2)):
        assert clock.between(frm, to) == pytest.approx(to - frm)


def test_a_weekend_and_a_night_are_short() -> None:
    clock = learnt(office())
    night, day = clock.between(MONDAY, MONDAY + 8 * HOUR), clock.between(MONDAY + 9 * HOUR, MONDAY + 17 * HOUR)
    assert night * 5 < day
    assert clock.between(SATURDAY, NEXT_MONDAY) < DAY


def test_the_hour_of_the_day_is_learnt_before_that_of_the_week() -> None:
    two_days = [(at, amount) for at, amount in office(1) if at < MONDAY - 5 * DAY]
    clock = learnt(two_days, MONDAY - 5 * DAY)
    thursday = MONDAY + 3 * DAY
    morning = clock.between(thursday + 9 * HOUR, thursday + 12 * HOUR)
    assert morning > 1.5 * clock.between(thursday, thursday + 3 * HOUR)


def test_old_weeks_are_forgotten() -> None:
    old = [(at - LEARNS_FROM_S, amount) for at, amount in office()]
    assert learnt(old).between(SATURDAY, NEXT_MONDAY) == 2 * DAY


def test_what_is_left_before_a_weekend_goes_first() -> None:
    """On Friday noon: 35 % of a week that ends on Monday morning, or 60 % of one that ends on Tuesday evening."""
    ends, lasts = NEXT_MONDAY, NEXT_MONDAY + 42 * HOUR
    rooms = {ends: 35.0, lasts: 60.0}

    def first(clock: DemandClock) -> float:
        windows = {
            at: WindowObservation("7d", int(WEEK), 100 - left, at, Source.HEADERS, FRIDAY_NOON)
            for at, left in rooms.items()
        }
        return max(rooms, key=lambda at: win.surplus(windows[at], rooms[at], FRIDAY_NOON, clock))

    assert first(DemandClock()) == lasts
    assert first(learnt(office())) == ends


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (window(0.0, None), 1.0),
        (window(80.0, -1.0), 1.0),  # its reset has passed
        (window(0.0, HOUR), None),  # it runs
        (window(30.0, None), None),
        (window(0.0, None, name="1m", seconds=60), None),
        (week(0.0, None), None),
    ],
)
def test_a_short_window_that_has_not_begun_is_begun(seen: WindowObservation, expected: float | None) -> None:
    terms = rate(entry("a", week(50.0), seen), (), NOW, usual_latency=None).terms
    assert terms.get("idle_window") == expected
