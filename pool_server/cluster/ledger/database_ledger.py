"""`LedgerPort` over PostgreSQL: one node's records go there in batches, and every node reads all of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial

import msgspec

from pool_server.cluster.ledger import folding
from pool_server.cluster.ledger.database_usage import PRUNED, DatabaseUsage, kept_in, log_query, readable
from pool_server.cluster.ledger.record_shipping import BatchSender, Shipping
from pool_server.core.models import UsageRecord
from pool_server.core.tasks import wait_at_most
from pool_server.ledger import retention
from pool_server.ledger.ports import LedgerPort, LogFilters, UsageReader, matches
from pool_server.ledger.quota_history import Entry
from pool_server.ledger.records.codec import pack
from pool_server.ledger.rollups import pending
from pool_server.ledger.rollups.sums import Sums
from pool_server.ledger.rollups.time_slices import Kept
from pool_server.ledger.rollups.writer import PendingRecord
from pool_server.storage import Sender, StoreError
from pool_server.storage.postgres.connection import Connection
from pool_server.storage.postgres.thread import DatabaseThread
from pool_server.storage.postgres.url import DatabaseUrl

log = logging.getLogger(__name__)

FOLD_S = 1.0
CONNECTIONS = 6  # one ships, one folds, the others read
_SCAN_STEP = 500
_FORGET_STEP = 5_000
_FORGET_PAUSE_S = 0.05
_CLOCK = "ledger prune clock"
# Of people, and of their keys that count by themselves.
_OWE = """
select pool.use_owe_1(array_agg(usr), array_agg(jti)) from (
  select usr, '' as jti from unnest($1::text[]) as usr union select usr, jti from pool.use where usr = any ($1)) owners
