from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Source
from pool_server.core.models import WindowObservation
from pool_server.ledger import Ledger, Prices
from pool_server.ledger.forecast import HORIZON_S, Confidence, Why, WindowHeadroom, foretell, lasts_until
from pool_server.ledger.quota_history import Series, Sighting
from tests.ledger.ledger_kit import NOW, exchange, ledger_in, record_all

HOUR = 3600.0
DAY = 24 * HOUR
WEEK = 7 * DAY
FIVE = 5 * HOUR


def sightings(
    *points: tuple[float, float], seconds: float = FIVE, resets_at: float | None = NOW + HOUR
) -> list[Sighting]:
    """(hours before now, percent) in the order of time."""
    return [Sighting(NOW - ago * HOUR, percent, resets_at, int(seconds)) for ago, percent in points]


def test_one_percent_after_23_minutes_of_a_week_is_no_forecast() -> None:
    seen = sightings((0, 1.0), seconds=WEEK, resets_at=NOW + WEEK - 23 * 60)
    found = foretell(seen, NOW)
    assert (found.why, found.confidence, found.empties_at) == (Why.TOO_SHORT, Confidence.NONE, None)


def test_nothing_seen_is_no_forecast() -> None:
    assert foretell([], NOW).why is Why.UNSEEN


def test_a_window_not_seen_for_long_is_no_forecast() -> None:
    assert foretell(sightings((3, 10.0), (2, 40.0)), NOW).why is Why.STALE


def test_a_window_that_reset_since_is_no_forecast() -> None:
    found = foretell(sightings((1, 80.0), resets_at=NOW - 60), NOW)
    assert (found.why, found.used_percent) == (Why.RESET, None)


def test_a_steady_burn_is_foretold() -> None:
    seen = sightings((2, 20.0), (1, 40.0), (0.5, 50.0), (0, 60.0), resets_at=NOW + 3 * HOUR)
    found = foretell(seen, NOW)
    assert found.burn_per_h == pytest.approx(20.0)
    assert found.empties_from is not None and found.empties_at is not None and found.empties_to is not None
    assert found.empties_at == pytest.approx(NOW + 2 * HOUR)
    assert found.empties_from < found.empties_at < found.empties_to
    assert found.confidence is Confidence.HIGH
    assert found.why is None


def test_what_resets_before_it_is_empty_never_empties() -> None:
    found = foretell(sightings((4, 0.0), (0, 10.0), resets_at=NOW + HOUR), NOW)
    assert found.empties_at is None
    assert found.unused_at_reset == pytest.approx(87.5)


def test_the_present_burn_is_not_the_average() -> None:
    """A night's rest does not hide that it burns now."""
    seen = sightings((100, 0.0), (10, 0.0), (5, 10.0), (0, 20.0), seconds=WEEK, resets_at=NOW + 60 * HOUR)
    found = foretell(seen, NOW)
    assert found.burn_per_h == pytest.approx(20 / 16.8, rel=0.01)
    assert found.unused_at_reset == pytest.approx(80 - 20 / 108 * 60, rel=0.01)


def test_only_the_present_window_counts() -> None:
    old = [Sighting(NOW - 6 * HOUR + i * 600, 50.0 + i, NOW - 3 * HOUR, int(FIVE)) for i in range(10)]
    new = sightings((1, 2.0), (0, 4.0), resets_at=NOW + 3 * HOUR)
    assert foretell(old + new, NOW) == foretell(new, NOW)


def test_coarse_percents_are_trusted_less() -> None:
    coarse = foretell(sightings((0.6, 10.0), (0, 11.0), seconds=WEEK, resets_at=None), NOW)
    assert coarse.why is Why.TOO_SHORT
    coarse = foretell(sightings((3, 10.0), (0, 11.0), seconds=WEEK, resets_at=None), NOW)
    assert coarse.confidence is Confidence.LOW
    clear = foretell(sightings((30, 10.0), (0, 60.0), seconds=WEEK, resets_at=None), NOW)
    assert clear.confidence is Confidence.HIGH


def test_a_full_window_is_empty_now() -> None:
    found = foretell(sightings((1, 90.0), (0, 103.0)), NOW)
    assert found.empties_at == NOW
    assert found.unused_at_reset == 0


@given(
    st.lists(st.tuples(st.floats(0, 200), st.floats(0, 120)), max_size=20),
    st.sampled_from([0.0, FIVE, DAY, WEEK]),
    st.none() | st.floats(NOW - WEEK, NOW + WEEK),
)
def test_any_history_gives_sane_numbers(
    points: list[tuple[float, float]], seconds: float, resets: float | None
) -> None:
    points.sort(reverse=True)
    found = foretell(sightings(*points, seconds=seconds, resets_at=resets), NOW)
    for value in (found.burn_per_h, found.empties_at, found.unused_at_reset):
        assert value is None or math.isfinite(value)
    assert found.empties_at is None or found.empties_at >= NOW
    assert found.burn_per_h is None or found.burn_per_h >= 0
    assert found.unused_at_reset is None or 0 <= found.unused_at_reset <= 100
    assert (found.confidence is Confidence.NONE) == (found.why is not None)


