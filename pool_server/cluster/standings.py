"""How people's limits stand, as the database last said: for what a page, a header or a first look may say without
waiting. Admission never goes by it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from pool_server.cluster.node_reservations import owner_of
from pool_server.core.settings import Limits
from pool_server.storage.errors import StoreError
from pool_server.storage.postgres.admission_calls import NANO
from pool_server.storage.postgres.connection import DatabasePool, ResultRow
from pool_server.users.limits import counters
from pool_server.users.limits.counters import BUCKET, Hold, Use
from pool_server.users.limits.pending import CountedKey, Reservation, caps_of, worst_stop
from pool_server.users.limits.periods import Bounds
from pool_server.users.models import Denied

log = logging.getLogger(__name__)

FRESH_S = 2.0  # what is older is asked for again, and turns nobody away
KEPT_S = 3600.0  # longer than between two looks of whoever warns of limits
MOST = 20_000
_ALL = ""  # the one holder: the database sums up what all nodes hold
_SQL = (
    "select u.* from pool.use u join unnest($1::text[], $2::text[]) as a (usr, jti) on u.usr = a.usr and u.jti = a.jti"
)


class Standings:
    """Counters by owner. `periods` tells the pool's day, week and month around a moment."""

    def __init__(self, pool: DatabasePool, periods: Callable[[float], Bounds]) -> None:
        self._pool = pool
        self._periods = periods
        self._uses: dict[str, tuple[float, Use]] = {}
        self._wanted: set[str] = set()
        self._asking: asyncio.Task[None] | None = None

    async def fetch(self, owners: Sequence[str]) -> None:
        """Brings these up to date; those that cannot be had stay as they were."""
        asked = list(dict.fromkeys(owners))
        at, pairs = time.monotonic(), [owner_of(owner) for owner in asked]
        if not asked:
            return
        try:
            rows = await self._pool.rows(_SQL, [user for user, _ in pairs], [key for _, key in pairs])
        except StoreError as exc:
            log.info("how limits stand is not known just now: %s", exc)
            return
        if len(self._uses) > MOST:
            self._uses.clear()
        self._uses |= {owner: (at, Use()) for owner in asked} | {_owner(row): (at, use_of(row)) for row in rows}

    def want(self, owners: Sequence[str]) -> None:
        """Brings them up to date soon, beside the request that they belong to."""
        self._wanted.update(owner for owner in owners if not self._fresh(owner))
        if self._wanted and (self._asking is None or self._asking.done()):
            self._asking = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        while self._wanted:
            wanted, self._wanted = list(self._wanted), set()
            await self.fetch(wanted)

    def _fresh(self, owner: str) -> bool:
        return owner in self._uses and time.monotonic() - self._uses[owner][0] < FRESH_S

    def use(self, owner: str, now: float) -> Use:
        """The counters as of now, as far as they are known."""
        use = self._uses[owner][1] if owner in self._uses else Use()
        counters.advance(use, now, self._periods(now))
        return use

    def stopped(self, user: str, limits: Limits, key: CountedKey | None, now: float) -> Denied | None:
        """What stops one more request, where the counters were seen a moment ago."""
        caps = [cap for cap in caps_of(user, limits, key) if not counters.limitless(cap.limits)]
        if not all(self._fresh(cap.owner) for cap in caps):
            return None
        uses = {cap.owner: self.use(cap.owner, now) for cap in caps}
        return worst_stop(uses, caps, now, self._periods(now))

    def held(self, owner: str, made: Reservation, now: float) -> None:
        """A request of this node has begun."""
        if owner in self._uses:
            counters.hold(self.use(owner, now), _ALL, made.tokens, made.cost, now)

    def ended(self, owner: str, made: Reservation, tokens: int, cost: float, now: float) -> None:
        """A request of this node has ended and used this."""
        if owner in self._uses:
            use = self.use(owner, now)
            counters.unhold(use, _ALL, Hold(1, made.tokens, made.cost))
            counters.count(use, tokens, cost, now)

    def forget(self) -> None:
        """Drops what is old."""
        before = time.monotonic() - KEPT_S
        self._uses = {owner: found for owner, found in self._uses.items() if found[0] > before}

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})


def use_of(row: ResultRow) -> Use:
    """A row of counters as the pool's own kind.

    What is held is one holder's, whichever nodes hold it.
    """
    use = Use(
        minute=_buckets(row["ring"], row["sec"], 1),
        rolling=_buckets(row["r5"], row["r5_at"], BUCKET),
        day=row["day"], day_tokens=row["day_tok"], day_cost=row["day_cost"] / NANO,
        week=row["week"], week_tokens=row["week_tok"], week_cost=row["week_cost"] / NANO,
        month=row["month"], month_tokens=row["month_tok"], month_cost=row["month_cost"] / NANO,
        ratio=row["ratio"],
    )  # fmt: skip
    if row["held_n"]:
        use.by[_ALL] = Hold(row["held_n"], row["held_tok"], row["held_cost"] / NANO)
    return use


def _buckets(slots: Sequence[int], newest: int, width: int) -> list[tuple[int, int]]:
    return [((newest - i) * width, amount) for i, amount in enumerate(slots) if amount][::-1]


def _owner(row: ResultRow) -> str:
    return f"{row['usr']}\0{row['jti']}" if row["jti"] else str(row["usr"])
