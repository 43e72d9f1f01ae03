"""What the stores need again and again: a look whether they are still there and whether the clock was set, places of
dead readers freed, what killed processes left removed."""

from __future__ import annotations

import asyncio
import logging
import select
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prometheus_client import Counter

from pool_server.core.tasks import PeriodicTasks
from pool_server.storage import FolderIdentity, Store, StoreError, rescue, sweep_scratch

log = logging.getLogger(__name__)

EVERY_S = 10.0
STEP_S = 5.0  # a clock that is corrected smoothly moves by far less between two looks
SURE_S = 2.0  # between the look that finds the data folder lost and the one that is believed
OTHERS_S = EVERY_S + SURE_S + 5.0  # and their drain: within which every worker has seen it too and has ended
SWEEP_S = 600.0
stale_readers = Counter("pool_store_stale_readers_total", "Readers of dead processes that were freed", ["store"])


def _nothing() -> None:
    """Nobody listens."""


class Upkeep:
    """Looks after the stores of a data folder in one worker; only the `leader` frees and removes. `folders`: where
    backups are made.

    `lost` is what is wrong with the data folder, "" when it is the one that was opened; `on_lost` is called when that
    changes, `gone` when the second look in a row found it wrong.
    """

    def __init__(
        self,
        stores: Mapping[str, Store],
        identity: FolderIdentity,
        folders: Sequence[Path],
        *,
        leader: bool,
        on_lost: Callable[[], None] = _nothing,
        gone: Callable[[], None] = _nothing,
    ) -> None:
        self._stores = stores
        self._identity = identity
        self._folders = folders
        self._leader = leader
        self._on_lost = on_lost
        self._gone = gone
        self.lost = ""
        self._clock_ahead: float | None = None  # of the monotonic one, at the last look
        self._tasks = PeriodicTasks()
        self._tasks.every(
            lambda: SURE_S if self.lost else EVERY_S, self._round, "the upkeep of the stores", at_once=True
        )
        if leader:
            self._tasks.every(SWEEP_S, self.sweep_beside, "removing unfinished backups", at_once=True)

    async def start(self) -> None:
        """Begin; the first round is now."""
        self._tasks.start()

    async def close(self) -> None:
        await self._tasks.close()

    def _round(self) -> None:
        self.look()
        self.watch_clock()
        if self._leader and not self.lost:
            self.free_readers()

    async def sweep_beside(self) -> None:
        """`sweep`, in a thread, while the data folder is there."""
        if not self.lost:
            await asyncio.to_thread(self.sweep)

    def look(self) -> None:
        """Is the data folder still the one that was opened? Nothing that is written into another one's place, or into
        files without a name, is ever found again."""
        before, self.lost = self.lost, self._identity.changed()
        if self.lost != before:
            if self.lost:
                log.critical("%s: what is recorded from now on would be lost", self.lost)
            else:
                log.warning("%s is as it was again", self._identity.folder)
            self._on_lost()
        if self.lost and before:
            self._gone()

    def watch_clock(self) -> None:
        """Tell when the clock was set, or the machine slept: times that were written before it are judged anew."""
        before, self._clock_ahead = self._clock_ahead, time.time() - time.monotonic()
        step = 0.0 if before is None else self._clock_ahead - before
        if abs(step) >= STEP_S and self._leader:
            log.warning("the clock went %s by %.0f s", "ahead" if step > 0 else "back", abs(step))

    async def rescue(self, others: int | None = None, *, within_s: float = 0.0) -> None:
        """Copy the stores of a folder that is gone to where they can be restored from; nothing, where it is there. At
        the end of the server: another worker may have seen it first, and ended all before this one looked.

        What the other workers had under way is recorded by their end, which the pipe `others` tells by its own; it is
        waited for, for at most `within_s` seconds.
        """
        self.lost = self.lost or self._identity.changed()
        if not self.lost:
            return
        if others is not None and not (await asyncio.to_thread(select.select, [others], [], [], within_s))[0]:
            log.critical("another worker has not ended: what it has under way will not be in the copy")
        try:
            kept = await asyncio.to_thread(
                rescue, self._stores, self._identity.small, self._identity.folder, now=time.time()
            )
        except StoreError as exc:
            log.critical("%s, and no copy of it could be made: %s", self.lost, exc)
        else:
            log.critical("%s; all it held is in %s: `pool-server restore %s` brings it back", self.lost, kept, kept)

    def free_readers(self) -> None:
        """A process killed within a read (a backup) keeps every page since then from being used again."""
        for name, store in self._stores.items():
            try:
                freed = store.free_readers()
            except StoreError as exc:
                log.warning("readers of dead processes could not be looked for: %s", exc)
                continue
            if freed:
                stale_readers.labels(name).inc(freed)
                log.info("%d readers of dead processes were freed in the store %s", freed, name)

    def sweep(self) -> None:
        """Remove what killed backups left."""
        for folder in self._folders:
            if gone := sweep_scratch(folder):
                log.info("%d unfinished backups of dead processes were removed from %s", gone, folder)
