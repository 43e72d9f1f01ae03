"""Reads all of an environment in a process of its own: the engine may die of damage instead of saying so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lmdb

from pool_server.store.engine import DATA_FILE
from pool_server.store.errors import StoreDamaged

TIMEOUT_S = 600.0
_SCRIPT = f"import sys, pathlib; from {__name__} import read_all; print(read_all(pathlib.Path(sys.argv[1])))"


def verify(folder: Path) -> int:
    """The number of keys in the environment, all of them read. Raises StoreDamaged."""
    command = [sys.executable, "-c", _SCRIPT, str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise StoreDamaged(f"{folder / DATA_FILE} could not be read within {TIMEOUT_S:.0f} s") from None
    if done.returncode or not done.stdout.strip().isdigit():
        why = (done.stderr.strip().splitlines() or [f"reading it ended with {done.returncode}"])[-1]
        raise StoreDamaged(f"{folder / DATA_FILE} is damaged: {why}")
    return int(done.stdout)


def read_all(folder: Path) -> int:
    """Count the keys of every table by reading them all; raises what the engine raises."""
    with lmdb.open(str(folder), readonly=True, lock=False, max_dbs=64) as env:
        needed = (int(env.info()["last_pgno"]) + 1) * int(env.stat()["psize"])
        if (folder / DATA_FILE).stat().st_size < needed:
            raise ValueError("the file is cut off")
        with env.begin() as txn:
            names = [name for name, _ in txn.cursor()]
        tables = [env.open_db(name, create=False) for name in names]
        with env.begin() as txn:
            return sum(sum(1 for _ in txn.cursor(db=table)) for table in tables)
