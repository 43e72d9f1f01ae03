"""A data file shorter than it says it is: whole, when what is missing was never written, or cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import methodcaller
from pathlib import Path

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool_server.storage import Store, StoreDamagedError, Txn, backup_folder, restore
from pool_server.storage.lmdb import engine
from pool_server.storage.lmdb.integrity import verify

SPARE = 6  # small commits: enough for pages that the next transaction may use again
Writer = Callable[[Txn], None]


@contextmanager
def opened(folder: Path, *, durable: bool = True) -> Iterator[Store]:
    store = Store.open(folder, tables=("a", "b"), durable=durable)
    try:
        yield store
    finally:
        store.close()


def spare(store: Store) -> None:
    for i in range(SPARE):
        store.write(methodcaller("put", "a", b"spare%d" % (i % 3), b"q" * 100))


def lengths(folder: Path) -> tuple[int, int]:
    with lmdb.open(str(folder), readonly=True, lock=False) as env:
        needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    return needed, (folder / "data.mdb").stat().st_size


def put_and_delete(txn: Txn) -> None:
    txn.put("a", b"big", b"x" * 9000)
    txn.delete("a", b"big")


def many_at_once(txn: Txn) -> None:
    for i in range(20):
        txn.put("b", b"big%d" % i, b"x" * 20_000)
    for i in range(20):
        txn.delete("b", b"big%d" % i)


def ever_bigger(txn: Txn) -> None:
    for i in range(1, 20):
        txn.put("a", b"big", b"x" * 5000 * i)
    txn.put("a", b"big", b"small")


def keep_some(txn: Txn) -> None:
    for i in range(30):
        txn.put("a", b"row%d" % i, b"y" * 300)
        txn.put("b", b"big", b"x" * 4000 * (i + 1))
    txn.delete("b", b"big")


def replace_big_by_bigger(txn: Txn) -> None:
    put_and_delete(txn)
    txn.put("a", b"kept", b"k" * 50_000)
    put_and_delete(txn)
    txn.put("b", b"gone", b"g" * 70_000)
    txn.delete("b", b"gone")


FORMS = [put_and_delete, many_at_once, ever_bigger, keep_some, replace_big_by_bigger]


def contents(folder: Path, *, durable: bool = True) -> dict[str, list[tuple[bytes, bytes]]]:
    with opened(folder, durable=durable) as store, store.read() as reader:
        return {table: list(reader.scan(table)) for table in ("a", "b")}


def short(folder: Path, form: Writer, *, durable: bool = True) -> dict[str, list[tuple[bytes, bytes]]]:
    """Makes a whole file that is shorter than it says; returns what is in it."""
    with opened(folder, durable=durable) as store:
        spare(store)
        store.write(form)
        with store.read() as reader:
            found = {table: list(reader.scan(table)) for table in ("a", "b")}
    needed, actual = lengths(folder)
    assert actual < needed
    return found


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_pages_never_written_are_not_missed(
    tmp_path: Path, form: Writer, durable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "s"
    before = short(folder, form, durable=durable)
    with opened(folder, durable=durable) as store:
        assert store.set_aside is None
        with store.read() as reader:
            assert {table: list(reader.scan(table)) for table in ("a", "b")} == before
    needed, actual = lengths(folder)
    assert actual >= needed
    monkeypatch.setattr(engine, "verify", lambda folder, live: pytest.fail("read through once more"))
    with opened(folder, durable=durable) as store:  # suspected once only, and written to as before
        store.write(lambda t: t.put("a", b"new", b"n" * 30_000))
        assert store.get("a", b"new") == b"n" * 30_000


def test_a_file_that_cannot_be_made_longer_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = short(tmp_path / "s", many_at_once)

    def refuse(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with opened(tmp_path / "s") as store:
            assert [(key, store.get("a", key)) for key, _ in before["a"]] == before["a"]
    assert contents(tmp_path / "s") == before


def test_a_short_file_is_opened_while_another_process_writes(tmp_path: Path) -> None:
    """The second worker opens what the first one has just left short, and goes on doing so."""
    folder = tmp_path / "s"
    script = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[2]);"
        "from tests.storage.test_short_file import write_on; write_on(pathlib.Path(sys.argv[1]))"
    )
    root = str(Path(__file__).parents[2])
    writer = subprocess.Popen([sys.executable, "-c", script, str(folder), root], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    try:
        for _ in range(8):
            assert writer.stdout.readline() == b"short\n"
            with opened(folder) as store:
                store.write(lambda t: t.put("a", b"mine", b"x"))
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    assert contents(folder)["a"]


def write_on(folder: Path) -> None:
    with opened(folder) as store:
        n = 0
        while True:
            spare(store)
            store.write(lambda t: many_at_once(t))
            store.write(methodcaller("put", "a", b"n%d" % n, b"x" * 900))
            n += 1
            print("short", flush=True)


CUT_ROWS = 60


def full(folder: Path) -> int:
    """A store whose free pages lie between used ones; returns the bytes of its data file."""
    with opened(folder) as store:
        store.write(lambda t: t.put_many("a", [(b"%04d" % i, b"x" * 500) for i in range(CUT_ROWS)]))
        store.write(lambda t: t.put("b", b"big", b"y" * 40_000))
        for i in range(0, CUT_ROWS, 3):
            store.write(methodcaller("delete", "a", b"%04d" % i))
        store.write(lambda t: t.put("b", b"last", b"z" * 20_000))
    return (folder / "data.mdb").stat().st_size


def test_a_file_cut_at_any_length_is_refused_or_whole(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    size = full(folder)
    whole = (folder / "data.mdb").read_bytes()
    before = contents(folder)
    refused = 0
    for length in [size - 1, size - 4096, *range(8192, size - 4096, 5 * 4096), 12_345, size // 2 + 7]:
        (folder / "data.mdb").write_bytes(whole[:length])
        (folder / "lock.mdb").unlink()
        try:
            assert contents(folder) == before
        except StoreDamagedError as exc:
            refused += 1
            assert f"data.mdb has {length} of {size} bytes" in str(exc)
            assert "restore FILE" in str(exc)
            assert (folder / "data.mdb").read_bytes() == whole[:length]
    assert refused > 5


def test_a_missing_page_of_the_list_of_free_pages_is_damage(tmp_path: Path) -> None:
    """Every key can be read, but nothing could ever be written."""
    folder = tmp_path / "s"
    with opened(folder) as store:
        store.write(lambda t: t.put_many("a", [(b"%06d" % i, b"x" * 3000) for i in range(3000)]))
        for start in range(0, 2400, 600):
            store.write(methodcaller("delete_range", "a", b"%06d" % start, b"%06d" % (start + 600), limit=600))
    data = folder / "data.mdb"
    page = free_list_page(data)
    with data.open("r+b") as file:
        file.seek(page * 4096)
        file.write(bytes(4096))
        file.truncate((lengths(folder)[0] // 4096 - 1) * 4096)  # suspected, so that it is read
    with pytest.raises(StoreDamagedError, match="restore FILE"):
        contents(folder)


def free_list_page(data: Path) -> int:
    raw = data.read_bytes()
    metas = [raw[:4096], raw[4096:8192]]
    newest = max(metas, key=lambda meta: int.from_bytes(meta[144:152], "little"))
    return int.from_bytes(newest[80:88], "little")


@pytest.mark.parametrize("form", FORMS)
def test_verifying_a_short_file(tmp_path: Path, form: Writer) -> None:
    found = short(tmp_path / "data" / "ledger", form)
    assert verify(tmp_path / "data" / "ledger") >= sum(len(rows) for rows in found.values())


@pytest.mark.parametrize("cut", [1, 4096, 30_000, 60_000])
def test_verifying_a_file_cut_off(tmp_path: Path, cut: int) -> None:
    size = full(tmp_path / "ledger")
    os.truncate(tmp_path / "ledger" / "data.mdb", size - cut)
    with pytest.raises(StoreDamagedError, match="damaged"):
        verify(tmp_path / "ledger")


@pytest.mark.parametrize("form", [many_at_once, keep_some])
def test_a_short_file_is_backed_up_and_restored(tmp_path: Path, form: Writer) -> None:
    before = short(tmp_path / "data" / "ledger", form)
    backup_folder(tmp_path / "data", tmp_path / "b.tar", now=0.0)
    restore(tmp_path / "b.tar", tmp_path / "fresh")
    assert contents(tmp_path / "fresh" / "ledger") == before


Op = tuple[bool, int, int]  # put (else delete), which key, how many bytes
ops = st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.sampled_from([10, 3000, 9000, 40_000])), max_size=8)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(txns=st.lists(ops, min_size=1, max_size=12))
def test_whatever_was_committed_can_be_opened_again(
    tmp_path_factory: pytest.TempPathFactory, txns: list[list[Op]]
) -> None:
    folder = tmp_path_factory.mktemp("ops") / "s"
    with opened(folder) as store:
        spare(store)
        for txn_ops in txns:
            store.write(partial(apply, txn_ops=txn_ops))
        with store.read() as reader:
            before = {table: list(reader.scan(table)) for table in ("a", "b")}
    assert contents(folder) == before


def apply(txn: Txn, txn_ops: list[Op]) -> None:
    for put, key, size in txn_ops:
        if put:
            txn.put("b", b"k%d" % key, b"v" * size)
        else:
            txn.delete("b", b"k%d" % key)


def test_a_killed_writer_leaves_what_can_be_opened(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    script = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[2]);"
        "from tests.storage.test_short_file import write_on; write_on(pathlib.Path(sys.argv[1]))"
    )
    for round_ in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", script, str(folder), str(Path(__file__).parents[2])], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        for _ in range(round_ + 1):
            assert writer.stdout.readline() == b"short\n"
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        assert contents(folder)["a"]
