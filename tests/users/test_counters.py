from __future__ import annotations

from datetime import UTC

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Denial
from pool_server.core.settings import Limits
from pool_server.users.identity import directory
from pool_server.users.limits import counters
from pool_server.users.limits.counters import COUNTED, Hold, Use
from pool_server.users.limits.periods import bounds
from pool_server.users.limits.rebuild import counters_of

from .site import NOON

MARKS = bounds(NOON, UTC)


def use_with(**fields: object) -> Use:
    use = Use(**fields)  # type: ignore[arg-type]
    counters.advance(use, NOON, MARKS)
    return use


def test_the_names_counted_are_the_limits_and_the_denials() -> None:
    assert set(COUNTED) == set(Limits.__struct_fields__) - {"providers", "models"}
    assert {Denial(name) for name in COUNTED} < set(Denial)
    assert set(counters.used_now(Use())) == set(COUNTED) == set(counters.frees_at(Use(), Limits(), MARKS))


def test_requests_a_minute_slide() -> None:
    use, limits = use_with(), Limits(requests_per_minute=3)
    for second in (0, 10, 20):
        counters.hold(use, "w1", 1, 0.0, NOON + second)
    stop = counters.stopped(use, limits, NOON + 21, MARKS)
    assert stop == (Denial.REQUESTS_PER_MINUTE, 3, NOON + 61)
    counters.advance(use, NOON + 60.9, MARKS)
    assert counters.stopped(use, limits, NOON + 60.9, MARKS) is not None
    counters.advance(use, NOON + 61, MARKS)
    assert counters.stopped(use, limits, NOON + 61, MARKS) is None


def test_the_rolling_window_frees_when_enough_of_it_is_old() -> None:
    use, limits = use_with(), Limits(tokens_5h=100)
    for hours, tokens in ((0, 50), (1, 30), (2, 40)):
        counters.count(use, tokens, 0.0, NOON + hours * 3600)
    stop = counters.stopped(use, limits, NOON + 7200, MARKS)
    assert stop is not None and stop.denial is Denial.TOKENS_5H
    start = NOON // 300 * 300  # 120 used: when the first 50 have left, 70 remain
    assert stop.retry_at == start + 300 + 5 * 3600
    counters.advance(use, stop.retry_at, MARKS)
    assert counters.used_now(use)["tokens_5h"] == 70
    assert counters.stopped(use, limits, stop.retry_at, MARKS) is None


@pytest.mark.parametrize(
    ("limits", "denial", "retry_at"),
    [
        (Limits(tokens_day=10), Denial.TOKENS_DAY, MARKS.day_end),
        (Limits(tokens_week=10), Denial.TOKENS_WEEK, MARKS.week_end),
        (Limits(tokens_month=10), Denial.TOKENS_MONTH, MARKS.month_end),
        (Limits(cost_day=0.5), Denial.COST_DAY, MARKS.day_end),
        (Limits(cost_week=0.5), Denial.COST_WEEK, MARKS.week_end),
        (Limits(cost_month=0.5), Denial.COST_MONTH, MARKS.month_end),
    ],
)
def test_each_period_is_told_with_its_end(limits: Limits, denial: Denial, retry_at: float) -> None:
    use = use_with()
    assert counters.stopped(use, limits, NOON, MARKS) is None
    counters.count(use, 10, 0.5, NOON)
    stop = counters.stopped(use, limits, NOON, MARKS)
    assert stop is not None and (stop.denial, stop.retry_at) == (denial, retry_at)


def test_of_several_limits_the_one_that_frees_last_is_told() -> None:
    use = use_with()
    counters.count(use, 10, 0.0, NOON)
    stop = counters.stopped(use, Limits(tokens_day=10, tokens_week=10, tokens_5h=10), NOON, MARKS)
    assert stop is not None and stop.denial is Denial.TOKENS_WEEK


def test_what_is_held_stops_others_for_a_moment_only() -> None:
    use = use_with()
    counters.hold(use, "w1", 60, 0.6, NOON)
    counters.hold(use, "w2", 40, 0.4, NOON)
    for limits in (Limits(tokens_day=100), Limits(tokens_5h=100), Limits(cost_week=1.0), Limits(concurrent=2)):
        stop = counters.stopped(use, limits, NOON, MARKS)
        assert stop is not None and stop.retry_at == NOON + counters.SOON
    assert counters.unhold(use, "w1", Hold(1, 60, 0.6))
    assert counters.stopped(use, Limits(tokens_day=100, concurrent=2), NOON, MARKS) is None


