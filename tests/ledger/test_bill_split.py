"""The bill of shared accounts: to the cent, by the headroom each took."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.ledger.bill_split import OUTSIDE, UsedHere, by_headroom, by_use, totals
from pool_server.ledger.quota_history import Sighting

T = 1_780_000_000 - 1_780_000_000 % 3600
WEEK = 7 * 86_400


def seen(*pairs: tuple[float, float]) -> list[Sighting]:
    return [Sighting(T + hours * 3600, used, None, WEEK) for hours, used in pairs]


def used(hour: int, user: str, worth: float, *, tokens: int = 0, unpriced: int = 0) -> UsedHere:
    return UsedHere(T + hour * 3600, 3600, user, tokens or int(worth * 1000), worth, unpriced)


def test_headroom_counts_and_not_tokens() -> None:
    """Bob's hour cost the window three times what Ada's did, though both were worth the same at list prices."""
    bill = by_headroom("claude:a", 100.0, seen((0, 0), (1, 10), (2, 40)), [used(0, "ada", 5.0), used(1, "bob", 5.0)])
    assert bill.people == {"ada": 25.0, "bob": 75.0} and bill.measured


def test_in_one_rise_the_worth_of_exchanges_decides() -> None:
    bill = by_headroom("claude:a", 90.0, seen((0, 0), (1, 30)), [used(0, "ada", 1.0), used(0, "bob", 2.0)])
    assert bill.people == {"ada": 30.0, "bob": 60.0}


def test_a_rise_while_nobody_was_here_is_use_outside_the_pool() -> None:
    bill = by_headroom("claude:a", 10.0, seen((0, 0), (1, 50), (9, 50), (10, 100)), [used(0, "ada", 1.0)])
    assert bill.people == {"ada": 5.0, OUTSIDE: 5.0}


def test_a_reset_takes_nothing_back() -> None:
    bill = by_headroom("claude:a", 10.0, seen((0, 80), (1, 90), (2, 10)), [used(0, "ada", 1.0), used(1, "bob", 1.0)])
    assert bill.people == {"ada": 5.0, "bob": 5.0}


def test_without_a_window_it_goes_by_worth_and_without_a_price_by_tokens() -> None:
    rows = [used(0, "ada", 1.0, tokens=100), used(0, "bob", 3.0, tokens=100)]
    assert by_headroom("x:y", 8.0, [], rows).people == {"ada": 2.0, "bob": 6.0}
    rows.append(used(1, "bob", 0.0, tokens=200, unpriced=1))
    bill = by_headroom("x:y", 8.0, [], rows)
    assert bill.people == {"ada": 2.0, "bob": 6.0} and not bill.measured


def test_what_is_billed_by_use_tells_of_requests_without_a_price() -> None:
    bill = by_use("x:y", [used(0, "ada", 2.0), used(1, "ada", 0.0, unpriced=3), used(1, "bob", 0.0, unpriced=2)])
    assert bill.people == {"ada": 2.0, "bob": 0.0} and bill.unpriced == {"ada": 3, "bob": 2}
    assert totals([bill]) == {"ada": 2.0, "bob": 0.0}


def test_nobody_used_it() -> None:
    assert by_headroom("x:y", 8.0, [], []).people == {OUTSIDE: 8.0}
    assert by_use("x:y", []).people == {}


PEOPLE = st.sampled_from(["ada", "bob", "cyd", "dan"])
USES = st.lists(st.builds(used, st.integers(0, 40), PEOPLE, st.floats(0, 50), unpriced=st.integers(0, 1)), max_size=30)
SEEN = st.lists(st.tuples(st.floats(0, 40), st.floats(0, 100)), max_size=20).map(lambda found: seen(*sorted(found)))


@given(st.integers(0, 1_000_000), SEEN, USES)
def test_the_parts_are_the_price_to_the_cent(cents: int, windows: list[Sighting], uses: list[UsedHere]) -> None:
    bill = by_headroom("a:b", cents / 100, windows, uses)
    assert sum(round(part * 100) for part in bill.people.values()) == cents
    assert all(part >= 0 for part in bill.people.values())
    assert set(bill.people) <= {"ada", "bob", "cyd", "dan", OUTSIDE}
    assert sum(totals([bill, bill]).values()) == pytest.approx(2 * cents / 100)
