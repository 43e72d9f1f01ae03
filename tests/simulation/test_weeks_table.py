"""Weeks × strategies as a table, and the one that stands in docs/choosing.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from pool_server.simulation.demand import generate
from pool_server.simulation.specification import shipped
from pool_server.simulation.week import simulate
from pool_server.simulation.weeks_table import coarser, markdown

PAGE = Path(__file__).parents[2] / "docs" / "choosing.md"
SAMPLE = "family-limits"


def row(week: str, strategy: str, share: float | None) -> dict[str, object]:
    return {"scenario": week, "strategy": strategy, "served_of_bound": share}


def test_a_table_has_a_row_a_week_and_the_best_in_bold() -> None:
    rows = [row("a", "x", 0.99), row("a", "y", 0.9895), row("b", "x", 0.5), row("b", "y", 0.7), row("b", "y", 0.9)]
    assert markdown(rows).splitlines() == [
        "| week | x | y |", "|---|---|---|", "| a | **99.0** | **99.0** |", "| b | 50.0 | **80.0** |",
    ]  # fmt: skip
    assert "| b | – | **10.0** |" in markdown([row("a", "x", 1.0), row("b", "y", 0.1), row("b", "x", None)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["standard-week", "one-whale"])
def test_a_coarser_week_asks_as_much_in_fewer_requests(name: str) -> None:
    fine, coarse = (generate(coarser(shipped()[name], factor), 1) for factor in (1.0, 8.0))
    requests, units = (
        [sum(of(turn) for talk in week.talks for turn in talk.turns) for week in (fine, coarse)]
        for of in (lambda turn: 1, lambda turn: turn[2])
    )
    assert requests[1] < requests[0] / 6
    assert units[1] == pytest.approx(units[0], rel=0.15)


@pytest.mark.slow
def test_the_table_in_the_docs_is_what_is_printed() -> None:
    lines = PAGE.read_text(encoding="utf-8").partition("| week | balanced")[2].partition("<!--")[0].splitlines()
    names = ["balanced", *(name.strip() for name in lines[0].strip("| ").split("|"))]
    told = {line.split("|")[1].strip(): line for line in lines[2:]}
    assert set(shipped()) <= set(told), "run scripts/weeks"
    shares = [float(cell.strip(" *")) for cell in told[SAMPLE].strip("| ").split("|")[1:]]
    found = simulate(generate(coarser(shipped()[SAMPLE], 4.0), 1), ["balanced", "fill_first"], bound=True)
    for one in found:
        stands = shares[names.index(one["strategy"])]
        assert stands == pytest.approx(100 * one["served_of_bound"], abs=0.3), "run scripts/weeks"
