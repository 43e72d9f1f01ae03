from __future__ import annotations

import asyncio
import errno
import fcntl
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import lmdb
import pytest

from pool_server.storage import (
    Store,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    Txn,
    errors,
    lock_folder,
)

TABLES = ("a", "b")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "s", tables=TABLES, durable=True, map_size=1 << 20)
    yield opened
    opened.close()


def add(txn: Txn, key: bytes, amount: int) -> int:
    total = int(txn.get("a", key) or b"0") + amount
    txn.put("a", key, b"%d" % total)
    return total


def test_put_get_delete(store: Store) -> None:
    store.write(lambda t: t.put("a", b"k", b"1"))
    assert store.get("a", b"k") == b"1"
    assert store.get("b", b"k") is None
    assert store.write(lambda t: t.put_new("a", b"k", b"2")) is False
    assert store.write(lambda t: t.put_new("a", b"l", b"2")) is True
    assert store.write(lambda t: t.delete("a", b"k")) is True
    assert store.write(lambda t: t.delete("a", b"k")) is False
    assert store.get("a", b"k") is None


@pytest.mark.parametrize("start", [b"", b"0", b"1", b"15", b"9"])
@pytest.mark.parametrize("stop", [None, b"0", b"3", b"35", b"9"])
@pytest.mark.parametrize("limit", [None, 0, 2])
def test_scan_is_a_half_open_range_both_ways(store: Store, start: bytes, stop: bytes | None, limit: int | None) -> None:
    keys = [b"1", b"2", b"3", b"4"]
    store.write(lambda t: t.put_many("a", [(k, k * 2) for k in keys]))
    wanted = [(k, k * 2) for k in keys if k >= start and (stop is None or k < stop)]
    with store.read() as reader:
        assert list(reader.scan("a", start, stop, limit=limit)) == wanted[:limit]
        assert list(reader.scan("a", start, stop, reverse=True, limit=limit)) == wanted[::-1][:limit]
        assert reader.count("a") == 4


def test_scan_of_an_empty_table(store: Store) -> None:
    with store.read() as reader:
        assert list(reader.scan("a")) == []
        assert list(reader.scan("a", reverse=True)) == []
        assert list(reader.scan("a", b"x", b"z", reverse=True)) == []


def test_delete_range_stops_at_its_limit(store: Store) -> None:
    store.write(lambda t: t.put_many("a", [(b"%02d" % i, b"x") for i in range(20)]))
    assert store.write(lambda t: t.delete_range("a", b"05", b"15", limit=4)) == 4
    assert store.write(lambda t: t.delete_range("a", b"05", b"15", limit=100)) == 6
    assert store.write(lambda t: t.delete_range("a", b"15", b"99", limit=100)) == 5
    with store.read() as reader:
        assert [k for k, _ in reader.scan("a")] == [b"%02d" % i for i in range(5)]


def test_submit_commits_together_and_returns_each_result(store: Store) -> None:
    async def go() -> None:
        results = await asyncio.gather(*(store.submit(partial(add, key=b"n", amount=i)) for i in range(50)))
        assert results[-1] == sum(range(50))
        await store.flush()

    asyncio.run(go())
    assert store.get("a", b"n") == b"1225"


def test_a_failing_closure_fails_alone(store: Store) -> None:
    def bad(txn: Txn) -> None:
        txn.put("a", b"half", b"done")
        raise LookupError("no such thing")

    async def go() -> list[Any]:
        jobs: list[asyncio.Future[Any]] = [store.submit(partial(add, key=b"n", amount=1)) for _ in range(5)]
        jobs.insert(2, store.submit(bad))
        jobs.insert(4, store.submit(lambda t: t.put("a", b"", b"empty key")))
        return await asyncio.gather(*jobs, return_exceptions=True)

    results = asyncio.run(go())
    assert isinstance(results[2], LookupError)
    assert isinstance(results[4], ValueError)
    assert [r for r in results if isinstance(r, int)] == [1, 2, 3, 4, 5]
    assert store.get("a", b"n") == b"5"
    assert store.get("a", b"half") is None


def test_a_failing_write_changes_nothing(store: Store) -> None:
    def bad(txn: Txn) -> None:
        txn.put("a", b"k", b"v")
        raise LookupError

    with pytest.raises(LookupError):
        store.write(bad)
    assert store.get("a", b"k") is None


def test_a_cancelled_waiter_disturbs_nobody(store: Store) -> None:
    async def go() -> None:
        first = store.submit(lambda t: add(t, b"n", 1))
        first.cancel()
        assert await store.submit(lambda t: add(t, b"n", 1)) == 2

    asyncio.run(go())


