"""A copy of a store and the log of its changes give back any second, whatever happened to machine, place and clock."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random

import pytest

from pool_server.storage import StoreError
from pool_server.storage.backup import backup, restore
from pool_server.storage.change_log import shipper as shipping
from pool_server.storage.change_log.roll_forward import RolledForward, TooNewError, roll_forward
from pool_server.storage.change_log.segments import PREFIX, listed
from pool_server.storage.change_log.shipper import Shipper
from pool_server.storage.lmdb import change_spool as spool
from pool_server.storage.lmdb.store import Store
from pool_server.storage.object_store import ObjectStore, ObjectStoreError, StoredObject, open_place
from tests.fakes.object_store import s3_server

KEYS = {"k1": b"1" * 32}
NOW = 1_800_000_000.0
TABLES = ("t", "u")


class Refusing:
    """A place that can be told to refuse."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner
        self.refuses = False

    def _ask(self) -> ObjectStore:
        if self.refuses:
            raise ObjectStoreError("403 Forbidden")
        return self._inner

    def put(self, name: str, source: Path | bytes) -> None:
        self._ask().put(name, source)

    def fetch(self, name: str, target: Path) -> None:
        self._ask().fetch(name, target)

    def delete(self, name: str) -> None:
        self._ask().delete(name)

    def list(self, prefix: str) -> list[StoredObject]:
        return self._ask().list(prefix)


class Machine:
    """A store, its log, and the place where the log goes."""

    def __init__(self, folder: Path, place: ObjectStore, keys: Mapping[str, bytes] | None = None) -> None:
        self.folder = folder
        self.place = Refusing(place)
        self.keys = keys or {}
        self.store = Store.open(folder / "data/ledger", tables=TABLES, durable=True)
        self.store.keep_log(True)
        self.shipper = self.new_shipper()

    def new_shipper(self, most_bytes: int = 1 << 30) -> Shipper:
        return Shipper(self.store, lambda: self.place, lambda: self.keys, every_s=1, most_bytes=most_bytes)

    def put(self, key: str, value: str, table: str = "t") -> float:
        """When it was made."""
        self.store.write(lambda txn: txn.put(table, key.encode(), value.encode()))
        position = self.store.position()
        assert position is not None
        return position.at

    def copy(self, name: str = "copy.tar") -> Path:
        backup({"ledger": self.store}, self.folder / "data", self.folder / name, now=NOW)
        return self.folder / name

    def rows(self) -> dict[bytes, bytes]:
        return _rows(self.store)

    def back(self, copy: Path, until: float) -> tuple[dict[bytes, bytes], RolledForward]:
        """What another machine makes of copy and log."""
        made: list[RolledForward] = []

        def forward(store: Path, scratch: Path) -> None:
            made.append(roll_forward(store, self.place, until, self.keys, scratch, lambda done, count: None))

        other = self.folder / f"other-{os.urandom(4).hex()}"
        restore(copy, other, forward)
        store = Store.open(other / "ledger", tables=TABLES, durable=True)
        try:
            return _rows(store), made[0]
        finally:
            store.close()


def _rows(store: Store) -> dict[bytes, bytes]:
    with store.read() as reader:
        return {key: value for table in TABLES for key, value in reader.scan(table)}


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with s3_server("log") as options:
        yield options


@pytest.fixture(params=["folder", "bucket", "encrypted"])
def machine(request: pytest.FixtureRequest, tmp_path: Path, s3: dict[str, str]) -> Iterator[Machine]:
    at = f"s3://log/{tmp_path.name}" if request.param == "bucket" else str(tmp_path / "place")
    made = Machine(tmp_path, open_place(at, s3), KEYS if request.param == "encrypted" else None)
    yield made
    made.store.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path, open_place(str(tmp_path / "place"), {}))
    yield made
    made.store.close()


@pytest.mark.slow
def test_every_second_comes_back(machine: Machine) -> None:
    machine.put("before", "the copy")
    copy = machine.copy()
    moments = []
    for number in range(20):
        at = machine.put(f"k{number % 7}", str(number), TABLES[number % 2])
        moments.append((at, machine.rows()))
        machine.shipper.ship()
    machine.store.write(lambda txn: txn.delete_range("t", b"k", b"l", limit=2))
    machine.store.write(lambda txn: txn.delete("t", b"before"))
    machine.store.write(lambda txn: txn.put_many("u", [(b"m1", b"1"), (b"m2", b"2")]))
    machine.shipper.ship()
    last = machine.rows()
    for at, rows in moments[::6]:
        assert machine.back(copy, at)[0] == rows
    found, log = machine.back(copy, NOW * 2)
    assert found == last and not log.short and log.transactions == 23


