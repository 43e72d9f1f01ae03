"""What becomes of requests while the database is away, and what is counted of them once it is back."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pool_server.core.models import Usage
from tests.cluster.conftest import Database
from tests.cluster.nodes import OPERATOR, Node, several
from tests.fakes import FakeProviders, account, plays

PATIENCE_S = 60.0
UNLIMITED = {"concurrent": None}


async def until(what: Callable[[], Awaitable[bool]], why: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await what():
        assert time.monotonic() < deadline, why
        await asyncio.sleep(0.05)


async def store_is(node: Node, word: str) -> bool:
    return bool((await node.call("GET", "/healthz"))[1]["store"] == word)


def test_limits_are_not_passed_while_the_database_is_away_and_the_others_lose_nothing(
    own: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def walk() -> None:
        async with (
            FakeProviders([account("claude:one")]) as fakes,
            several(own, fakes, tmp_path, 1, store_wait_s=0.2) as (node,),
        ):
            fakes.always("claude:one", plays.ok(Usage(input=100, output=23)))
            people = node.server.users.people
            limited = await people.create_user("Ada", actor=OPERATOR, limits={"tokens_day": 1000})
            free = await people.create_user("Ben", actor=OPERATOR, limits=UNLIMITED)
            assert (await node.ask(limited["key"]))[0] == (await node.ask(free["key"]))[0] == 200
            own.server.stop(signal.SIGINT)
            await until(lambda: store_is(node, "away"), "the node does not notice")
            status, body = await node.ask(limited["key"])
            assert (status, "limits cannot be checked" in body["error"]["message"]) == (503, True)
            assert (await node.ask(free["key"]))[0] == 200
            assert (await node.call("GET", "/healthz"))[0] == 200
            own.server.start()
            await until(lambda: store_is(node, "ok"), "the node does not come back")
            assert (await node.ask(limited["key"]))[0] == 200
            for person, times in ((limited, 2), (free, 2)):
                await node.server.users.limits.fetch([person["id"]])
                used = node.server.users.limits.of(person["id"])["used"]
                assert (used["tokens_day"], used["concurrent"]) == (times * 123, 0)

    asyncio.run(walk())
    assert not [one for one in caplog.records if one.name.startswith("asyncpg") or one.exc_info]


def test_a_request_waits_for_a_database_that_comes_back(own: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        async with (
            FakeProviders([account("claude:one")]) as fakes,
            several(own, fakes, tmp_path, 1, store_wait_s=PATIENCE_S) as (node,),
        ):
            made = await node.server.users.people.create_user("Ada", actor=OPERATOR, limits={"tokens_day": 1000})
            own.server.stop(signal.SIGINT)
            asked = asyncio.create_task(node.ask(made["key"]))
            await until(lambda: store_is(node, "away"), "the node does not notice")
            assert not asked.done()
            own.server.start()
            assert (await asked)[0] == 200

    asyncio.run(walk())


def test_an_operator_may_rather_overrun_than_stop(own: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        async with (
            FakeProviders([account("claude:one")]) as fakes,
            several(own, fakes, tmp_path, 1, store_wait_s=0.0, store_when_away="allow") as (node,),
        ):
            made = await node.server.users.people.create_user("Ada", actor=OPERATOR, limits={"tokens_day": 1000})
            own.server.stop(signal.SIGINT)
            assert (await node.ask(made["key"]))[0] == 200

    asyncio.run(walk())


def test_the_grace_has_an_end(own: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        async with (
            FakeProviders([account("claude:one")]) as fakes,
            several(own, fakes, tmp_path, 1, store_wait_s=0.0, store_grace_s=0.0) as (node,),
        ):
            made = await node.server.users.people.create_user("Ada", actor=OPERATOR, limits=UNLIMITED)
            own.server.stop(signal.SIGINT)
            await until(lambda: store_is(node, "away"), "the node does not notice")
            assert (await node.ask(made["key"]))[0] == 503

    asyncio.run(walk())
