"""Backups taken by the clock, the oldest removed for the newest."""

from __future__ import annotations

import asyncio
import calendar
import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from prometheus_client import Gauge

from pool_server.core.settings import Backup
from pool_server.core.tasks import PeriodicTasks
from pool_server.storage import store_keys
from pool_server.storage.backup import ENCRYPTED, LEDGER, SCRATCH, backup, prove
from pool_server.storage.change_log.shipper import Shipper
from pool_server.storage.errors import StoreError, StoreFullError
from pool_server.storage.lmdb.store import Store
from pool_server.storage.object_store import ObjectStore, ObjectStoreError, open_place
from pool_server.storage.scratch import scratch_folder

log = logging.getLogger(__name__)
proven = Gauge(
    "pool_backup_proven_timestamp_seconds",
    "When the newest copy that was restored for a trial was made, unix time",
    multiprocess_mode="max",
)
to_prove = Gauge(
    "pool_backup_prove_enabled", "Whether scheduled copies are restored for a trial", multiprocess_mode="max"
)

LOOK_EVERY_S = 300.0
PROMPT_S = 2.0  # until a log that has begun anew gets its copy
LOG_WITHIN = timedelta(seconds=10)  # for a piece of the log of changes, which is small
SLACK_S = 3600.0  # the log is kept for so much longer than the copies: clocks are set
_PREFIX = "pool-server-"
_NAME = re.compile(r"pool-server-(\d{8}-\d{6})\.tar\.zst(?:\.enc)?")
_STAMP = "%Y%m%d-%H%M%S"
_PROVEN = "pool-server-proven"  # in the folder of copies: the name of the newest that was restored for a trial


def keeps_log(settings: Backup) -> bool:
    """Whether every change is noted, to be sent after the copies."""
    return settings.point_in_time and bool(settings.folder)


def open_log_place(settings: Backup) -> ObjectStore:
    """Where the log of changes goes: to the mirror of copies, else beside them. Raises ObjectStoreError."""
    return open_place(settings.mirror or settings.folder, settings.mirror_options, LOG_WITHIN)


def change_log(settings: Backup, store: Store) -> Shipper | None:
    """What sends the changes of a store away; None where that is not wanted."""
    if not keeps_log(settings):
        return None

    def keys() -> Mapping[str, bytes]:
        found = store_keys.from_environment() if settings.encrypt else {}
        if settings.encrypt and not found:
            raise ValueError(f"an encrypted log needs a key in {store_keys.ENVIRONMENT}")
        return found

    return Shipper(
        store,
        lambda: open_log_place(settings),
        keys,
        every_s=settings.point_in_time_s,
        most_bytes=settings.point_in_time_mb << 20,
    )


