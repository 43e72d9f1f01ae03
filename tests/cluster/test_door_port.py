"""`DoorPort` over PostgreSQL: guesses, sessions and tickets are one for all nodes."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from pool_server.cluster.people.door import DatabaseDoor
from pool_server.core.enums import Denial
from pool_server.users.models import AuditRow, RefusedError, Session, Ticket, Tries
from pool_server.users.ports import Trail
from tests.cluster.conftest import Database

TRAIL = Trail([AuditRow(1.0, "user", "u1", "ann", "192.0.2.1", "session.open", "u1")])


def mark(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def test_a_ticket_is_used_once_in_the_cluster(database: Database) -> None:
    async def race() -> None:
        async with database.pool() as one, database.pool() as two, database.pool() as three:
            doors = [DatabaseDoor(pool) for pool in (one, two, three)]
            await doors[0].ticket_make(mark("t"), Ticket("u1", 99.0))
            taken = await asyncio.gather(*(door.ticket_take(mark("t")) for door in doors * 10))
            assert [ticket for ticket in taken if ticket is not None] == [Ticket("u1", 99.0)]
            await doors[0].ticket_make(mark("v"), Ticket("u1", 99.0))
            await doors[1].ticket_drop(mark("v"))
            assert await doors[2].ticket_take(mark("v")) is None

    asyncio.run(race())


def test_of_many_who_say_a_thing_once_one_is_first(database: Database) -> None:
    async def race() -> None:
        async with database.pool() as one, database.pool() as two:
            doors = [DatabaseDoor(one), DatabaseDoor(two)] * 15
            assert sum(await asyncio.gather(*(door.once(mark("c"), 10.0, 40.0) for door in doors))) == 1
            assert not await doors[0].once(mark("c"), 39.9, 70.0)
            assert sum(await asyncio.gather(*(door.once(mark("c"), 40.0, 70.0) for door in doors))) == 1

    asyncio.run(race())


def test_guesses_on_several_nodes_are_counted_together(database: Database) -> None:
    """A hundred at once on three nodes: five are judged, as on one machine."""
    judged = 0

    def begin(several: list[Tries]) -> None:
        own, wide = several
        if len(own.pending) + len(own.wrong) >= 5:
            raise RefusedError(Denial.THROTTLED, "too many", 429)
        own.pending.append(1.0)
        wide.pending.append(1.0)

    def wrong(several: list[Tries]) -> None:
        for one in several:
            one.wrong.append(one.pending.pop())

    async def guess(door: DatabaseDoor, keys: list[bytes]) -> None:
        nonlocal judged
        try:
            await door.tries(keys, begin)
        except RefusedError:
            return
        judged += 1
        await asyncio.sleep(0)
        await door.tries(keys, wrong)

    async def race() -> None:
        async with database.pool() as one, database.pool() as two, database.pool() as three:
            doors = [DatabaseDoor(pool) for pool in (one, two, three)]
            keys = [mark("own"), mark("wide")]
            await asyncio.gather(*(guess(doors[n % 3], keys) for n in range(100)))
            assert [len(tries.wrong) for tries in await doors[0].read_tries(keys)] == [5, 5]

    asyncio.run(race())
    assert judged == 5


def test_records_of_tries_in_any_order_never_lock_each_other_out(database: Database) -> None:
    def add(several: list[Tries]) -> None:
        for one in several:
            one.bans += 1

    async def race() -> None:
        async with database.pool() as one, database.pool() as two:
            keys = [mark("a"), mark("b"), mark("c")]
            doors = [DatabaseDoor(one), DatabaseDoor(two)]
            orders = [keys, keys[::-1], [keys[1], keys[0], keys[2]]]
            await asyncio.gather(*(doors[n % 2].tries(orders[n % 3], add) for n in range(60)))
            assert [tries.bans for tries in await doors[0].read_tries(keys)] == [60, 60, 60]

    asyncio.run(race())


def test_a_record_that_says_nothing_any_more_is_dropped_while_others_wait_for_it(database: Database) -> None:
    def toggle(several: list[Tries]) -> int:
        several[0].bans ^= 1
        return several[0].bans

    async def race() -> None:
        async with database.pool() as one, database.pool() as two:
            doors = [DatabaseDoor(one), DatabaseDoor(two)]
            said = await asyncio.gather(*(doors[n % 2].tries([mark("a")], toggle) for n in range(60)))
            assert sum(said) == 30  # none was lost: they alternate

    asyncio.run(race())
    assert database.sql("select count(*) from pool.throttle") == "0"


def test_what_a_change_of_tries_raises_leaves_them_as_they_were(database: Database) -> None:
    def refuse(several: list[Tries]) -> None:
        several[0].bans = 9
        raise RefusedError(Denial.THROTTLED, "banned", 429)

    async def run() -> None:
        async with database.pool() as pool:
            door = DatabaseDoor(pool)
            with pytest.raises(RefusedError):
                await door.tries([mark("a")], refuse)
            assert await door.read_tries([mark("a")]) == [Tries()]

    asyncio.run(run())


def test_a_session_is_known_to_every_node_until_it_ends(database: Database) -> None:
    async def run() -> None:
        async with database.pool() as one, database.pool() as two:
            here, there = DatabaseDoor(one), DatabaseDoor(two)
            session = Session("u1", False, 1.0, 50.0, peer="192.0.2.1")
            await here.session_open(mark("s"), session, TRAIL)
            assert await there.session(mark("s")) == session
            await there.session_end(mark("s"), TRAIL)
            await there.session_end(mark("s"), TRAIL)  # told once
            assert await here.session(mark("s")) is None

    asyncio.run(run())
    assert database.sql("select count(*) from pool.audit") == "2"


def test_what_has_run_out_is_swept(database: Database) -> None:
    async def run() -> None:
        async with database.pool() as pool:
            door = DatabaseDoor(pool)
            for name, expires in (("old", 10.0), ("new", 30.0)):
                await door.session_open(mark(name), Session("u1", False, 1.0, expires), TRAIL)
                await door.ticket_make(mark(name), Ticket("u1", expires))
                await door.once(mark(name), 1.0, expires)
            await door.sweep(20.0)

    asyncio.run(run())
    for table in ("session", "ticket", "once"):
        assert database.sql(f"select count(*) from pool.{table}") == "1"
