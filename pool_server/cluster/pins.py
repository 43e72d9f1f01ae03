"""Pins of conversations over PostgreSQL: read before a choice, written at once by one node and seen by all.

What this node has read or written it keeps in memory for the exchange that asked, and for while the database does not
answer; what all know counts more than what this node remembers, unless it is still on its way there.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Awaitable, Generator, Iterable
from typing import Any

from pool_server.accounts.selection.affinity import PinsPort
from pool_server.cluster.node import ClusterNode, PinQuestion
from pool_server.core.tasks import wait_at_most
from pool_server.storage.errors import StoreError

log = logging.getLogger(__name__)

REMEMBERED = 100_000
MOST_OWED = 20_000  # writes kept for a database that does not answer; beyond, the oldest are given up
MOST_SENT = 1_000  # in one statement
WITHIN_S = 2.0
PAUSE_S = 0.25  # after a write that failed
SWEEP_LIMIT = 2_000
_until = struct.Struct(">d")  # every value begins with its end, unix seconds


class _Fetched:
    """A question on its way. Whoever drops it asks nothing."""

    def __init__(self, pins: DatabasePins, question: PinQuestion) -> None:
        self._pins, self._question = pins, question
        self._done = False

    def __await__(self) -> Generator[Any, None, None]:
        if not self._done:
            yield from self._pins.fetched(self._question).__await__()
            self._done = True


class DatabasePins(PinsPort):
    """One node's. `wait_s`: a request waits so long for a database that does not answer, and goes on with what this
    node remembers."""

    def __init__(self, node: ClusterNode, *, wait_s: float) -> None:
        self._node = node
        self._wait_s = wait_s
        self._known: dict[bytes, bytes] = {}
        self._owed: dict[bytes, bytes] = {}  # in the order of their last change
        self._wake, self._closing = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failing = self._sweeping = False

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Writes what is owed, if the database answers."""
        self._closing.set()
        self._wake.set()
        if self._task is not None:
            await self._task

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._known.get(key)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._remember(key, value)
        self._owed.pop(key, None)
        self._owed[key] = value
        if len(self._owed) > MOST_OWED:
            del self._owed[next(iter(self._owed))]
        self._wake.set()

    def delete(self, table: str, key: bytes) -> None:
        self.put(table, key, _until.pack(0.0))

    def _remember(self, key: bytes, value: bytes) -> None:
        self._known.pop(key, None)
        self._known[key] = value
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]

    def fetch(self, keys: Iterable[bytes]) -> Awaitable[None]:
        question = PinQuestion(list(dict.fromkeys(keys)))
        self._node.pin_questions.add(question)
        return _Fetched(self, question)

    async def fetched(self, question: PinQuestion) -> None:
        """Returns when it was answered, or it has been waited for long enough."""
        try:
            async with asyncio.timeout(self._wait_s):
                while not await self._read(question):
                    await self._node.answers.wait()
        except TimeoutError:
            log.info("conversations go on with the account this machine remembers: the database does not answer")

    async def _read(self, question: PinQuestion) -> bool:
        """Whether the database said what all know of these."""
        if self._node.away_for():
            return False
        asked = question.keys
        try:
            async with asyncio.timeout(WITHIN_S):
                found = await self._answer(question)
        except (StoreError, TimeoutError):
            self._node.look_soon()
            await asyncio.sleep(PAUSE_S / 5)
            return False
        for key in asked:
            if key in self._owed:
                continue
            if key in found:
                self._remember(key, found[key])
            else:
                self._known.pop(key, None)
        return True

    async def _answer(self, question: PinQuestion) -> dict[bytes, bytes]:
        """What its keys have, by the admission that took it along, else by a statement of its own. Raises
        StoreError."""
        waiting = question in self._node.pin_questions
        self._node.pin_questions.discard(question)
        found = None if waiting or question.answer.cancelled() else await question.answer
        if found is None:
            rows = await self._node.pool.rows("select * from pool.pin_read_1($1)", question.keys)
            found = {row["k"]: row["body"] for row in rows}
        return found

    async def _run(self) -> None:
        while self._owed or not self._closing.is_set():
            if not self._owed:
                await self._wake.wait()
            self._wake.clear()
            if self._sweeping:
                self._sweeping = False
                await self._swept()
            if await self._write():
                continue
            if self._closing.is_set():
                return
            await wait_at_most(self._closing, PAUSE_S)

    async def _write(self) -> bool:
        """Whether the database has what was owed to it."""
        batch = dict(list(self._owed.items())[:MOST_SENT])
        if not batch:
            return True
        ends = [_until.unpack_from(value)[0] for value in batch.values()]
        try:
            async with asyncio.timeout(WITHIN_S):
                await self._node.upkeep.value("select pool.pin_put_1($1, $2, $3)", [*batch], [*batch.values()], ends)
        except (StoreError, TimeoutError) as exc:
            if not self._failing:
                log.warning("what conversations are bound to stays in memory for now: %s", exc or "no answer in time")
            self._failing = True
            return False
        self._failing = False
        for key, value in batch.items():
            if self._owed.get(key) is value:
                del self._owed[key]
        return True

    def sweep(self) -> None:
        self._sweeping = True
        self._wake.set()

    async def _swept(self) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                await self._node.upkeep.value("select pool.pin_sweep_1($1)", SWEEP_LIMIT)
        except (StoreError, TimeoutError) as exc:
            log.info("old pins are still there: %s", exc or "no answer in time")