class BackupSchedule:
    """Keeps `settings.keep` copies in `settings.folder`, one every `settings.every_h` hours, across restarts. Each is
    restored for a trial before an older one is removed for it."""

    def __init__(
        self,
        settings: Backup,
        stores: Mapping[str, Store],
        data_dir: Path,
        *,
        pool_dir: Path | None = None,
        changes: Shipper | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`changes` is the log that continues the copies: one is made whenever it has begun anew."""
        self._settings = settings
        self._changes = changes
        self._stores = stores
        self._data_dir = data_dir
        self._pool_dir = pool_dir if settings.credentials else None
        self._holds = ""  # the generation of the log that the newest copy of this process lies in
        self._mirrored = ""  # the newest copy that is known to be at the mirror
        self._clock = clock
        self._tasks = PeriodicTasks()
        self._one = asyncio.Lock()
        self._tasks.every(LOOK_EVERY_S, self._look, "the schedule of backups", at_once=True)
        if changes is not None:
            self._tasks.every(PROMPT_S, self._look_at_log, "the copy that the log of changes begins with")
        self.last_error = ""  # why the last copy could not be made; empty when it could

    async def start(self) -> None:
        """Begin, if a folder is set; the first copy is made at once when the newest is too old."""
        if self._settings.folder:
            if self._settings.prove:
                to_prove.set(1)
                last = await asyncio.to_thread(last_proven, Path(self._settings.folder))
                proven.set(min(last, self._clock()))
            self._tasks.start()

    async def close(self) -> None:
        """End the schedule; a running copy is finished first."""
        await self._tasks.close()

    def run(self) -> Path | None:
        """Make a copy if one is due and remove what is over the limit. Returns the new copy. Blocks."""
        folder = Path(self._settings.folder)
        now = self._clock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        generation = self._new_generation()
        if not generation and not due(newest_first(list_backups(folder), now), now, self._settings.every_h):
            self._mirror(folder, now)
            return None
        ending = ENCRYPTED if self._settings.encrypt else ""
        dest = folder / f"pool-server-{time.strftime(_STAMP, time.gmtime(now))}.tar.zst{ending}"
        backup(self._stores, self._data_dir, dest, now=now, pool_dir=self._pool_dir)
        if self._settings.prove:
            self._prove(dest, now)
        self._holds = generation or self._holds
        over = expired(
            newest_first(list_backups(folder), now), now, keep=self._settings.keep, keep_days=self._settings.keep_days
        )
        tried = _tried(folder)
        for old in over:
            if old.name != tried:
                old.unlink(missing_ok=True)
        self._mirror(folder, now)
        return dest

    def _new_generation(self) -> str:
        """The generation of the log of changes that no copy was made within, "" for none."""
        if self._changes is None or not self._changes.wants_copy:
            return ""
        position = self._stores[LEDGER].position()
        return position.generation if position is not None and position.generation != self._holds else ""

    def _mirror(self, folder: Path, now: float) -> None:
        """Send the newest copy to the mirror where it is not there yet, compare what arrived, and let old ones go there
        as here. Raises StoreError; the next look tries again."""
        newest = next(iter(newest_first(list_backups(folder), now)), None)
        if newest is None or newest.name == self._mirrored:
            return
        if not self._settings.mirror:
            self._settle(newest.name, list_backups(folder))
            return
        try:
            place = open_place(self._settings.mirror, self._settings.mirror_options)
            there = {one.name: one.size for one in place.list("") if _NAME.fullmatch(one.name)}
            if there.get(newest.name) != newest.stat().st_size:
                place.put(newest.name, newest)
            _compare(place, newest)  # also what was there: nobody may have come to compare it
            log.info("%s is at the mirror", newest.name)
            kept = newest_first((Path(name) for name in {*there, newest.name}), now)
            over = expired(kept, now, keep=self._settings.keep, keep_days=self._settings.keep_days)
            for old in over:
                place.delete(old.name)
        except ObjectStoreError as exc:
            raise StoreError(f"the mirror of backups takes nothing: {exc}") from None
        self._settle(newest.name, [path for path in kept if path not in over])

    def _settle(self, newest: str, kept: Sequence[Path]) -> None:
        """The newest copy is where the log of changes goes: what is older there than all copies is of no use."""
        self._mirrored = newest
        if self._changes is None:
            return
        if self._holds:
            self._changes.copied(self._holds)
        oldest = min(map(_made_at, kept))
        if oldest > self._clock():  # the clock is wrong, or was
            return
        try:
            self._changes.forget_before(oldest - SLACK_S)
        except ObjectStoreError as exc:
            log.warning("old changes stay at their place: %s", exc)

    def _prove(self, made: Path, now: float) -> None:
        """Restore the new copy for a trial. One that is not whole is removed, which leaves the older ones."""
        try:
            found = prove(made)
        except StoreFullError as exc:
            log.warning("there was no room to restore %s for a trial: %s", made, exc)
            return
        except StoreError:
            made.unlink(missing_ok=True)
            raise
        proven.set(now)
        try:
            (made.parent / _PROVEN).write_text(f"{made.name}\n", encoding="ascii")
        except OSError as exc:
            log.warning("a restart will not know that %s was restored for a trial: %s", made.name, exc)
        log.info(
            "%s was restored for a trial: %s", made.name, ", ".join(f"{n} {name}" for name, n in found.keys.items())
        )

    async def _look_at_log(self) -> None:
        if self._changes is not None and self._changes.wants_copy and self._new_generation():
            await self._look()

    async def _look(self) -> None:
        try:
            async with self._one:
                await asyncio.to_thread(self.run)
            self.last_error = ""
        except (StoreError, OSError) as exc:
            self.last_error = str(exc)
            log.warning("no backup was made: %s", exc)


def _compare(place: ObjectStore, copy: Path) -> None:
    """Read back what arrived. Raises ObjectStoreError where it is not the copy."""
    with scratch_folder(copy.parent, SCRATCH) as scratch:
        back = scratch / "backup"
        place.fetch(copy.name, back)
        with copy.open("rb") as one, back.open("rb") as other:
            same = hashlib.file_digest(one, "sha256").digest() == hashlib.file_digest(other, "sha256").digest()
    if not same:
        place.delete(copy.name)
        raise ObjectStoreError(f"{copy.name} did not arrive whole")


def made_before(names: Iterable[str], at: float) -> list[str]:
    """Of scheduled copies those that were made at or before then, unix seconds, newest first."""
    stamp = time.strftime(_STAMP, time.gmtime(at))
    return sorted((name for name in names if (m := _NAME.fullmatch(name)) and m.group(1) <= stamp), reverse=True)


def list_backups(folder: Path) -> list[Path]:
    """The scheduled copies in a folder, newest first by the time in their names; other files are left alone."""
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def newest_first(copies: Iterable[Path], now: float) -> list[Path]:
    """Scheduled copies in the order in which they go: those that a wrong clock made in the future count as the oldest,
    else they would stand in the place of every copy that is made until then."""
    today = time.strftime(_STAMP, time.gmtime(now))

    def order(copy: Path) -> tuple[bool, str]:
        found = _NAME.fullmatch(copy.name)
        return found is not None and found.group(1) <= today, copy.name

    return sorted(copies, key=order, reverse=True)


def _made_at(copy: Path) -> float:
    """When a scheduled copy was made, by its name; 0 where that says no time."""
    found = _NAME.fullmatch(copy.name)
    try:
        return calendar.timegm(time.strptime(found.group(1), _STAMP)) if found else 0.0
    except ValueError:
        return 0.0


def last_proven(folder: Path) -> float:
    """When the newest copy that was restored for a trial was made, 0 for never, as the folder says. Blocks."""
    return _made_at(Path(_tried(folder)))


def _tried(folder: Path) -> str:
    """The name of that copy, "" for none: it stays, whatever its number and age, until another one was tried."""
    try:
        return (folder / _PROVEN).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def expired(backups: list[Path], now: float, *, keep: int, keep_days: float) -> list[Path]:
    """Which of the copies (newest first) are over the number or the age (0 = any) that is kept; never the newest."""
    oldest = time.strftime(_STAMP, time.gmtime(now - keep_days * 86400)) if keep_days else ""
    spared = max(1, keep)
    return [
        path
        for number, path in enumerate(backups)
        if number >= spared or (number and oldest and path.name.removeprefix(_PREFIX)[: len(oldest)] < oldest)
    ]


def due(backups: list[Path], now: float, every_h: float) -> bool:
    """Whether the newest copy (the first) is old enough; one from the future, by a wrong clock, counts as old."""
    if not backups:
        return True
    found = _NAME.fullmatch(backups[0].name)
    stamp = found.group(1) if found else ""
    newest = time.strftime(_STAMP, time.gmtime(now - every_h * 3600))
    return stamp <= newest or stamp > time.strftime(_STAMP, time.gmtime(now))
