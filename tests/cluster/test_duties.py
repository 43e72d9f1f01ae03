"""What one process of all does: each duty by itself, and gone from whoever was stopped before another has it."""

from __future__ import annotations

import asyncio

from pool_server.cluster.database_leases import DatabaseLeases
from pool_server.cluster.duties import LIFE_S, RENEWED_S, DatabaseDuties
from pool_server.storage.leases import DUTIES, POLL, REFRESH, FixedDuties
from pool_server.storage.postgres.connection import DatabasePool
from tests.cluster.conftest import Database


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def duties(pool: DatabasePool, node: int, clock: Clock, names: tuple[str, ...] = DUTIES) -> DatabaseDuties:
    return DatabaseDuties(DatabaseLeases(pool, lambda: node, clock), names)


def run_out(database: Database, name: str) -> None:
    database.sql(f"update pool.lease set until = clock_timestamp() where name = 'duty:{name}'")


def test_each_is_one_processs_and_is_given_back_at_its_end(database: Database) -> None:
    async def walk() -> None:
        async with database.pool() as pool:
            clock = Clock()
            one, two = duties(pool, 1, clock), duties(pool, 2, clock)
            heard: list[str] = []
            two.on_change.append(heard.append)
            await one.look()
            await two.look()
            assert all(one.mine(name) for name in DUTIES) and not any(two.mine(name) for name in DUTIES)
            await one.step_down()
            assert not one.mine(REFRESH) and heard == []
            await two.look()
            assert all(two.mine(name) for name in DUTIES) and sorted(heard) == sorted(DUTIES)

    asyncio.run(walk())


def test_who_was_stopped_has_none_before_another_can_have_it(database: Database) -> None:
    async def walk() -> None:
        async with database.pool() as pool:
            clock = Clock()
            one, two = duties(pool, 1, clock, (REFRESH, POLL)), duties(pool, 2, Clock(), (REFRESH, POLL))
            await one.look()
            clock.now += RENEWED_S
            await one.look()  # renewed
            clock.now += LIFE_S * 0.6
            assert one.mine(REFRESH)
            clock.now += LIFE_S * 0.1
            assert not one.mine(REFRESH) and not one.mine(POLL), "by its own clock, before the lease ends"
            run_out(database, REFRESH)
            await two.look()
            assert two.mine(REFRESH) and not two.mine(POLL)
            heard: list[str] = []
            one.on_change.append(heard.append)
            await one.look()  # it wakes up: one is another's by now, the other is still its own
            assert not one.mine(REFRESH) and one.mine(POLL)
            assert heard == [REFRESH]

    asyncio.run(walk())


def test_a_machines_leader_has_all_until_it_steps_down() -> None:
    one, heard = FixedDuties(True), list[str]()
    one.on_change.append(heard.append)
    assert all(one.mine(name) for name in DUTIES) and not FixedDuties(False).mine(REFRESH)
    asyncio.run(one.step_down())
    asyncio.run(one.step_down())
    assert not one.mine(REFRESH) and heard == list(DUTIES)
