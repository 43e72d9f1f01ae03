"""Conversations over several machines: whoever serves a turn knows where the last one was served."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts.selection.affinity import Pins, keys_of
from pool_server.accounts.selection.warmth import WarmthMemory
from pool_server.cluster import pins as database_pins
from pool_server.cluster.node import ClusterNode
from pool_server.cluster.pins import DatabasePins
from pool_server.core.enums import Provider
from pool_server.core.models import Usage
from pool_server.storage.write_behind import WriteBehind
from tests.accounts.kit import DAY, NOW, Clock
from tests.accounts.test_pins import store
from tests.cluster.conftest import Database
from tests.cluster.nodes import OPERATOR, several
from tests.fakes import FakeProviders, account

CLAUDE = Provider.CLAUDE
ALL = keys_of([CLAUDE], "u", "s", [("response", "r1")])


class Side:
    """What one node has."""

    def __init__(self, database: Database, folder: Path, name: str, wait_s: float = 60.0) -> None:
        self.node = ClusterNode(database.place(), name)
        self.port = DatabasePins(self.node, wait_s=wait_s)
        (folder / name).mkdir()
        here = WriteBehind(store(folder / name), Clock())
        self.pins = Pins(here, ttl_s=DAY, elsewhere=self.port)
        self.warmth = WarmthMemory(self.port)

    async def start(self) -> None:
        await self.node.start()
        await self.port.start()

    async def close(self) -> None:
        await self.port.close()
        await self.node.close()


async def kept(database: Database, rows: int) -> None:
    while await asyncio.to_thread(database.sql, "select count(*) from pool.pin") != str(rows):
        await asyncio.sleep(0.01)


def test_what_one_node_binds_every_node_knows(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        a, b = Side(database, tmp_path, "a"), Side(database, tmp_path, "b")
        await a.start()
        await b.start()
        a.pins.pin(CLAUDE, "u", "s", "claude:x", NOW)
        a.pins.own("u", "response", "r1", "claude:x", DAY, NOW)
        a.warmth.note("u", "s", "claude:x", Usage(input=5, output=9, known=True), NOW)
        await kept(database, 3)
        assert b.pins.pinned(CLAUDE, "u", "s", NOW) is None
        await b.port.fetch(ALL)
        assert b.pins.pinned(CLAUDE, "u", "s", NOW) == b.pins.owner("u", "response", "r1", NOW) == "claude:x"
        assert b.pins.owner("other", "response", "r1", NOW) is None
        warm = b.warmth.find("u", "s", NOW)
        assert warm is not None and warm.account == "claude:x"
        b.pins.pin(CLAUDE, "u", "s", "claude:y", NOW + 1)
        await b.close()  # writes what is owed
        await a.port.fetch(ALL)
        assert a.pins.pinned(CLAUDE, "u", "s", NOW) == "claude:y"
        await a.close()

    asyncio.run(walk())


def test_what_is_on_its_way_counts_more_than_what_was_read(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        a, b = Side(database, tmp_path, "a"), Side(database, tmp_path, "b")
        await a.start()
        await b.node.start()  # its writes stay on their way
        a.pins.pin(CLAUDE, "u", "s", "claude:x", NOW)
        await kept(database, 1)
        b.pins.pin(CLAUDE, "u", "s", "claude:y", NOW)
        await b.port.fetch(ALL)
        assert b.pins.pinned(CLAUDE, "u", "s", NOW) == "claude:y"
        await a.close()
        await b.node.close()

    asyncio.run(walk())


def test_a_question_is_asked_once_and_one_that_was_dropped_never(database: Database, tmp_path: Path) -> None:
    """By the admission that is asked for before it is awaited, else by itself, also where that was not answered."""

    async def walk() -> None:
        a = Side(database, tmp_path, "a")
        await a.start()
        a.pins.pin(CLAUDE, "u", "s", "claude:x", NOW)
        await kept(database, 1)
        waiting, asked = a.node.pin_questions, []
        read = a.node.pool.rows

        async def counted(sql: str, *values: Any) -> Any:
            asked.append(sql)
            return await read(sql, *values)

        a.node.pool.rows = counted  # type: ignore[method-assign]
        for answer, statements in (({}, 0), (None, 1)):
            asked.clear()
            fetching = a.port.fetch(ALL)
            (question,) = waiting
            waiting.clear()  # as an admission does
            for _ in range(100):  # however long that takes
                await asyncio.sleep(0)
            question.told(answer)
            await fetching
            await fetching
            assert len(asked) == statements
            assert (a.pins.pinned(CLAUDE, "u", "s", NOW) is None) == (answer == {})
            del question
        fetching = a.port.fetch(ALL)
        assert len(waiting) == 1
        del fetching
        assert not waiting
        await a.close()

    asyncio.run(walk())


def test_while_the_database_is_away_memory_goes_on_and_is_told_later(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_pins, "PAUSE_S", 0.01)

    async def walk() -> None:
        a = Side(database, tmp_path, "a", wait_s=0.2)
        await a.start()
        a.pins.pin(CLAUDE, "u", "s", "claude:x", NOW)
        await kept(database, 1)
        database.sql("alter table pool.pin rename to away")
        a.pins.pin(CLAUDE, "u", "s", "claude:y", NOW)
        await a.port.fetch(ALL)
        assert a.pins.pinned(CLAUDE, "u", "s", NOW) == "claude:y"
        database.sql("alter table pool.away rename to pin")
        while "claude:y" not in await asyncio.to_thread(
            database.sql, "select convert_from(substr(body, 9), 'UTF8') from pool.pin"
        ):
            await asyncio.sleep(0.01)
        await a.close()

    asyncio.run(walk())


def test_pins_whose_time_is_over_are_forgotten(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        a = Side(database, tmp_path, "a")
        await a.start()
        a.pins.own("u", "response", "old", "claude:x", 1, 1_000)
        a.pins.own("u", "response", "new", "claude:x", 10 * DAY, 4e9)
        await kept(database, 2)
        a.pins.sweep(NOW)
        await kept(database, 1)
        await a.close()

    asyncio.run(walk())


def test_a_conversation_that_changes_machine_each_turn_keeps_its_account(database: Database, tmp_path: Path) -> None:
    def turn(number: int) -> dict[str, Any]:
        spoken = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes"}]
        return {"messages": spoken * number + [{"role": "user", "content": f"more {number}"}]}

    async def walk() -> None:
        accounts = [account(f"claude:{name}") for name in ("one", "two", "three", "four")]
        async with FakeProviders(accounts) as fakes, several(database, fakes, tmp_path) as nodes:
            made = await nodes[0].server.users.people.create_user("Ada", actor=OPERATOR)
            for number in range(12):
                metadata = {"metadata": {"user_id": "user_x_account_y_session_1"}}
                assert (await nodes[number % 2].ask(made["key"], **turn(number), **metadata))[0] == 200
            assert len({call.account for call in fakes.made()}) == 1

    asyncio.run(walk())
