"""A pool of people on real stores, with a clock that stands still until it is moved."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pool_server.core.settings import Settings
from pool_server.storage import Store
from pool_server.users import LEDGER_TABLES, STATE_TABLES, AuditActor, Principal, Users
from pool_server.users.embedded_door import EmbeddedDoor
from pool_server.users.identity.throttle import Throttle

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


class Site:
    """Stores in a folder and workers on them; one worker unless a test opens more."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        defaults: dict[str, Any] = {"data_dir": str(folder), "friend_code": "open sesame"}
        self.settings = msgspec.structs.replace(Settings(), **{**defaults, **settings})
        self.clock = Clock()
        self.durable = Store.open(folder / "ledger", tables=LEDGER_TABLES, durable=True, map_size=1 << 24)
        self.state = Store.open(folder / "state", tables=STATE_TABLES, durable=False, map_size=1 << 24)
        self.users = self.worker()

    def worker(self, **more: Any) -> Users:
        return Users(self.settings, self.durable, self.state, clock=self.clock, bcrypt_rounds=4, **more)

    def close(self) -> None:
        self.durable.close()
        self.state.close()

    def run(self, main: Callable[[], Awaitable[T]]) -> T:
        """`main` within a loop, the worker closed after it."""

        async def whole() -> T:
            try:
                return await main()
            finally:
                await self.users.close()

        return asyncio.run(whole())

    def throttle(self) -> Throttle:
        """One more worker's counters of wrong tries."""
        return Throttle(EmbeddedDoor(self.durable, self.state), self.clock)

    async def ticket(self, principal: Principal, **more: str) -> str:
        """A new set-up ticket."""
        return str((await self.users.tickets.create(principal, **more))["ticket"])

    def audit_log(self) -> list[dict[str, Any]]:
        """The newest lines, where no loop runs."""
        return asyncio.run(self.users.audit_log())[0]

    async def friend(self, name: str = "Anna", **limits: Any) -> tuple[Principal, str]:
        """A new user by the admin's hand: who they are by their first key, and that key."""
        made = await self.users.people.create_user(name, actor=SHELL, limits=limits)
        found = self.users.authenticate(made["key"])
        assert isinstance(found, Principal)
        return found, made["key"]
