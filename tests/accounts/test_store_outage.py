"""A state store that cannot be written, or read, for a while: exchanges go on, and nothing learnt is lost."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts import Accounts, RefreshError
from pool_server.accounts.credentials import refresh, source
from pool_server.core.disk import try_hold
from pool_server.core.enums import Operation
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.storage import Store, StoreError, StoreFullError
from pool_server.storage.write_behind import MOST_OWED, RETRY_S, WriteBehind
from tests.accounts.kit import HOUR, SONNET, Clock, Line, Pool, ask, claude, quota, token_answer

THREE = {f"claude_{name}.json": claude(f"sk-ant-oat01-{name}") for name in "abc"}


class Disk:
    """Makes the writes (and reads) of a store fail while `full` (`dead`); counts the writes that were tried."""

    def __init__(self, store: Store) -> None:
        self.full = self.dead = False
        self.tried = 0
        self._write, self._get, self._read = store.write, store.get, store.read
        store.write = self.write  # type: ignore[method-assign]
        store.get = self.get  # type: ignore[method-assign]
        store.read = self.read  # type: ignore[method-assign]

    def write(self, fn: Callable[[Any], Any]) -> Any:
        self.tried += 1
        if self.full:
            raise StoreFullError("no space left")
        return self._write(fn)

    def get(self, table: str, key: bytes) -> bytes | None:
        self._alive()
        return self._get(table, key)

    def read(self) -> Any:
        self._alive()
        return self._read()

    def _alive(self) -> None:
        if self.dead:
            raise StoreError("the medium is gone")


@pytest.fixture(params=[1, 2], ids=["one worker", "two workers"])
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Pool, Disk]]:
    pool = Pool(tmp_path, THREE, workers=request.param, line=Line(lambda _: token_answer("sk-ant-oat01-new")))
    yield pool, Disk(pool.store)
    pool.store.close()


def cool(pool: Pool, account: str, accounts: Accounts | None = None) -> None:
    accounts = accounts or pool.accounts
    accounts.fail(
        account, quota(HOUR, at=pool.clock.now), SONNET, Operation.MESSAGES, accounts.credential(account).fingerprint
    )


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR and "store" in r.getMessage()]


def test_exchanges_go_on_and_memory_is_the_truth(broken: tuple[Pool, Disk], caplog: pytest.LogCaptureFixture) -> None:
    pool, disk = broken
    disk.full = True
    first = pool.serve(ask(session="talk"))
    assert first is not None
    assert {pool.serve(ask(session="talk")) for _ in range(20)} == {first}
    pool.accounts.own("ann", "response", "resp_1", first)
    assert pool.accounts.owner_of("ann", "response", "resp_1") == first
    cool(pool, first)
    assert pool.state(first) == "exhausted"
    pool.clock.now += 60
    assert pool.state(first) == "exhausted" and pool.serve(ask(session="talk")) != first
    other = next(a for a in ("claude:a", "claude:b", "claude:c") if a != first)
    pool.accounts.lock(other)
    assert pool.serve(ask()) == other
    assert len(errors(caplog)) == 1 and "no space left" in errors(caplog)[0]


def test_what_was_learnt_is_written_when_the_store_recovers(
    broken: tuple[Pool, Disk], caplog: pytest.LogCaptureFixture
) -> None:
    pool, disk = broken
    caplog.set_level(logging.INFO)
    beside = pool.worker(leader=False) if pool.settings.workers == 2 else None
    disk.full = True
    first = pool.serve(ask(session="talk"))
    assert first is not None
    pool.accounts.own("ann", "response", "resp_1", first)
    cool(pool, first)
    disk.full = False
    pool.clock.now += RETRY_S
    pool.serve(ask("bob", "another"))  # any write brings the others with it
    if beside is not None:
        beside.select(ask())
        assert beside.describe(first).state == "exhausted"
    again = pool.again()
    assert again.describe(first).state == "exhausted"
    assert again.owner_of("ann", "response", "resp_1") == first
    assert again.select(ask(session="talk")).pinned == first
    assert sum("can be written again" in r.getMessage() for r in caplog.records) == 1


@pytest.mark.slow
def test_the_background_writes_it_when_nobody_asks(broken: tuple[Pool, Disk]) -> None:
    pool, disk = broken

    async def run() -> None:
        await pool.accounts.start()
        disk.full = True
        cool(pool, "claude:a")
        disk.full = False
        pool.clock.now += RETRY_S
        while pool.worker(leader=False).describe("claude:a").state != "exhausted":
            await asyncio.sleep(0.01)
        await pool.accounts.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_closing_writes_it_too(broken: tuple[Pool, Disk]) -> None:
    pool, disk = broken
    disk.full = True
    cool(pool, "claude:a")
    disk.full = False
    asyncio.run(pool.accounts.close())
    assert pool.again().describe("claude:a").state == "exhausted"


def test_a_full_store_is_not_asked_again_by_every_request(broken: tuple[Pool, Disk]) -> None:
    pool, disk = broken
    disk.full = True
    pool.serve(ask(session="talk"))
    tried = disk.tried
    for n in range(50):
        pool.serve(ask(session=f"talk {n}"))
    assert disk.tried == tried


def test_a_refused_token_is_refreshed_without_a_lease(broken: tuple[Pool, Disk]) -> None:
    pool, disk = broken
    disk.full = True
    fresh = asyncio.run(pool.accounts.refresh("claude:a", "sk-ant-oat01-a"))
    assert fresh.secret == "sk-ant-oat01-new"
    login = json.loads((pool.folder / "claude_a.json").read_text())["claudeAiOauth"]
    assert login["accessToken"] == "sk-ant-oat01-new"
    disk.full = False
    pool.clock.now += RETRY_S
    assert pool.reload().changed == []


def test_a_refresh_whose_lease_cannot_be_given_back_is_a_refresh(broken: tuple[Pool, Disk]) -> None:
    pool, disk = broken

    def answer(_: Any) -> Any:
        disk.full = True
        return token_answer("sk-ant-oat01-new")

    pool.line.answer = answer
    assert asyncio.run(pool.accounts.refresh("claude:a", "sk-ant-oat01-a")).secret == "sk-ant-oat01-new"


def test_a_store_that_cannot_be_read_either_stops_nothing(
    broken: tuple[Pool, Disk], caplog: pytest.LogCaptureFixture
) -> None:
    pool, disk = broken
    disk.full = disk.dead = True
    first = pool.serve(ask(session="talk", hard=(("response", "resp_0"),)))
    assert first is not None
    assert pool.serve(ask(session="talk")) == first
    pool.reload()
    pool.accounts._background._pins.sweep(pool.clock.now)
    pool.accounts._registry.share_flight()
    assert len(errors(caplog)) == 1


@pytest.mark.slow
def test_what_is_owed_has_a_bound(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE)
    disk, clock = Disk(pool.store), Clock()
    write_behind = WriteBehind(pool.store, clock)
    disk.full = True
    for n in range(MOST_OWED + 10):
        write_behind.put("pins", n.to_bytes(4, "big"), b"x")
    assert write_behind.get("pins", (9).to_bytes(4, "big")) is None
    assert write_behind.get("pins", (10).to_bytes(4, "big")) == b"x"
    disk.full = False
    clock.now += RETRY_S
    write_behind.settle()
    with pool.store.read() as txn:
        assert sum(1 for _ in txn.scan("pins")) == MOST_OWED


@pytest.mark.slow
@pytest.mark.parametrize("fills", ["before", "between"])
def test_one_worker_trades_a_token_while_no_lease_can_be_written(
    broken: tuple[Pool, Disk], monkeypatch: pytest.MonkeyPatch, fills: str
) -> None:
    pool, disk = broken
    old = pool.accounts.credential("claude:a").secret
    tried: list[object] = []

    def counted(path: Path) -> int | None:
        tried.append(path)
        return try_hold(path)

    monkeypatch.setattr(source, "try_hold", counted)

    async def run() -> set[str]:
        asked, gate = asyncio.Event(), asyncio.Event()

        async def slow(_: HttpRequest) -> HttpAnswer:
            asked.set()
            await gate.wait()
            return token_answer("sk-ant-oat01-new")

        pool.line.answer = slow
        disk.full = fills == "before"
        workers = [pool.accounts, *(pool.worker(leader=False) for _ in range(3))]
        flights = [asyncio.create_task(workers[0].refresh("claude:a", old))]
        await asked.wait()
        disk.full = True
        flights += [asyncio.create_task(worker.refresh("claude:a", old)) for worker in workers[1:]]
        while len(tried) < 2 * len(workers):  # each of the others has looked more than once
            await asyncio.sleep(0)
        gate.set()
        return {found.secret for found in await asyncio.gather(*flights)}

    assert asyncio.run(asyncio.wait_for(run(), 60)) == {"sk-ant-oat01-new"}
    assert len(pool.line.sent) == 1


def test_a_token_is_not_traded_where_nothing_keeps_others_from_it(
    broken: tuple[Pool, Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, disk = broken
    old = pool.accounts.credential("claude:a").secret

    def no_locks(path: Path) -> int | None:
        raise OSError(errno.ENOLCK, "No locks available", str(path))

    monkeypatch.setattr(source, "try_hold", no_locks)
    disk.full = True
    with pytest.raises(RefreshError, match="cannot be locked") as caught:
        asyncio.run(pool.accounts.refresh("claude:a", old))
    assert not caught.value.permanent and not pool.line.sent
    disk.full = False
    pool.clock.now += RETRY_S
    assert asyncio.run(pool.accounts.refresh("claude:a", old)).secret == "sk-ant-oat01-new", "the lease is enough"


def test_a_stopped_worker_holds_a_file_no_longer_than_a_lease(broken: tuple[Pool, Disk]) -> None:
    pool, _ = broken
    old = pool.accounts.credential("claude:a").secret
    held = try_hold(pool.folder / "claude_a.json")
    assert held is not None

    async def run() -> str:
        waiting = asyncio.create_task(pool.accounts.refresh("claude:a", old))
        while not pool.store.get("leases", b"refresh:claude:a"):
            await asyncio.sleep(0)
        assert not pool.line.sent
        pool.clock.now += refresh.LEASE_S
        return (await waiting).secret

    try:
        assert asyncio.run(asyncio.wait_for(run(), 60)) == "sk-ant-oat01-new"
    finally:
        os.close(held)
