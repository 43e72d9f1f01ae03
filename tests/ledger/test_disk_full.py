"""A disk that is full: requests go on, it is said, nothing is corrupted, counting resumes."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import signal
from pathlib import Path

from ledger_kit import NOW, Clock, exchange, ledger_in

from pool_server.core.settings import Settings
from pool_server.ledger import TABLES, Ledger, service
from pool_server.storage import Store, verify
from pool_server.storage.lmdb import log_file, write_ahead_log

LIMIT = 250_000  # bytes a file may have: the kernel refuses more, as a full disk or a quota does


def test_counting_resumes_when_there_is_room_again(tmp_path: Path) -> None:
    """In a process of its own, because the limit holds for all of its files."""
    child = multiprocessing.get_context("spawn").Process(target=_fill_up, args=(tmp_path,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert verify(tmp_path / "ledger") > 100
    expected = int((tmp_path / "count").read_text())
    with ledger_in(tmp_path) as book:
        assert book.total(NOW - 60, NOW + 60)["requests"] == expected
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
    assert book.total(NOW - 60, NOW + 60)["requests"] == count - 51  # reading still works
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert book._retry is not None
    await asyncio.wait_for(book._retry, 20)
    assert book.healthy
    assert await book.record(exchange("last"))
    (folder / "count").write_text(str(count + 1))
    await book.close()
    store.close()


def test_what_was_promised_is_counted_when_there_is_room_again(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_promise_until_full, args=(tmp_path,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    expected = int((tmp_path / "count").read_text())
    with ledger_in(tmp_path) as book:
        assert book.total(NOW - 60, NOW + 60)["requests"] == expected
    assert list((tmp_path / "ledger").glob("journal-*")) == []


def _promise_until_full(folder: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    service.RETRY_S = 0.02
    log_file.SIZE = LIMIT // 2
    write_ahead_log.FOLLOW_S = 0.005

    async def fill() -> None:
        store = Store.open(folder / "ledger", tables=TABLES, durable=True)
        book = Ledger(store, Settings(), clock=Clock(), promise=True)
        assert await book.record(exchange("r0"))  # the journal is made while there is room
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
        count = 1
        while await book.record(exchange(f"r{count}", user=f"user{count}")):
            count += 1
        assert not book.healthy
        assert not await book.record(exchange("waits"))
        assert len(list((folder / "ledger").glob("journal-*"))) == 1, "it keeps what the store has not"
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert book._retry is not None
        await asyncio.wait_for(book._retry, 20)
        assert await book.record(exchange("last"))
        (folder / "count").write_text(str(count + 3))
        await book.close()
        store.close()

    asyncio.run(fill())
