"""A store that is away for long: what memory has no room for is in this process's log, and counted when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.settings import LedgerSettings, Settings
from pool_server.ledger import TABLES, Ledger, service
from pool_server.ledger.embedded.embedded_ledger import EmbeddedLedger
from pool_server.ledger.rollups.writer import PendingRecord
from pool_server.storage import Sender, Store
from pool_server.storage.errors import StoreAwayError
from tests.cluster.conftest import Database, database, own, server, template
from tests.ledger.ledger_kit import NOW, Clock, database_ledger, exchange

__all__ = ["database", "own", "server", "template"]


class FarLedger(EmbeddedLedger):
    """Takes nothing while it is away."""

    away = False

    def sender(self, failed: Callable[[PendingRecord, BaseException], bool]) -> Sender[PendingRecord]:
        engine, far = super().sender(failed), self

        class FarSender(Sender[PendingRecord]):
            def send(self, item: PendingRecord) -> asyncio.Future[bool]:
                if not far.away:
                    return engine.send(item)
                future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
                future.set_result(failed(item, StoreAwayError("it is away")))
                return future

        return FarSender()


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("outages", [1, 3])
def test_no_record_of_a_long_outage_is_lost_or_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outages: int
) -> None:
    monkeypatch.setattr(service, "MAX_WAITING", 5)
    monkeypatch.setattr(service, "RETRY_S", 0.01)
    monkeypatch.setattr(service, "_RETRY_BATCH", 7)

    async def go() -> None:
        with closing(Store.open(tmp_path / "ledger", tables=TABLES, durable=False)) as store:
            port = FarLedger(store, "UTC")
            ledger = Ledger(store, Settings(), clock=Clock(), write_ahead=True, port=port)
            await ledger.start()
            for outage in range(outages):
                port.away = True
                ids = [f"{outage}-{n}" for n in range(40)]
                assert all(await asyncio.gather(*(ledger.record(exchange(ident)) for ident in ids)))
                await ledger.fresh()
                assert (ledger.waiting, ledger.unlogged, ledger.lost) == (40, 0, 0)
                port.away = False
                await until(lambda: not ledger.waiting and ledger.healthy)
            total = ledger.queries.total(NOW - 3600, NOW + 3600)
            assert total["requests"] == 40 * outages and ledger.lost == 0
            await ledger.close()

    asyncio.run(go())


def shared(folder: Path, database: Database, durable: str) -> tuple[Store, Ledger]:
    settings = Settings(ledger=LedgerSettings(durable=durable, journal_mb=4))  # type: ignore[arg-type]
    store = Store.open(folder / "ledger", tables=TABLES, durable=False)
    return store, Ledger(store, settings, clock=Clock(), write_ahead=True, port=database_ledger(database))


@pytest.mark.slow
def test_a_record_is_in_the_database_before_its_answer_ends(database: Database, tmp_path: Path) -> None:
    store, ledger = shared(tmp_path, database, "store")

    async def go() -> None:
        await ledger.start()
        for number in range(1, 6):
            assert await ledger.record(exchange(f"r{number}"))
            assert await asyncio.to_thread(database.sql, "select count(*) from pool.record") == str(number)
        await ledger.close()

    asyncio.run(go())
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize("durable", ["node", "store"])
def test_a_database_that_is_away_keeps_no_answer(own: Database, tmp_path: Path, durable: str) -> None:
    store, ledger = shared(tmp_path, own, durable)

    async def go() -> None:
        await ledger.start()
        assert await ledger.record(exchange("before"))
        await ledger.fresh()
        await asyncio.to_thread(own.server.stop)
        async with asyncio.timeout(60):
            assert all(await asyncio.gather(*(ledger.record(exchange(f"r{n}")) for n in range(20))))
        (own.server.data / "postmaster.pid").unlink(missing_ok=True)
        await asyncio.to_thread(own.server.start)
        await until(lambda: not ledger.waiting and ledger.healthy)
        await ledger.fresh()
        assert await asyncio.to_thread(own.sql, "select count(*) from pool.record") == "21"
        await ledger.close()

    asyncio.run(go())
    store.close()
