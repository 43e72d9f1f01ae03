"""`kill -9` under load: what was acknowledged is there, and everything that is there is counted once.

The suite kills a few times; POOL_KILLS=100 in the environment kills a hundred times.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pool_server.core.settings import Settings
from pool_server.ledger import TABLES, Ledger
from pool_server.storage import Store
from tests.ledger.ledger_kit import NOW, Clock

KILLS = int(os.environ.get("POOL_KILLS", "4"))
VICTIMS = 2  # at once, as workers of one server
LEAST_LINES = 20


def start(folder: Path, name: str, first: int, write_ahead: bool) -> subprocess.Popen[bytes]:
    here = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(here / "ledger_victim.py"), str(folder), name, str(first), str(int(write_ahead))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=env)


def kill_under_load(victim: subprocess.Popen[bytes], rng: random.Random) -> list[int]:
    """Wait for the load to be on, kill at a moment nobody chose, and return what was acknowledged."""
    assert victim.stdout is not None
    lines = [victim.stdout.readline() for _ in range(LEAST_LINES)]
    time.sleep(rng.uniform(0, 0.03))
    victim.send_signal(signal.SIGKILL)
    rest = victim.stdout.read().splitlines(keepends=True)
    victim.stdout.close()
    victim.wait()
    return [int(line) for line in lines + rest if line.endswith(b"\n")]


def check(folder: Path, acknowledged: set[str]) -> int:
    """Everything acknowledged is there, and sums equal what is there. Returns how many records are there."""
    store = Store.open(folder, tables=TABLES, durable=True)
    ledger = Ledger(store, Settings(), clock=Clock())
    records = list(ledger.log.scan(NOW - 86_400, NOW + 60))
    ids = [rec.id for rec in records]
    assert len(ids) == len(set(ids))
    assert acknowledged <= set(ids)
    total = ledger.queries.total(NOW - 86_400, NOW + 60)
    assert total["requests"] == len(records)
    assert total["output"] == sum(rec.usage.output for rec in records)
    by_user = {row.key: row.requests for row in ledger.queries.top("user", NOW - 86_400, NOW + 60)}
    assert sum(by_user.values()) == len(records)
    assert len(every_index_entry(store)) == 3 * len(records)
    store.close()
    return len(records)


def every_index_entry(store: Store) -> list[bytes]:
    with store.read() as reader:
        return [key for key, _ in reader.scan("record_index")]


@pytest.mark.parametrize("write_ahead", [True, False])
def test_nothing_acknowledged_is_lost_and_nothing_counted_twice(write_ahead: bool, tmp_path: Path) -> None:
    rng = random.Random(7)
    acknowledged: set[str] = set()
    folder = tmp_path / "ledger"
    for kill in range(0, KILLS, VICTIMS):
        victims = {f"v{kill}-{i}": start(folder, f"v{kill}-{i}", 0, write_ahead) for i in range(VICTIMS)}
        for name, victim in victims.items():
            acknowledged |= {f"{name}-{number}" for number in kill_under_load(victim, rng)}
        assert check(folder, acknowledged) >= len(acknowledged)
        assert list(folder.glob("journal-*")) == [], "what the dead had written ahead was taken in"
    assert len(acknowledged) >= KILLS * LEAST_LINES
