"""A disk that is full: requests go on, it is said, nothing is corrupted, counting resumes."""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pool_server.app.server import open_durable
from pool_server.core.settings import Settings
from pool_server.ledger import TABLES, Ledger, service
from pool_server.storage import Store, verify
from pool_server.storage.lmdb import log_file, write_ahead_log
from tests.fakes import FakeProviders, account, fake_settings, plays
from tests.gateway.stack import messages
from tests.ledger.ledger_kit import NOW, Clock, exchange, ledger_in
from tests.process import PATIENCE_S, PoolProcess, until

LIMIT = 250_000  # bytes a file may have: the kernel refuses more, as a full disk or a quota does


def test_counting_resumes_when_there_is_room_again(tmp_path: Path) -> None:
    """In a process of its own, because the limit holds for all of its files."""
    child = multiprocessing.get_context("spawn").Process(target=_fill_up, args=(tmp_path,))
    child.start()
    child.join(PATIENCE_S)
    assert child.exitcode == 0
    assert verify(tmp_path / "ledger") > 100
    expected = int((tmp_path / "count").read_text())
    with ledger_in(tmp_path) as book:
        assert book.queries.total(NOW - 60, NOW + 60)["requests"] == expected
        assert len(list(book.log.scan(NOW - 60, NOW + 60))) == expected


def _fill_up(folder: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    service.RETRY_S = 0.02
    asyncio.run(_record_until_full(folder))


async def _record_until_full(folder: Path) -> None:
    store = Store.open(folder / "ledger", tables=TABLES, durable=True)
    book = Ledger(store, Settings(), clock=Clock())
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
    count = 1
    while await book.record(exchange(f"r{count}", user=f"user{count}")):
        count += 1
    assert not book.healthy
    for _ in range(50):
        count += 1
        assert not await book.record(exchange(f"r{count}"))
    assert book.waiting == 51
    assert book.queries.total(NOW - 60, NOW + 60)["requests"] == count - 51  # reading still works
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert book._retry is not None
    await asyncio.wait_for(book._retry, PATIENCE_S)
    assert book.healthy
    assert await book.record(exchange("last"))
    (folder / "count").write_text(str(count + 1))
    await book.close()
    store.close()


def test_what_was_promised_is_counted_when_there_is_room_again(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_promise_until_full, args=(tmp_path,))
    child.start()
    child.join(PATIENCE_S)
    assert child.exitcode == 0
    expected = int((tmp_path / "count").read_text())
    with ledger_in(tmp_path) as book:
        assert book.queries.total(NOW - 60, NOW + 60)["requests"] == expected
    assert list((tmp_path / "ledger").glob("journal-*")) == []


def _promise_until_full(folder: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    service.RETRY_S = 0.02
    log_file.SIZE = LIMIT // 2
    write_ahead_log.FOLLOW_S = 0.005

    async def fill() -> None:
        store = Store.open(folder / "ledger", tables=TABLES, durable=True)
        book = Ledger(store, Settings(), clock=Clock(), write_ahead=True)
        assert await book.record(exchange("r0"))  # the log is made while there is room
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
        count = 1
        while await book.record(exchange(f"r{count}", user=f"user{count}")):
            count += 1
        assert not book.healthy
        assert book.unlogged == 1 < book.waiting, "what the log had room for is not at risk"
        assert len(list((folder / "ledger").glob("journal-*"))) == 1, "it keeps what the store has not"
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert book._retry is not None
        await asyncio.wait_for(book._retry, PATIENCE_S)
        assert await book.record(exchange("last"))
        (folder / "count").write_text(str(count + 2))
        await book.close()
        store.close()

    asyncio.run(fill())


MAP = 1 << 17  # bytes the engine may have: it is full, the disk is not


def open_small(folder: Path, max_size: int = MAP) -> tuple[Store, Ledger]:
    store = Store.open(folder / "ledger", tables=TABLES, durable=True, map_size=MAP, max_size=max_size)
    return store, Ledger(store, Settings(), clock=Clock(), write_ahead=True)


async def fill(book: Ledger, count: int = 0) -> int:
    """Records until the engine is full; how many."""
    while book.healthy:
        assert await book.record(exchange(f"r{count}", user=f"user{count}"))
        await book.fresh()
        count += 1
    return count


def test_what_the_store_is_asked_to_take_still_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "RETRY_S", 0.001)
    waiting: list[int] = []

    async def go() -> None:
        store, book = open_small(tmp_path)
        await fill(book)
        enough, write = asyncio.Event(), store._engine.write

        def watched(change: Any) -> Any:
            waiting.append(book.waiting)
            if len(waiting) == 3:
                loop.call_soon_threadsafe(enough.set)
            return write(change)

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(store._engine, "write", watched)
        await enough.wait()
        await book.close()
        store.close()

    asyncio.run(go())
    assert waiting[:3] == [1, 1, 1]


def killed(folder: Path) -> None:
    """A process that is killed after it has answered 40 more, the engine full."""

    async def go() -> None:
        _, book = open_small(folder)
        count = await fill(book)
        for _ in range(40):
            assert await book.record(exchange(f"r{count}")), "durable, whatever the engine says"
            count += 1
        (folder / "count").write_text(str(count))
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(go())


def run_killed(folder: Path) -> int:
    child = multiprocessing.get_context("spawn").Process(target=killed, args=(folder,))
    child.start()
    child.join(PATIENCE_S)
    assert child.exitcode == -signal.SIGKILL
    return int((folder / "count").read_text())


def count_in(folder: Path) -> int:
    with ledger_in(folder) as book:
        return int(book.queries.total(NOW - 60, NOW + 60)["requests"])


def test_a_kill_while_the_engine_is_full_loses_nothing(tmp_path: Path) -> None:
    assert run_killed(tmp_path) == count_in(tmp_path)


def test_it_starts_while_the_engine_is_full_and_counts_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "RETRY_S", 0.01)
    count = run_killed(tmp_path)

    async def go() -> None:
        store, book = open_small(tmp_path)
        assert not book.healthy
        await book.start()
        assert await book.record(exchange("new"))
        assert book.used_by_user("ada", NOW - 60)["requests"] >= 0  # asked for at the start of the people's room
        store._engine._max_size = 1 << 30  # the operator made room
        assert book._retry is not None
        await book._retry
        await book.fresh()
        assert (book.healthy, book.waiting, book.unlogged) == (True, 0, 0)
        assert book.queries.total(NOW - 60, NOW + 60)["requests"] == count + 1
        await book.close()
        store.close()

    asyncio.run(go())
    assert list((tmp_path / "ledger").glob("journal-*")) == []


