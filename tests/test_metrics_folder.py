"""Where the counters of several workers lie: not on a disk that may fill up under their maps."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pool_server.app import shared_metrics as module
from pool_server.app.shared_metrics import shared_metrics


@pytest.mark.parametrize(("free", "inside"), [(1 << 30, True), (1 << 20, False)])
def test_they_lie_in_memory_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, inside: bool
) -> None:
    monkeypatch.setattr(module, "_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free))
    with shared_metrics(2):
        folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
        assert folder.is_dir() and (folder.parent == tmp_path) is inside
    assert not folder.exists() and "PROMETHEUS_MULTIPROC_DIR" not in os.environ


def test_elsewhere_where_there_is_no_such_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEMORY", tmp_path / "none")
    with shared_metrics(2):
        assert Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).is_dir()
    with shared_metrics(1):
        assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
