"""What the ledger's tests share: made-up exchanges and a ledger on a real store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pool_server.core.models import Attempt, Usage, UsageRecord
from pool_server.core.settings import Settings
from pool_server.ledger import TABLES, Ledger
from pool_server.storage import Store

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
    store = Store.open(folder / "ledger", tables=TABLES, durable=durable)
    try:
        yield Ledger(store, settings or Settings(), clock=clock or Clock())
    finally:
        store.close()


def record_all(ledger: Ledger, records: Iterable[UsageRecord]) -> list[bool]:
    """Record and wait until all is on the disk."""

    async def go() -> list[bool]:
        return list(await asyncio.gather(*[ledger.record(rec) for rec in records]))

    return asyncio.run(go())
