"""Duties among the processes of several machines: each its own lease, taken by whoever comes first once it is free."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from pool_server.cluster.database_leases import DatabaseLeases
from pool_server.core.tasks import PeriodicTasks
from pool_server.storage.errors import StoreError
from pool_server.storage.leases import DUTIES, Duties, LeaseTerm

log = logging.getLogger(__name__)

LIFE_S = 15.0
RENEWED_S = 5.0


class DatabaseDuties(Duties):
    """The duties of one process. One that was stopped, or cannot ask the database, has none by its own clock before
    another can take them."""

    def __init__(self, leases: DatabaseLeases, names: Sequence[str] = DUTIES) -> None:
        self._leases = leases
        self._names = names
        self._terms: dict[str, LeaseTerm] = {}
        self._told: set[str] = set()
        self.on_change: list[Callable[[str], None]] = []
        self._tasks = PeriodicTasks()
        self._tasks.every(RENEWED_S, self.look, "renewing duties")
        self._tasks.every(1.0, self._tell, "looking whether duties have run out")

    def mine(self, duty: str) -> bool:
        term = self._terms.get(duty)
        return term is not None and self._leases.held(term)

    async def start(self) -> None:
        await self.look()
        self._tasks.start()

    async def look(self) -> None:
        """Renew what is held, take what is free."""
        for name in self._names:
            try:
                term = await self._leases.renew(self._terms[name], LIFE_S) if name in self._terms else None
                term = term or await self._leases.take(f"duty:{name}", LIFE_S)
            except StoreError:
                continue  # what is held runs out by this process's own clock
            if term is None:
                self._terms.pop(name, None)
            else:
                self._terms[name] = term
        self._tell()

    def _tell(self) -> None:
        now = {name for name in self._names if self.mine(name)}
        changed, self._told = now ^ self._told, now
        for name in sorted(changed):
            log.info("the duty %s is %s", name, "here" if name in now else "elsewhere")
            for hear in self.on_change:
                hear(name)

    async def close(self) -> None:
        self.on_change.clear()
        await self.step_down()

    async def step_down(self) -> None:
        await self._tasks.close()
        terms, self._terms = list(self._terms.values()), {}
        self._tell()
        with contextlib.suppress(StoreError):
            await asyncio.gather(*(self._leases.give(term) for term in terms))
