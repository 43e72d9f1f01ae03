"""Who goes next when many requests come at once: a few of each user a turn of the event loop, so that hundreds of one
do not stand before the single one of another."""

from __future__ import annotations

import asyncio
from collections import Counter, deque

from pool_server.core.tasks import running_loop

SHARE = 8  # requests of one user that begin in one turn of the loop, where others are about …
ALONE = 64  # … and where nobody else is


class Turns:
    """One a worker. `about` is cleared now and then by whoever keeps the time."""

    def __init__(self) -> None:
        self.about: set[str] = set()  # users who asked lately
        self._begun: Counter[str] = Counter()  # in this turn of the loop
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def take(self, user: str) -> asyncio.Future[None] | None:
        """None: go ahead. Else something to wait for; cancel it to give up."""
        self.about.add(user)
        if not self._begun:
            running_loop().call_soon(self._next)
        if user not in self._waiting and self._begun[user] < self._share:
            self._begun[user] += 1
            return None
        self._begun[user] += 0
        waits: asyncio.Future[None] = running_loop().create_future()
        self._waiting.setdefault(user, deque()).append(waits)
        return waits

    @property
    def _share(self) -> int:
        return ALONE if len(self.about) < 2 else SHARE

    def _next(self) -> None:
        """The next turn of the loop: everybody who waits has their share again."""
        self._begun.clear()
        for user, queue in list(self._waiting.items()):
            while queue and self._begun[user] < self._share:
                waits = queue.popleft()
                if not waits.done():
                    self._begun[user] += 1
                    waits.set_result(None)
            if not queue:
                del self._waiting[user]
        if self._begun:
            running_loop().call_soon(self._next)
