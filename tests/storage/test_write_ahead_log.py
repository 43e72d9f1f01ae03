"""Write-ahead log: durable at once, in the engine a moment later, and never only in a log that nobody reads."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pool_server.storage import Store, StoreError, Txn
from pool_server.storage.lmdb import log_file as log_file_module
from pool_server.storage.lmdb import write_ahead_log as write_ahead_log_module
from pool_server.storage.lmdb.log_file import LogFile
from pool_server.storage.lmdb.write_ahead_log import WriteAheadLog

T = "t"


class Desk:
    """A store with a write-ahead log on one of its channels. `broken`: the engine takes nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store.open(folder, tables=(T,), durable=True)
        self.broken = False
        self.failed: list[str] = []
        self.batches: list[int] = []
        channel = self.store.channel(self._apply, failed=self._failed)
        self.write_ahead_log: WriteAheadLog[str] = self.store.write_ahead_log(
            channel, _content, lambda: bool(self.failed)
        )

    def _apply(self, txn: Txn, items: Sequence[str]) -> list[bool]:
        if self.broken:
            raise StoreError("it is broken")
        self.batches.append(len(items))
        for item in items:
            txn.put(T, item.encode(), b"")
        return [True] * len(items)

    def _failed(self, item: str, error: BaseException) -> bool:
        self.failed.append(item)
        return False

    @property
    def there(self) -> list[str]:
        with self.store.read() as reader:
            return [key.decode() for key, _ in reader.scan(T)]

    @property
    def logs(self) -> list[list[bytes]]:
        return [log_file_module.read(path) for path in self.folder.glob("journal-*")]


def _content(item: str) -> bytes:
    if item == "unwritable":
        raise ValueError(item)
    return item.encode()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(write_ahead_log_module, "FOLLOW_S", 60.0)
    made = Desk(tmp_path)
    yield made
    made.store.close()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())


def test_an_item_is_durable_before_the_engine_has_it(desk: Desk) -> None:
    async def test() -> None:
        sent = [desk.write_ahead_log.send(item) for item in ("a", "b")]
        assert await asyncio.gather(*sent) == [True, True]
        assert (desk.there, desk.logs) == ([], [[b"a", b"b"]])
        assert await desk.write_ahead_log.send("c")
        await desk.write_ahead_log.settled()
        assert desk.there == ["a", "b", "c"]
        assert desk.batches == [3], "what came apart is written together"
        await desk.write_ahead_log.settled()
        assert await desk.write_ahead_log.send("d")
        assert desk.logs == [[b"d"]], "the log has begun anew"
        await desk.write_ahead_log.close()
        assert (desk.there, desk.logs) == (["a", "b", "c", "d"], [])

    run(test)


def test_the_engine_follows_by_itself(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_ahead_log_module, "FOLLOW_S", 0.01)

    async def test() -> None:
        await desk.write_ahead_log.send("a")
        while desk.there != ["a"]:
            await asyncio.sleep(0.005)
        await desk.write_ahead_log.close()

    run(test)


def test_whoever_reads_waits_for_what_was_sent_before_and_for_nothing_else(desk: Desk) -> None:
    async def test() -> None:
        desk.write_ahead_log.send("a")  # not even in the log yet
        await desk.write_ahead_log.settled()
        assert desk.there == ["a"]

        async def stream() -> None:
            for number in range(1000):
                await desk.write_ahead_log.send(f"n{number}")

        busy = asyncio.create_task(stream())
        for _ in range(5):
            await desk.write_ahead_log.settled()
        assert not busy.done()
        await busy
        await desk.write_ahead_log.close()
        assert len(desk.there) == 1001

    run(test)


def test_a_waiter_that_was_cancelled_keeps_nobody_from_anything(desk: Desk) -> None:
    async def test() -> None:
        waiter = asyncio.ensure_future(desk.write_ahead_log.send("a"))
        reader = asyncio.create_task(desk.write_ahead_log.settled())
        await asyncio.sleep(0)
        waiter.cancel()
        reader.cancel()
        assert await desk.write_ahead_log.send("b")
        await desk.write_ahead_log.close()
        assert desk.there == ["a", "b"]

    run(test)


def test_a_full_log_waits_for_the_engine(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file_module, "SIZE", 100)

    async def test() -> None:
        assert await desk.write_ahead_log.send("small")
        assert await desk.write_ahead_log.send("large " * 30)
        assert desk.there == ["large " * 30, "small"], "and all that came before it"
        assert await desk.write_ahead_log.send("after")
        assert desk.logs == [[b"after"]]
        await desk.write_ahead_log.close()

    run(test)