def test_channel_applies_a_batch_at_once(store: Store) -> None:
    sizes: list[int] = []

    def apply(txn: Txn, items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        return [add(txn, b"n", i) for i in items]

    async def go() -> None:
        gate = threading.Event()
        hold = store.submit(lambda t: gate.wait(5))
        channel = store.channel(apply)
        jobs = [channel.send(1) for _ in range(30)]
        gate.set()
        await hold
        assert (await asyncio.gather(*jobs))[-1] == 30

    asyncio.run(go())
    assert max(sizes) > 1
    assert sum(sizes) == 30


def test_one_bad_item_of_a_channel_fails_alone(store: Store) -> None:
    def apply(txn: Txn, items: Sequence[int]) -> list[int]:
        if -1 in items:
            raise LookupError
        return list(items)

    async def go() -> None:
        channel = store.channel(apply)
        bad, good = channel.send(-1), channel.send(3)
        assert await good == 3
        with pytest.raises(LookupError):
            await bad

    asyncio.run(go())


def test_the_map_grows(store: Store) -> None:
    async def go() -> None:
        await asyncio.gather(*(store.submit(methodcaller("put", "a", b"%d" % i, b"x" * 9000)) for i in range(600)))

    asyncio.run(go())
    assert store.size() > 4 << 20
    assert len(store.get("a", b"599") or b"") == 9000


def copy_it(store: Store) -> None:
    store.copy(store.folder.parent / "copy")


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        lambda store: store.get("a", b"1"),
        lambda store: store.write(lambda t: t.put("a", b"other", b"x")),
        copy_it,
    ],
)
def test_growth_of_another_process_is_followed(store: Store, first: Callable[[Store], None]) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_fill, args=(store.folder, 400))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    first(store)
    assert len(store.get("a", b"399") or b"") == 9000
    store.write(lambda t: t.put("a", b"mine", b"x"))


def _fill(folder: Path, n: int) -> None:
    other = Store.open(folder, tables=TABLES, durable=False, map_size=1 << 20)
    for i in range(n):
        other.write(methodcaller("put", "a", b"%d" % i, b"x" * 9000))
    other.close()


def test_two_processes_lose_no_increment(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_count, args=(store.folder, 100)) for _ in range(2)]
    for child in children:
        child.start()
    _submit_counts(store, 100)
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    assert store.get("a", b"n") == b"300"


def _count(folder: Path, n: int) -> None:
    other = Store.open(folder, tables=TABLES, durable=True, map_size=1 << 20)
    _submit_counts(other, n)
    other.close()


def _submit_counts(store: Store, n: int) -> None:
    async def go() -> None:
        await asyncio.gather(*(store.submit(lambda t: add(t, b"n", 1)) for _ in range(n)))

    asyncio.run(go())


