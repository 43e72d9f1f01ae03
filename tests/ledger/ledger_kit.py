"""What the ledger's tests share: made-up exchanges and a ledger on a real store."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pool_server.cluster.ledger.database_ledger import DatabaseLedger
from pool_server.core.models import Attempt, Usage, UsageRecord
from pool_server.core.settings import Settings
from pool_server.ledger import TABLES, Ledger
from pool_server.ledger.rollups import pending
from pool_server.storage import Store
from pool_server.storage.postgres.connection import Connection
from pool_server.storage.postgres.migrations import OWNER
from tests.cluster.conftest import Database

DATABASES: list[Database] = []  # where `ledger_in` keeps what is recorded; empty = in the embedded store
_TABLES = ("record", "delta", "rollup", "sighting", "job", "note", "node", "lease")
_UNFOLDED = 256  # a test that lets fewer be recent wants sums in the rollups

NOW = 1_790_000_000.0  # a Monday in September 2026


class Clock:
    """A clock that a test moves."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def exchange(
    ident: str, *, at: float = NOW, user: str = "ada", account: str = "claude:work",
    model: str = "claude-sonnet-4-5", outcome: str = "ok", status: int = 200, fault: str = "", **usage: int,
) -> UsageRecord:  # fmt: skip
    counts: dict[str, Any] = usage or {
        "input": 100,
        "cache_read": 1000,
        "cache_write": 50,
        "output": 20,
        "reasoning": 5,
    }
    return UsageRecord(
        id=ident, at=at, user=user, provider=account.partition(":")[0], account=account, model=model,
        dialect="messages", transport="sse", operation="messages", status=status, outcome=outcome,
        usage=Usage(known=True, **counts), attempts=[Attempt(account=account, status=status, fault=fault)],
        first_byte_ms=250.0, total_ms=2000.0, request_bytes=2048, response_bytes=512,
    )  # fmt: skip


@contextmanager
def ledger_in(
    folder: Path, settings: Settings | None = None, clock: Clock | None = None, *, durable: bool = True
) -> Iterator[Ledger]:
    """Over the database of `each_store`, where that is one: emptied first."""
    settings = settings or Settings()
    with closing(Store.open(folder / "ledger", tables=TABLES, durable=durable)) as store:
        if not DATABASES:
            yield Ledger(store, settings, clock=clock or Clock())
            return
        with closing(database_ledger(DATABASES[0], settings.ledger.timezone, empty=True)) as port:
            yield Ledger(store, settings, clock=clock or Clock(), port=port)


def database_ledger(
    database: Database, timezone: str = "UTC", *, clock: Callable[[], float] = time.time, empty: bool = False
) -> DatabaseLedger:
    """One node's. `empty`: whatever was recorded there is gone."""

    async def begin(connection: Connection) -> int:
        if empty:
            await connection.script(f"truncate {', '.join(f'pool.{name}' for name in _TABLES)}")
        return int(await connection.value("select id from pool.node_start_1($1, 'test', '{}')", secrets.token_hex(4)))

    node = database.run(begin, OWNER)
    return DatabaseLedger(database.place(), lambda: node, timezone, mine=lambda: True, clock=clock)


def record_all(ledger: Ledger, records: Iterable[UsageRecord]) -> list[bool]:
    """Record and wait until all is on the disk."""

    async def go() -> list[bool]:
        return list(await asyncio.gather(*[ledger.record(rec) for rec in records]))

    kept = asyncio.run(go())
    if pending.MOST < _UNFOLDED:
        fold(ledger)
    return kept


def fold(ledger: Ledger) -> None:
    """Adds to the sums what was recorded in a database."""
    if isinstance(ledger.port, DatabaseLedger):
        ledger.port.fold()
