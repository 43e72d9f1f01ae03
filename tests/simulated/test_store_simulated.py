"""Histories of a store, one by each seed. `POOL_SEEDS=10000 pytest tests/simulated` runs so many, `POOL_SEED=N` one."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tests.simulated.store import in_this_process, simulate

ONE = os.environ.get("POOL_SEED", "")
SEEDS = int(os.environ.get("POOL_SEEDS", "300"))


def test_whatever_happens_what_was_acknowledged_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    disk = in_this_process(monkeypatch)
    for seed in [int(ONE)] if ONE else range(SEEDS):
        try:
            simulate(tmp_path / str(seed), seed, disk(seed))
        except Exception as broken:
            raise AssertionError(f"POOL_SEED={seed}: {broken!r}") from broken
