"""Settings of several machines: what is changed on a page counts on all, a reload reaches all, differences are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_server.app.listening import listen
from pool_server.app.server import Server
from pool_server.core.settings import ConfigError, Settings
from pool_server.core.settings_file import ALL_MACHINES, LoadedSettings, overlaid
from pool_server.storage.postgres.inspection import OK, WARNING, inspect
from tests.cluster.conftest import Database
from tests.cluster.nodes import ADMIN, Node, node_settings
from tests.fakes import FakeProviders, account

USUAL = LoadedSettings(Settings(), {}, None)


def test_what_counts_on_all_stands_between_file_and_environment() -> None:
    origins = {"max_attempts": "environment (PROXY_MAX_ATTEMPTS)", "drain_s": "file"}
    loaded = LoadedSettings(Settings(max_attempts=7, drain_s=9.0), origins, None)
    found = overlaid(loaded, {"max_attempts": "2", "drain_s": "3", "friend_name": "Pool"})
    assert (found.settings.max_attempts, found.settings.drain_s, found.settings.friend_name) == (7, 3.0, "Pool")
    assert found.origins["drain_s"] == found.origins["friend_name"] == ALL_MACHINES
    assert found.settings == msgspec.structs.replace(loaded.settings, drain_s=3.0, friend_name="Pool")


@pytest.mark.parametrize(("key", "text"), [("max_attempts", "many"), ("of_a_newer_program", "1"), ("drain_s", "-1")])
def test_what_cannot_be_read_is_refused(key: str, text: str) -> None:
    with pytest.raises(ConfigError, match=key):
        overlaid(USUAL, {key: text})


@asynccontextmanager
async def two(database: Database, folder: Path, **second: Any) -> AsyncIterator[list[Node]]:
    """Two machines that can reread what their files say."""
    async with FakeProviders([account("claude:one")]) as fakes:
        nodes = []
        for number, more in enumerate(({}, second)):
            settings = node_settings(folder / f"m{number}", fakes, database.url(), f"m{number}", **more)
            loaded = LoadedSettings(settings, {}, None)
            server = Server(settings, reread=lambda loaded=loaded: loaded)  # type: ignore[misc]
            sockets = listen("127.0.0.1", 0, friends_mode=True)
            await server.start(sockets)
            nodes.append(Node(server, f"http://127.0.0.1:{sockets[0].getsockname()[1]}"))
        try:
            yield nodes
        finally:
            for node in nodes:
                await node.server.drain()


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.02)


async def change(node: Node, key: str, value: str) -> tuple[int, Any]:
    return await node.call("PATCH", "/admin/settings", {"key": key, "value": value}, ADMIN)


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]


def test_a_change_on_one_counts_on_all_and_on_one_that_starts_later(database: Database, tmp_path: Path) -> None:
    async def go() -> None:
        async with two(database, tmp_path) as (one, other):
            assert (await change(one, "max_attempts", "5"))[0] == 200
            assert one.server.settings.max_attempts == 5
            await until(lambda: other.server.settings.max_attempts == 5)
            assert other.server.web.sources["max_attempts"] == ALL_MACHINES
        async with two(database, tmp_path / "later") as (one, other):
            assert one.server.settings.max_attempts == other.server.settings.max_attempts == 5
            assert (await change(other, "max_attempts", ""))[0] == 200
            await until(lambda: one.server.settings.max_attempts == 3)
            assert other.server.settings.max_attempts == 3

    run(go)


def test_what_no_node_could_go_by_is_refused(database: Database, tmp_path: Path) -> None:
    async def go() -> None:
        async with two(database, tmp_path) as (one, _):
            assert (await change(one, "bookings.most_percent", "10"))[0] == 422
            assert (await change(one, "max_attempts", "none"))[0] == 422
            assert (await change(one, "store_url", "x"))[0] == 403
        assert database.sql("select count(*) from pool.setting") == "0"

    run(go)


def test_a_row_of_a_newer_program_stops_nobody(database: Database, tmp_path: Path) -> None:
    database.sql("insert into pool.setting values ('of_a_newer_program', '1'), ('max_attempts', '4'), ('drain_s', 'x')")

    async def go() -> None:
        async with two(database, tmp_path) as (one, other):
            assert one.server.settings.max_attempts == other.server.settings.max_attempts == 4
            assert one.server.settings.drain_s == 1.0

    run(go)


def test_a_reload_on_one_is_a_reload_on_all(database: Database, tmp_path: Path) -> None:
    async def go() -> None:
        async with two(database, tmp_path) as (one, other):
            before = other.server.settings
            changed = LoadedSettings(msgspec.structs.replace(before, friend_name="Lane 3"), {}, None)
            other.server._reread = lambda: changed
            assert (await one.call("POST", "/admin/reload", {}, ADMIN))[0] == 200
            await until(lambda: other.server.settings.friend_name == "Lane 3")

    run(go)


def test_machines_that_differ_are_named_and_nothing_of_their_settings(database: Database, tmp_path: Path) -> None:
    async def go() -> None:
        async with two(database, tmp_path):
            same = (await asyncio.to_thread(database.run, look))[-1]
        async with two(database, tmp_path / "b", friend_code="another code", max_body_mb=9):
            told = (await asyncio.to_thread(database.run, look))[-1]
        assert (same.check, same.state) == ("settings", OK)
        assert (told.check, told.state) == ("settings", WARNING) and "those of no section on m" in told.message
        marks = database.sql("select settings from pool.node")
        assert "swim" not in marks and "another code" not in marks and ADMIN not in marks

    async def look(connection: Any) -> Any:
        return await inspect(connection, database.place())

    run(go)
