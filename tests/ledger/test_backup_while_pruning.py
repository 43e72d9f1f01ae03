"""A copy that is made while old records and rows are being forgotten is whole, agrees with itself and has every sum."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pool_server.core.settings import LedgerSettings, Settings
from pool_server.ledger import TABLES, Ledger, retention
from pool_server.ledger.embedded import embedded_ledger
from pool_server.ledger.records.layout import RECORDS
from pool_server.storage import Store, backup, restore
from tests.ledger.ledger_kit import NOW, Clock, exchange, ledger_in

DAY = 86_400.0
SETTINGS = Settings(ledger=LedgerSettings(retention_days=30))


def test_a_copy_made_meanwhile_agrees_with_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 20)
    monkeypatch.setattr(embedded_ledger, "PRUNE_PAUSE_S", 0.005)
    with ledger_in(tmp_path, SETTINGS, durable=False) as book:
        book.load([exchange(f"r{n}", at=NOW - n * 0.8 * DAY, user=f"u{n % 3}") for n in range(120)])
        before = book.queries.total(0, NOW + 1).describe()
        copies: list[Path] = []

        async def copied_meanwhile() -> None:
            forgetting = asyncio.create_task(Ledger(book.store, SETTINGS, clock=Clock()).prune())
            while not forgetting.done():
                copies.append(tmp_path / f"copy-{len(copies)}.tar")
                await asyncio.to_thread(backup, {"ledger": book.store}, tmp_path, copies[-1], now=NOW)
            await forgetting

        asyncio.run(copied_meanwhile())
        left = records_in(book.store)
    held = []
    for number, copy in enumerate([copies[0], copies[len(copies) // 2]]):
        folder = tmp_path / f"restored-{number}"
        folder.mkdir()
        restore(copy, folder)
        store = Store.open(folder / "ledger", tables=TABLES, durable=False)
        again = Ledger(store, SETTINGS, clock=Clock())
        assert again.check().sound
        assert again.queries.total(0, NOW + 1).describe() == before
        held.append(records_in(store))
        store.close()
    assert 120 >= held[0] >= held[1] >= left == 38, "a copy holds what was there at one moment"


def records_in(store: Store) -> int:
    with store.read() as reader:
        return reader.count(RECORDS)
