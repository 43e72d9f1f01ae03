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
from weakref import WeakSet

from pool_server import __version__
from pool_server.core.tasks import wait_at_most
from pool_server.storage.errors import StoreError
from pool_server.storage.postgres.connection import PROVE, Connection, DatabasePool, Listener, connected
from pool_server.storage.postgres.inspection import CLOCK_S
from pool_server.storage.postgres.migrations import judge, migrations, schema_of
from pool_server.storage.postgres.url import DatabaseUrl

log = logging.getLogger(__name__)

CALLS = 8  # connections for what requests wait for
UPKEEP = 4  # and for what the node does by itself, which must not wait for them
LOOK_S = 0.5  # so often a node looks for changes, whether it was told of one or not
LOOK_WITHIN_S = 1.0
PROVE_S = 2.0  # so often a node sees whether a commit reaches the standby, …
PROVEN_WITHIN_S = 10.0  # … and so long that may take

_LOOK = """
select *, pg_postmaster_start_time()::text as server, extract(epoch from clock_timestamp())::float8 as at
from pool.feed_look_1()
"""

Heard = Callable[[], Awaitable[None]]


class PinQuestion:
    """Keys whose pins a request wants to know. Who asks the database for an admission takes it along, and tells; None
    where there was no answer."""

    def __init__(self, keys: list[bytes]) -> None:
        self.keys = keys
        self.answer: asyncio.Future[dict[bytes, bytes] | None] = asyncio.get_running_loop().create_future()

    def told(self, found: dict[bytes, bytes] | None) -> None:
        if not self.answer.done():
            self.answer.set_result(found)