@pytest.mark.parametrize("name", COUNTED)
def test_a_limit_of_nothing_never_frees(name: str) -> None:
    limits = Limits(**{name: 0})  # type: ignore[arg-type]
    stop = counters.stopped(use_with(), limits, NOON, MARKS)
    assert stop is not None and stop.denial.value == name and stop.retry_at is None


def test_new_periods_begin_at_nothing_and_a_clock_set_back_forgets_nothing() -> None:
    use = use_with()
    counters.count(use, 10, 1.0, NOON)
    before = NOON - 86400
    counters.advance(use, before, bounds(before, UTC))
    assert counters.used_now(use)["tokens_day"] == 10
    later = NOON + 86400
    counters.advance(use, later, bounds(later, UTC))
    now = counters.used_now(use)
    assert (now["tokens_day"], now["tokens_week"], now["tokens_month"]) == (0, 10, 10)
    assert (now["cost_day"], now["cost_month"]) == (0.0, 1.0)


@given(st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 1000)), max_size=60))
def test_the_rolling_window_never_forgets_early_and_forgets_within_a_bucket(steps: list[tuple[int, int]]) -> None:
    use, now, events = use_with(), NOON, []
    for wait, tokens in steps:
        now += wait
        counters.advance(use, now, bounds(now, UTC))
        counters.count(use, tokens, 0.0, now)
        events.append((now, tokens))
        exact = sum(n for at, n in events if now - at < counters.ROLLING)
        generous = sum(n for at, n in events if now - at < counters.ROLLING + counters.BUCKET)
        assert exact <= counters.used_now(use)["tokens_5h"] <= generous
    assert len(use.rolling) <= counters.ROLLING // counters.BUCKET + 1


@given(st.lists(st.floats(0, 100), max_size=80), st.integers(1, 10))
def test_no_sliding_minute_ever_holds_more_than_the_limit(gaps: list[float], most: int) -> None:
    use, now, let_in = use_with(), NOON, []
    for gap in gaps:
        now += gap
        counters.advance(use, now, bounds(now, UTC))
        stop = counters.stopped(use, Limits(requests_per_minute=most), now, bounds(now, UTC))
        if stop is None:
            counters.hold(use, "w1", 0, 0.0, now)
            let_in.append(now)
            assert sum(now - at < 60 for at in let_in) <= most
        else:
            assert stop.retry_at is not None and now < stop.retry_at <= now + 61
            later = msgspec.msgpack.decode(msgspec.msgpack.encode(use), type=Use)
            counters.advance(later, stop.retry_at, MARKS)
            assert counters.stopped(later, Limits(requests_per_minute=most), stop.retry_at, MARKS) is None


def test_models_match_patterns_without_case() -> None:
    limits = Limits(models=["claude-*", "gpt-5"])
    assert directory.model_allowed(limits, "Claude-Sonnet-4")
    assert directory.model_allowed(limits, "gpt-5")
    assert directory.model_allowed(limits, "")
    assert not directory.model_allowed(limits, "gpt-5-codex")
    assert not directory.model_allowed(Limits(models=[]), "gpt-5")
    assert directory.provider_allowed(Limits(), "codex")
    assert not directory.provider_allowed(Limits(providers=["claude"]), "codex")


def test_estimates_that_were_too_small_make_the_next_ones_larger_for_a_while() -> None:
    use = Use()
    counters.learn(use, 4000, 40_000)
    assert use.ratio == 10
    for _ in range(60):
        counters.learn(use, 4000, 1000)
    assert 1.0 <= use.ratio < 1.1


def test_what_a_dead_worker_held_goes_and_what_it_reported_stays() -> None:
    use = use_with()
    counters.hold(use, "w1", 100, 1.0, NOON)
    counters.hold(use, "w2", 50, 0.5, NOON)
    assert counters.grow(use, "w1", Hold(0, 20, 0.0, 120, 0.25))
    assert use.held == Hold(2, 170, 1.5, 120, 0.25)
    counters.abandon(use, "w1", NOON)
    counters.abandon(use, "w1", NOON)
    assert use.held == Hold(1, 50, 0.5)
    assert (use.day_tokens, use.day_cost) == (120, 0.25)
    assert not counters.grow(use, "w1", Hold(0, 1))
    assert not counters.unhold(use, "w1", Hold(1, 120, 1.0))


