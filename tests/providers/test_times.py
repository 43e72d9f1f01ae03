"""Moments and waits in every form providers write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.providers import times
from tests.providers.make import NOW


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5.0),
        ("5.5", 5.5),
        ("-1", -1.0),
        (True, None),
        (None, None),
        ("nan", None),
        ("inf", None),
        (float("inf"), None),
        (10**400, None),
        ("x", None),
        ("9" * 65, None),
        ([], None),
    ],
)
def test_number(value: object, expected: float | None) -> None:
    assert times.number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1790814600, 1790814600.0),
        ("1790814600.5", 1790814600.5),
        (1790814600123, 1790814600.123),
        ("2026-09-21T14:13:20Z", NOW),
        ("2026-09-21T14:13:20.250000000Z", NOW + 0.25),
        ("2026-09-21T16:13:20+02:00", NOW),
        ("2026-09-21T14:13:20", NOW),
        ("Mon, 21 Sep 2026 14:13:20 GMT", NOW),
        (0, None),
        (-5, None),
        (1e15, None),
        (True, None),
        ("tomorrow at noon", None),
        ("0001-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59Z", None),
        ("9999-12-31T23:59:59-23:59", None),
        ("0001-01-01T00:00:00+23:59", None),
        (None, None),
    ],
)
def test_moment(value: object, expected: float | None) -> None:
    assert times.moment(value) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("34.07s", 34.07),
        ("34.074824224s", 34.074824224),
        ("1h2m3s", 3723.0),
        ("300ms", 0.3),
        ("6m0s", 360.0),
        ("1d2h", 93600.0),
        ("2 minutes and 5 seconds", 125.0),
        ("12", None),
        ("1h x", None),
        ("", None),
        (None, None),
        (34, None),
        ("1" * 70 + "s", None),
    ],
)
def test_duration(text: object, seconds: float | None) -> None:
    assert times.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Rate limit reached. Please try again in 1.2s.", 1.2),
        ("Please try again in 300ms", 0.3),
        ("try again in 6 seconds", 6.0),
        ("Please retry in 12.3s.", 12.3),
        ("Your quota will reset after 1h2m3s.", 3723.0),
        ("You have exhausted your capacity. Your quota will reset after 12s", 12.0),
        ("Try again in 5 minutes and 3 seconds, please", 303.0),
        ("try again in a moment", None),
        ("try again in 3 days", 259200.0),
        ("try again in 5 solar years", None),
        ("", None),
    ],
)
def test_wait_in_text(text: str, seconds: float | None) -> None:
    assert times.wait_in_text(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "30"}, 30.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "Mon, 21 Sep 2026 14:14:20 GMT"}, 60.0),
        ({"retry-after": "Mon, 21 Sep 2026 14:12:20 GMT"}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert times.retry_after(headers, now=NOW) == seconds


@pytest.mark.parametrize(
    ("now", "midnight"),
    [
        ("2026-07-01T12:00:00", "2026-07-02T07:00:00"),  # summer: UTC-7
        ("2026-07-01T06:59:59", "2026-07-01T07:00:00"),
        ("2026-07-01T07:00:00", "2026-07-02T07:00:00"),
        ("2026-01-15T12:00:00", "2026-01-16T08:00:00"),  # winter: UTC-8
        ("2026-03-08T07:30:00", "2026-03-08T08:00:00"),  # the day it becomes summer begins in winter
        ("2026-03-08T12:00:00", "2026-03-09T07:00:00"),
        ("2026-11-01T06:30:00", "2026-11-01T07:00:00"),  # the day it becomes winter begins in summer
        ("2026-11-01T12:00:00", "2026-11-02T08:00:00"),
        ("2026-12-31T23:00:00", "2027-01-01T08:00:00"),
    ],
)
def test_pacific_midnight(now: str, midnight: str) -> None:
    assert times.pacific_midnight(utc(now)) == utc(midnight)


@given(st.floats(min_value=1.7e9, max_value=4e9))
def test_the_next_pacific_midnight_is_within_25_hours(now: float) -> None:
    ahead = times.pacific_midnight(now) - now
    assert 0 < ahead <= 25 * 3600


@pytest.mark.parametrize(
    ("now", "midnight"),
    [("2026-09-21T14:13:20", "2026-09-21T16:00:00"), ("2026-09-21T16:00:00", "2026-09-22T16:00:00")],
)
def test_shanghai_midnight(now: str, midnight: str) -> None:
    assert times.shanghai_midnight(utc(now)) == utc(midnight)


def test_until_and_rfc3339() -> None:
    assert times.until(NOW + 10, now=NOW, cap=60) == NOW + 10
    assert times.until(NOW + 100, now=NOW, cap=60) == NOW + 60
    assert times.until(NOW - 1, now=NOW, cap=60) is None
    assert times.until(None, now=NOW, cap=60) is None
    assert times.rfc3339(NOW + 0.9) == "2026-09-21T14:13:20Z"


@given(st.one_of(st.text(max_size=80), st.floats(), st.integers(), st.none(), st.booleans(), st.binary()))
def test_nothing_makes_the_readers_raise(value: object) -> None:
    times.number(value)
    times.moment(value)
    times.duration(value)
    if isinstance(value, str):
        times.wait_in_text(value)
        times.retry_after({"retry-after": value, "retry-after-ms": value}, now=NOW)
