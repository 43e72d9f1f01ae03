"""What the stores need again and again: places of dead readers freed, what killed processes left removed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from prometheus_client import Counter

from pool_server.storage import Store, StoreError, sweep_scratch

log = logging.getLogger(__name__)

EVERY_S = 10.0
SWEEP_EVERY = 60  # rounds
stale_readers = Counter("pool_store_stale_readers_total", "Readers of dead processes that were freed", ["store"])


class Upkeep:
    """Looks after the stores of a data folder in one worker. `folders`: where backups are made."""

    def __init__(self, stores: Mapping[str, Store], folders: Sequence[Path]) -> None:
        self._stores = stores
        self._folders = folders
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; the first round is now."""
        self._task = asyncio.get_running_loop().create_task(self._for_ever())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _for_ever(self) -> None:
        rounds = 0
        while True:
            try:
                self.free_readers()
                if rounds % SWEEP_EVERY == 0:
                    await asyncio.to_thread(self.sweep)
            except Exception:
                log.exception("the upkeep of the stores failed")
            rounds += 1
            await asyncio.sleep(EVERY_S)

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
