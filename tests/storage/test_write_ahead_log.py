"""Promises: durable at once, in the engine a moment later, and never only in a promise that nobody keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pool_server.storage import Store, StoreError, Txn
from pool_server.storage.lmdb import log_file as journal_module
from pool_server.storage.lmdb import write_ahead_log as promises_module
from pool_server.storage.lmdb.write_ahead_log import WriteAheadLog

T = "t"


class Desk:
    """A store with promises on one of its channels. `broken`: the engine takes nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store.open(folder, tables=(T,), durable=True)
        self.broken = False
        self.failed: list[str] = []
        self.batches: list[int] = []
        channel = self.store.channel(self._apply, failed=self._failed)
        self.promises: WriteAheadLog[str] = self.store.promises(channel, _content, lambda: bool(self.failed))

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
    def journals(self) -> list[list[bytes]]:
        return [journal_module.read(path) for path in self.folder.glob("journal-*")]


def _content(item: str) -> bytes:
    if item == "unwritable":
        raise ValueError(item)
    return item.encode()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(promises_module, "FOLLOW_S", 60.0)
    made = Desk(tmp_path)
    yield made
    made.store.close()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())


def test_a_promise_is_kept_before_the_engine_has_it(desk: Desk) -> None:
    async def test() -> None:
        sent = [desk.promises.send(item) for item in ("a", "b")]
        assert await asyncio.gather(*sent) == [True, True]
        assert (desk.there, desk.journals) == ([], [[b"a", b"b"]])
        assert await desk.promises.send("c")
        await desk.promises.settled()
        assert desk.there == ["a", "b", "c"]
        assert desk.batches == [3], "what came apart is written together"
        await desk.promises.settled()
        assert await desk.promises.send("d")
        assert desk.journals == [[b"d"]], "the journal has begun anew"
        await desk.promises.close()
        assert (desk.there, desk.journals) == (["a", "b", "c", "d"], [])

    run(test)


def test_the_engine_follows_by_itself(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promises_module, "FOLLOW_S", 0.01)

    async def test() -> None:
        await desk.promises.send("a")
        while desk.there != ["a"]:
            await asyncio.sleep(0.005)
        await desk.promises.close()

    run(test)


def test_whoever_reads_waits_for_what_was_sent_before_and_for_nothing_else(desk: Desk) -> None:
    async def test() -> None:
        desk.promises.send("a")  # not even in the journal yet
        await desk.promises.settled()
        assert desk.there == ["a"]

        async def stream() -> None:
            for number in range(1000):
                await desk.promises.send(f"n{number}")

        busy = asyncio.create_task(stream())
        for _ in range(5):
            await desk.promises.settled()
        assert not busy.done()
        await busy
        await desk.promises.close()
        assert len(desk.there) == 1001

    run(test)


def test_a_waiter_that_was_cancelled_keeps_nobody_from_anything(desk: Desk) -> None:
    async def test() -> None:
        waiter = asyncio.ensure_future(desk.promises.send("a"))
        reader = asyncio.create_task(desk.promises.settled())
        await asyncio.sleep(0)
        waiter.cancel()
        reader.cancel()
        assert await desk.promises.send("b")
        await desk.promises.close()
        assert desk.there == ["a", "b"]

    run(test)


def test_a_full_journal_promises_what_the_engine_has(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SIZE", 100)

    async def test() -> None:
        assert await desk.promises.send("small")
        assert await desk.promises.send("large " * 30)
        assert desk.there == ["large " * 30, "small"], "and all that came before it"
        assert await desk.promises.send("after")
        assert desk.journals == [[b"after"]]
        await desk.promises.close()

    run(test)


@pytest.mark.parametrize("trouble", ["no journal", "no content"])
def test_what_the_journal_cannot_take_goes_to_the_engine(
    trouble: str, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    def refuse(*what: object) -> None:
        tried.append(what)
        raise OSError(28, "No space left on device")

    if trouble == "no journal":
        monkeypatch.setattr(promises_module, "LogFile", refuse)

    async def test() -> None:
        assert await desk.promises.send("unwritable" if trouble == "no content" else "a")
        assert desk.there == ["unwritable" if trouble == "no content" else "a"]
        assert await desk.promises.send("b")
        assert "b" in desk.there or trouble == "no content"
        await desk.promises.close()
        assert len(tried) == (trouble == "no journal"), "not tried again by every batch"

    run(test)


def test_what_the_engine_cannot_take_stays_in_the_journal_until_it_is_made_up_for(desk: Desk) -> None:
    async def test() -> None:
        assert await desk.promises.send("a")
        desk.broken = True
        await desk.promises.settled()
        assert (desk.failed, desk.there) == (["a"], [])
        desk.broken = False
        assert await desk.promises.send("b")
        await desk.promises.settled()
        assert desk.there == ["b"]
        assert await desk.promises.send("c")
        assert desk.journals == [[b"a", b"b", b"c"]], "a is owed still"
        desk.failed.clear()
        await desk.promises.settled()
        desk.promises.made_up()
        assert await desk.promises.send("d")
        assert desk.journals == [[b"d"]]
        await desk.promises.close()
        assert desk.journals == []

    run(test)


def test_what_is_owed_at_the_end_is_left_for_whoever_comes_next(desk: Desk) -> None:
    async def test() -> None:
        assert await desk.promises.send("a")
        desk.broken = True
        await desk.promises.close()

    run(test)
    assert list(desk.store.orphans()) == [[b"a"]]
    assert desk.journals == []


def test_a_store_that_was_closed_first_loses_nothing(desk: Desk) -> None:
    async def test() -> None:
        assert await desk.promises.send("a")
        desk.store._committer.close()
        await desk.promises.close()

    run(test)
    assert list(desk.store.orphans()) == [[b"a"]]


def test_one_loop_after_another(desk: Desk) -> None:
    async def one() -> None:
        assert await desk.promises.send("a")
        await desk.promises.settled()

    async def other() -> None:
        assert await desk.promises.send("b")
        await desk.promises.close()

    run(one)
    run(other)
    assert desk.there == ["a", "b"]