def test_accounts_together_last_as_long_as_their_room() -> None:
    rooms = [WindowHeadroom(50, None, 0, 10), WindowHeadroom(50, None, 0, 10)]
    assert lasts_until(rooms, NOW) == pytest.approx(NOW + 5 * HOUR)


def test_a_reset_in_time_carries_on() -> None:
    rooms = [WindowHeadroom(10, NOW + HOUR, int(FIVE), 10), WindowHeadroom(10, NOW + 30 * HOUR, int(FIVE), 0)]
    assert lasts_until(rooms, NOW) is None
    rooms = [WindowHeadroom(10, NOW + HOUR, int(FIVE), 30)]
    assert lasts_until(rooms, NOW) == pytest.approx(NOW + HOUR / 3)


def test_nothing_burning_never_ends() -> None:
    assert lasts_until([WindowHeadroom(1, NOW + HOUR, int(FIVE), 0)], NOW) is None
    assert lasts_until([], NOW) is None


some_room = st.builds(
    WindowHeadroom,
    st.floats(0, 100),
    st.none() | st.floats(NOW + 1, NOW + WEEK),
    st.sampled_from([0, 18000]),
    st.floats(0, 500),
    st.floats(0.1, 1e6),
)


@given(st.lists(some_room, max_size=6))
def test_the_end_is_ahead_and_within_the_horizon(rooms: list[WindowHeadroom]) -> None:
    end = lasts_until(rooms, NOW)
    assert end is None or NOW <= end <= NOW + HORIZON_S + 1


def seen(percent: float, at: float, *, window: str = "5h", seconds: int = 18000, resets: float | None = None,
         scope: str = "") -> WindowObservation:  # fmt: skip
    return WindowObservation(window, seconds, percent, resets, Source.HEADERS, at, scope)


def observe(book: Ledger, account: str, *observations: WindowObservation) -> None:
    async def go() -> None:
        for one in observations:
            book.observe(account, one)
        await book.store.flush()

    asyncio.run(go())


def test_unchanged_sightings_are_kept_once_in_a_while(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        observe(book, "claude:a", *(seen(10.0, NOW + i, resets=NOW + FIVE + i % 3) for i in range(60)))
        observe(book, "claude:a", seen(11.0, NOW + 61), seen(11.0, NOW + 2000), seen(math.nan, NOW + 2001))
        kept = book.runway.sightings(Series("claude:a", "", "5h"), NOW - 1, NOW + DAY)
        assert [s.at for s in kept] == [NOW, NOW + 61, NOW + 2000]


def test_two_workers_keep_one_sighting(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        other = Ledger(book.store, book.settings)
        observe(book, "claude:a", seen(10.0, NOW))
        observe(other, "claude:a", seen(10.0, NOW + 1))
        assert len(book.runway.sightings(Series("claude:a", "", "5h"), 0, NOW + DAY)) == 1


def test_an_accounts_forecast_knows_what_a_percent_is_worth(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        record_all(book, [exchange(f"r{i}", at=NOW - 3000 + i, input=900, output=100) for i in range(10)])
        observe(
            book, "claude:work",
            seen(10.0, NOW - 3600, resets=NOW + 2 * HOUR), seen(30.0, NOW - 60, resets=NOW + 2 * HOUR),
            seen(5.0, NOW - 60, window="7d", seconds=int(WEEK), resets=NOW + 3 * DAY),
            seen(50.0, NOW - 60, window="7d", seconds=int(WEEK), resets=NOW + 3 * DAY, scope="opus"),
        )  # fmt: skip
        windows = {(row["window"], row["scope"]): row for row in book.runway.forecast("claude:work", NOW)}
        assert windows["5h", ""]["tokens_per_percent"] == pytest.approx(10_000 / 20)
        assert windows["5h", ""]["burn_per_h"] > 0
        assert windows["7d", "opus"]["tokens_per_percent"] is None
        runway = book.runway.all(NOW)
        assert [row["window"] for row in runway["resets"]] == ["5h", "7d", "7d"]
        provider = runway["providers"]["claude"]
        assert {row["window"] for row in provider["windows"]} == {"5h", "7d"}
        assert book.runway.all(NOW, ["codex:x"])["accounts"] == {}


def test_value_for_money(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        record_all(book, [exchange("r1", at=NOW - DAY, model="claude-sonnet-4-5", input=0, output=1_000_000)])
        (known, unknown) = book.runway.value({"claude:work": "pro", "openai:x": ""}, NOW)
        assert known.subscription_usd == 20.0 and known.api_cost_usd == pytest.approx(15.0)
        assert known.ratio == pytest.approx(0.75)
        assert (unknown.subscription_usd, unknown.ratio) == (None, None)
        assert Prices(None, {"claude:work": 7.0}).subscription("claude:work", "pro") == 7.0
