"""The sorted collection behind the lanes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.accounts.selection.ranked import Ranked


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=200))
def test_it_is_a_sorted_set(steps: list[tuple[bool, int]]) -> None:
    ranked, model = Ranked(), set[tuple[int]]()
    for add, number in steps:
        key = (number,)
        if add and key not in model:
            ranked.add(key)
            model.add(key)
        elif not add and key in model:
            ranked.remove(key)
            model.remove(key)
    assert list(ranked) == sorted(model)
    assert len(ranked) == len(model)
    assert ranked.first(7) == sorted(model)[:7]


def test_many_keys_stay_in_order_through_splits_and_emptied_blocks() -> None:
    rng = random.Random(3)
    keys = [(rng.random(), n) for n in range(5000)]
    ranked = Ranked()
    for key in keys:
        ranked.add(key)
    rest = sorted(keys)[1700:4100]
    for key in set(keys) - set(rest):
        ranked.remove(key)
    assert list(ranked) == rest
    assert ranked.first(600) == rest[:600]


def test_a_key_that_is_not_there_cannot_be_removed() -> None:
    ranked = Ranked()
    for missing in ((5,), (1,)):
        with pytest.raises(KeyError):
            ranked.remove(missing)
        ranked.add((3,))