def test_what_a_part_gave_up_is_not_in_the_log(here: Machine) -> None:
    copy = here.copy()

    async def together() -> None:
        def failing(txn: object) -> None:
            txn.put("t", b"bad", b"1")  # type: ignore[attr-defined]
            raise ValueError

        done = await asyncio.gather(
            here.store.submit(lambda txn: txn.put("t", b"good", b"1")),
            here.store.submit(failing),
            return_exceptions=True,
        )
        assert isinstance(done[1], ValueError)

    asyncio.run(together())
    here.shipper.ship()
    assert here.back(copy, NOW * 2)[0] == here.rows() == {b"good": b"1"}


def test_a_transaction_without_a_change_is_none(here: Machine) -> None:
    before = here.store.position()
    here.store.write(lambda txn: txn.delete("t", b"nothing"))
    here.store.write(lambda txn: None)
    assert here.store.position() == before


def test_several_processes_write_one_log(here: Machine) -> None:
    """Stores that are open in several processes, those of commands too, note what they write by themselves."""
    copy = here.copy()
    others = [subprocess.Popen([sys.executable, "-c", WRITER, str(here.store.folder), str(n), "40"]) for n in range(2)]
    for number in range(40):
        here.put(f"mine{number}", "1")
    assert [other.wait(60) for other in others] == [0, 0]
    here.shipper.ship()
    assert len(here.rows()) == 120
    found, log = here.back(copy, NOW * 2)
    assert found == here.rows() and not log.short


WRITER = """
import sys, pathlib
from pool_server.storage.lmdb.store import Store
store = Store.open(pathlib.Path(sys.argv[1]), tables=("t", "u"), durable=True)
number = 0
while number != int(sys.argv[3]):
    store.write(lambda txn: txn.put("t", f"{sys.argv[2]}-{number:06d}".encode(), b"1"))
    number += 1
    print(number, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_process_leaves_no_hole(here: Machine, seed: int) -> None:
    """All that was committed before kill -9 is in the log, from the files that it leaves."""
    copy = here.copy()
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(here.store.folder), "w", "-1"], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    for _ in range(Random(seed).randrange(5, 60)):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    here.put("after", "1")
    here.shipper.ship()
    position = here.store.position()
    assert position is not None
    found, log = here.back(copy, NOW * 2)
    if here.shipper._sent.number == position.number:  # not killed between commit and log: the usual case
        assert found == here.rows() and not log.short


def test_a_hole_begins_a_new_log_which_asks_for_a_copy(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that knows no log, an older version, writes in between."""
    monkeypatch.setattr(shipping, "HOLE_S", -1.0)
    copy = here.copy()
    here.shipper.ship()
    here.shipper.copied(str(here.shipper._sent.generation))
    here.shipper.ship()
    assert not here.shipper.wants_copy
    here.store._engine._capture, kept = None, here.store._engine._capture
    here.put("unseen", "1")
    here.store._engine._capture = kept
    seen = here.put("seen", "1")
    here.shipper.ship()
    assert here.shipper.wants_copy
    newer = here.copy("newer.tar")
    here.put("later", "1")
    here.shipper.ship()
    assert here.back(newer, NOW * 2)[0] == here.rows()
    assert b"unseen" not in here.back(copy, seen)[0]


