"""Quota windows: what they read at any moment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pool_server.accounts.health import windows as win
from pool_server.accounts.health.demand_clock import EVEN
from pool_server.core.enums import Source
from tests.accounts.kit import DAY, HOUR, NOW, week, window

percents = st.floats(0, 150)
spans = st.floats(0.01, 8 * DAY)


@given(percents, spans, spans)
def test_past_its_reset_a_window_reads_nothing_used(used: float, left: float, later: float) -> None:
    w = window(used, left)
    assert win.used(w, NOW + left + later) == 0.0
    assert win.used(w, NOW + left * 0.999) == used


@given(percents, st.floats(0, 20 * DAY))
def test_without_a_reset_the_length_decides(used: float, later: float) -> None:
    w = week(used, None)
    assert win.used(w, NOW + later) == (0.0 if later >= 7 * DAY else used)


@given(percents, spans, percents, st.floats(-DAY, 30 * DAY))
def test_merging_never_goes_back_in_time(used: float, left: float, newer: float, later: float) -> None:
    old, new = week(used, left), week(newer, None, at=NOW + later)
    merged = win.merge(old, new)
    assert merged.observed_at == max(NOW, NOW + later)
    if later >= 0:
        assert merged.used_percent == newer
        assert merged.resets_at is not None
        assert 0 < merged.resets_at - (NOW + later) <= max(left, 7 * DAY) + 1e-3


def test_a_null_reset_keeps_the_known_cadence() -> None:
    known = week(40.0, 2 * DAY)
    assert win.merge(known, week(3.0, None, at=NOW + HOUR)).resets_at == NOW + 2 * DAY
    assert win.merge(known, week(3.0, None, at=NOW + 3 * DAY)).resets_at == NOW + 9 * DAY


def test_a_short_window_begins_with_its_first_use() -> None:
    assert win.merge(window(40.0, HOUR), window(0.0, None, at=NOW + 2 * HOUR)).resets_at is None


def test_an_early_reset_is_believed() -> None:
    merged = win.merge(week(99.0, 2 * DAY), week(1.0, 7 * DAY, at=NOW + 60))
    assert (merged.used_percent, merged.resets_at) == (1.0, NOW + 60 + 7 * DAY)


@given(st.lists(st.tuples(percents, spans), max_size=4))
def test_room_is_that_of_the_tightest_window(seen: list[tuple[float, float]]) -> None:
    ws = [window(used, left) for used, left in seen]
    room = win.room(ws, NOW)
    assert room is None if not ws else room == max(0.0, 100 - max(used for used, _ in seen))


def test_unknown_is_not_empty() -> None:
    assert win.room([], NOW) is None
    assert win.room([window(100.0)], NOW) == 0.0


@given(percents, st.floats(1, 7 * DAY))
def test_surplus_is_one_on_an_even_pace(used: float, left: float) -> None:
    w = week(used, left)
    assert 0 <= win.surplus(w, max(0.0, 100 - used), NOW, EVEN) <= 100
    even = week(100 * (1 - left / (7 * DAY)), left)
    assert abs(win.surplus(even, 100 * left / (7 * DAY), NOW, EVEN) - 1) < 0.01 or left < 0.011 * 7 * DAY


def test_a_family_binds_its_own_requests_only() -> None:
    windows = {"7d": week(10.0), "7d/opus": week(100.0, scope="opus"), "credits": window(100.0, name="credits")}
    assert win.room(win.binding(windows, ("sonnet",)), NOW) == 90.0
    assert win.room(win.binding(windows, ("opus",)), NOW) == 0.0


def test_a_poll_alone_stops_nothing() -> None:
    assert win.full_until(window(100.0, source=Source.USAGE_ENDPOINT), NOW) is None
    assert win.full_until(window(100.0), NOW) == NOW + HOUR
    assert win.full_until(window(99.9), NOW) is None
    assert win.full_until(window(102.0, None), NOW) == NOW + HOUR


def test_eighteen_days_are_cut_to_what_the_windows_allow() -> None:
    lie = NOW + 18 * DAY
    known = [window(40.0, 2 * HOUR), week(60.0, 4 * DAY)]
    assert win.believable(lie, known, NOW, longest=7 * DAY) == NOW + 2 * HOUR
    nearly = [window(40.0, 2 * HOUR), week(97.0, 4 * DAY)]
    assert win.believable(lie, nearly, NOW, longest=7 * DAY) == NOW + 4 * DAY
    assert win.believable(lie, [], NOW, longest=7 * DAY) == NOW + 7 * DAY


def test_a_hint_that_agrees_with_a_reset_is_believed() -> None:
    known = [window(40.0, 2 * HOUR), week(60.0, 4 * DAY)]
    assert win.believable(NOW + 4 * DAY + 20, known, NOW, longest=7 * DAY) == NOW + 4 * DAY + 20


def test_a_reset_that_is_past_says_nothing_of_a_hint() -> None:
    past = [window(95.0, -2 * HOUR), week(95.0, -60.0)]
    assert win.believable(NOW + HOUR, past, NOW, longest=7 * DAY) == NOW + HOUR
    assert win.believable(NOW + 3 * HOUR, [*past, window(95.0, HOUR)], NOW, longest=7 * DAY) == NOW + HOUR


@given(st.floats(0.1, 40 * DAY), st.lists(st.tuples(percents, spans), max_size=4))
def test_a_hint_is_never_made_longer(after: float, seen: list[tuple[float, float]]) -> None:
    ws = [week(used, left) for used, left in seen]
    assert win.believable(NOW + after, ws, NOW, longest=7 * DAY) <= NOW + min(after, 7 * DAY) + 1e-3


def test_windows_that_are_reported_no_more_are_forgotten() -> None:
    windows = {"5h": window(10.0), "7d": week(10.0)}
    win.prune(windows, NOW + 3 * DAY)
    assert list(windows) == ["7d"]