def test_a_full_store_says_so_and_goes_on(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s", tables=TABLES, durable=True, map_size=1 << 18, max_size=1 << 18)

    async def go() -> None:
        with pytest.raises(StoreFullError, match="free disk space"):
            await store.submit(lambda t: t.put("a", b"big", b"x" * (1 << 18)))
        await store.submit(lambda t: t.put("a", b"small", b"x"))

    asyncio.run(go())
    with pytest.raises(StoreFullError):
        store.write(lambda t: t.put("a", b"big", b"x" * (1 << 18)))
    assert store.get("a", b"small") == b"x"
    assert store.get("a", b"big") is None
    store.close()


def test_growing_waits_until_a_read_of_another_thread_ends(store: Store) -> None:
    reading = threading.Event()

    def read() -> None:
        with store.read():
            reading.set()
            time.sleep(0.2)  # nothing can grow while this lasts

    reader = threading.Thread(target=read)
    reader.start()
    reading.wait()
    started = time.monotonic()
    store.write(lambda txn: txn.put("a", b"big", bytes(1 << 21)))
    assert 0.1 < time.monotonic() - started < 0.8  # told when it ended, not after its patience of a second
    reader.join()


def test_what_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s", tables=TABLES, durable=True)
    _submit_counts(store, 10)
    store.close()
    again = Store.open(tmp_path / "s", tables=TABLES, durable=True)
    assert again.get("a", b"n") == b"10"
    again.close()


def test_closing_commits_what_was_submitted(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s", tables=TABLES, durable=True)

    async def go() -> None:
        jobs = [store.submit(lambda t: add(t, b"n", 1)) for _ in range(10)]
        store.close()
        assert await jobs[-1] == 10
        with pytest.raises(StoreError, match="closed"):
            store.submit(lambda t: None)

    asyncio.run(go())
    with pytest.raises(StoreError, match="closed"):
        store.get("a", b"n")


def test_a_copy_is_consistent_and_opens(store: Store, tmp_path: Path) -> None:
    _submit_counts(store, 10)
    store.copy(tmp_path / "copy")
    copied = Store.open(tmp_path / "copy", tables=TABLES, durable=True)
    assert copied.get("a", b"n") == b"10"
    copied.close()


@pytest.mark.parametrize("what", ["cut", "stub", "empty", "noise"])
def test_damage_is_refused_with_the_way_back(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "s"
    _damage(folder, what)
    with pytest.raises(StoreDamagedError, match="restore"):
        Store.open(folder, tables=TABLES, durable=True)


@pytest.mark.parametrize("what", ["cut", "stub", "noise"])
def test_a_rebuildable_store_starts_anew(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "s"
    _damage(folder, what)
    store = Store.open(folder, tables=TABLES, durable=False)
    assert store.set_aside is not None
    assert (store.set_aside / "data.mdb").exists()
    assert store.get("a", b"n") is None
    store.close()


def _damage(folder: Path, what: str) -> None:
    store = Store.open(folder, tables=TABLES, durable=True)
    store.write(lambda t: t.put_many("a", [(b"%04d" % i, b"x" * 500) for i in range(500)]))
    store.close()
    data = folder / "data.mdb"
    if what == "noise":
        with data.open("r+b") as f:
            f.write(os.urandom(8192))
    else:
        os.truncate(data, {"stub": 100, "empty": 0, "cut": data.stat().st_size // 2}[what])


def test_one_server_a_folder(tmp_path: Path) -> None:
    lock = lock_folder(tmp_path)
    with pytest.raises(StoreLockedError, match=f"pid {os.getpid()}"):
        lock_folder(tmp_path)
    lock.close()
    lock.close()
    with lock_folder(tmp_path):
        pass


def test_an_unusable_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        lock_folder(tmp_path / "file")


def test_a_full_disk_keeps_nobody_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes, at: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    lock = lock_folder(tmp_path)
    with pytest.raises(StoreLockedError, match="pid unknown"):
        lock_folder(tmp_path)
    lock.close()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_folder_without_locks_is_not_said_to_be_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreError, match=os.strerror(code)) as caught:
        lock_folder(tmp_path)
    assert not isinstance(caught.value, StoreLockedError)
    assert str(tmp_path / "server.lock") in str(caught.value)


@pytest.mark.parametrize(("code", "free", "full"), [(5, 0, True), (5, 1 << 30, False), (28, 1 << 30, True)])
def test_a_write_that_ended_early_on_a_full_disk_is_said_to_be_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, free: int, full: bool
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1 << 40, 1 << 40, free))
    broken = lmdb.Error("mdb_txn_commit: Input/output error")
    vars(broken)["code"] = code
    assert isinstance(errors.translate(broken, tmp_path), StoreFullError) is full


NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["posix_fallocate", "replace"])
def test_a_store_that_cannot_be_made_on_a_full_disk_can_be_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> None:
        raise NO_SPACE

    with monkeypatch.context() as patch, pytest.raises(StoreFullError, match="free disk space"):
        patch.setattr(os, call, full)
        Store.open(tmp_path / "s", tables=TABLES, durable=True)
    Store.open(tmp_path / "s", tables=TABLES, durable=True).close()


def test_the_engines_lock_file_has_its_room_before_it_is_mapped(tmp_path: Path) -> None:
    """On a full disk the kernel kills whoever touches a page of it that has none."""
    Store.open(tmp_path / "s", tables=TABLES, durable=True).close()
    lock = tmp_path / "s" / "lock.mdb"
    assert lock.stat().st_blocks * 512 >= lock.stat().st_size
    lock.unlink()
    size = 128 + 64 * 512
    lock.touch()
    os.truncate(lock, size)
    Store.open(tmp_path / "s", tables=TABLES, durable=True).close()
    assert lock.stat().st_blocks * 512 >= size


def test_a_lock_file_of_before_is_good_enough_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise NO_SPACE

    Store.open(tmp_path / "s", tables=TABLES, durable=True).close()
    lock = tmp_path / "s" / "lock.mdb"
    first = lock.read_bytes()[:4096]
    with lock.open("wb") as file:
        file.write(first)
        file.truncate(128 + 64 * 512)
    monkeypatch.setattr(os, "posix_fallocate", full)
    Store.open(tmp_path / "s", tables=TABLES, durable=True).close()
    assert "no room for more than a few readers" in caplog.text


def test_a_store_that_was_being_made_when_its_process_died_is_made_anew(tmp_path: Path) -> None:
    left = tmp_path / "s" / ".new-killed"
    left.mkdir(parents=True)
    (left / "data.mdb").write_bytes(b"half")
    os.utime(left, (1, 1))
    Store.open(tmp_path / "s", tables=TABLES, durable=True).close()
    assert not left.exists()


def test_private_files(tmp_path: Path) -> None:
    Store.open(tmp_path / "s", tables=TABLES, durable=True).close()
    assert (tmp_path / "s" / "data.mdb").stat().st_mode & 0o077 == 0


def test_a_broken_off_write_is_survived(store: Store) -> None:
    """The engine refuses everything after a failed write of its own pages, until it is opened again."""

    def panic(txn: Txn) -> None:
        txn.put("a", b"half", b"x")
        raise lmdb.PanicError("test")

    store.write(lambda t: t.put("a", b"k", b"v"))
    with pytest.raises(StoreFullError, match="opened anew"):
        store.write(panic)
    assert store.get("a", b"k") == b"v"
    assert store.get("a", b"half") is None
    store.write(lambda t: t.put("a", b"k", b"w"))
    assert store.get("a", b"k") == b"w"


def test_table_sizes(store: Store) -> None:
    store.write(lambda t: t.put_many("a", [(b"%04d" % i, b"x" * 1000) for i in range(100)]))
    with store.read() as reader:
        assert reader.bytes_of("a") > 100_000
        assert reader.bytes_of("b") == 0
