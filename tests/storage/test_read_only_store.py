"""A store on a file system that takes no writes is read, and written to as soon as that may be."""

from __future__ import annotations

from operator import methodcaller
from pathlib import Path

import lmdb
import pytest

from pool_server.storage import Store, StoreDamagedError, StoreError, StoreFullError, Txn
from pool_server.storage.lmdb import engine
from pool_server.storage.lmdb.store import FORMAT, outgrows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = Store.open(tmp_path / "s", tables=("a",), durable=True)
    store.write(methodcaller("put", "a", b"k", b"v"))
    store.close()
    return tmp_path / "s"


def opened(folder: Path, *tables: str) -> Store:
    return Store.open(folder, tables=tables or ("a",), durable=True)


def test_it_is_read_and_written_to_once_that_may_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as mounted:
        mounted.setattr(engine, "is_read_only", lambda _: True)
        store = opened(folder)
        assert store.get("a", b"k") == b"v" and store.last("a") == b"k" and store.free_readers() == 0
        with store.read() as reader:
            assert list(reader.scan("a")) == [(b"k", b"v")]
        for _ in range(2):
            with pytest.raises(StoreFullError, match="its file system is read-only"):
                store.write(methodcaller("put", "a", b"k", b"w"))
        store.copy(folder.parent / "copy")
        with pytest.raises(StoreError, match="already open"):
            outgrows(folder, 1)
    store.write(methodcaller("put", "a", b"k", b"w"))
    assert store.get("a", b"k") == b"w"
    store.close()


def test_what_cannot_be_read_whole_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "is_read_only", lambda _: True)
    with pytest.raises(StoreError) as told:
        opened(folder, "a", "a table of a newer program")
    assert "\n" not in str(told.value)
    data = folder / "data.mdb"
    whole = data.read_bytes()
    for length in (0, 100, 4096, len(whole) // 2):
        data.write_bytes(whole[:length])
        with pytest.raises(StoreDamagedError):
            opened(folder)
        assert data.read_bytes() == whole[:length], "nothing is written"
    data.write_bytes(whole)
    opened(folder).close()
    assert not outgrows(folder, FORMAT) and outgrows(folder, FORMAT + 1)


def test_a_short_file_that_is_whole_stays_as_long_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(folder)
    for number in range(6):
        store.write(methodcaller("put", "a", b"spare%d" % (number % 3), b"q" * 100))

    def give_and_take(txn: Txn) -> None:
        txn.put("a", b"big", b"x" * 9_000)
        txn.delete("a", b"big")

    store.write(give_and_take)
    store.close()
    with lmdb.open(str(folder), readonly=True, lock=False) as env:
        needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    length = (folder / "data.mdb").stat().st_size
    assert length < needed
    monkeypatch.setattr(engine, "is_read_only", lambda _: True)
    store = opened(folder)
    assert store.get("a", b"k") == b"v"
    store.close()
    assert (folder / "data.mdb").stat().st_size == length
