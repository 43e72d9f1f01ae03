"""Looks at the facts every minute, remembers open incidents across restarts, and has them told."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from pool_server.alerts import rules
from pool_server.alerts.incidents import remember, remembered
from pool_server.alerts.notify import deliver
from pool_server.alerts.rules import AlertEvent, AlertFacts, Incident
from pool_server.core.enums import Outcome
from pool_server.core.models import Send
from pool_server.core.tasks import PeriodicTasks
from pool_server.ledger.service import Ledger
from pool_server.storage import StoreError

log = logging.getLogger(__name__)

EVERY_S = 60.0
ERROR_WINDOW_S = 900.0
# Endings that the pool or a provider is to blame for.
_OURS = (Outcome.UPSTREAM, Outcome.CUT, Outcome.EXHAUSTED, Outcome.NO_ACCOUNT)
# Endings that say nothing about how well the pool serves.
_CLIENTS = (Outcome.DENIED, Outcome.REQUEST_FAULT, Outcome.REVOKED)


class AlertMonitor:
    """Runs the rules in one process of the server. `gather` brings the facts of accounts, users and app."""

    def __init__(
        self,
        ledger: Ledger,
        send: Send,
        gather: Callable[[], Awaitable[AlertFacts]],
        *,
        clock: Callable[[], float],
        mine: Callable[[], bool] = lambda: True,
    ) -> None:
        """`mine`: whether this process is the one that watches now, where it is not always."""
        self._mine = mine
        self._watched = False  # by this process, at its last look
        self._ledger = ledger
        self._send = send
        self._gather = gather
        self._clock = clock
        self._open = remembered(ledger.notes)
        self._tasks = PeriodicTasks()
        self._tasks.every(EVERY_S, self.look, "looking for incidents", at_once=True)
        self._telling: set[asyncio.Task[bool]] = set()

    @property
    def incidents(self) -> list[Incident]:
        """What is wrong now, oldest first."""
        return sorted(self._open.values(), key=lambda incident: incident.since)

    async def start(self) -> None:
        """Look now and every minute from now on."""
        self._tasks.start()

    async def close(self) -> None:
        """Stop looking; what is being told is given up."""
        await self._tasks.close()
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    async def look(self) -> Sequence[AlertEvent]:
        """One look at the facts; tells what is new in the background and returns it. What another process watched
        before is not told again."""
        if not self._mine():
            self._watched = False
            return []
        if not self._watched:
            self._open, self._watched = remembered(self._ledger.notes), True
        now = self._clock()
        facts = await asyncio.to_thread(self._facts, await self._gather(), now)
        self._open, events = rules.step(self._open, facts, self._ledger.settings.alerts, now)
        if events:
            await self._save()
            task = asyncio.get_running_loop().create_task(deliver(events, self._ledger.settings.alerts, self._send))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)
        return events

    def _facts(self, others: AlertFacts, now: float) -> AlertFacts:
        """The gathered facts and those of the ledger."""
        ledger = self._ledger
        outcomes = ledger.queries.total(now - ERROR_WINDOW_S, now).outcomes
        return msgspec.structs.replace(
            others,
            requests=sum(outcomes.values()) - sum(outcomes.get(word, 0) for word in _CLIENTS),
            errors=sum(outcomes.get(word, 0) for word in _OURS),
            lasts_until={
                name: provider["lasts_until"] for name, provider in ledger.runway.all(now)["providers"].items()
            },
            disk_free=_free(ledger.store.folder),
            ledger_healthy=ledger.healthy,
        )

    async def _save(self) -> None:
        try:
            await remember(self._ledger.notes, self._open)
        except StoreError:
            log.warning("open incidents could not be noted; they may be told again after a restart")


def _free(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None  # the folder is gone, which is told by itself
