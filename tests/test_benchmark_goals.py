"""The history of the benchmark and what is said of a run: met, missed, slid, or not to be judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.all import GOALS, HISTORY, SLIDE, Judged, Line, judge, keep, newest, status, told
from benchmarks.compare import MEASURES, WIDE, Ratio


@pytest.mark.parametrize(
    ("found", "before", "said"),
    [
        (Ratio(GOALS["16"], WIDE), None, 0),
        (Ratio(GOALS["16"] + 0.01, 0.0), None, 1),
        (Ratio(GOALS["16"] / 2, 0.0), GOALS["16"] / 2 / SLIDE, 0),
        (Ratio(GOALS["16"] / 2, 0.0), GOALS["16"] / 3, 1),  # met, but dearer by half than it was
        (Ratio(GOALS["16"] * 9, WIDE + 0.01), GOALS["16"], 3),
    ],
)
def test_a_run_is_judged_by_its_goal_and_by_the_last_one(found: Ratio, before: float | None, said: int) -> None:
    assert judge("16", found, before).status == said


@pytest.mark.parametrize(("found", "said"), [((0, 0), 0), ((0, 3), 3), ((3, 1), 1), ((1, 0), 1)])
def test_what_is_missed_counts_even_where_something_could_not_be_judged(found: tuple[int, int], said: int) -> None:
    assert status({str(at): Judged("", one) for at, one in enumerate(found)}) == said


def line(python: str, ratio: float) -> Line:
    each = dict.fromkeys(GOALS, ratio)
    return Line("abc", "2026-01-01T00:00Z", python, (0.5, 1.5), each, each, each)


def test_a_run_is_compared_with_the_newest_of_the_same_interpreter(tmp_path: Path) -> None:
    history = tmp_path / "results" / "history.jsonl"
    assert newest(history, "3.11") is None
    for python, value in (("3.11", 1.0), ("3.11", 2.0), ("3.13", 3.0)):
        keep(history, line(python, value))
    assert newest(history, "3.11") == line("3.11", 2.0)
    assert newest(history, "3.12") is None
    assert told(newest(history, "3.12"), "16") is None
    assert history.read_bytes().count(b"\n") == 3


def test_a_ratio_that_could_not_be_judged_is_not_compared_with() -> None:
    kept = line("3.11", 2.0)
    kept.spread = {"16": WIDE, "1": WIDE + 0.01}
    assert [told(kept, one) for one in ("16", "1", "event")] == [2.0, None, None]


def test_the_kept_history_can_be_read_and_every_goal_is_measured() -> None:
    assert set(GOALS) <= set(MEASURES)
    newest(HISTORY, "any")
