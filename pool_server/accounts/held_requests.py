"""Requests that asked to be held until headroom returns ("night shift"): how long, how many, seen and cancelled from
any worker.

Each held request has a small file in `data/held/` while it waits, so that every worker's pages list it; a mark beside
it cancels. Who goes first when headroom returns is the wait queue's affair.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from pool_server.core import processes
from pool_server.core.settings import NightShift

log = logging.getLogger(__name__)

FOLDER = "held"  # in the data folder
_CANCEL = ".cancel"
_ID = re.compile(r"[0-9a-zA-Z_-]{1,64}")

T = TypeVar("T")


class HeldRequest(msgspec.Struct):
    """One that waits; times are unix seconds. `worker` is the process that holds it."""

    id: str
    user: str
    model: str
    agent: str
    since: float
    until: float
    worker: str


class HeldRequests:
    """Those of one worker, and the files of all."""

    def __init__(
        self, data_dir: Path, settings: Callable[[], NightShift], clock: Callable[[], float], *, worker: str = ""
    ) -> None:
        self._folder = data_dir / FOLDER
        self._settings = settings
        self._clock = clock
        self._worker = worker or processes.name()
        self._own: dict[str, tuple[HeldRequest, asyncio.Task[object]]] = {}
        self._cancelled: set[str] = set()

    def deadline(self, user: str, asked_until: float) -> float:
        """How long a request of this person may be held now, unix seconds; 0 = not at all."""
        settings, now = self._settings(), self._clock()
        longest = now + settings.longest_h * 3600
        theirs = sum(held.user == user for held, _ in self._own.values())
        if not settings.longest_h or asked_until <= now:
            return 0.0
        if len(self._own) >= settings.requests or theirs >= settings.requests_per_person:
            return 0.0
        return min(asked_until, longest)

    async def hold(self, request: HeldRequest, wait: Callable[[], Awaitable[T]], otherwise: Callable[[], T]) -> T:
        """What `wait` gives, listed meanwhile; `otherwise` at once when it is cancelled."""
        task = asyncio.current_task()
        assert task is not None
        request.worker = self._worker
        self._own[request.id] = request, task
        await asyncio.to_thread(self._list, request)
        try:
            return await wait()
        except asyncio.CancelledError:
            if request.id not in self._cancelled or task.uncancel() > 0:
                raise
            return otherwise()
        finally:
            self._own.pop(request.id, None)
            self._cancelled.discard(request.id)
            self._unlist(request.id)

    def look(self) -> None:
        """Ends the waits that somebody cancelled; called every few seconds."""
        for identifier, (_, task) in list(self._own.items()):
            if identifier not in self._cancelled and (self._folder / f"{identifier}{_CANCEL}").exists():
                self._cancelled.add(identifier)
                task.cancel()

    # -- blocking, from any worker

    def listed(self, user: str | None = None) -> list[HeldRequest]:
        """Those that wait, of one person or of all, in the order in which they came. What a dead worker left is
        removed."""
        found = []
        for path in self._folder.glob("*.json"):
            try:
                held = msgspec.json.decode(path.read_bytes(), type=HeldRequest)
            except (OSError, msgspec.DecodeError):
                continue
            if not processes.alive(held.worker):
                self._unlist(path.stem)
            elif user in (None, held.user):
                found.append(held)
        return sorted(found, key=lambda held: (held.since, held.id))

    def cancel(self, identifier: str, user: str | None) -> bool:
        """Whether there was such a request, of that person or of anybody (None), whose wait ends soon now. Raises
        OSError."""
        if not _ID.fullmatch(identifier) or all(held.id != identifier for held in self.listed(user)):
            return False
        (self._folder / f"{identifier}{_CANCEL}").touch(mode=0o600)
        return True

    def _list(self, request: HeldRequest) -> None:
        try:
            self._folder.mkdir(exist_ok=True, mode=0o700)
            (self._folder / f"{request.id}.json").write_bytes(msgspec.json.encode(request))
        except OSError as error:
            log.warning("a held request is not listed: %s", error.strerror or error)

    def _unlist(self, identifier: str) -> None:
        for ending in (".json", _CANCEL):
            try:
                (self._folder / f"{identifier}{ending}").unlink(missing_ok=True)
            except OSError:
                continue
