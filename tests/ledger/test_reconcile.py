"""A day of the ledger beside the vendor's own books: figures, and what explains the rest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.models import Usage
from pool_server.ledger.reconcile import reconcile

OURS: dict[str, Any] = {
    "input": 10_000, "cache_read": 90_000, "cache_write": 0, "output": 5_000, "requests": 20, "partial": 0,
    "estimated": 0,
}  # fmt: skip


def theirs(**changes: int) -> Usage:
    counts = {"input": 10_000, "cache_read": 90_000, "output": 5_000} | changes
    return Usage(counts["input"], counts["cache_read"], counts.get("cache_write", 0), output=counts["output"])


def test_what_agrees_needs_no_reason() -> None:
    for told in (theirs(), theirs(output=5_040), theirs(input=9_950)):
        found = reconcile(OURS, told, 20)
        assert found.agrees and found.reasons == ()


@pytest.mark.parametrize(
    ("ours", "told", "requests", "words"),
    [
        ({"partial": 3}, theirs(output=7_000), 20, ["3 exchanges begun and cut"]),
        ({"partial": 1}, theirs(output=7_000), 20, ["1 exchange begun and cut"]),
        ({}, theirs(input=30_000), 25, ["5 requests more than the pool"]),
        ({}, theirs(input=30_000), None, ["beside the pool"]),
        ({"estimated": 2}, theirs(output=9_000), 20, ["2 exchanges told no usage"]),
        ({}, theirs(output=1_000), 20, ["The vendor counts less"]),
        ({}, theirs(input=100_000, cache_read=0), 20, ["Prompts add up as a whole"]),
        (
            {"partial": 2, "estimated": 1},
            theirs(output=9_000),
            40,
            ["begun and cut", "told no usage", "20 requests more"],
        ),
    ],
)
def test_a_difference_is_explained(ours: dict[str, int], told: Usage, requests: int | None, words: list[str]) -> None:
    found = reconcile(OURS | ours, told, requests)
    assert not found.agrees
    for word, reason in zip(words, found.reasons, strict=False):
        assert word in reason, found.reasons


COUNTS = st.integers(0, 10**12)


@given(st.tuples(COUNTS, COUNTS, COUNTS, COUNTS), st.tuples(COUNTS, COUNTS, COUNTS, COUNTS), st.none() | COUNTS)
def test_any_figures_are_compared(ours: Any, told: Any, requests: int | None) -> None:
    kinds = ("input", "cache_read", "cache_write", "output")
    usage = Usage(told[0], told[1], told[2], output=told[3])
    found = reconcile(OURS | dict(zip(kinds, ours, strict=True)), usage, requests)
    assert [line.difference for line in found.lines] == [t - o for o, t in zip(ours, told, strict=True)]
    assert found.agrees is all(line.agrees for line in found.lines)
    assert not (found.agrees and found.reasons)
