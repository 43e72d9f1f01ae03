"""Histories of limits, one by each seed. `POOL_SEEDS=10000 pytest tests/simulated` runs so many, `POOL_SEED=N` one."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from pool_server.core import processes
from pool_server.storage import Store
from pool_server.users import STATE_TABLES
from tests.simulated.limits import alive_among, simulate

ONE = os.environ.get("POOL_SEED", "")
SEEDS = int(os.environ.get("POOL_SEEDS", "300"))


def test_whatever_happens_limits_hold_and_everything_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    living: set[str] = set()
    monkeypatch.setattr(processes, "alive", alive_among(living))
    caplog.set_level(logging.CRITICAL)  # the disk is full again and again
    store = Store.open(tmp_path / "state", tables=STATE_TABLES, durable=False)
    for seed in [int(ONE)] if ONE else range(SEEDS):
        try:
            simulate(store, seed, living)
        except AssertionError as broken:
            raise AssertionError(f"POOL_SEED={seed}: {broken}") from broken
    store.close()
