"""`LeasesPort` over PostgreSQL: leases end by the database's clock, whatever becomes of their holder."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from pool_server.storage.errors import StoreError
from pool_server.storage.leases import RELIED_ON, LeasesPort, LeaseTerm
from pool_server.storage.postgres.connection import DatabasePool

log = logging.getLogger(__name__)

KEPT_S = 86_400.0  # who has not come back after a day has lost its disk
_END = "select pool.refresh_end_1($1)"


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
        self._untold: deque[tuple[Any, ...]] = deque()  # calls that say what is over, for the next time

    async def take(self, name: str, life_s: float) -> LeaseTerm | None:
        began = self._monotonic()
        rows = await self._pool.rows("select * from pool.lease_take_1($1, $2, $3)", name, self._node(), life_s)
        number = rows[0]["term"]
        return None if number is None else LeaseTerm(name, number, began + life_s * RELIED_ON)

    async def renew(self, term: LeaseTerm, life_s: float) -> LeaseTerm | None:
        """The same term for longer; None when another has the lease by now. Raises StoreError."""
        began = self._monotonic()
        kept = await self._pool.value("select pool.lease_renew_1($1, $2, $3)", term.name, term.number, life_s)
        await self._tell_all()
        return term._replace(until=began + life_s * RELIED_ON) if kept else None

    def held(self, term: LeaseTerm) -> bool:
        return self._monotonic() < term.until

    async def give(self, term: LeaseTerm) -> None:
        await self._tell("select pool.lease_give_1($1, $2)", term.name, term.number)

    async def begin(self, token: str) -> bool:
        self._untold = deque(call for call in self._untold if call != (_END, token))  # it begins anew
        return bool(await self._pool.value("select pool.refresh_begin_1($1, $2, $3)", token, self._node(), KEPT_S))

    async def end(self, token: str) -> None:
        await self._tell(_END, token)

    async def _tell(self, *call: Any) -> None:
        self._untold.append(call)
        await self._tell_all()

    async def _tell_all(self) -> None:
        while self._untold:
            call = self._untold.popleft()
            try:
                await self._pool.value(*call)
            except StoreError:
                self._untold.appendleft(call)
                return

    async def inherit(self, kept: Collection[str]) -> None:
        try:
            await self._pool.value("select pool.refresh_inherit_1($1, $2, $3)", self._node(), list(kept), KEPT_S)
        except StoreError as exc:
            log.warning("refreshes that this machine had begun before its start wait: %s", exc)