"""


class DatabaseLedger(LedgerPort):
    """One node's. `node`: the number of its present life in the database. `mine`: whether it is this node that adds the
    newest exchanges to the sums; two that do lose time, and nothing else."""

    instant = False

    def __init__(
        self,
        url: DatabaseUrl,
        node: Callable[[], int],
        timezone: str,
        *,
        mine: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._timezone = timezone
        self._mine = mine
        self._thread = DatabaseThread(url, CONNECTIONS)
        self._shipping = Shipping(node, timezone, clock)
        self._folding: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to add what comes to the sums, whenever it is this node's to do."""
        self._thread.loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._folding = asyncio.get_running_loop().create_task(self._fold_on())

    def close(self) -> None:
        """Ends the connections. What was sent and not kept stays in the node's journal."""
        self._thread.close()

    @contextmanager
    def read(self) -> Iterator[UsageReader]:
        stack = AsyncExitStack()
        connection = self._thread.run(self._snapshot(stack))
        try:
            yield DatabaseUsage(self._thread, connection, self._timezone)
        finally:
            with contextlib.suppress(StoreError):
                self._thread.run(stack.aclose())

    async def _snapshot(self, stack: AsyncExitStack) -> Connection:
        try:
            connection = await stack.enter_async_context(self._thread.pool.connection())
            await stack.enter_async_context(connection.transaction(snapshot=True))
        except BaseException:
            await stack.aclose()
            raise
        return connection

    def get(self, ident: str) -> UsageRecord | None:
        sql, values = log_query(LogFilters(), None, 1, ident=ident)
        for row in self._thread.run(self._thread.pool.rows(sql, *values)):
            return readable(row)
        return None

    def page(
        self, limit: int, cursor: str | None, filters: LogFilters, most: int
    ) -> tuple[list[UsageRecord], str | None]:
        before, found, seen = _place(cursor), list[UsageRecord](), 0
        while True:
            step = min(limit - len(found), most - seen)
            sql, values = log_query(filters, before, step)
            rows = self._thread.run(self._thread.pool.rows(sql, *values))
            found += [rec for row in rows if (rec := readable(row)) is not None and matches(rec, filters)]
            seen += len(rows)
            if len(rows) < step:
                return found, None
            before = rows[-1]["us"], rows[-1]["id"]
            if len(found) >= limit or seen >= most:
                return found, _cursor(*before)

    def scan(self, frm: float, to: float, filters: LogFilters) -> Iterator[UsageRecord]:
        within = msgspec.structs.replace(filters, since=frm, until=to)
        after: tuple[int, str] | None = None
        while True:
            sql, values = log_query(within, after, _SCAN_STEP, oldest_first=True)
            rows = self._thread.run(self._thread.pool.rows(sql, *values))
            for row in rows:
                rec = readable(row)
                if rec is not None and matches(rec, within) and matches(rec, filters):
                    yield rec
            if len(rows) < _SCAN_STEP:
                return
            after = rows[-1]["us"], rows[-1]["id"]

    def changes(self) -> int:
        number: int = self._thread.run(self._thread.pool.value("select sum(shipped)::bigint from pool.node"))
        return number or 0

    def sender(self, failed: Callable[[PendingRecord, BaseException], bool]) -> Sender[PendingRecord]:
        return BatchSender(self._thread, partial(self._shipping.ship, self._thread.pool), failed, at_once=2)

    def apply(self, entries: Sequence[PendingRecord]) -> None:
        if entries:
            self._thread.run(self._make_up(entries))

    async def _make_up(self, entries: Sequence[PendingRecord]) -> None:
        """Of a process that died: its counters lack what it had not told, and are raised to what the records say."""
        await self._shipping.ship(self._thread.pool, entries)
        users = sorted({entry.record.user for entry in entries} - {""})
        await self._thread.pool.value(_OWE, users)

    def load(self, records: Sequence[UsageRecord], have: Kept) -> None:
        self._thread.run(self._load(records, have))

    async def _load(self, records: Sequence[UsageRecord], have: Kept) -> None:
        waiting = list(records)
        async with self._thread.pool.connection() as connection:
            days = await self._shipping.days(connection, records)
        while waiting:
            batch, waiting = waiting[: folding.MOST], waiting[folding.MOST :]
            async with self._shipping.turn, self._thread.pool.connection() as connection, connection.transaction():
                await connection.value("select pool.fold_begin_1()")
                made = self._shipping.prepared(batch, [pack(rec) for rec in batch], None)
                new = await self._shipping.keep(connection, made)
                parts = (
                    (pending.starts_of(rec, days), pending.cell_of(rec), Sums.of(rec), pending.labels_of(rec))
                    for rec in new
                )
                await folding.add(connection, parts, have)

    def watch(self, failed: Callable[[Entry, BaseException], bool]) -> Sender[Entry]:
        return BatchSender(self._thread, self._see, failed)

    async def _see(self, entries: Sequence[Entry]) -> list[bool]:
        async with self._thread.pool.connection() as connection:
            return await see(connection, entries)

    def fold(self) -> None:
        """Adds to the sums what has come. Blocks."""
        self._thread.run(self._fold())

    async def _fold(self) -> None:
        async with self._thread.pool.connection() as connection:
            while await folding.fold(connection):
                pass

    async def _fold_on(self) -> None:
        while True:
            await asyncio.sleep(FOLD_S)
            if not self._mine():
                continue
            try:
                await self._fold()
            except StoreError as exc:
                log.warning("the newest usage is not in the sums yet: %s", exc)

    def cut(self, now: float, retention_days: int) -> Kept:
        cut = self._thread.run(self._cut(now, retention_days))
        return Kept(minutes=cut.minutes, hours=cut.hours)

    async def _cut(self, now: float, retention_days: int) -> retention.Cut:
        async with self._thread.pool.connection() as connection:
            days = await self._shipping.days(connection, [])
            async with connection.transaction():
                await connection.value("select pool.fold_begin_1()")
                clock = await connection.value("select pool.note_read_1($1)", _CLOCK)
                have = kept_in(await connection.value("select pool.note_read_1($1)", PRUNED))
                now = retention.advanced(clock, now)
                cut = retention.plan(now, retention_days, days, have)
                await connection.value("select pool.note_put_1($1, $2)", _CLOCK, repr(now).encode())
                kept = msgspec.json.encode(Kept(minutes=cut.minutes, hours=cut.hours))
                await connection.value("select pool.note_put_1($1, $2)", PRUNED, kept)
        return cut

    async def forget(self, now: float, retention_days: int, closing: asyncio.Event) -> None:
        if not self._mine():
            return  # who adds to the sums forgets, too
        cut = await self._thread.ask(self._cut(now, retention_days))
        ask = "select pool.forget_1($1, $2, $3, $4)"
        while await self._thread.ask(self._thread.pool.value(ask, cut.records, cut.minutes, cut.hours, _FORGET_STEP)):
            if closing.is_set():
                return
            await wait_at_most(closing, _FORGET_PAUSE_S)

    async def sum_up(self, now: float, closing: asyncio.Event) -> None:
        """Months have no rows of their own here: the database adds up days."""


async def see(connection: Connection, entries: Sequence[Entry]) -> list[bool]:
    """Keeps those sightings that say something new. Raises StoreError."""
    news = []
    for head, seen in entries:
        account, scope, window, _ = head.decode("utf-8", "replace").split("\0")
        at = int(seen.at * 1_000_000) / 1_000_000  # as an embedded store keeps it
        said = await connection.value(
            "select pool.sighting_1($1, $2, $3, $4, $5, $6, $7, $8)",
            account, scope, window, at, seen.used_percent, seen.resets_at, seen.seconds, str(seen.source),
        )  # fmt: skip
        news.append(bool(said))
    return news


def _cursor(us: int, ident: str) -> str:
    return f"{us:x}-{ident.encode().hex()}"


def _place(cursor: str | None) -> tuple[int, str] | None:
    if cursor is None:
        return None
    us, _, ident = cursor.partition("-")
    try:
        found = int(us, 16), bytes.fromhex(ident).decode()
    except ValueError:
        found = -1, ""
    if not 0 <= found[0] < 1 << 62 or not found[1]:
        raise ValueError("that cursor was not given by this log")
    return found
