"""Servers that really run on one database: what is decided on one machine holds on all."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from pool_server.app.composition.ports import check_shared
from pool_server.app.server import Server
from pool_server.cluster import database_admission
from pool_server.cluster import node as node_module
from pool_server.cluster.database_admission import DatabaseAdmission
from pool_server.cluster.node import ClusterNode
from pool_server.core.models import Usage
from pool_server.core.settings import Backup, BookingSettings, ConfigError, PoolUsers, Settings
from pool_server.storage.errors import StoreError
from pool_server.storage.postgres.connection import connected
from pool_server.storage.postgres.migrations import OWNER
from pool_server.users.limits import admitting
from pool_server.users.models import Denied
from tests.cluster.conftest import Database
from tests.cluster.nodes import OPERATOR, several
from tests.fakes import Call, FakeProviders, Gate, account, plays


def test_a_person_of_one_machine_is_served_by_the_other(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        async with FakeProviders([account("claude:one")]) as fakes, several(database, fakes, tmp_path) as (a, b):
            made = await a.server.users.people.create_user("Ada", actor=OPERATOR)
            status, answer = await b.ask(made["key"])
            assert (status, answer["type"]) == (200, "message")
            await b.server.users.people.revoke_key(made["id"], made["key_id"], actor=OPERATOR)
            assert (await b.ask(made["key"]))[0] == (await a.ask(made["key"]))[0] == 401

    asyncio.run(walk())


def test_limits_are_those_of_all_machines_together(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        async with FakeProviders([account("claude:one")]) as fakes, several(database, fakes, tmp_path) as nodes:
            people = nodes[0].server.users.people
            made = await people.create_user("Ada", actor=OPERATOR, limits={"requests_per_minute": 5})
            answers = await asyncio.gather(*(nodes[n % 2].ask(made["key"]) for n in range(12)))
            assert sorted(status for status, _ in answers) == [200] * 5 + [429] * 7
            assert {"5 requests a minute" in body["error"]["message"] for status, body in answers if status == 429} == {
                True
            }
            assert len(fakes.made()) == 5

    asyncio.run(walk())


def test_what_is_used_is_counted_to_the_token_wherever_it_was(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        async with FakeProviders([account("claude:one")]) as fakes, several(database, fakes, tmp_path) as nodes:
            fakes.always("claude:one", plays.ok(Usage(input=100, output=23)))
            made = await nodes[0].server.users.people.create_user("Ada", actor=OPERATOR, limits={"concurrent": 1})
            for number in range(40):  # nobody is in their own way, wherever they asked before
                assert (await nodes[number % 2].ask(made["key"]))[0] == 200
            while database.sql("select sum(held_n) from pool.use") != "0":
                await asyncio.sleep(0.01)
            for node in nodes:
                await node.server.users.limits.fetch([made["id"]])
                used = node.server.users.limits.of(made["id"])["used"]
                assert (used["tokens_day"], used["requests_per_minute"]) == (40 * 123, 40)

    asyncio.run(walk())


def test_nobody_is_in_their_own_way_at_another_node(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer has ended for its client before the database is told; who asks elsewhere at once is not refused, but
    by what does run there."""

    async def walk() -> None:
        async with FakeProviders([account("claude:one")]) as fakes, several(database, fakes, tmp_path) as (a, b):
            made = await a.server.users.people.create_user("Ada", actor=OPERATOR, limits={"concurrent": 1})
            here, there = (one.server.users.admission.port for one in (a, b))
            assert isinstance(here, DatabaseAdmission) and isinstance(there, DatabaseAdmission)
            tell, decide, denied = here._round, there._decided, asyncio.Event()

            async def told_late() -> None:
                await denied.wait()
                await tell()

            async def decided(*asked: Any) -> Any:
                if isinstance(found := await decide(*asked), Denied):
                    denied.set()
                return found

            assert (await b.ask(made["key"]))[0] == 200  # which knows the key from then on
            while database.sql("select sum(held_n) from pool.use") != "0":
                await asyncio.sleep(0.01)
            monkeypatch.setattr(here, "_round", told_late)
            monkeypatch.setattr(there, "_decided", decided)
            monkeypatch.setattr(database_admission, "ELSEWHERE_S", (0.05,) * 100)
            assert (await a.ask(made["key"]))[0] == 200
            assert (await b.ask(made["key"]))[0] == 200
            assert denied.is_set()
            monkeypatch.setattr(database_admission, "ELSEWHERE_S", (0.01,))
            fakes.then("claude:one", plays.slow_headers(gate := Gate()))
            runs = asyncio.create_task(a.ask(made["key"]))
            await gate.reached()
            assert (await b.ask(made["key"]))[0] == 429
            gate.open()
            assert (await runs)[0] == 200

    asyncio.run(walk())


