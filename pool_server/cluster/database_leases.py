"""`LeasesPort` over PostgreSQL: leases end by the database's clock, whatever becomes of their holder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from pool_server.storage.errors import StoreError
from pool_server.storage.leases import RELIED_ON, LeasesPort, LeaseTerm
from pool_server.storage.postgres.connection import DatabasePool


class DatabaseLeases(LeasesPort):
    """The leases of one node, whose number `node` tells. It counts its own time, from before the call: its clock and
    the call may be slow."""

    again_s = 1.0  # what the holder writes is heard of before

    def __init__(
        self, pool: DatabasePool, node: Callable[[], int], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._pool = pool
        self._node = node
        self._monotonic = monotonic

    async def take(self, name: str, life_s: float) -> LeaseTerm | None:
        began = self._monotonic()
        rows = await self._pool.rows("select * from pool.lease_take_1($1, $2, $3)", name, self._node(), life_s)
        number = rows[0]["term"]
        return None if number is None else LeaseTerm(name, number, began + life_s * RELIED_ON)

    async def renew(self, term: LeaseTerm, life_s: float) -> LeaseTerm | None:
        """The same term for longer; None when another has the lease by now. Raises StoreError."""
        began = self._monotonic()
        kept = await self._pool.value("select pool.lease_renew_1($1, $2, $3)", term.name, term.number, life_s)
        return term._replace(until=began + life_s * RELIED_ON) if kept else None

    def held(self, term: LeaseTerm) -> bool:
        return self._monotonic() < term.until

    async def give(self, term: LeaseTerm) -> None:
        with contextlib.suppress(StoreError):  # it runs out
            await self._pool.value("select pool.lease_give_1($1, $2)", term.name, term.number)
