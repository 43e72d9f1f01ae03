"""How jobs come together in commits, and that none is left behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pool_server.storage import Store
from pool_server.storage.lmdb import group_commit


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "s", tables=("a",), durable=True, map_size=1 << 20)
    yield opened
    opened.close()


def put(store: Store, key: bytes) -> asyncio.Future[None]:
    return store.submit(lambda txn: txn.put("a", key, b""))


def put_slowly(store: Store, key: bytes) -> asyncio.Future[None]:
    """Leaves the writer's thread time to run before the loop's turn is over."""
    time.sleep(0.002)
    return put(store, key)


def keys(store: Store) -> list[bytes]:
    with store.read() as reader:
        return [key for key, _ in reader.scan("a")]


def batches(store: Store) -> int:
    return store._committer.batches


def left_in_the_middle_of_a_turn(store: Store, key: bytes) -> None:
    """A loop that ends between asking for a commit and its next turn."""
    loop = asyncio.new_event_loop()

    async def ask() -> None:
        put(store, key)
        loop.stop()

    task = loop.create_task(ask())
    loop.run_forever()
    assert task.done()
    loop.close()


def test_what_one_turn_of_the_loop_asks_for_is_one_commit(store: Store) -> None:
    async def go() -> None:
        for _ in range(3):
            await asyncio.gather(*(put_slowly(store, b"%d" % i) for i in range(5)))

    asyncio.run(go())
    assert batches(store) == 3


def test_a_busy_loop_gathers_company(store: Store) -> None:
    async def go() -> None:
        jobs = []
        for i in range(10):
            jobs.append(put_slowly(store, b"%d" % i))
            await asyncio.sleep(0)
        await asyncio.gather(*jobs)

    asyncio.run(go())
    assert batches(store) == 1


def test_nobody_waits_for_ever_longer_queues(store: Store) -> None:
    async def go() -> None:
        first = put(store, b"first")
        for i in range(1000):
            if first.done():
                return
            put_slowly(store, b"%d" % i)
            await asyncio.sleep(0)
        pytest.fail("still waiting")

    asyncio.run(go())


def test_what_comes_while_the_disk_is_busy_goes_together_next(store: Store) -> None:
    async def go() -> None:
        begun, gate = threading.Event(), threading.Event()
        hold = store.submit(lambda _: begun.set() or gate.wait(5))  # type: ignore[func-returns-value]
        while not begun.is_set():
            await asyncio.sleep(0)
        later = []
        for i in range(10):
            later.append(put(store, b"%d" % i))
            await asyncio.sleep(0.001)
        assert batches(store) == 1
        gate.set()
        await asyncio.gather(hold, *later)

    asyncio.run(go())
    assert batches(store) == 2


def test_a_crowd_is_taken_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_BATCH", 8)

    async def go() -> None:
        await asyncio.wait_for(asyncio.gather(*(put(store, b"%03d" % i) for i in range(50))), 60)

    asyncio.run(go())
    assert len(keys(store)) == 50
    assert batches(store) == 7


def test_a_loop_that_ended_does_not_keep_others_waiting(store: Store) -> None:
    left_in_the_middle_of_a_turn(store, b"left")

    async def go() -> None:
        await asyncio.wait_for(put(store, b"next"), 60)

    asyncio.run(go())
    assert keys(store) == [b"left", b"next"]


def test_closing_commits_what_a_loop_left_behind(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s", tables=("a",), durable=True)
    left_in_the_middle_of_a_turn(store, b"left")
    store.close()
    again = Store.open(tmp_path / "s", tables=("a",), durable=True)
    assert keys(again) == [b"left"]
    again.close()


@pytest.mark.slow
def test_loops_of_many_threads_share_one_committer(store: Store) -> None:
    async def ask(name: bytes) -> None:
        for i in range(100):
            await asyncio.wait_for(put(store, b"%s-%d" % (name, i)), 60)

    threads = [threading.Thread(target=lambda n=n: asyncio.run(ask(n))) for n in (b"x", b"y", b"z")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(keys(store)) == 300
