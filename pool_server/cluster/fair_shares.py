"""Recent use for fair share over several machines: each process tells what it has seen, in all, of each stretch of ten
minutes, and while a provider is short it reads what all have seen together.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from pool_server.storage.postgres.connection import Connection
from pool_server.users.limits import fair_share
from pool_server.users.limits.fair_share import BUCKET, Buckets
from pool_server.users.limits.recent_use import Shares

ROUND_S = 1.0
WANTED_S = 10.0  # so long after it was asked for a provider's use is kept up to date
MOST_SENT = 2_000

_PUT = "select pool.share_put_1($1, $2, $3, $4, $5, $6)"
_READ = "select * from pool.share_read_1($1, $2)"
_Slot = tuple[str, str, int]  # provider, user, number of the stretch


class FairShares:
    """One process's. What it tells is its total of a stretch: told twice it counts once."""

    def __init__(self, shares: Shares, clock: Callable[[], float]) -> None:
        self._shares = shares
        self._clock = clock
        self._life = secrets.randbits(62)
        self._own: dict[_Slot, float] = {}
        self._owed: set[_Slot] = set()
        self._wanted: dict[str, float] = {}  # provider → until when, monotonic
        self._known: dict[str, dict[str, Buckets]] = {}
        self._last = 0.0
        shares.everybody = self.everybody

    def count(self, provider: str, user: str, amount: float) -> None:
        """What somebody took."""
        if self._shares.settings.enabled and amount > 0:
            slot = provider, user, int(self._clock()) // BUCKET
            self._own[slot] = self._own.get(slot, 0.0) + amount
            self._owed.add(slot)

    def everybody(self, provider: str, now: float) -> dict[str, Buckets]:
        """By user: what was taken of a provider on all machines, as it was a moment ago; nothing where nobody has asked
        for a while: nobody waits by what is not known."""
        fresh = self._wanted.get(provider, 0.0) > time.monotonic()
        if not fresh:
            self._known.pop(provider, None)
            self._last = 0.0
        self._wanted[provider] = time.monotonic() + WANTED_S
        window = self._shares.window_s
        known = self._known.get(provider, {})
        return {user: taken for user, taken in known.items() if fair_share.recent(taken, now, window) > 0}

    async def round(self, connection: Connection) -> None:
        """Tells and reads what is due. Raises StoreError."""
        now = time.monotonic()
        if now - self._last < ROUND_S:
            return
        self._last = now
        oldest = int((self._clock() - self._shares.window_s) // BUCKET) - 1
        await self._tell(connection, oldest)
        self._wanted = {provider: until for provider, until in self._wanted.items() if until > now}
        if not self._wanted:
            return
        found: dict[str, dict[str, Buckets]] = {provider: {} for provider in self._wanted}
        for row in await connection.rows(_READ, sorted(found), oldest):
            found[row["provider"]].setdefault(row["usr"], []).append((row["slot"] * BUCKET, row["amount"]))
        self._known = found

    async def _tell(self, connection: Connection, oldest: int) -> None:
        self._own = {slot: amount for slot, amount in self._own.items() if slot[2] >= oldest}
        self._owed &= self._own.keys()
        while self._owed:
            sent = sorted(self._owed)[:MOST_SENT]
            amounts = [self._own[slot] for slot in sent]
            columns = [list(column) for column in zip(*sent, strict=True)]
            await connection.value(_PUT, self._life, *columns, amounts, oldest)
            self._owed -= {slot for slot, amount in zip(sent, amounts, strict=True) if self._own[slot] == amount}
