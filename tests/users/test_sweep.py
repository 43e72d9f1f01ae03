from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pool_server.storage import Store
from pool_server.storage.lmdb import sweeper
from pool_server.storage.lmdb.sweeper import Sweeper
from pool_server.users import LEDGER_TABLES

from .site import PASSPHRASE, PEER, Site


@pytest.mark.parametrize("durable", [False, True])
def test_the_stale_go_step_by_step_and_the_rest_stays(
    tmp_path: Path, durable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "STEP", 10)
    store = Store.open(tmp_path, tables=LEDGER_TABLES, durable=durable, map_size=1 << 24)

    async def main() -> int:
        sweeper = Sweeper(store, "users.sessions", lambda raw, now: float(raw) <= now)
        gone = 0
        for _ in range(7):
            step = sweeper.step(50.0)
            gone += step if isinstance(step, int) else await step
        return gone

    store.write(lambda txn: txn.put_many("users.sessions", [(b"%03d" % n, b"%d" % (n * 2)) for n in range(60)]))
    assert asyncio.run(main()) == 26
    with store.read() as txn:
        assert [int(key) for key, _ in txn.scan("users.sessions")] == list(range(26, 60))
    store.close()


def test_what_has_had_its_time_is_cleared_in_the_background(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_server.users.service.SWEEP_S", 0.02)

    async def main() -> None:
        users = site.users
        entry = await users.sign_in.friend_login(peer=PEER, code="open sesame", name="Anna", passphrase=PASSPHRASE)
        principal = await users.sessions.find(entry.cookie)
        assert principal is not None
        await users.tickets.create(principal)
        site.clock.now += 40 * 86400
        ticket = await users.tickets.create(principal)
        await users.start()
        async with asyncio.timeout(60):
            while True:
                await asyncio.sleep(0.01)
                with site.durable.read() as durable, site.state.read() as state:
                    left = (durable.count("users.sessions"), state.count("users.tickets"))
                if left == (0, 1):
                    break
        assert (await users.tickets.redeem(ticket["ticket"], peer=PEER))["key"]

    site.run(main)


def test_a_background_task_that_fails_is_tried_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pool_server.users.service.FOLLOW_S", 0.001)
    calls: list[int] = []

    def news() -> tuple[()]:
        calls.append(1)
        if len(calls) == 2:  # the first is the start's own
            raise RuntimeError("a hiccup")
        return ()

    monkeypatch.setattr(site.users._feed, "news", news)

    async def main() -> None:
        await site.users.start()
        async with asyncio.timeout(60):
            while len(calls) < 3:
                await asyncio.sleep(0.001)

    site.run(main)
    assert "a hiccup" in caplog.text
