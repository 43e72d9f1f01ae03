from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.users.limits.periods import Calendar, bounds, zone


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_periods_in_utc() -> None:
    marks = bounds(at("2026-05-28T20:26:40+00:00"), UTC)
    assert marks.day == at("2026-05-28T00:00+00:00")
    assert marks.day_end == at("2026-05-29T00:00+00:00")
    assert marks.week == at("2026-05-25T00:00+00:00")
    assert marks.week_end == at("2026-06-01T00:00+00:00")
    assert marks.month == at("2026-05-01T00:00+00:00")
    assert marks.month_end == at("2026-06-01T00:00+00:00")


def test_days_begin_at_local_midnight_also_when_the_clock_changes() -> None:
    berlin = zone("Europe/Berlin")
    marks = bounds(at("2026-03-29T12:00+02:00"), berlin)
    assert marks.day == at("2026-03-29T00:00+01:00")
    assert marks.day_end - marks.day == 23 * 3600
    assert bounds(at("2026-12-31T23:30+00:00"), berlin).month == at("2027-01-01T00:00+01:00")


def test_an_unknown_zone_is_named() -> None:
    with pytest.raises(ValueError, match=r"ledger\.timezone.*Mars"):
        zone("Mars/Olympus")


@given(st.lists(st.integers(1_600_000_000, 2_000_000_000), min_size=1, max_size=20))
def test_the_calendar_agrees_with_the_arithmetic_in_any_order(moments: list[int]) -> None:
    tz = zone("America/New_York")
    calendar = Calendar(tz)
    for now in moments:
        assert calendar.at(now) == bounds(now, tz)
        assert calendar.at(now).day <= now < calendar.at(now).day_end
