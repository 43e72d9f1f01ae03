"""The ledger's service: records exchanges, prices them, and answers what is asked of the past."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any, ParamSpec, TypeVar

import msgspec

from pool_server.core.models import Usage, UsageRecord, WindowObservation
from pool_server.core.settings import LedgerSettings, Settings
from pool_server.core.tasks import PeriodicTasks, running_loop, wait_at_most
from pool_server.ledger import quota_history, retention
from pool_server.ledger.embedded import consistency
from pool_server.ledger.embedded.consistency import Consistency
from pool_server.ledger.embedded.embedded_ledger import EmbeddedLedger, EmbeddedNotes
from pool_server.ledger.ports import JobState, LedgerPort, NotesPort
from pool_server.ledger.pricing import PriceFacts, Prices, Quote
from pool_server.ledger.query import Queries
from pool_server.ledger.records.codec import unpack
from pool_server.ledger.records.sanitize import clean
from pool_server.ledger.request_log import Log
from pool_server.ledger.rollups.reader import Filters
from pool_server.ledger.rollups.writer import PendingRecord
from pool_server.ledger.runway import Runway
from pool_server.storage import Leftover, Store, StoreDamagedError, StoreError
from pool_server.storage.slots import Slots, left_under_way

log = logging.getLogger(__name__)

MAX_WAITING = 100_000  # records kept in memory while the store cannot be written
RETRY_S = 2.0
IN_STORE_S = 0.25  # an answer's end waits so long for a database that is to have its record
HOURS_TOLD_S = 3600.0
HOURS_KNOWN_S = 28 * 86400.0
LEFT_BEHIND_S = 60.0  # between looks for what processes left that ended badly since the start
LOAD_BATCH = 5_000
_encode = msgspec.msgpack.Encoder().encode  # of what is under way: small, and not compressed
_decode = msgspec.msgpack.Decoder(UsageRecord).decode
_RETRY_BATCH = 2_000
_TODAY = PriceFacts()
P = ParamSpec("P")
T = TypeVar("T")


class Ledger:
    """Counts every exchange once. Use from one event loop; several processes may share the store.

    `record` never fails and never blocks: while the store cannot be written, `healthy` is False, records wait in the
    log and in memory, or in memory alone where the log has no room, and are written when it works again.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        write_ahead: bool = False,
        port: LedgerPort | None = None,
        notes: NotesPort | None = None,
    ) -> None:
        """With `write_ahead` a record is durable in a log first, in the folder of `store`, and where it is kept a
        moment later: whoever reads what was recorded here waits for `fresh`. `port` and
        `notes` None = both are kept in `store`."""
        self.store = store
        self.notes: NotesPort = notes or EmbeddedNotes(store)
        self.port: LedgerPort = port or EmbeddedLedger(store, settings.ledger.timezone)
        self.prices = Prices(settings.prices, settings.subscriptions)
        self.settings = settings
        self.lost = 0  # records given up because too many were waiting
        self.on_record: list[Callable[[UsageRecord], None]] = []
        self.on_hours: list[Callable[[list[tuple[int, float]]], None]] = []  # hear what the last weeks used by hour
        self._clock = clock
        self.queries = Queries(self.port, settings.ledger.timezone)
        self.log = Log(self.port)
        self.runway = Runway(self.port, self.queries, self.prices)
        self._watcher = quota_history.Watcher()
        self._sightings = self.port.watch(_not_kept)
        self._channel = self.port.sender(self._failed)
        self._write_ahead = (
            store.write_ahead_log(
                self._channel, PendingRecord.packed, self._owing, self._adopt, **_journal(self.port, settings.ledger)
            )
            if write_ahead
            else None
        )
        self._under_way = Slots(store.folder) if write_ahead else None
        self._waiting: deque[PendingRecord] = deque()
        self._in_log_alone = 0  # records that wait and have no room in memory
        self._reread: deque[bytes] = deque()  # such records, being tried again
        self._tried: dict[int, PendingRecord] = {}  # by identity: of those that waited, what the store is asked to take
        self._retry: asyncio.Task[None] | None = None
        self._tasks = PeriodicTasks()
        self._closing = asyncio.Event()
        self._behind = False  # the logs of dead processes wait to be taken in
        # False while records wait because the store cannot be written
        self.healthy = self._make_up(everywhere=True) if self.port.instant else True

    def _make_up(self, *, everywhere: bool = False) -> bool:
        """Take in what processes that died had in their write-ahead logs and not in the store; False when the store
        cannot be written, so that it stays where it is. Raises StoreDamagedError."""
        try:
            for contents in self.store.orphans(everywhere=everywhere):
                entries = _entries(contents)
                self.port.apply(entries)
                log.info("%d usage records of a process that ended badly were looked at again", len(entries))
            for contents in left_under_way(self.store.folder):
                entries = [PendingRecord(self._finish(entry.record)) for entry in _entries(contents, _unpacked)]
                self.port.apply(entries)
                if entries:
                    log.warning("%d exchanges were under way in a process that was killed", len(entries))
        except StoreDamagedError:
            raise
        except StoreError as exc:
            log.error("usage records of a process that ended wait to be counted: %s", exc)
            self._behind = True
            return False
        self._behind = False
        return True

    def _adopt(self, contents: list[bytes]) -> None:
        """The log that is gone on with holds what a process that died had not written into the store."""
        for entry in _entries(contents):
            self._wait(entry)

    def _owing(self) -> bool:
        return not self.healthy

    @property
    def waiting(self) -> int:
        """Records that the store does not have because it cannot be written."""
        return len(self._waiting) + len(self._tried) + self._in_log_alone

    @property
    def unlogged(self) -> int:
        """Those of them that are in memory alone, because the write-ahead log has no room either."""
        return self.waiting if self._write_ahead is None else min(self.waiting, self._write_ahead.unlogged)

    def price(self, model: str, usage: Usage, facts: PriceFacts = _TODAY) -> Quote:
        """API-equivalent US dollars of an exchange and what they rest on; see `Prices.quote`."""
        return self.prices.quote(model, usage, facts)

    def estimate(self, model: str, input_tokens: int, output_tokens: int) -> float | None:
        """What an exchange may cost at most, before anything is known of caches."""
        usage = Usage(input=input_tokens, output=output_tokens)
        return self.prices.cost(model, usage, PriceFacts(at=self._clock()))

    def begin(self, rec: UsageRecord) -> None:
        """Note an exchange that is under way, or what is known of it by now: should this process be killed, whoever
        opens the ledger next records it as `rec` says. `record` with the same id ends that. Costs microseconds."""
        if self._under_way is not None:
            self._under_way.put(rec.id, _encode(rec))

    def _ended(self, ident: str, saved: asyncio.Future[bool]) -> None:
        if self._under_way is not None and not saved.cancelled() and saved.result():
            self._under_way.drop(ident)

    def record(self, rec: UsageRecord, *, priced: bool = False) -> asyncio.Future[bool]:
        """Clean, price (when `rec.cost` is None) and keep a record; it must not be changed afterwards. `priced`: a cost
        that is None is what `price` answered, and no price is looked for again.

        The future never fails: True = it is on the disk; False = the disk has no room, it waits in memory.
        """
        self._finish(rec, priced=priced and rec.cost is None)
        for listener in self.on_record:
            listener(rec)
        entry = PendingRecord(rec)
        if self._write_ahead is not None or self.healthy:
            try:
                saved = self._channel.send(entry) if self._write_ahead is None else self._written_ahead(entry)
            except StoreError:
                pass  # closed already
            else:
                if self._under_way is not None and rec.id in self._under_way:
                    saved.add_done_callback(partial(self._ended, rec.id))
                return saved
        done: asyncio.Future[bool] = running_loop().create_future()
        done.set_result(self._wait(entry))
        return done

    def _written_ahead(self, entry: PendingRecord) -> asyncio.Future[bool]:
        assert self._write_ahead is not None and self._under_way is not None
        alone = len(self._under_way) == 1 and entry.record.id in self._under_way  # nobody else has begun
        return self._write_ahead.send(entry, alone=alone)

    async def fresh(self) -> None:
        """Returns when all that was recorded here before can be read."""
        if self._write_ahead is not None:
            await self._write_ahead.settled()

    def load(self, records: Iterable[UsageRecord]) -> int:
        """Write a history at once, as `record` would, and return how many records there were. Blocks.

        Only rollup rows that pruning would delete at once are not made.
        """
        have = self.port.cut(self._clock(), self.settings.ledger.retention_days)
        waiting, count = iter(records), 0
        while batch := [self._finish(rec) for rec in islice(waiting, LOAD_BATCH)]:
            self.port.load(batch, have)
            count += len(batch)
        return count

    def _finish(self, rec: UsageRecord, *, priced: bool = False) -> UsageRecord:
        clean(rec, self._clock())
        if rec.cost is None and not priced and rec.usage.counted:
            facts = PriceFacts(at=rec.at, tier=rec.tier, speed=rec.speed, geo=rec.geo, answered=rec.answered)
            quote = self.prices.quote(rec.model, rec.usage, facts)
            rec.cost, rec.cost_basis = quote.dollars, quote.basis.value
        return rec

    def job(self, job: str) -> JobState:
        """What is known of a stored response or a batch: whether its usage has been counted, and what was reserved; of
        a store that cannot be asked, nothing: which of its records counts is decided where they are kept."""
        try:
            with self.port.read() as reader:
                return reader.job(job)
        except StoreError as exc:
            log.warning("nothing is known of a job: %s", exc)
            return JobState(False, None)

    def changes(self) -> int:
        """Another number whenever anything, in any process, was recorded: for those who wait for news."""
        return self.port.changes()

    async def ask(self, question: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a question to the past answers: here where that takes microseconds, in a thread where it waits for a
        network."""
        if self.port.instant:
            return question(*args, **kwargs)
        return await asyncio.to_thread(question, *args, **kwargs)

    async def _tell_hours(self) -> None:
        now = self._clock()
        hours = await asyncio.to_thread(self.queries.by_hour, now - HOURS_KNOWN_S, now)
        for listener in self.on_hours:
            listener(hours)

    def observe(self, account: str, seen: WindowObservation) -> None:
        """Keep a sighting of an account's quota window, unless it says nothing new. Costs microseconds."""
        entry = self._watcher.news(account, seen)
        if entry is not None:
            self._sightings.send(entry)

    def used_by_user(self, user: str, since: float, key: str = "") -> dict[str, int | float]:
        """What a user, or one key of theirs, has used since then: {"input","cache_read","cache_write","output",
        "reasoning","requests","cost_usd"}. What a process that died left in its write-ahead log is part of it."""
        self._make_up()
        end = self._clock() + 1
        sums = self.queries.of_key(user, key, since, end) if key else self.queries.total(since, end, Filters(user=user))
        return msgspec.structs.asdict(sums.tokens())

    def _failed(self, entry: PendingRecord, error: BaseException) -> bool:
        """The store could not take a record: keep it when the store is at fault, say so when the record is."""
        self._tried.pop(id(entry), None)
        if not isinstance(error, StoreError):
            self.lost += 1
            log.error("usage record %s cannot be kept: %s", entry.record.id, type(error).__name__)
            return False
        if self.healthy:
            log.error("usage records wait: %s", error)
        return self._wait(entry)

    def _wait(self, entry: PendingRecord) -> bool:
        if len(self._waiting) < MAX_WAITING:  # the oldest stay: the log has them
            self._waiting.append(entry)
        elif self._write_ahead is not None and not self._write_ahead.unlogged:
            self._in_log_alone += 1  # all that came was logged
        else:
            self.lost += 1
        self.healthy = False
        self._begin_retry()
        return False

    def _begin_retry(self) -> None:
        if self._retry is None and not self._closing.is_set():
            self._retry = running_loop().create_task(self._write_waiting())

    async def _write_waiting(self) -> None:
        """Try again until everything that waits is written; at the end of the ledger, once more."""
        pause = True
        while self._waiting or self._behind or self._in_log_alone or self._reread:
            if pause and not self._closing.is_set():
                await wait_at_most(self._closing, RETRY_S)
            last_try = self._closing.is_set()
            batch = [self._waiting.popleft() for _ in range(min(_RETRY_BATCH, len(self._waiting)))]
            batch = batch or await self._from_log()
            self._tried = {id(entry): entry for entry in batch}
            written = await asyncio.gather(*(self._channel.send(entry) for entry in batch))  # what fails waits again
            self._tried.clear()
            pause = not all(written)
            for entry, kept in zip(batch, written, strict=True):
                if kept and self._under_way is not None:
                    self._under_way.drop(entry.record.id)
            if self._behind and not pause:
                pause = not await asyncio.to_thread(partial(self._make_up, everywhere=True))
            if last_try and pause:
                return
        self.healthy = True
        self._retry = None
        if self._write_ahead is not None:
            self._write_ahead.made_up()
        log.warning("usage records are written again")

    async def _from_log(self) -> list[PendingRecord]:
        """Records of which only the log knows, and with them others, which count once."""
        if self._in_log_alone and not self._reread and self._write_ahead is not None:
            try:
                self._reread.extend(await asyncio.to_thread(self._write_ahead.contents))
            except OSError as exc:
                log.error("%d usage records wait for the next start: %s", self._in_log_alone, exc.strerror or exc)
            self._in_log_alone = 0
        return _entries([self._reread.popleft() for _ in range(min(_RETRY_BATCH, len(self._reread)))])

    async def start(self, *, leader: bool = True) -> None:
        """Begin the background work; one process of several, the leader, forgets what is old."""
        self.port.start()
        if self._write_ahead is not None:
            self._write_ahead.start()
        if not self.port.instant:
            self.healthy = await asyncio.to_thread(partial(self._make_up, everywhere=True))
        if self._behind:
            self._begin_retry()
        if leader:
            self._tasks.every(retention.EVERY_S, self._prune, "pruning", at_once=True)
            self._tasks.every(LEFT_BEHIND_S, self._take_in, "taking in what ended processes left")
        if self.on_hours:
            self._tasks.every(HOURS_TOLD_S, self._tell_hours, "telling what was used by hour", at_once=True)
        self._tasks.start()

    async def _take_in(self) -> None:
        """A worker of an earlier server may have ended badly after this one looked at what was left."""
        if not self._behind and not await asyncio.to_thread(self._make_up):
            self.healthy = False
            self._begin_retry()

    async def close(self) -> None:
        """Write what can be written. The store stays open: it belongs to whoever opened it."""
        self._closing.set()
        await self._tasks.close()
        if self._retry is not None:
            await self._retry
        if self._write_ahead is not None:
            _tell(await self._write_ahead.close(self._owed))
        if self._under_way is not None:
            self._under_way.close()
        if self._write_ahead is None and self._waiting:
            log.error("%d usage records are lost: the store cannot be written", len(self._waiting))
        if not self.port.instant:
            await asyncio.to_thread(self.port.close)

    def _owed(self) -> list[bytes]:
        return [packed for entry in self._waiting if (packed := entry.safely_packed())]

    async def _prune(self) -> None:
        try:
            await self.prune()
            await self.sum_months()
        except StoreError as exc:
            log.warning("old records were not pruned: %s", exc)

    async def prune(self) -> None:
        """Forget what is past its time, in small steps with room for others between them. Raises StoreError."""
        await self.port.forget(self._clock(), self.settings.ledger.retention_days, self._closing)

    def check(self) -> Consistency:
        """Whether the tables agree. Blocks; for a folder that no server uses. Raises StoreError."""
        with self.store.read() as reader:
            return consistency.check(reader, self.settings.ledger.timezone)

    def repair(self, found: Consistency) -> None:
        """Put right what `check` found, as far as the records tell. Blocks. Raises StoreError."""
        consistency.repair(self.store, self.settings.ledger.timezone, found)

    async def sum_months(self) -> None:
        """Make the rows of closed months that have none or have grown since. Raises StoreError."""
        await self.port.sum_up(self._clock(), self._closing)


def _journal(port: LedgerPort, settings: LedgerSettings) -> dict[str, Any]:
    """How the write-ahead log is kept, which a network is behind."""
    if port.instant:
        return {}
    return {"size": settings.journal_mb << 20, "within_s": IN_STORE_S if settings.durable == "store" else 0.0}


def _tell(left: Leftover) -> None:
    """Say where the records are that the store could not take."""
    if left.kept:
        log.error("%d usage records wait in the write-ahead log for the next start: no room in the store", left.kept)
    if left.elsewhere:
        log.error(
            "%d usage records found no room in the data folder and are in %s: the next start counts them from there",
            left.elsewhere,
            left.path,
        )
    if left.lost:
        log.error("%d usage records are lost, no place on this machine takes them: %s", left.lost, left.why)


def _entries(contents: Iterable[bytes], decode: Callable[[bytes], UsageRecord] = unpack) -> list[PendingRecord]:
    return [PendingRecord(rec) for raw in contents if (rec := _read(raw, decode)) is not None]


def _unpacked(raw: bytes) -> UsageRecord:
    try:
        return _decode(raw)
    except msgspec.MsgspecError as exc:
        raise ValueError(f"an exchange under way that cannot be read: {exc}") from None


def _read(raw: bytes, decode: Callable[[bytes], UsageRecord] = unpack) -> UsageRecord | None:
    try:
        return decode(raw)
    except ValueError as exc:
        log.error("a usage record of a write-ahead log cannot be read: %s", exc)
        return None


def _not_kept(_: quota_history.Entry, error: BaseException) -> bool:
    log.warning("a quota sighting was not kept: %s", error)
    return False
