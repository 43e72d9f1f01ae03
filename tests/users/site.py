"""A pool of people on real stores, with a clock that stands still until it is moved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pool_server.cluster.people.database_people import DatabasePeople
from pool_server.cluster.people.door import DatabaseDoor
from pool_server.core.settings import Settings
from pool_server.storage import Store
from pool_server.storage.postgres.connection import Connection, DatabasePool, connected
from pool_server.users import LEDGER_TABLES, STATE_TABLES, AuditActor, AuditRow, Principal, Users
from pool_server.users.embedded_door import EmbeddedDoor
from pool_server.users.embedded_people import EmbeddedPeople
from pool_server.users.identity.throttle import Throttle
from pool_server.users.ports import UserPorts
from pool_server.users.replica import Replica
from tests.cluster.conftest import Database

T = TypeVar("T")
SHELL = AuditActor("shell")
NOON = 1_780_000_000.0  # 2026-05-28 20:26:40 UTC, a Thursday
PEER = "192.0.2.7"
PASSPHRASE = "correct horse battery"


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class LoopPool(DatabasePool):
    """A test's loops come and go: connections that are kept within `open`, else one of its own for each call."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: DatabasePool | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with self._database.pool() as self._kept:
            try:
                yield
            finally:
                self._kept = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        kept = self._kept
        async with connected(self._database.place()) if kept is None else kept.connection() as found:
            yield found


class Site:
    """Stores in a folder and workers on them; one worker unless a test opens more. With a `database` people and the
    door are kept there, and the folder is one node's."""

    def __init__(self, folder: Path, database: Database | None = None, **settings: Any) -> None:
        self.pool = LoopPool(database) if database is not None else None
        defaults: dict[str, Any] = {"data_dir": str(folder), "friend_code": "open sesame"}
        self.settings = msgspec.structs.replace(Settings(), **{**defaults, **settings})
        self.clock = Clock()
        self.durable = Store.open(folder / "ledger", tables=LEDGER_TABLES, durable=True, map_size=1 << 24)
        self.state = Store.open(folder / "state", tables=STATE_TABLES, durable=False, map_size=1 << 24)
        self.users = self.worker()

    def worker(self, **more: Any) -> Users:
        more = {"ports": self.ports() if self.pool is not None else None, **more}
        return Users(self.settings, self.durable, self.state, clock=self.clock, bcrypt_rounds=4, **more)

    def ports(self) -> UserPorts:
        """Where people and the door are kept."""
        if self.pool is None:
            return UserPorts(EmbeddedPeople(self.durable), EmbeddedDoor(self.durable, self.state))
        replica = Replica(self.durable, self.clock)
        return UserPorts(DatabasePeople(self.pool, replica.apply, replica.known), DatabaseDoor(self.pool))

    def close(self) -> None:
        self.durable.close()
        self.state.close()

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        """`main` within a loop, the worker closed after it."""

        async def whole() -> T:
            async with self.pool.open() if self.pool is not None else nullcontext():
                try:
                    return await main()
                finally:
                    await self.users.close()

        return asyncio.run(whole())

    def throttle(self) -> Throttle:
        """One more worker's counters of wrong tries."""
        return Throttle(self.ports().door, self.clock)

    async def ticket(self, principal: Principal, **more: str) -> str:
        """A new set-up ticket."""
        return str((await self.users.tickets.create(principal, **more))["ticket"])

    def audit_log(self) -> list[AuditRow]:
        """The newest lines, where no loop runs."""
        return asyncio.run(self.users.audit_log())[0]

    async def friend(self, name: str = "Anna", **limits: Any) -> tuple[Principal, str]:
        """A new user by the admin's hand: who they are by their first key, and that key."""
        made = await self.users.people.create_user(name, actor=SHELL, limits=limits)
        found = self.users.authenticate(made["key"])
        assert isinstance(found, Principal)
        return found, made["key"]