def test_counters_are_raised_to_what_another_source_knows() -> None:
    use, other = use_with(), use_with()
    counters.count(use, 100, 0.5, NOON - 3600)
    counters.count(other, 130, 0.25, NOON)
    counters.raise_to(use, other, NOON)
    now = counters.used_now(use)
    assert now["tokens_5h"] == now["tokens_day"] == now["tokens_week"] == now["tokens_month"] == 130
    assert now["cost_day"] == now["cost_week"] == now["cost_month"] == 0.5
    assert use.rolling[0] == ((NOON - 3600) // 300 * 300, 100)  # what was known keeps its age
    assert len(use.rolling) == 2


@pytest.mark.parametrize("name", [name for name in COUNTED if name.endswith(("_day", "_week", "_month"))])
def test_every_limit_by_the_calendar_is_counted_anew_held_and_forgotten(name: str) -> None:
    """A counter that is not made anew from the ledger would allow everything again after a restart of the machine."""
    sums = {"requests": 3, "input": 7, "cache_read": 0, "cache_write": 0, "output": 3, "cost_usd": 0.5}
    fresh = counters_of(lambda user, since, key="": sums, "ada", "boot", MARKS, NOON)
    known = counters.used_now(fresh)[name]
    assert known > 0
    behind = use_with()
    counters.raise_to(behind, fresh, NOON)
    assert counters.used_now(behind)[name] == known
    stop = counters.stopped(behind, Limits(**{name: known}), NOON, MARKS)  # type: ignore[arg-type]
    assert stop is not None and stop.denial == name
    assert counters.stopped(behind, Limits(**{name: known + 1}), NOON, MARKS) is None  # type: ignore[arg-type]
    later = NOON + 40 * 86_400
    counters.advance(behind, later, bounds(later, UTC))
    assert counters.used_now(behind)[name] == 0


steps = st.lists(st.one_of(st.floats(-5e7, 5e7), st.floats(-100, 100)), min_size=1, max_size=8)
LONGEST = {
    "requests_per_minute": 61,
    "tokens_5h": 300 + 5 * 3600,
    "tokens_day": 86_400,
    "cost_week": 7 * 86_400,
}


@given(path=steps, limit=st.sampled_from(sorted(LONGEST)))
def test_no_path_of_the_clock_makes_a_limit_wait_longer_than_its_window(path: list[float], limit: str) -> None:
    use, now = Use(), NOON
    limits = msgspec.convert({limit: 1}, Limits)
    for step in path:
        now += step
        marks = bounds(now, UTC)
        counters.advance(use, now, marks)
        counters.hold(use, "w1", 0, 0.0, now)
        counters.count(use, 10, 10.0, now)
        counters.unhold(use, "w1", Hold(1))
        stop = counters.stopped(use, limits, now, marks)
        assert stop is not None and stop.retry_at is not None
        assert 0 < stop.retry_at - now <= LONGEST[limit] + 1e-3
        after = stop.retry_at + 0.01
        counters.advance(use, after, bounds(after, UTC))
        assert counters.stopped(use, limits, after, bounds(after, UTC)) is None, "and it frees when it was said to"
        now = after


def test_a_clock_set_back_frees_nothing() -> None:
    use, limits = use_with(), Limits(requests_per_minute=2, tokens_5h=100, tokens_day=100)
    later = NOON + 400 * 86_400
    counters.advance(use, later, bounds(later, UTC))
    for _ in range(2):
        counters.hold(use, "w1", 0, 0.0, later)
        counters.unhold(use, "w1", Hold(1))
    counters.count(use, 100, 0.0, later)
    counters.advance(use, NOON, MARKS)
    used = counters.used_now(use)
    assert (used["requests_per_minute"], used["tokens_5h"], used["tokens_day"]) == (2, 100, 100)
    assert counters.stopped(use, limits, NOON, MARKS) is not None
