"""A primary whose synchronous standby is gone: for a while nobody notices, then what it counts is trusted no more."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from pool_server.cluster import node as node_module
from pool_server.core.models import Usage
from pool_server.storage.postgres import inspection
from pool_server.storage.postgres.connection import connected
from pool_server.storage.postgres.inspection import inspect
from tests import postgres
from tests.cluster.conftest import Database
from tests.cluster.nodes import OPERATOR, several
from tests.cluster.test_away import UNLIMITED, store_is, until
from tests.cluster.test_each_part_killed import pair
from tests.fakes import FakeProviders, account, plays

pytestmark = pytest.mark.slow
NEVER_S = 3600.0


async def durability(database: Database, within_s: float) -> tuple[str, str]:
    """What `store check` says of it to a node's own role."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspection, "_FOLLOWS_S", within_s)
        return await durability_told(database)


async def durability_told(database: Database) -> tuple[str, str]:
    async with connected(database.place()) as connection:
        found = {one.check: one for one in await inspect(connection, database.place())}
    return found["durability"].state, found["durability"].message


async def walk(database: Database, standby: postgres.Server, folder: Path, *, trusted_s: float) -> None:
    """Three people ask while the standby is gone and after it is back; all of it is in the books at the end."""
    async with (
        FakeProviders([account("claude:one")]) as fakes,
        several(database, fakes, folder, 2, store_wait_s=0.2) as (one, other),
    ):
        fakes.always("claude:one", plays.ok(Usage(input=100, output=23)))
        people = one.server.users.people
        limited = await people.create_user("Ada", actor=OPERATOR, limits={"tokens_day": 100_000})
        free = await people.create_user("Ben", actor=OPERATOR, limits=UNLIMITED)
        await other.server.users.follower.catch_up()
        for node in (one, other):
            assert (await node.ask(limited["key"]))[0] == (await node.ask(free["key"]))[0] == 200
        assert await durability(database, 60) == ("ok", "a commit reaches the synchronous standby")
        standby.stop()
        if trusted_s == NEVER_S:  # within the first seconds nothing changes, and nobody waits for a commit
            began = time.monotonic()
            statuses = [(await node.ask(limited["key"]))[0] for node in (one, other) * 5]
            assert statuses == [200] * 10
            print(f"limited requests beside a standby that is gone: {(time.monotonic() - began) * 100:.0f} ms each")
        else:
            for node in (one, other):
                await until(lambda node=node: store_is(node, "slow"), "the node does not notice")  # type: ignore[misc]
                status, body = await node.ask(limited["key"])
                assert (status, "limits cannot be checked" in body["error"]["message"]) == (503, True)
                assert (await node.ask(free["key"]))[0] == 200
            assert "no synchronous standby follows" in (await durability(database, 0.1))[1]
        standby.start()
        for node in (one, other):
            await until(lambda node=node: store_is(node, "ok"), "the node does not come back")  # type: ignore[misc]
            assert (await node.ask(limited["key"]))[0] == (await node.ask(free["key"]))[0] == 200
        served = len(fakes.made())

        async def whole() -> bool:
            told = "select count(*), sum(tok) from pool.record where outcome = 'ok'"
            return await asyncio.to_thread(database.sql, told) == f"{served}|{served * 123}"

        await until(whole, "every answer in the books")
        for person in (limited, free):
            await one.server.users.limits.fetch([person["id"]])
            used = one.server.users.limits.of(person["id"])["used"]
            told = await asyncio.to_thread(
                database.sql, f"select sum(tok) from pool.record where usr = '{person['id']}'"
            )
            assert (str(used["tokens_day"]), used["concurrent"]) == (told, 0)


@pytest.mark.parametrize("trusted_s", [0.5, NEVER_S])
def test_what_is_counted_without_a_standby(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted_s: float) -> None:
    monkeypatch.setattr(node_module, "PROVE_S", 0.1)
    monkeypatch.setattr(node_module, "PROVEN_WITHIN_S", trusted_s)
    with pair(fsync=True) as (database, standby):
        asyncio.run(walk(database, standby, tmp_path, trusted_s=trusted_s))