def test_a_person_whose_changes_cannot_be_read_is_told_so(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def walk() -> None:
        async with FakeProviders([account("claude:one")]) as fakes, several(database, fakes, tmp_path, 1) as (node,):
            made = await node.server.users.people.create_user("Ada", actor=OPERATOR)

            async def stale(*asked: Any) -> None:
                return None

            monkeypatch.setattr(admitting, "STALE_S", 0.1)
            monkeypatch.setattr(node.server.users.admission.port, "_decided", stale)
            assert (await node.ask(made["key"]))[0] == 503

    asyncio.run(walk())


def test_a_request_waits_for_one_statement_and_its_end_for_none(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it goes up: its admission, with what its conversation is bound to. From then on nobody gets at counters or
    the node's row, and the answer ends all the same."""
    asked = 0
    before: list[int] = []
    goes_up, locked = asyncio.Event(), asyncio.Event()

    class Providers(FakeProviders):
        async def arrive(self, call: Call, request: web.Request) -> None:
            before.append(asked)
            goes_up.set()
            await locked.wait()
            await super().arrive(call, request)

    async def walk() -> None:
        nonlocal asked
        async with Providers([account("claude:one")]) as fakes, several(database, fakes, tmp_path, 1) as (a,):
            made = await a.server.users.people.create_user("Ada", actor=OPERATOR, limits={"tokens_day": 10**9})
            locked.set()
            for _ in range(2):
                assert (await a.ask(made["key"]))[0] == 200
            assert a.server._node is not None
            pool = a.server._node.pool  # of what requests wait for
            opened = pool.connection

            def connection() -> Any:
                nonlocal asked
                asked += 1
                return opened()

            monkeypatch.setattr(pool, "connection", connection)
            for _ in range(5):
                asked = 0
                assert (await a.ask(made["key"]))[0] == 200
            assert min(before[-5:]) == 1  # what looks now and then whether anything was changed may come between
            locked.clear()
            goes_up.clear()
            answer = asyncio.create_task(a.ask(made["key"]))
            await goes_up.wait()
            async with connected(database.place(OWNER)) as c, c.transaction():
                for table in ("use", "node"):
                    await c.rows(f"select from pool.{table} for update")
                locked.set()
                assert (await answer)[0] == 200

    asyncio.run(walk())


def test_limits_that_were_changed_hold_for_the_next_request_anywhere(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        async with FakeProviders([account("claude:one")]) as fakes, several(database, fakes, tmp_path) as (a, b):
            made = await a.server.users.people.create_user("Ada", actor=OPERATOR)
            assert (await b.ask(made["key"]))[0] == 200
            await a.server.users.people.patch_user(made["id"], {"limits": {"concurrent": 0}}, actor=OPERATOR)
            assert (await b.ask(made["key"]))[0] == 429

    asyncio.run(walk())


def test_what_a_machine_was_told_counts_once_its_process_goes_by_it(database: Database, tmp_path: Path) -> None:
    """Between the two a request finds the old limits: another process of the machine has taken the news in, or a
    thread of this one."""

    async def walk() -> None:
        async with FakeProviders([account("claude:one")]) as fakes, several(database, fakes, tmp_path) as (a, b):
            made = await a.server.users.people.create_user("Ada", actor=OPERATOR)
            assert (await b.ask(made["key"]))[0] == 200
            users = b.server.users
            await users._tasks.close()
            assert b.server._node is not None
            b.server._node.on_feed["people"].clear()
            await a.server.users.people.patch_user(made["id"], {"limits": {"concurrent": 0}}, actor=OPERATOR)
            await users._port.catch_up()
            view = users._directory.view(made["id"])
            assert view is not None and view.limits.concurrent, "it goes by what it had read"
            assert (await b.ask(made["key"]))[0] == 429

    asyncio.run(walk())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (Settings(store_url="postgresql://h/d"), "local mode has no people to share"),
        (Settings(store_url="postgresql://h/d", friend_code="swim"), "set POOL_STORE_KEY"),
        (Settings(store_url="u", friend_code="s", bookings=BookingSettings(most_percent=5)), "what people book"),
        (
            Settings(store_url="u", friend_code="s", backup=Backup(folder="b")),
            "back the database up with its own tools",
        ),
    ],
)
def test_settings_of_no_pool_of_several_machines_are_one_line(
    settings: Settings, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POOL_STORE_KEY", raising=False)
    with pytest.raises(ConfigError, match=told):
        check_shared(settings)


@pytest.mark.usefixtures("template")  # which makes the roles
def test_a_database_without_a_schema_is_refused(empty: Database, tmp_path: Path) -> None:
    users = PoolUsers(admin_password="a", jwt_secret="s" * 32)
    settings = Settings(store_url=empty.url(), data_dir=str(tmp_path / "data"), pool_users=users)
    with pytest.raises(StoreError, match="store migrate"):
        asyncio.run(Server(settings).start([]))


def test_a_database_that_was_away_has_time_to_prove_that_it_keeps_what_it_counts(database: Database) -> None:
    async def walk() -> None:
        node = ClusterNode(database.place(), "m0")
        await node.start()
        try:
            node._tasks[-1].cancel()  # what proves; nothing does meanwhile
            lost = time.monotonic() - 60
            node._connected_since = node._away_since = node._unproven_since = lost  # no commit was answered meanwhile
            assert not node.sure
            await node._look_once()
            assert node.state() == ("ok", 0)
            node._connected_since = node._unproven_since = lost  # it has answered all the time, no commit came back
            assert not node.sure
        finally:
            await node.close()

    asyncio.run(walk())


def test_a_machine_with_another_clock_says_so_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ahead = 300.0
    clocks = SimpleNamespace(time=lambda: time.time() + ahead, monotonic=time.monotonic)
    monkeypatch.setattr(node_module, "time", clocks)

    async def walk() -> None:
        nonlocal ahead
        node = ClusterNode(database.place(), "a")
        await node.start()
        for offset in (4.0, 300.0, 300.0, 4.0, 0.0, 4.0, -300.0, -4.0, -300.0):  # five tell, half of it ends it
            ahead = offset
            async with connected(node.url) as connection:
                await node._look(connection)
        await node.close()

    asyncio.run(walk())
    told = [one.getMessage() for one in caplog.records if "clock" in one.getMessage()]
    ends = (
        "s ahead of the database's: let NTP set both",
        "of the database again",
        "s behind the database's: let NTP set both",
    )
    assert len(told) == 3 and all(line.endswith(end) for line, end in zip(told, ends, strict=True)), told
