"""Faults of the first release that are put back are found by the tools, by as much of them as each run of tests has."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pool_server.storage.lmdb import engine
from tests.failpoints.old_faults import FAULTS
from tests.failpoints.points import Point
from tests.failpoints.runs import ModelError, check
from tests.failpoints.test_failpoints import ALWAYS
from tests.simulated.store import in_this_process, simulate
from tests.simulated.test_store_simulated import SEEDS


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.points])
def test_the_failpoints_find_it(name: str, tmp_path: Path) -> None:
    (point, *_) = FAULTS[name].points
    assert point in ALWAYS
    with pytest.raises(ModelError, match=FAULTS[name].found):
        check(Point.parse(point), tmp_path, name)


def test_the_simulation_of_a_store_finds_a_check_stricter_than_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(engine, "_check_length", engine._check_length)  # is put right again after the test
    FAULTS["F1"].put_back()
    disk = in_this_process(monkeypatch)
    for seed in range(SEEDS):
        try:
            simulate(tmp_path / str(seed), seed, disk(seed))
        except Exception as found:
            assert FAULTS["F1"].found in str(found)
            return
    raise AssertionError("the simulation is blind for it")