def test_frames_that_are_lost_begin_a_new_log(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut: the store is on the disk, what waited is not."""
    monkeypatch.setattr(shipping, "HOLE_S", -1.0)
    here.put("a", "1")
    here.shipper.ship()
    before = here.store.position()
    here.put("b", "1")
    here.store._engine._capture.close()  # type: ignore[union-attr]
    for path in (here.store.folder / spool.FOLDER).glob("*/*"):
        path.unlink()
    here.put("c", "1")
    for _ in range(3):
        here.shipper.ship()
    after = here.store.position()
    assert before is not None and after is not None and before.generation != after.generation
    assert here.shipper.wants_copy and here.shipper._sent.number == after.number


def test_a_place_that_refuses_for_an_hour_gets_all_of_it_then(here: Machine) -> None:
    copy = here.copy()
    here.place.refuses = True
    for number in range(200):
        here.put(f"k{number}", "x" * 20_000)
        if not number % 50:
            with pytest.raises(ObjectStoreError, match="403"):
                here.shipper.ship()
    here.place.refuses = False
    here.shipper.ship()
    found, log = here.back(copy, NOW * 2)
    assert found == here.rows() and not log.short
    left = list((here.store.folder / spool.FOLDER).glob("*/*"))
    assert len(left) == 1  # the file that is being written


def test_more_than_may_wait_begins_a_new_log(here: Machine) -> None:
    here.shipper = here.new_shipper(most_bytes=100_000)
    here.place.refuses = True
    for _ in range(20):
        here.put("k", "x" * 20_000)
    with pytest.raises(ObjectStoreError):
        here.shipper.ship()
    assert spool.size(here.store.folder) < 100_000 and here.shipper.wants_copy
    here.place.refuses = False
    here.shipper.ship()
    copy = here.copy()
    here.put("k", "after")
    here.shipper.ship()
    assert here.back(copy, NOW * 2)[0] == here.rows()


def test_a_restart_goes_on_where_it_was(here: Machine) -> None:
    copy = here.copy()
    here.put("a", "1")
    here.shipper.ship()
    asyncio.run(here.shipper.close())
    here.put("b", "1")
    here.store.close()
    here.store = Store.open(here.store.folder, tables=TABLES, durable=True)
    here.store.keep_log(True)
    here.shipper = here.new_shipper()
    here.put("c", "1")
    here.shipper.ship()
    found, log = here.back(copy, NOW * 2)
    assert found == here.rows() and log.transactions == 3


def test_one_process_of_several_ships(here: Machine) -> None:
    second = here.new_shipper()
    here.put("a", "1")
    here.shipper.ship()
    here.put("b", "1")
    second.ship()
    assert not second.wants_copy and second._sent.number == 0
    asyncio.run(here.shipper.close())
    second.ship()
    assert second._sent.number == 3


@pytest.mark.slow
def test_small_pieces_are_put_together_without_a_hole(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "MERGE_COUNT", 10)
    copy = here.copy()
    for number in range(35):
        here.put(f"k{number}", "1")
        here.shipper.ship()
        if number in (11, 12, 20, 34):
            assert here.back(copy, NOW * 2)[0] == here.rows()
    assert len(listed(here.place.list(PREFIX))) < 20


@pytest.mark.slow
@pytest.mark.parametrize("cut", [0, 1, 30, -1])
def test_a_piece_that_was_cut_is_told_and_what_is_before_comes_back(here: Machine, tmp_path: Path, cut: int) -> None:
    copy = here.copy()
    for number in range(5):
        here.put(f"k{number}", "1")
        here.shipper.ship()
    piece = sorted((tmp_path / "place" / PREFIX).glob("*/*"))[3]
    whole = piece.read_bytes()
    piece.write_bytes(whole[:cut] if cut >= 0 else whole[:-3] + b"\0\0\0")
    found, log = here.back(copy, NOW * 2)
    assert list(found) == [b"k0", b"k1", b"k2"] and piece.name in log.short
    piece.unlink()
    found, log = here.back(copy, NOW * 2)
    assert list(found) == [b"k0", b"k1", b"k2"] and "hole" in log.short


def test_a_copy_of_a_later_moment_is_refused(here: Machine) -> None:
    at = here.put("a", "1")
    here.put("b", "1")
    with pytest.raises(TooNewError):
        here.back(here.copy(), at - 1)


def test_a_place_that_cannot_be_read_is_one_line(here: Machine, tmp_path: Path) -> None:
    copy = here.copy()
    here.place.refuses = True
    with pytest.raises(StoreError, match="403"):
        here.back(copy, NOW * 2)
    assert not list(tmp_path.glob("other-*/ledger"))


def test_no_room_for_what_waits_is_made_up_for(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = here.copy()
    here.put("a", "1")
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pool_server.storage.lmdb.change_spool.os.write", full)
    here.put("b", "1")
    here.put("c", "1")
    monkeypatch.setattr("pool_server.storage.lmdb.change_spool.os.write", real)
    here.put("d", "1")
    here.shipper.ship()
    assert here.back(copy, NOW * 2)[0] == here.rows()


def test_the_log_can_be_turned_off_and_on(here: Machine) -> None:
    first = here.store.position()
    here.store.keep_log(False)
    here.store.write(lambda txn: txn.put("t", b"a", b"1"))
    assert here.store.position() is None
    here.shipper.ship()
    here.store.keep_log(True)
    again = here.store.position()
    assert first is not None and again is not None and first.generation != again.generation


@pytest.mark.slow
def test_threads_of_one_process_keep_the_order(here: Machine) -> None:
    copy = here.copy()
    put: Callable[[int], object] = lambda number: [here.put(f"{number}-{n}", "1") for n in range(25)]  # noqa: E731
    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    here.shipper.ship()
    assert here.back(copy, NOW * 2)[0] == here.rows() and len(here.rows()) == 100
