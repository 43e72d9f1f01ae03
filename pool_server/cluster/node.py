"""One worker process as a node of a pool of several machines: its number in the database, its connections, and the
look at what others have changed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from pool_server import __version__
from pool_server.core.tasks import wait_at_most
from pool_server.storage.errors import StoreError
from pool_server.storage.postgres.connection import Connection, DatabasePool, Listener, connected
from pool_server.storage.postgres.migrations import judge, migrations, schema_of
from pool_server.storage.postgres.url import DatabaseUrl

log = logging.getLogger(__name__)

CALLS = 8  # connections for what requests wait for
UPKEEP = 3  # and for what the node does by itself, which must not wait for them
LOOK_S = 0.5  # so often a node looks for changes, whether it was told of one or not
LOOK_WITHIN_S = 1.0

Heard = Callable[[], Awaitable[None]]


class ClusterNode:
    """`id` is another one once the node was taken for dead and goes on: it is read at each call. `on_feed`: what is
    called, by the name of a feed, when something of it has changed elsewhere."""

    def __init__(self, url: DatabaseUrl, name: str, *, listen: DatabaseUrl | None = None) -> None:
        self.url = url
        self.name = name
        self.pool = DatabasePool(url, CALLS)
        self.upkeep = DatabasePool(url, UPKEEP)
        self.id = 0
        self.on_feed: dict[str, list[Heard]] = {"people": [], "accounts": [], "credentials": []}
        self.looked_at = 0.0  # monotonic, when the last look that succeeded began
        self._seen: dict[str, int] = {}
        self._listener = Listener(listen or url, "pool", self._rung)
        self._rings = asyncio.Event()
        self._closing = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises StoreError where the database does not answer, or is not of a schema this program knows."""
        async with connected(self.url) as connection:
            judge(await schema_of(connection), migrations())
            await self._register(connection, self.name)
            await self._look(connection)
        self._following = asyncio.get_running_loop().create_task(self._follow())

    async def _register(self, connection: Connection, name: str) -> None:
        row = await connection.row("select * from pool.node_start_1($1, $2, '{}')", name, __version__)
        if row is None:
            raise StoreError("the database answered nothing")
        self.id = row["id"]
        if row["displaced"]:
            log.warning("another node was called %s a moment ago: has each machine a node_name of its own?", name)

    async def renew(self) -> None:
        """A number anew, for a node that was taken for dead; under another name, so that it does not end who has its
        name by now. Raises StoreError."""
        async with self.upkeep.connection() as connection:
            await self._register(connection, f"{self.name}~{os.getpid()}")

    async def close(self) -> None:
        """Says goodbye, where that can be said."""
        self._closing.set()
        self._rings.set()
        if self._following is not None:
            await self._following
        await self._listener.close()
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(LOOK_WITHIN_S):
                await self.upkeep.value("select pool.node_end_1($1)", self.id)
        self.pool.close()
        self.upkeep.close()

    def _rung(self) -> None:
        self._rings.set()

    async def _follow(self) -> None:
        while not self._closing.is_set():
            await self._listener.keep()
            await wait_at_most(self._rings, LOOK_S)
            self._rings.clear()
            if not self._closing.is_set():
                await self._look_once()

    async def _look_once(self) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(LOOK_WITHIN_S), self.upkeep.connection() as connection:
                changed = await self._look(connection)
        except (StoreError, TimeoutError):
            return
        self.looked_at = began
        for name in changed:
            for heard in list(self.on_feed.get(name, ())):
                try:
                    await heard()
                except Exception:
                    log.exception("a change of %s elsewhere could not be taken in", name)

    async def _look(self, connection: Connection) -> list[str]:
        """The feeds that have changed since the last look."""
        rows = await connection.rows("select * from pool.feed_look_1()")
        now = {row["name"]: row["seq"] for row in rows}
        changed = [name for name, seq in now.items() if seq != self._seen.get(name, seq)]
        self._seen = now
        return changed
