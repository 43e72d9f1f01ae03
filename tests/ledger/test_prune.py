from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pool_server.core.enums import Source
from pool_server.core.models import WindowObservation
from pool_server.ledger import Ledger, retention
from pool_server.ledger.embedded import embedded_ledger
from pool_server.ledger.records.days import Days
from pool_server.ledger.records.layout import NOTES, TABLES
from pool_server.ledger.rollups import pending
from tests.ledger.ledger_kit import NOW, Clock, exchange, ledger_in, record_all

DAY = 86_400.0


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_ledger, "PRUNE_PAUSE_S", 0)


def counts(book: Ledger) -> dict[str, int]:
    with book.store.read() as reader:
        return {table: reader.count(table) for table in TABLES}


def grains(book: Ledger) -> dict[bytes, int]:
    with book.store.read() as reader:
        keys = [key[:1] for key, _ in reader.scan("rollups")]
    return {grain: keys.count(grain) for grain in (b"m", b"h", b"d")}


@pytest.mark.parametrize("most", [1, 100])
def test_everything_goes_in_its_time_and_sums_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Whether what is old is in the rollups before it is pruned, or gets there afterwards."""
    monkeypatch.setattr(pending, "MOST", most)
    clock = Clock()
    with ledger_in(tmp_path, clock=clock) as book:
        ages = [0, 1, 3, 30, 89, 91, 200, 400]
        record_all(book, [exchange(f"r{age}", at=NOW - age * DAY) for age in ages])
        before = book.queries.total(NOW - 500 * DAY, NOW + 60)
        asyncio.run(book.prune())
        assert {rec.id for rec in book.log.page()[0]} == {"r0", "r1", "r3", "r30", "r89"}
        assert book.log.get("r91") is None
        assert counts(book)["record_ids"] == 5
        assert counts(book)["record_index"] == 5 * 3
        rows = {b"m": 2 * 9, b"h": 5 * 9, b"d": 8 * 9}
        assert grains(book) == (rows if most == 1 else {b"m": 0, b"h": 0, b"d": 0})
        assert book.queries.total(NOW - 500 * DAY, NOW + 60).n == before.n
        record_all(book, [exchange(f"more{i}") for i in range(100)])
        asyncio.run(book.prune())
        assert grains(book) == rows
        assert book.queries.total(NOW - 500 * DAY, NOW + 60)["requests"] == before["requests"] + 100


def test_a_loaded_history_is_as_one_that_was_pruned(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        ages = [0, 1, 3, 30, 89, 91, 200, 400]
        book.load(exchange(f"r{age}", at=NOW - age * DAY) for age in ages)
        assert grains(book) == {b"m": 2 * 9, b"h": 5 * 9, b"d": 8 * 9}
        for age in ages:
            assert book.queries.total(NOW - age * DAY - 60, NOW - age * DAY + 60)["requests"] == 1
        before = book.queries.total(NOW - 500 * DAY, NOW + 60)
        assert before["requests"] == len(ages)
        asyncio.run(book.prune())
        assert grains(book) == {b"m": 2 * 9, b"h": 5 * 9, b"d": 8 * 9}
        assert book.queries.total(NOW - 500 * DAY, NOW + 60).n == before.n


def test_charts_begin_where_their_rows_do(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        record_all(book, [exchange(f"r{age}", at=NOW - age * DAY) for age in (0, 1, 5, 100)])
        asyncio.run(book.prune())
        minutes = book.queries.series(None, "minute", NOW - 10 * DAY, NOW + 60, metric="requests")
        assert minutes.frm >= NOW - 2 * DAY - 3600
        assert minutes.series[0].total == 2
        hours = book.queries.series(None, "hour", NOW - 110 * DAY, NOW + 60, metric="requests")
        assert hours.series[0].total == 3
        days = book.queries.series(None, "day", NOW - 110 * DAY, NOW + 60, metric="requests", tz="Asia/Tokyo")
        assert days.series[0].total == 4
        assert days.tz == "UTC"  # hour rows do not reach back that far


def test_ranges_widen_to_what_is_kept(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        record_all(book, [exchange("old", at=NOW - 10 * DAY), exchange("older", at=NOW - 100 * DAY)])
        asyncio.run(book.prune())
        part = book.queries.summary(NOW - 10 * DAY + 1, NOW - 10 * DAY + 2)
        assert part.total.requests == 1
        assert part.to - part.frm == 3600
        part = book.queries.summary(NOW - 100 * DAY + 1, NOW - 100 * DAY + 2)
        assert (part.total.requests, part.to - part.frm) == (1, DAY)


def test_a_clock_that_jumps_ahead_does_not_empty_the_ledger(tmp_path: Path) -> None:
    clock = Clock()
    with ledger_in(tmp_path, clock=clock) as book:
        record_all(book, [exchange(f"r{age}", at=NOW - age * DAY) for age in range(0, 90, 5)])
        asyncio.run(book.prune())
        clock.now = NOW + 3650 * DAY
        asyncio.run(book.prune())
        assert len(book.log.page()[0]) >= 17
        clock.now = NOW
        asyncio.run(book.prune())
        record_all(book, [exchange("again")])
        assert book.queries.total(NOW - 60, NOW + 60)["requests"] == 2


def test_many_rows_go_in_small_steps(tmp_path: Path) -> None:
    with ledger_in(tmp_path, durable=False) as book:
        record_all(book, [exchange(f"r{i}", at=NOW - 100 * DAY + i) for i in range(300)])
        cut = book.store.write(lambda txn: retention.begin(txn, NOW, 90, Days("UTC")))
        steps = 1
        while book.store.write(lambda txn: retention.step(txn, cut)):
            with book.store.read() as reader:
                assert reader.count("records") >= 300 - steps * retention.STEP // 4
            steps += 1
        assert steps > 6
        assert counts(book)["records"] == counts(book)["record_index"] == 0


def test_an_unreadable_record_does_not_stop_pruning(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        record_all(book, [exchange("r1", at=NOW - 100 * DAY), exchange("r2", at=NOW - 99 * DAY)])
        with book.store.read() as reader:
            key = next(reader.scan("records"))[0]
        book.store.write(lambda txn: txn.put("records", key, b"junk"))
        asyncio.run(book.prune())
        assert counts(book)["records"] == 0


def test_old_sightings_go_but_the_last_stays(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:

        async def go() -> None:
            for age in (300, 200, 100, 50):
                for account in ("claude:a", "claude:b"):
                    if (account, age) != ("claude:b", 50):
                        seen = WindowObservation("7d", 604800, 300.0 - age, None, Source.HEADERS, NOW - age * DAY)
                        book.observe(account, seen)
            await book.store.flush()
            await book.prune()

        asyncio.run(go())
        with book.store.read() as reader:
            left = [key.split(b"\0")[0] for key, _ in reader.scan("quota_history")]
        assert left == [b"claude:a", b"claude:b"]


def test_the_background_work_starts_and_ends(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        record_all(book, [exchange("r1", at=NOW - 100 * DAY)])

        async def go() -> None:
            await book.start()
            await book.store.flush()
            await book.close()

        asyncio.run(go())
        with book.store.read() as reader:
            assert {key for key, _ in reader.scan(NOTES)} == {b"days", b"prune_clock", b"pruned"}