def test_a_disk_without_room_for_a_log_goes_on_with_the_one_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = run_killed(tmp_path)

    def full(fd: int, size: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log_file, "_allocate", full)

    async def go() -> None:
        store, book = open_small(tmp_path)
        await book.start()
        for number in range(30):
            assert await book.record(exchange(f"new{number}"))
        assert book.unlogged == 0
        await book.close()
        store.close()

    for _ in range(2):
        asyncio.run(go())
    assert count_in(tmp_path) == count + 30
    assert list((tmp_path / "ledger").glob("journal-*")) == []


def leave_full(folder: Path, caplog: pytest.LogCaptureFixture) -> tuple[int, str]:
    """Ends a server with a full engine and a full log; how many it answered, and its last line."""

    async def go() -> int:
        store, book = open_small(folder)
        await book.start()
        count = await fill(book)
        while book.unlogged < 5:
            await book.record(exchange(f"r{count}"))
            count += 1
        await book.close()
        store.close()
        return count

    count = asyncio.run(go())
    return count, caplog.messages[-1]


@pytest.mark.parametrize("where", ["beside", "elsewhere", "in its own folder"])
def test_what_finds_no_room_is_left_where_there_is_some(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_file, "SIZE", 8192)
    room = {"beside": tmp_path, "elsewhere": tmp_path / "far", "in its own folder": tmp_path / "ledger"}[where]
    (tmp_path / "far").mkdir()
    refused = tmp_path / "no such folder"
    own = room if where == "in its own folder" else refused
    monkeypatch.setattr(log_file, "places", lambda folder: [own, refused, room])
    count, line = leave_full(tmp_path, caplog)
    if where == "in its own folder":
        assert "wait in the write-ahead log for the next start" in line
    else:
        (left,) = room.glob("pool-server-*")
        assert f"are in {left}" in line
        assert left.stat().st_mode & 0o777 == 0o600
    assert count_in(tmp_path) == count
    assert list(room.glob("pool-server-*")) == list(room.glob("journal-*")) == []


def test_what_no_place_takes_is_told_by_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_file, "SIZE", 8192)
    monkeypatch.setattr(log_file, "places", lambda folder: [tmp_path / "no such folder"])
    count, line = leave_full(tmp_path, caplog)
    assert line == "5 usage records are lost, no place on this machine takes them: No such file or directory"
    monkeypatch.undo()
    assert count_in(tmp_path) == count - 5


def test_a_file_of_somebody_else_is_not_taken_for_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "places", lambda folder: [folder, tmp_path / "far"])
    (tmp_path / "far").mkdir()
    with ledger_in(tmp_path):
        pass
    name = log_file._name_elsewhere(tmp_path / "ledger")
    (tmp_path / "secret").write_text("hush")
    (tmp_path / "far" / f"{name}link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "far" / f"{name}pipe")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    (tmp_path / "far" / f"{name}theirs").write_bytes(b"")
    assert list(log_file.orphans(tmp_path / "ledger", everywhere=True)) == []
    assert len(list((tmp_path / "far").iterdir())) == 3


@contextmanager
def no_file_beyond(size: int, pid: int = 0) -> Iterator[None]:
    """Files grow to `size` bytes at most, as on a full disk; without `pid`, those of this process and its children."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        if pid == 0:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process can be set on Linux only")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_on_a_full_disk_loses_nothing_it_answered(tmp_path: Path, how: signal.Signals) -> None:
    with FakeProviders([account("claude:one")]) as fakes:
        fakes.always("claude:one", plays.ok())
        settings = fake_settings(tmp_path, fakes)

        def ask(pool: PoolProcess, number: int) -> None:
            assert pool.call("POST", "/v1/messages", messages(stream=False, session=f"s-{number}"))[0] == 200

        with PoolProcess(tmp_path, settings) as pool:
            ask(pool, 0)
            with no_file_beyond(0x20000, pool.process.pid):
                for number in range(1, 300):
                    ask(pool, number)
                until(lambda: pool.call("GET", "/healthz")[0] == 503, "the store is full")
                for number in range(300, 320):
                    ask(pool, number)
                pool.signal(how)
                pool.wait()
        with no_file_beyond(0x20000), PoolProcess(tmp_path, settings) as pool:
            ask(pool, 320)
            pool.signal(how)
            pool.wait()
    store = open_durable(Path(settings.data_dir))
    try:
        assert Ledger(store, settings).queries.total(0, 1e11)["requests"] == 321
    finally:
        store.close()
