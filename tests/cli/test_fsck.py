"""`pool-server fsck`, as an operator uses it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pool_server.app.server import open_durable
from pool_server.cli import fsck
from pool_server.core.settings import Settings
from pool_server.ledger import Ledger
from pool_server.ledger.records.layout import RECORD_IDS, ROLLUPS
from pool_server.storage import join_folder, lock_folder
from tests.cli.conftest import Shell
from tests.ledger.ledger_kit import exchange


def fill(folder: Path) -> None:
    store = open_durable(folder / "data")
    now = time.time()
    Ledger(store, Settings()).load([exchange(f"r{n}", at=now - n * 86_400) for n in range(4)])
    store.close()


def test_a_sound_store_is_told_and_a_damaged_one_is_put_right(sh: Shell, folder: Path) -> None:
    assert "there is no store" in sh("fsck").refused(1)
    fill(folder)
    done = sh("fsck")
    assert (
        done.code == 0
        and "4 usage records read, " in done.out
        and " keys in ledger" in done.out
        and "agrees with itself" in done.out
    )
    store = open_durable(folder / "data")
    with store.read() as reader:
        wrong = max(key for key, _ in reader.scan(ROLLUPS, b"du", b"dv"))
    store.write(lambda txn: (txn.delete(RECORD_IDS, b"r1"), txn.delete(ROLLUPS, wrong)))
    store.close()
    done = sh("fsck")
    assert done.code == 1 and "--repair" in done.out and "1: entries of records are missing or wrong" in done.out
    told = sh("fsck", "--repair", "--json")
    assert told.code == 0 and told.json["repaired"] and len(told.json["found"]["wrong_days"]) == 1
    assert "agrees with itself" in sh("fsck").out


def test_a_name_changed_in_the_file_is_seen(sh: Shell, folder: Path) -> None:
    """Each page is whole, and all sums agree with each other."""
    fill(folder)
    assert sh("fsck").code == 0
    data = folder / "data" / "ledger" / "data.mdb"
    raw = data.read_bytes()
    assert raw.count(b"claude-sonnet-4-5") > 10
    data.write_bytes(raw.replace(b"claude-sonnet-4-5", b"claude-sonnet-4-6"))
    done = sh("fsck")
    assert done.code == 1 and "days whose sums are not those of their records" in done.out
    assert len(sh("fsck", "--repair", "--json").json["left"]["wrong_days_without_records"]) == 0
    assert b"claude-sonnet-4-5" in data.read_bytes()


def test_a_store_in_use_is_left_alone(sh: Shell, folder: Path) -> None:
    fill(folder)
    with lock_folder(folder / "data"):
        assert "stop it first" in sh("fsck").refused(1)


def test_workers_of_a_killed_server_are_waited_for(sh: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder)
    monkeypatch.setattr(fsck, "_WORKERS_S", 0.0)
    with join_folder(folder / "data"):
        assert "still uses" in sh("fsck").refused(1)
