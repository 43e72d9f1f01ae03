"""A store and its write-ahead log over kills, copies, aborted transactions and a disk that fills up, by one seed.

The model: what was committed is there, what was logged is there or in the log, and nothing else is; also in the folder
that a killed process leaves, and in a copy of that.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pool_server.storage import Store, Txn, backup_folder, restore
from pool_server.storage.lmdb import engine, integrity, log_file
from pool_server.storage.lmdb.log_file import LogFile

STEPS = 30
TABLES = ("rows", "records")
LOG_BYTES = 64 << 10
SIZES = (0, 10, 300, 1_900, 2_100, 5_000, 40_000)  # of values; those above 2,000 lie in pages of their own
_WRITE = log_file._write
_META_TXN = 16 + 24 + 48 + 48 + 8  # see integrity.py


class AbortedError(Exception):
    """A transaction that ends without effect."""


class Disk:
    """What stands in for the log's writes: while it is `full`, a part is written and the rest refused."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.full = False

    def write(self, descriptor: int, data: bytes, at: int) -> None:
        if self.full:
            _WRITE(descriptor, data[: self._rng.randint(0, len(data))], at)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        _WRITE(descriptor, data, at)


class History:
    """One store and what happens to it."""

    def __init__(self, folder: Path, seed: int, disk: Disk) -> None:
        self.rng = random.Random(seed)
        self.disk = disk
        self.folder, self._lives = folder, 0
        self.rows: dict[bytes, bytes] = {}
        self.records: dict[bytes, bytes] = {}  # that the store has
        self.logged: list[bytes] = []  # that it does not have yet
        self.attempted: set[bytes] = set()
        self._open(folder / "0")

    def _open(self, data: Path) -> None:
        self.data = data
        self.store = Store.open(data / "ledger", tables=TABLES, durable=False)
        assert self.store.set_aside is None, "a whole store is taken for damaged"
        self.log: LogFile | None = None

    def step(self) -> None:
        chances = ((self.commit, 10), (self.append, 8), (self.land, 3), (self.turn, 1), (self.end, 1), (self.kill, 1))
        self.rng.choices([one for one, _ in chances], [weight for _, weight in chances])[0]()

    def commit(self) -> None:
        """Rows are put and taken away, many at once or large ones; now and then all of it is given up."""
        rows, aborts = dict(self.rows), self.rng.random() < 0.2

        def change(txn: Txn) -> None:
            for _ in range(self.rng.choice((1, 2, 8, 30))):
                key = b"row%d" % self.rng.randrange(12)
                if self.rng.random() < 0.4:
                    txn.delete("rows", key)
                    rows.pop(key, None)
                else:
                    rows[key] = self.rng.randbytes(1) * self.rng.choice(SIZES)
                    txn.put("rows", key, rows[key])
            if aborts:
                raise AbortedError

        try:
            self.store.write(change)
            self.rows = rows
        except AbortedError:
            pass

    def append(self) -> None:
        """Records go into the log; those it has taken are acknowledged."""
        contents = [b"%d " % len(self.attempted) + b"x" * self.rng.choice(SIZES)]
        contents += [content + b"!" for content in contents * self.rng.randrange(3)]
        self.attempted |= set(contents)
        try:
            self.log = self.log or LogFile(self.data / "ledger", size=LOG_BYTES)
            if self.log.append(contents):
                self.logged += contents
        except OSError:
            assert self.disk.full

    def land(self) -> None:
        """The store takes what is in the log, which begins anew."""
        self._take(self.logged)
        self.logged = []
        if self.log is not None:
            self.log.begin_anew()

    def _take(self, contents: Sequence[bytes]) -> None:
        self.store.write(lambda txn: txn.put_many("records", [(one[:20], one) for one in contents]))
        self.records |= {one[:20]: one for one in contents}

    def turn(self) -> None:
        self.disk.full = not self.disk.full

    def end(self) -> None:
        """The process ends as it should, and another one goes on."""
        self._close(keep=bool(self.logged))
        self._go_on(self.data)

    def kill(self) -> None:
        """The process is killed: what it leaves is what others see of its files now. A copy of that holds the same."""
        self._lives += 1
        left = self.folder / str(self._lives)
        shutil.copytree(self.data, left)
        self._close(keep=True)
        backup_folder(left, self.folder / "copy.tar", now=0.0)
        restored = self.folder / f"restored{self._lives}"
        restore(self.folder / "copy.tar", restored)
        before = dict(self.records), list(self.logged)
        self._go_on(restored)
        self._close(keep=False)
        self.records, self.logged = before
        self._go_on(left)

    def _close(self, *, keep: bool) -> None:
        log, self.log = self.log, None
        if log is not None:
            log.close(keep=keep)
        self.store.close()

    def _go_on(self, data: Path) -> None:
        self._open(data)
        self.compare()
        found = [one for contents in self.store.orphans() for one in contents]
        assert [one for one in found if one in self.logged] == self.logged, "what was acknowledged is gone"
        assert set(found) <= self.attempted, "there is more than was ever written"
        self._take(found)
        self.logged = []

    def compare(self) -> None:
        """The store has what was committed, and nothing else."""
        with self.store.read() as reader:
            assert dict(reader.scan("rows")) == self.rows
            assert dict(reader.scan("records")) == self.records


def simulate(folder: Path, seed: int, disk: Disk) -> None:
    """One history. Raises AssertionError where the model does not hold, StoreError where a store is refused."""
    history = History(folder, seed, disk)
    try:
        for _ in range(STEPS):
            history.step()
        history.kill()
        history.compare()
    finally:
        disk.full = False
        history._close(keep=False)
        shutil.rmtree(folder)


def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Disk]:
    """A suspected file is read in this process, and no disk is waited for; returns what makes the disk of a seed."""

    def verify(folder: Path, **_: Any) -> int:
        with (folder / integrity.DATA_FILE).open("rb") as file:
            raw = file.read(2 * 4096)
            newest = max(struct.unpack_from("=Q", raw, at + _META_TXN)[0] for at in (0, 4096))
            return integrity.read_pages(file.fileno(), 4096, newest)

    for module in (engine, sys.modules["pool_server.storage.backup"]):  # the package has a function of that name
        monkeypatch.setattr(module, "verify", verify)
    for call in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, call, lambda _: None)

    def disk(seed: int) -> Disk:
        made = Disk(random.Random(seed))
        monkeypatch.setattr(log_file, "_write", made.write)
        return made

    return disk
