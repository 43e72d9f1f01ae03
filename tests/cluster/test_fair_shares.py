"""Fair shares of several machines are those of one that has served everything, whatever is told twice or late."""

from __future__ import annotations

import random
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pool_server.cluster import fair_shares
from pool_server.cluster.fair_shares import FairShares
from pool_server.core.settings import FairShare
from pool_server.storage import Store
from pool_server.storage.postgres.connection import Connection
from pool_server.users.limits import TABLES, fair_share
from pool_server.users.limits.recent_use import Shares
from tests.cluster.conftest import Database

NOW = 1_790_000_000.0
USERS, PROVIDERS = ("ada", "bob", "eve"), ("claude", "codex")


class Told(Exception):
    """The answer is lost, after the database has done what it was asked."""


class LossyConnection:
    """Every so many answers are lost."""

    def __init__(self, connection: Connection, rng: random.Random) -> None:
        self._connection, self._rng = connection, rng

    async def value(self, sql: str, *values: Any) -> Any:
        found = await self._connection.value(sql, *values)
        if self._rng.random() < 0.3:
            raise Told
        return found

    async def rows(self, sql: str, *values: Any) -> Any:
        return await self._connection.rows(sql, *values)


def recently(everybody: dict[str, fair_share.Buckets], now: float) -> dict[str, float]:
    return {user: fair_share.recent(taken, now, 3600.0) for user, taken in everybody.items()}


@pytest.mark.parametrize("seed", range(4))
def test_three_machines_share_as_one(
    database: Database, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_shares, "ROUND_S", -1.0)
    rng, now = random.Random(seed), NOW

    async def told(one: FairShares, connection: Any) -> None:
        for _ in range(50):
            try:
                await one.round(connection)
            except Told:
                continue
            return

    async def go(connection: Connection) -> None:
        nonlocal now
        with closing(Store.open(tmp_path / "state", tables=TABLES, durable=False)) as store:
            alone = Shares(store, FairShare(window_h=1), lambda user: 1.0)
            each = [Shares(store, FairShare(window_h=1), lambda user: 1.0) for _ in range(3)]
            nodes = [FairShares(shares, lambda: now) for shares in each]
            lossy: Any = LossyConnection(connection, rng)
            for _ in range(120):
                now += rng.choice([0, 1, 30, 200])
                provider, user, amount = rng.choice(PROVIDERS), rng.choice(USERS), rng.choice([0, 1, 17.5, 4e6])
                rng.choice(nodes).count(provider, user, amount)
                store.write(partial(alone.add, provider=provider, user=user, amount=amount, now=now))
                if rng.random() < 0.3:
                    await told(rng.choice(nodes), lossy)
            for one in nodes:
                one.everybody("claude", now), one.everybody("codex", now)
                await told(one, lossy)
            for one in nodes:
                await told(one, connection)
            for provider in PROVIDERS:
                whole = recently(alone.everybody(provider, now), now)
                for one, shares in zip(nodes, each, strict=True):
                    found = one.everybody(provider, now)
                    assert recently(found, now) == whole
                    for user in USERS:
                        args = provider, user, 5.0, now
                        assert shares.waits_until(*args) == alone.waits_until(*args)

    database.run(go)


def test_nobody_waits_by_what_is_not_known(database: Database, tmp_path: Path) -> None:
    async def go(connection: Connection) -> None:
        with closing(Store.open(tmp_path / "state", tables=TABLES, durable=False)) as store:
            shares = Shares(store, FairShare(), lambda user: 1.0)
            node = FairShares(shares, lambda: NOW)
            for _ in range(3):
                node.count("claude", "ada", 1e6)
            node.count("claude", "bob", 1.0)
            assert shares.waits_until("claude", "ada", 1.0, NOW) is None
            await node.round(connection)
            assert shares.waits_until("claude", "ada", 1.0, NOW) is not None
            assert shares.waits_until("claude", "bob", 1.0, NOW) is None
            assert shares.waits_until("claude", "ada", 90.0, NOW) is None, "it is not short"

    database.run(go)


def test_what_has_left_the_window_leaves_the_database(database: Database, tmp_path: Path) -> None:
    clock = [NOW]

    async def go(connection: Connection) -> None:
        with closing(Store.open(tmp_path / "state", tables=TABLES, durable=False)) as store:
            node = FairShares(Shares(store, FairShare(window_h=1), lambda user: 1.0), lambda: clock[0])
            node.count("claude", "ada", 1.0)
            await node.round(connection)
            clock[0] += 3 * 3600
            node.count("claude", "bob", 1.0)
            node._last = 0.0
            await node.round(connection)

    database.run(go)
    assert database.sql("select usr from pool.share_use") == "bob"
