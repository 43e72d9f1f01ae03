"""Scheduled copies and the log that continues them."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path

import pytest

from pool_server.app.backup_schedule import BackupSchedule, change_log
from pool_server.core.settings import Backup
from pool_server.storage import StoreError
from pool_server.storage.change_log.segments import PREFIX
from pool_server.storage.lmdb.store import Store
from pool_server.storage.object_store import ObjectStoreError

KEYS = {"k1": b"1" * 32}
NOW = 1_800_000_000.0
TABLES = ("t", "u")


@pytest.mark.slow
def test_the_schedule_makes_the_copy_that_a_log_begins_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOL_STORE_KEY", "k1:" + base64.b64encode(KEYS["k1"]).decode())
    wanted = Backup(
        str(tmp_path / "copies"), mirror=str(tmp_path / "mirror"), encrypt=True, point_in_time=True, every_h=1000
    )
    store = Store.open(tmp_path / "data/ledger", tables=TABLES, durable=True)
    store.keep_log(True)
    clock = [time.time()]
    shipper = change_log(wanted, store)
    assert shipper is not None
    plan = BackupSchedule(wanted, {"ledger": store}, tmp_path / "data", changes=shipper, clock=lambda: clock[0])
    assert plan.run() is not None  # due, as there is none
    store.write(lambda txn: txn.put("t", b"a", b"1"))
    shipper.ship()
    clock[0] += 1
    made = plan.run()
    assert made is not None and (tmp_path / "mirror" / made.name).exists()
    shipper.ship()
    clock[0] += 1
    assert not shipper.wants_copy and plan.run() is None
    assert list((tmp_path / "mirror" / PREFIX).glob("*/*.zst.enc"))
    clock[0] -= 10_000  # a clock that was ahead when the only copies were made
    plan.run()
    assert list((tmp_path / "mirror" / PREFIX).glob("*/*.zst.enc"))
    asyncio.run(shipper.close())
    store.close()


def test_a_log_that_begins_anew_while_the_mirror_refuses_costs_one_copy(tmp_path: Path) -> None:
    (tmp_path / "mirror").write_text("in the way")
    wanted = Backup(str(tmp_path / "copies"), mirror=str(tmp_path / "mirror"), point_in_time=True, every_h=1000, keep=2)
    store = Store.open(tmp_path / "data/ledger", tables=TABLES, durable=True)
    store.keep_log(True)
    clock = [NOW]
    shipper = change_log(wanted, store)
    assert shipper is not None
    with pytest.raises(ObjectStoreError):
        shipper.ship()
    plan = BackupSchedule(wanted, {"ledger": store}, tmp_path / "data", changes=shipper, clock=lambda: clock[0])
    for _ in range(5):
        clock[0] += 300
        with pytest.raises(StoreError, match="mirror"):
            plan.run()
    assert len(list((tmp_path / "copies").glob("*.zst"))) == 1
    (tmp_path / "mirror").unlink()
    assert plan.run() is None
    shipper.ship()
    assert not shipper.wants_copy
    asyncio.run(shipper.close())
    store.close()
