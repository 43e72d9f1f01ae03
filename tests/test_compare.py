"""How the benchmark that compares checkouts judges: by the rounds, and not at all where they differ too much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.compare import WIDE, Ratio, ratio, verdict


def test_a_ratio_is_of_rounds_not_of_means() -> None:
    slow = [100.0, 300.0, 100.0, 300.0]  # the machine was three times busier in every other round
    assert ratio([value * 1.1 for value in slow], slow).value == pytest.approx(1.1)
    assert ratio([value * 1.1 for value in slow], slow).spread == pytest.approx(0.0)
    assert ratio([5.0], [4.0]) == Ratio(1.25, 0.0)


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (Ratio(1.02, 0.01), 0),
        (Ratio(1.03, WIDE), 0),
        (Ratio(1.04, 0.05), 1),
        (Ratio(1.02, WIDE + 0.01), 3),
        (Ratio(1.50, 0.50), 3),
    ],
)
def test_a_wide_spread_is_not_judged(found: Ratio, status: int) -> None:
    assert verdict(found, 1.03) == status


@given(st.lists(st.tuples(st.floats(1, 1e4), st.floats(1, 1e4)), min_size=2, max_size=20))
def test_a_ratio_lies_within_its_rounds(rounds: list[tuple[float, float]]) -> None:
    of, to = [a for a, _ in rounds], [b for _, b in rounds]
    found = ratio(of, to)
    each = [a / b for a, b in rounds]
    assert min(each) * (1 - 1e-9) <= found.value <= max(each) * (1 + 1e-9)
    assert found.spread >= 0