class ClusterNode:
    """`id` is another one once the node was taken for dead and goes on: it is read at each call. `on_feed`: what is
    called, by the name of a feed, when something of it has changed elsewhere; `on_lost`: when a connection was lost, or
    the server is another one, so that it may have forgotten its last moments. `answers` is set while it does answer."""

    def __init__(self, url: DatabaseUrl, name: str, *, listen: DatabaseUrl | None = None) -> None:
        self.url = url
        self.name = name
        self.pool = DatabasePool(url, CALLS, self._lost)
        self.upkeep = DatabasePool(url, UPKEEP, self._lost)
        self.id = 0
        self.on_feed: dict[str, list[Heard]] = {
            "people": [],
            "accounts": [],
            "credentials": [],
            "settings": [],
        }
        self.on_lost: list[Callable[[], None]] = []
        self.answers = asyncio.Event()
        self.pin_questions: WeakSet[PinQuestion] = WeakSet()  # of requests that still want to know
        self._away_since: float | None = None  # monotonic, likewise
        self._connected_since = 0.0
        self._unproven_since: float | None = None
        self._server = ""
        self._clock_wrong = False
        self._seen: dict[str, int] = {}
        self._listener = Listener(listen or url, "pool", self._rung)
        self._look_s = LOOK_S / 2 if (listen or url).pooled else LOOK_S  # nothing is heard through a pooler
        self._rings = asyncio.Event()
        self._closing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def visit(self) -> None:
        """Instead of a start, for what no node is: calls work. Raises as `start`."""
        async with connected(self.url) as connection:
            judge(await schema_of(connection), migrations())

    async def start(self) -> None:
        """Raises StoreError where the database does not answer, or is not of a schema this program knows."""
        async with connected(self.url) as connection:
            judge(await schema_of(connection), migrations())
            await self._register(connection, self.name)
            await self._look(connection)
        self._answered()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._follow()), loop.create_task(self._prove())]

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
        if self._tasks:
            self._tasks[-1].cancel()
            await asyncio.wait(self._tasks)
        await self._listener.close()
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(LOOK_WITHIN_S if self.id else 0):
                await self.upkeep.value("select pool.node_end_1($1)", self.id)
        self.pool.close()
        self.upkeep.close()

    def away_for(self) -> float:
        """For how many seconds the database has not answered; 0 while it does."""
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    def state(self) -> tuple[str, float]:
        """ok, slow or away, and for how long it is away."""
        away = self.away_for()
        return ("away" if away else "ok" if self.sure else "slow"), away

    def connected_for(self) -> float:
        """For how many seconds it has answered without a break."""
        return 0.0 if self._away_since is not None else time.monotonic() - self._connected_since

    @property
    def sure(self) -> bool:
        """Whether what is committed is on the standby within seconds: what a lonely old primary counts is worth
        nothing. A database that was away begins anew."""
        if self._unproven_since is None:
            return True
        return time.monotonic() - max(self._unproven_since, self._connected_since) < PROVEN_WITHIN_S

    def told(self, feed: str, seq: int) -> None:
        """This node itself made the change of that number, and hears of it no more."""
        self._seen[feed] = max(seq, self._seen.get(feed, 0))

    def look_soon(self) -> None:
        """A call failed: is the database there?"""
        self._rings.set()

    def _lost(self) -> None:
        for lost in self.on_lost:
            lost()

    def _answered(self) -> None:
        if self._away_since is not None or not self._connected_since:
            self._connected_since = time.monotonic()
        self._away_since = None
        self.answers.set()

    def _rung(self) -> None:
        self._rings.set()

    async def _follow(self) -> None:
        while not self._closing.is_set():
            await self._listener.keep()
            await wait_at_most(self._rings, self._look_s)
            self._rings.clear()
            if not self._closing.is_set():
                await self._look_once()

    async def _prove(self) -> None:
        while True:
            began = time.monotonic()
            if self._unproven_since is None:
                self._unproven_since = began
            try:
                async with asyncio.timeout(PROVEN_WITHIN_S):
                    await self.upkeep.value(PROVE)
            except (StoreError, TimeoutError):
                if self._away_since is None and began - self._unproven_since < PROVEN_WITHIN_S:
                    log.warning("no commit has reached the standby for %.0f s", time.monotonic() - self._unproven_since)
            else:
                self._unproven_since = None
            await asyncio.sleep(PROVE_S)

    async def _look_once(self) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(LOOK_WITHIN_S), self.upkeep.connection() as connection:
                changed = await self._look(connection)
        except (StoreError, TimeoutError) as exc:
            if self._away_since is None:
                log.warning("the database does not answer: %s", exc or "no answer in time")
                self._away_since = began
                self.answers.clear()
            return
        if self._away_since is not None:
            log.warning("the database answers again, after %.1f s", self.away_for())
        self._answered()
        for name in changed:
            for heard in list(self.on_feed.get(name, ())):
                try:
                    await heard()
                except Exception:
                    log.exception("a change of %s elsewhere could not be taken in", name)

    def _compare(self, most: float, least: float) -> None:
        """Tells once that this machine's clock is another than the database's; `most` and `least` it is behind. It is
        the same again once it is nearer by half: what is about the limit is not told at each look."""
        apart = max(0.0, least, -most)
        wrong = apart > (CLOCK_S / 2 if self._clock_wrong else CLOCK_S)
        if wrong != self._clock_wrong:
            self._clock_wrong = wrong
            if self._clock_wrong:
                word = "behind" if least > 0 else "ahead of"
                log.warning("this machine's clock is %.0f s %s the database's: let NTP set both", apart, word)
            else:
                log.warning("this machine's clock is that of the database again")

    async def _look(self, connection: Connection) -> list[str]:
        """The feeds that have changed since the last look."""
        began = time.time()
        rows = await connection.rows(_LOOK)
        if rows:
            self._compare(rows[0]["at"] - began, rows[0]["at"] - time.time())
        now = {row["name"]: row["seq"] for row in rows}
        before, self._server = self._server, rows[0]["server"] if rows else ""
        if before not in ("", self._server):
            self._lost()
        changed = [name for name, seq in now.items() if seq > self._seen.get(name, seq)]
        self._seen = {name: max(seq, self._seen.get(name, 0)) for name, seq in now.items()}
        return changed
