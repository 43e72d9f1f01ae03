"""Transcripts of one worker: whose exchanges are captured, and what is kept of those that were."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pool_server.core.models import UsageRecord
from pool_server.core.settings import Settings
from pool_server.core.tasks import PeriodicTasks
from pool_server.transcripts import archive
from pool_server.transcripts.archive import KeptConversation, KeptOfPerson
from pool_server.transcripts.capture import CaptureHead, ExchangeCapture, HeldFile, PairedCapture
from pool_server.transcripts.mirror import Mirror, Outbox
from pool_server.transcripts.recorder import Recorder
from pool_server.transcripts.reports import Reports

log = logging.getLogger(__name__)

PRUNE_EVERY_S = 60.0
MIRROR_EVERY_S = 2.0


class ConsentSource(Protocol):
    """People's consent to transcripts of their own exchanges."""

    on_change: list[Callable[[], None]]  # called when anybody's may have changed

    def allows(self, user: str) -> bool:
        """From memory, on the event loop."""

    def stands(self, user: str) -> bool:
        """From the store, in any thread."""

    def left(self, user: str) -> bool:
        """Whether the person was deleted; likewise."""


class Transcripts:
    """`leader`: removes what is too old or too much, for all workers."""

    def __init__(
        self,
        settings: Settings,
        consents: ConsentSource,
        *,
        leader: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._consents = consents
        self._clock = clock
        self.folder = Path(settings.data_dir) / archive.FOLDER
        self._live: set[ExchangeCapture] = set()
        self._recorder = Recorder(
            self.folder,
            stands=lambda user: self.offered and consents.stands(user),
            free=lambda: self._settings.alerts.disk_free_mb << 20,
            most=lambda: self._settings.transcripts.exchange_mb << 20,
            kept=self._to_mirror,
        )
        self._outbox = Outbox(self.folder)
        self._mirror = Mirror(self._outbox, lambda: self._settings.transcripts, clock=time.monotonic)
        self._tasks = PeriodicTasks()
        if leader:
            self._tasks.every(PRUNE_EVERY_S, self._prune, "removing old transcripts", at_once=True)
            self._tasks.every(MIRROR_EVERY_S, self._send, "mirroring transcripts")
        self.reports = Reports(Path(settings.data_dir), clock=clock)
        consents.on_change += [self._look_again, self._learn_orders]

    @property
    def offered(self) -> bool:
        """Whether the operator lets people have transcripts."""
        return self._settings.transcripts.enabled

    def wanted(self, user: str, key: str) -> bool:
        """Whether an exchange of this person with this key is captured now, for whatever."""
        return self._kept_for(user) or self.reports.wanted(user, key)

    def _kept_for(self, user: str) -> bool:
        return self._settings.transcripts.enabled and self._consents.allows(user)

    def begin(self, head: CaptureHead, body: Callable[[], bytes | HeldFile | None]) -> ExchangeCapture | None:
        """The capture of an exchange that is wanted, to be `finish`ed; None for all others. `body` is asked for by
        each who keeps it."""
        made: list[ExchangeCapture] = []
        if self._kept_for(head.user):
            made.append(ExchangeCapture(head, body(), self._recorder))
            self._live.add(made[0])
        if self.reports.wanted(head.user, head.key):
            report = self.reports.claim(head.user, head.key)
            if report is not None:
                made.append(ExchangeCapture(head, body(), report))
        if len(made) == 2:
            return PairedCapture(*made)
        return made[0] if made else None

    def finish(self, capture: ExchangeCapture, record: UsageRecord | None) -> None:
        """The exchange is over; `record` is its usage record, None where there is none."""
        for part in capture.parts:
            self._live.discard(part)
            part.end(record)

    def apply(self, settings: Settings) -> None:
        """New settings."""
        self._settings = settings
        self._look_again()

    def _look_again(self) -> None:
        """Who takes consent back is heard at once, in the middle of an answer too: nothing of it is kept."""
        for capture in [one for one in self._live if not self._kept_for(one.head.user)]:
            self._live.discard(capture)
            capture.drop()

    def _learn_orders(self) -> None:
        """Another worker may have taken an order for a bug report."""
        self.reports.background(self.reports.load)

    # -- what is kept; each looks at the folder beside the loop

    async def conversations(self, user: str) -> list[KeptConversation]:
        """A person's, the one with the newest exchange first."""
        return await asyncio.to_thread(archive.conversations, self.folder, user)

    async def everybody(self) -> list[KeptOfPerson]:
        """Of whom there are some, and how many."""
        return await asyncio.to_thread(archive.everybody, self.folder)

    async def find(self, user: str, identifier: str) -> Path | None:
        """A conversation by its id, for `archive.read`; None where there is none."""
        return await asyncio.to_thread(archive.find, self.folder, user, identifier)

    async def remove(self, user: str, place: Path) -> int:
        """Deletes a conversation → how many exchanges."""
        self._delete_mirrored(user, place.parent.name, place.name)
        return len(await asyncio.to_thread(archive.remove, place))

    async def purge(self, user: str, identifier: str | None, *, older_than_s: float | None) -> int:
        """Deletes of a person's what is asked for: one conversation or all of them, as a whole or what is older → how
        many exchanges."""
        place = await self.find(user, identifier) if identifier else None
        if identifier and place is None:
            return 0
        if older_than_s is not None:
            before = self._clock() - older_than_s
            return await asyncio.to_thread(archive.remove_older, self.folder, user, place, before)
        return await (self.remove(user, place) if place is not None else self.remove_person(user))

    async def remove_person(self, user: str) -> int:
        """Deletes all of a person's → how many exchanges."""
        self._delete_mirrored(user)
        return await asyncio.to_thread(archive.remove_person, self.folder, user)

    def _delete_mirrored(self, *parts: str) -> None:
        """Raises OSError: what cannot be deleted at the mirror later is not deleted here."""
        if self._settings.transcripts.mirror:
            self._outbox.delete(*parts)

    def _to_mirror(self, path: Path) -> None:
        """In the recorder's thread."""
        if self._settings.transcripts.mirror:
            try:
                self._outbox.send(path)
            except OSError as error:
                log.warning("a transcript will not be mirrored: %s", error.strerror or error)

    def flush(self) -> None:
        """Returns when what ended by now is written. Blocks."""
        self._recorder.flush()

    async def start(self) -> None:
        await asyncio.to_thread(self.reports.load)
        self._tasks.start()

    async def close(self) -> None:
        """Returns when what was captured is written."""
        await self._tasks.close()
        await self.reports.close()
        await asyncio.to_thread(self._recorder.close)

    async def _prune(self) -> None:
        now, wanted = self._clock(), self._settings.transcripts
        for user in await asyncio.to_thread(archive.people, self.folder):
            if self._consents.left(user):
                await self.remove_person(user)
        removed = await asyncio.to_thread(
            archive.prune, self.folder, now, keep_days=wanted.keep_days, most_bytes=wanted.max_mb << 20
        )
        await asyncio.to_thread(self.reports.prune)
        dropped = await asyncio.to_thread(self._outbox.prune, wanted.max_mb << 20)
        if removed or dropped:
            log.info("%d old transcripts were removed, %d left unmirrored for want of room", removed, dropped)

    async def _send(self) -> None:
        if self._settings.transcripts.mirror:
            await asyncio.to_thread(self._mirror.run)
