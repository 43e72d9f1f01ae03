"""A few of the failpoints; `python -m tests.failpoints` runs them all, or one by the name that a failure prints."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.failpoints.points import PLACES, Point
from tests.failpoints.runs import check, points

SEED = int(os.environ.get("POOL_SEED", "0"))
ALWAYS = (
    "fdatasync:load:kill:3:1",  # acknowledged, and the store has not followed yet
    "rename:load:kill:1:1",  # a rotated token in its temporary file
    "before-token:load:kill:1:1",  # the lease of the dead holds nobody up
    "before-commit-ledger:load:ENOSPC:1:1000",
    "create:load:EMFILE:1:1000",
    "take-lease:load:kill:1:1",
    "give-lease:load:ENOSPC:1:1000",
)
DRAWN = 2


def drawn() -> list[str]:
    """Those that each run has, and some by the seed."""
    return [*ALWAYS, *map(str, random.Random(SEED).sample(points(), DRAWN))]


@pytest.mark.parametrize("name", drawn())
def test_the_model_holds(name: str, tmp_path: Path) -> None:
    print(check(Point.parse(name), tmp_path))


def test_a_name_says_the_whole_point() -> None:
    assert all(Point.parse(str(point)) == point for point in points())
    assert {point.place for point in points()} == set(PLACES)