@pytest.mark.parametrize("trouble", ["no log", "no content"])
def test_what_the_log_cannot_take_goes_to_the_engine(trouble: str, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    def refuse(*what: object, **_: Any) -> None:
        tried.append(what)
        raise OSError(28, "No space left on device")

    if trouble == "no log":
        monkeypatch.setattr(write_ahead_log_module, "LogFile", refuse)

    async def test() -> None:
        assert await desk.write_ahead_log.send("unwritable" if trouble == "no content" else "a")
        assert desk.there == ["unwritable" if trouble == "no content" else "a"]
        assert await desk.write_ahead_log.send("b")
        assert "b" in desk.there or trouble == "no content"
        await desk.write_ahead_log.close()
        assert len(tried) == (trouble == "no log"), "not tried again by every batch"

    run(test)


def test_what_the_engine_cannot_take_stays_in_the_log_until_it_is_made_up_for(desk: Desk) -> None:
    async def test() -> None:
        assert await desk.write_ahead_log.send("a")
        desk.broken = True
        await desk.write_ahead_log.settled()
        assert (desk.failed, desk.there) == (["a"], [])
        desk.broken = False
        assert await desk.write_ahead_log.send("b")
        await desk.write_ahead_log.settled()
        assert desk.there == ["b"]
        assert await desk.write_ahead_log.send("c")
        assert desk.logs == [[b"a", b"b", b"c"]], "a is owed still"
        desk.failed.clear()
        await desk.write_ahead_log.settled()
        desk.write_ahead_log.made_up()
        assert await desk.write_ahead_log.send("d")
        assert desk.logs == [[b"d"]]
        await desk.write_ahead_log.close()
        assert desk.logs == []

    run(test)


def test_what_is_owed_at_the_end_is_left_for_whoever_comes_next(desk: Desk) -> None:
    async def test() -> None:
        assert await desk.write_ahead_log.send("a")
        desk.broken = True
        await desk.write_ahead_log.close()

    run(test)
    assert list(desk.store.orphans()) == [[b"a"]]
    assert desk.logs == []


def test_a_store_that_was_closed_first_loses_nothing(desk: Desk) -> None:
    async def test() -> None:
        assert await desk.write_ahead_log.send("a")
        desk.store._committer.close()
        await desk.write_ahead_log.close()

    run(test)
    assert list(desk.store.orphans()) == [[b"a"]]


def test_one_loop_after_another(desk: Desk) -> None:
    async def one() -> None:
        assert await desk.write_ahead_log.send("a")
        await desk.write_ahead_log.settled()

    async def other() -> None:
        assert await desk.write_ahead_log.send("b")
        await desk.write_ahead_log.close()

    run(one)
    run(other)
    assert desk.there == ["a", "b"]


def test_a_disk_that_hangs_holds_up_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """However quick it was before: no flush is waited for on the event loop."""
    hangs, goes_on = threading.Event(), threading.Event()
    append = LogFile.append

    def hanging(file: LogFile, contents: Sequence[bytes]) -> bool:
        if b"stuck" in contents:
            hangs.set()
            assert goes_on.wait(30)
        return append(file, contents)

    monkeypatch.setattr(LogFile, "append", hanging)

    async def test() -> None:
        for number in range(40):
            assert await desk.write_ahead_log.send(f"{number}", alone=True)
        stuck = desk.write_ahead_log.send("stuck", alone=True)
        try:
            while not hangs.is_set():
                await asyncio.sleep(0.001)
            assert not stuck.done()
        finally:
            goes_on.set()
        assert await stuck

    run(test)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_whatever_company_items_have_they_are_kept_in_order(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(write_ahead_log_module, "FOLLOW_S", 0.001)

    async def test() -> None:
        sent: list[str] = []
        waits = []
        for number in range(150):
            item = f"{number:04}"
            waits.append(desk.write_ahead_log.send(item, alone=chance.random() < 0.6))
            sent.append(item)
            if chance.random() < 0.4:
                await waits[-1]
                held = [one for log in desk.logs for one in log]
                assert {one.encode() for one in sent} <= {*held, *(one.encode() for one in desk.there)}
                assert held == sorted(held)
            if chance.random() < 0.2:
                await asyncio.sleep(0.002)
        assert all(await asyncio.gather(*waits))
        await desk.write_ahead_log.close()
        assert (desk.there, desk.logs) == (sent, [])

    run(test)


class SlowEngine:
    """Keeps an item when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, asyncio.Future[bool]]] = []

    def send(self, item: str) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.asked.append((item, future))
        return future


@pytest.mark.parametrize(
    ("within_s", "kept", "owing"), [(60.0, True, False), (0.05, False, False), (60.0, False, True)]
)
def test_what_must_be_in_the_engine_is_said_when_it_is_or_had_its_time(
    tmp_path: Path, within_s: float, kept: bool, owing: bool
) -> None:
    async def go() -> None:
        engine = SlowEngine()
        log = WriteAheadLog(tmp_path, engine, _content, lambda: owing, within_s=within_s)
        said = [log.send("one"), log.send("two")]
        async with asyncio.timeout(30):
            while not owing and len(engine.asked) < 2:
                await asyncio.sleep(0.005)
            if kept:
                assert [future.done() for future in said] == [False, False]
                engine.asked[0][1].set_result(True)
                assert await said[0] and not said[1].done()
                engine.asked[1][1].set_result(False)  # its `failed` has it, and the log
            assert await asyncio.gather(*said) == [True, True]
            assert sorted(log.contents()) == [b"one", b"two"]
            closing = asyncio.create_task(log.close())
            while not closing.done():
                for _, future in engine.asked:
                    if not future.done():
                        future.set_result(True)
                await asyncio.sleep(0.005)

    asyncio.run(go())
