"""A glance at a provider's room costs no more for ten thousand accounts than for sixty-four."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pool_server.accounts.describe import MOST_LOOKED_AT, sample


@given(st.integers(0, 5 * MOST_LOOKED_AT))
def test_a_sample_is_all_of_a_small_pool_and_spread_over_a_large_one(count: int) -> None:
    accounts: list[Any] = list(range(count))
    seen: list[Any] = sample(accounts)
    assert len(seen) <= MOST_LOOKED_AT
    if count <= MOST_LOOKED_AT:
        assert seen == accounts
    else:
        assert seen[0] == 0
        gaps = {later - earlier for earlier, later in itertools.pairwise(seen)}
        assert len(gaps) == 1
