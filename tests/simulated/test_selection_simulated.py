"""Histories of choice and health, one by each seed. `POOL_SEEDS=10000 pytest tests/simulated` runs so many,
`POOL_SEED=N` one."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tests.simulated.selection import simulate

ONE = os.environ.get("POOL_SEED", "")
SEEDS = int(os.environ.get("POOL_SEEDS", "300"))


def test_whatever_happens_somebody_serves_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # accounts are suspended again and again
    for seed in [int(ONE)] if ONE else range(SEEDS):
        try:
            simulate(tmp_path / str(seed), seed)
        except AssertionError as broken:
            raise AssertionError(f"POOL_SEED={seed}: {broken}") from broken
