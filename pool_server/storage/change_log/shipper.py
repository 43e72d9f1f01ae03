"""Sends the log of a store's changes away, a moment after each, to a folder or an object store.

What cannot leave waits on this machine. A hole, after a power cut or where more would wait than is allowed, ends the
generation: another one begins, which is of use once a copy of the store was made within it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from prometheus_client import Gauge

from pool_server.core.disk import try_hold
from pool_server.core.tasks import PeriodicTasks
from pool_server.storage.change_log.segments import PREFIX, Segment, listed, outlived, packed, segment
from pool_server.storage.errors import StoreError
from pool_server.storage.lmdb import change_spool as spool
from pool_server.storage.lmdb.store import Store
from pool_server.storage.object_store import ObjectStore, ObjectStoreError

log = logging.getLogger(__name__)
behind = Gauge(
    "pool_change_log_behind_seconds",
    "Age of the oldest change that the log of changes has not sent away yet",
    multiprocess_mode="max",
)

HOLE_S = 5.0  # a transaction that is committed and not laid down so long never will be
RETRY_S = 5.0  # a place that refused is left alone so long
PIECE = 4 << 20  # bytes of changes that leave together
SMALL = 1 << 20  # pieces below are put together
MERGE_S, MERGE_COUNT = 300.0, 240  # so long or so many of them
DELETE_AT_ONCE = 4  # of those that were put together: the next changes do not wait for it
CLOSE_S = 5.0
_SHIPPED = "shipped"  # a file in the spool: how far the log has left, and whether a copy stands in its generation
_HELD = ".shipping"  # held by the process that ships


class Sent(NamedTuple):
    """So far of a generation. `based`: of which generation a copy of the store is kept."""

    generation: str
    number: int
    based: str


class Shipper:
    """Of one store; of several processes that have it open the one ships that holds its file. `open_place` and `keys`
    are asked when needed and may raise ObjectStoreError and ValueError."""

    def __init__(
        self,
        store: Store,
        open_place: Callable[[], ObjectStore],
        keys: Callable[[], Mapping[str, bytes]],
        *,
        every_s: float,
        most_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._folder = store.folder / spool.FOLDER
        self._open_place = open_place
        self._keys = keys
        self._most_bytes = most_bytes
        self._clock = clock
        self._place: ObjectStore | None = None
        self._held: int | None = None
        self._sent = Sent("", 0, "")
        self._based = ""
        self._reader = spool.SpoolReader(store.folder, "")
        self._small: list[tuple[Segment, list[bytes], float]] = []
        self._merged: list[str] = []  # names of pieces that lie there within a larger one
        self._hole_since: float | None = None
        self._rest_until = 0.0  # monotonic seconds
        self._tasks = PeriodicTasks()
        self._tasks.every(every_s, self._look, "the log of changes", at_once=True)
        self.last_error = ""

    async def start(self) -> None:
        """Begin to send what the store's processes note (`Store.keep_log`)."""
        self._tasks.start()

    async def close(self) -> None:
        """Send what was committed by now, unless that takes too long. The store stays open."""
        await self._tasks.close()
        self._rest_until = 0.0
        try:
            await asyncio.wait_for(asyncio.to_thread(self.ship), CLOSE_S)
        except (TimeoutError, ObjectStoreError, StoreError, OSError, ValueError) as exc:
            log.warning("the last changes wait for the next start to be sent: %s", exc or "the place is slow")
        if self._held is not None:
            os.close(self._held)
            self._held = None

    @property
    def wants_copy(self) -> bool:
        """Whether the log is of no use before a copy of the store is made."""
        return self._held is not None and self._sent.generation != self._based

    def copied(self, generation: str) -> None:
        """A copy of the store from within a generation is kept where the log goes."""
        self._based = generation

    def forget_before(self, at: float) -> None:
        """Remove what is older than the oldest copy that is kept. Blocks. Raises ObjectStoreError."""
        place = self._open_place()
        for one in outlived(listed(place.list(PREFIX)), at):
            place.delete(one.name)

    async def _look(self) -> None:
        if time.monotonic() < self._rest_until:
            return
        try:
            await asyncio.to_thread(self.ship)
            if self.last_error:
                log.info("the log of changes leaves again")
            self.last_error = ""
        except (ObjectStoreError, StoreError, OSError, ValueError) as exc:
            self._rest_until = time.monotonic() + RETRY_S
            self._place = None
            if str(exc) != self.last_error:
                log.warning("changes wait on this machine: %s", exc)
            self.last_error = str(exc)

    def ship(self) -> None:
        """Send what was committed since the last time. Blocks. Raises ObjectStoreError, StoreError, OSError and
        ValueError; what did not leave stays."""
        position = self._store.position()
        if position is None or not self._hold():
            return
        if self._sent.based != self._based:
            self._remember(self._sent.generation, self._sent.number)
        try:
            self._send_until(position.generation, position.number)
        finally:
            self._measure(position.at if self._sent.number < position.number else None)
        self._tidy()

    def _hold(self) -> bool:
        if self._held is None:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            (self._folder / _HELD).touch(0o600)
            self._held = try_hold(self._folder / _HELD)
            if self._held is not None:
                self._sent = _read_sent(self._folder / _SHIPPED)
                self._based = self._sent.based
                self._reader = spool.SpoolReader(self._store.folder, self._sent.generation)
        return self._held is not None

    def _send_until(self, generation: str, number: int) -> None:
        if self._sent.generation == generation and self._sent.number == number:
            return
        while self._sent.generation and (found := self._reader.after(self._sent.number)):
            self._send(found)
        if self._sent.generation != generation:
            if self._sent.generation:
                log.warning("the log of changes has a hole and begins anew: a copy is made for it")
            self._switch(generation)
            self._send_until(generation, number)
        elif self._sent.number >= number:
            self._hole_since = None
        elif self._hole_since is None:
            self._hole_since = time.monotonic()
        elif time.monotonic() - self._hole_since > HOLE_S:
            self._hole_since = None
            self._store.begin_log()

    def _switch(self, generation: str) -> None:
        self._merge()
        self._hole_since = None
        self._reader = spool.SpoolReader(self._store.folder, generation)
        self._remember(generation, 0)
        spool.drop_others(self._store.folder, {generation})

    def _send(self, found: list[spool.Waiting]) -> None:
        total = accumulate(len(one.content) for one in found)
        piece = [one for one, size in zip(found, total, strict=True) if size <= PIECE] or found[:1]
        keys = self._keys()
        times = (one.at for one in piece)
        made = segment(self._sent.generation, piece[0].number, piece[-1].number, times, encrypted=bool(keys))
        contents = [one.content for one in piece]
        try:
            self._at_place().put(made.name, packed(contents, keys))
        except ObjectStoreError:
            self._make_room()
            raise
        self._remember(made.generation, made.last)
        self._hole_since = None
        self._reader.forget(made.last)
        if sum(map(len, contents)) >= SMALL:
            self._merge()
        else:
            self._small.append((made, contents, time.monotonic()))

    def _make_room(self) -> None:
        """Where more waits than is allowed, let it go: the copy that is made once the place is back holds it."""
        if spool.size(self._store.folder) > self._most_bytes:
            log.error("changes have waited for too long and are dropped: the log begins anew with a copy")
            self._store.begin_log()
            if (position := self._store.position()) is not None:
                self._switch(position.generation)

    def _tidy(self) -> None:
        """Put small pieces together in time; remove what lies within larger ones."""
        size = sum(len(content) for _, contents, _ in self._small for content in contents)
        old = self._small and time.monotonic() - self._small[0][2] > MERGE_S
        if old or size >= PIECE or len(self._small) >= MERGE_COUNT:
            self._merge()
        for _ in range(min(DELETE_AT_ONCE, len(self._merged))):
            self._at_place().delete(self._merged[-1])
            self._merged.pop()

    def _merge(self) -> None:
        if len(self._small) > 1:
            keys = self._keys()
            parts = [one for one, _, _ in self._small]
            times = (at / 1000 for one in parts for at in (one.since, one.until))
            made = segment(parts[0].generation, parts[0].first, parts[-1].last, times, encrypted=bool(keys))
            contents = [content for _, contents, _ in self._small for content in contents]
            self._at_place().put(made.name, packed(contents, keys))
            self._merged += [one.name for one in parts]
        self._small = []

    def _at_place(self) -> ObjectStore:
        if self._place is None:
            self._place = self._open_place()
        return self._place

    def _measure(self, newest: float | None) -> None:
        """`newest` is the time of the last change where not all have left."""
        oldest = self._reader.oldest(self._sent.number)
        since = newest if oldest is None else oldest
        behind.set(0 if newest is None or since is None else max(0.0, self._clock() - since))

    def _remember(self, generation: str, number: int) -> None:
        """A restart that finds an older word of it sends some pieces twice, to the same names."""
        self._sent = Sent(generation, number, self._based)
        draft = self._folder / f"{_SHIPPED}.draft"
        draft.write_text(f"{generation} {number} {self._based}\n", encoding="ascii")
        os.replace(draft, self._folder / _SHIPPED)


def _read_sent(path: Path) -> Sent:
    try:
        generation, number, *based = path.read_text(encoding="ascii").split()
        return Sent(generation, int(number), *based[:1]) if based else Sent(generation, int(number), "")
    except (OSError, ValueError):
        return Sent("", 0, "")
