from __future__ import annotations

import asyncio
import math
from pathlib import Path

import msgspec
import pytest

from pool_server.core.models import Usage, UsageRecord
from pool_server.core.settings import ModelPrice, Settings
from pool_server.ledger import TABLES, Ledger, service
from pool_server.ledger.records.codec import MAX_DECISION_BYTES, pack, unpack
from pool_server.ledger.records.sanitize import clean
from pool_server.storage import Store
from tests.ledger.ledger_kit import NOW, Clock, exchange, ledger_in, record_all

HOUR = 3600.0


@pytest.mark.usefixtures("each_store")
def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        rec = exchange("r1", fault="rate")
        rec.decision = {"account": "claude:work", "reason": "best", "candidates": [{"account": "claude:work"}]}
        assert record_all(book, [rec]) == [True]
        assert book.log.get("r1") == rec
        assert book.log.get("r2") is None
        assert book.log.get("") is None


@pytest.mark.usefixtures("each_store")
def test_the_same_id_twice_counts_once(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        record_all(book, [exchange("r1"), exchange("r1"), exchange("r2")])
        record_all(book, [exchange("r1", at=NOW - HOUR)])
        total = book.queries.total(NOW - 10 * HOUR, NOW + 60)
        assert (total["requests"], total["input"]) == (2, 200)
        assert len(book.log.page()[0]) == 2


def of_job(ident: str, operation: str) -> UsageRecord:
    rec = exchange(ident, input=100)
    rec.job, rec.operation = "0f" * 16, operation
    return rec


@pytest.mark.parametrize(
    ("calls", "counted"),
    [
        (["responses", "stored_responses"], [100, 0]),
        (["stored_responses", "responses"], [100, 0]),  # fetched whole before the run that made it came to its end
        (["stored_responses", "responses", "responses"], [100, 0, 100]),
        (["responses", "responses", "stored_responses", "responses"], [100, 100, 0, 100]),
        (["batches", "batches"], [100, 0]),
    ],
)
@pytest.mark.usefixtures("each_store")
def test_a_job_counts_once_but_each_run_of_the_model_counts(
    tmp_path: Path, calls: list[str], counted: list[int]
) -> None:
    with ledger_in(tmp_path) as book:
        for number, operation in enumerate(calls):
            record_all(book, [of_job(f"r{number}", operation)])
        found = [book.log.get(f"r{number}") for number in range(len(calls))]
        assert [rec.usage.total for rec in found if rec is not None] == counted
        assert book.queries.total(NOW - HOUR, NOW + 60)["input"] == sum(counted)


def test_the_same_id_in_another_process_counts_once(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        record_all(book, [exchange("r1"), exchange("r2")])
    with ledger_in(tmp_path) as again:
        record_all(again, [exchange("r1"), exchange("r3")])
        assert again.queries.total(NOW - HOUR, NOW + 60)["requests"] == 3


@pytest.mark.usefixtures("each_store")
@pytest.mark.parametrize("apart_s", [0.5, 3600, 86_399, 86_401, 8 * 86_400, 40 * 86_400, -3 * 86_400])
@pytest.mark.parametrize("together", [True, False])
def test_an_id_is_one_record_however_far_apart(tmp_path: Path, apart_s: float, together: bool) -> None:
    two = [exchange("one", at=NOW - 45 * 86_400), exchange("one", at=NOW - 45 * 86_400 + apart_s)]
    with ledger_in(tmp_path) as book:
        for some in [two] if together else [two[:1], two[1:]]:
            record_all(book, some)
        total = book.queries.total(NOW - 90 * 86_400, NOW)
        assert total["requests"] == 1 and len(book.log.page()[0]) == 1


@pytest.mark.usefixtures("each_store")
def test_two_records_of_one_microsecond_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_server.ledger.records.layout._hash4", lambda text: b"same")
    with ledger_in(tmp_path) as book:
        record_all(book, [exchange("r1"), exchange("r2"), exchange("r3")])
        assert {rec.id for rec in book.log.page()[0]} == {"r1", "r2", "r3"}
        assert [book.log.get(i).id for i in ("r1", "r2", "r3")] == ["r1", "r2", "r3"]  # type: ignore[union-attr]


def test_rows_are_reread_when_another_process_wrote(tmp_path: Path) -> None:
    """The writer remembers rows; a write by anybody else must make it look again."""
    with ledger_in(tmp_path) as book:
        other = Ledger(book.store, Settings(), clock=Clock())  # its own memory, as a worker has
        for i in range(6):
            record_all((book, other)[i % 2], [exchange(f"r{i}")])
        assert book.queries.total(NOW - HOUR, NOW + 60)["requests"] == 6


def test_rows_given_up_are_not_remembered(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:

        async def go() -> None:
            first = book.record(exchange("r1"))
            bad = book.store.submit(lambda txn: txn.put("records", b"", b""))
            assert await first
            with pytest.raises(ValueError, match="key"):
                await bad
            assert await book.record(exchange("r2"))

        asyncio.run(go())
        assert book.queries.total(NOW - HOUR, NOW + 60)["requests"] == 2


@pytest.mark.usefixtures("each_store")
def test_cost_is_filled_in_and_unknown_stays_unknown(tmp_path: Path) -> None:
    settings = Settings(prices={"my-model": ModelPrice(input=1.0, output=2.0)})
    with ledger_in(tmp_path, settings) as book:
        priced = exchange("r1", model="my-model", input=1_000_000, output=500_000)
        unknown = exchange("r2", model="nobody-knows", input=10, output=10)
        given = exchange("r3", input=10)
        given.cost = 0.25
        record_all(book, [priced, unknown, given])
        assert (priced.cost, unknown.cost, given.cost) == (2.0, None, 0.25)
        total = book.queries.summary(NOW - HOUR, NOW + 60).total
        assert total.cost_usd == 2.25
        assert total.unpriced == 1


@pytest.mark.usefixtures("each_store")
def test_what_was_never_used_is_not_unpriced(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        rec = UsageRecord(id="r1", at=NOW, user="ada", outcome="denied", status=429)
        record_all(book, [rec])
        assert book.queries.summary(NOW - HOUR, NOW + 60).total.unpriced == 0


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf, -math.inf, 1 << 70, None, "12", 1.5])
def test_absurd_numbers_are_not_counted(bad: object) -> None:
    rec = exchange("r1", input=10, output=5)
    rec.usage.cache_read = bad  # type: ignore[assignment]
    rec.request_bytes = bad  # type: ignore[assignment]
    clean(rec, NOW)
    assert rec.usage.cache_read in (0, 1)
    assert rec.request_bytes in (0, 1)
    assert rec.partial
    assert (rec.usage.input, rec.usage.output) == (10, 5)


@pytest.mark.usefixtures("each_store")
def test_a_cost_made_of_absurd_numbers_is_made_anew(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        rec = exchange("r1", model="gpt-5", input=-5_000_000, output=1_000_000)
        rec.cost = 3.75
        record_all(book, [rec])
        assert rec.cost == pytest.approx(10.0)


def test_parts_never_exceed_their_whole() -> None:
    rec = exchange("r1", output=5, reasoning=9, cache_write=3, cache_write_1h=4)
    clean(rec, NOW)
    assert (rec.usage.reasoning, rec.usage.cache_write_1h) == (5, 3)


@pytest.mark.parametrize("at", [0.0, -5.0, math.nan, math.inf, NOW + 2 * HOUR])
def test_impossible_times_become_now(at: float) -> None:
    assert clean(exchange("r1", at=at), NOW).at == NOW


@pytest.mark.parametrize("ms", [-1.0, math.nan, math.inf, 1e18])
def test_impossible_durations_are_dropped(ms: float) -> None:
    rec = exchange("r1")
    rec.total_ms = rec.first_byte_ms = ms
    clean(rec, NOW)
    assert rec.total_ms == 0.0
    assert [rec.first_byte_ms] == [None]


@pytest.mark.parametrize("name", ["x" * 1000, "nul\0in it", "\ud800 lone", "é" * 100, "", "🦆" * 300])
@pytest.mark.usefixtures("each_store")
def test_any_name_can_be_kept(tmp_path: Path, name: str) -> None:
    with ledger_in(tmp_path) as book:
        rec = exchange(name, user=name, model=name, account="claude:" + name)
        rec.message = name * 10
        assert record_all(book, [rec]) == [True]
        assert book.queries.total(NOW - HOUR, NOW + 60)["requests"] == 1
        assert len(book.queries.top("model", NOW - HOUR, NOW + 60)) == 1
        assert [r.id for r in book.log.latest(rec.user)] == [rec.id]


@pytest.mark.usefixtures("each_store")
def test_a_clock_that_went_back_still_counts(tmp_path: Path) -> None:
    clock = Clock()
    with ledger_in(tmp_path, clock=clock) as book:
        record_all(book, [exchange("r1", at=NOW)])
        clock.now = NOW - 5 * HOUR
        record_all(book, [exchange("r2", at=clock.now)])
        assert book.queries.total(NOW - 6 * HOUR, NOW + 60)["requests"] == 2
        assert [rec.id for rec in book.log.page()[0]] == ["r1", "r2"]


def test_an_immense_decision_is_left_out_and_says_so() -> None:
    rec = exchange("r1")
    rec.decision = {"candidates": ["x" * 100] * (MAX_DECISION_BYTES // 50)}
    back = unpack(pack(rec))
    assert back.decision == {"left_out": "too large"}
    assert msgspec.structs.replace(back, decision=rec.decision) == rec


@pytest.mark.parametrize("bad", ["\ud800", 1 << 80, object()])
def test_a_decision_that_cannot_be_kept_does_not_lose_the_record(bad: object) -> None:
    rec = exchange("r1")
    rec.decision = {"account": bad}
    rec.attempts[0].message = "\udfff"
    assert unpack(pack(rec)).decision == {"left_out": "not plain data"}


@pytest.mark.parametrize("raw", [b"", b"\x01", b"\x01garbage", b"\x02whatever", pack(exchange("r1"))[:-3]])
def test_unreadable_records_are_said_to_be(raw: bytes) -> None:
    with pytest.raises(ValueError, match="usage record"):
        unpack(raw)


def test_a_full_store_keeps_records_waiting_and_counting_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "RETRY_S", 0.01)
    store = Store.open(tmp_path / "ledger", tables=TABLES, durable=True, map_size=1 << 19, max_size=1 << 19)
    book = Ledger(store, Settings(), clock=Clock())

    async def go() -> None:
        fill = 0
        while await book.record(exchange(f"fill{fill}", at=NOW + fill / 100, model=f"model-{fill}")):
            fill += 1
        assert not book.healthy
        late = [book.record(exchange(f"late{i}")) for i in range(20)]
        assert not any([await done for done in late])
        assert book.waiting == 21
        store._engine._max_size = 1 << 30  # the operator made room
        assert book._retry is not None
        await asyncio.wait_for(book._retry, 60)
        assert book.healthy
        assert await book.record(exchange("after"))
        assert book.queries.total(NOW - HOUR, NOW + HOUR)["requests"] == fill + 1 + 20 + 1
        assert (book.waiting, book.lost) == (0, 0)
        await book.close()

    asyncio.run(go())
    store.close()


def test_waiting_records_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_WAITING", 5)
    store = Store.open(tmp_path / "ledger", tables=TABLES, durable=True, map_size=1 << 17, max_size=1 << 17)
    book = Ledger(store, Settings(), clock=Clock())

    async def go() -> None:
        for i in range(400):
            await book.record(exchange(f"r{i}", model=f"model-{i}"))
        assert book.waiting == 5
        assert book.lost > 0
        await book.close()
        assert book.waiting == 5  # still refused: said in the log, not hidden

    asyncio.run(go())
    store.close()


def test_closing_writes_what_waits(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "ledger", tables=TABLES, durable=True, map_size=1 << 17, max_size=1 << 17)
    book = Ledger(store, Settings(), clock=Clock())

    async def go() -> None:
        n = 0
        while await book.record(exchange(f"r{n}", model=f"model-{n}")):
            n += 1
        store._engine._max_size = 1 << 30
        await book.close()
        assert book.queries.total(NOW - HOUR, NOW + HOUR)["requests"] == n + 1

    asyncio.run(go())
    store.close()


def test_listeners_hear_each_record(tmp_path: Path) -> None:
    heard: list[str] = []
    with ledger_in(tmp_path) as book:
        book.on_record.append(lambda rec: heard.append(rec.id))
        record_all(book, [exchange("r1"), exchange("r2")])
    assert heard == ["r1", "r2"]


@pytest.mark.usefixtures("each_store")
def test_what_a_user_has_used(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        record_all(book, [exchange("r1", input=5, output=1), exchange("r2", user="bob"), exchange("r3", at=NOW - 9000)])
        used = book.used_by_user("ada", NOW - 3600)
        assert (used["input"], used["output"], used["requests"]) == (5, 1, 1)


def test_price_and_estimate(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        assert book.price("claude-sonnet-4-5", Usage(input=1_000_000, known=True)).dollars == pytest.approx(3.0)
        assert book.estimate("gpt-5", 1_000_000, 1_000_000) == pytest.approx(11.25)
        assert book.estimate("nobody-knows", 1, 1) is None


@pytest.mark.usefixtures("each_store")
def test_a_history_is_loaded_as_it_would_be_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LOAD_BATCH", 7)
    with ledger_in(tmp_path) as book:
        before = book.changes()
        assert book.load(exchange(f"r{i}", at=NOW - i) for i in range(30)) == 30
        record_all(book, [exchange("r1"), exchange("new")])
        total = book.queries.summary(NOW - HOUR, NOW + 60).total
        assert (total.requests, total.cost_usd > 0) == (31, True)
        assert book.changes() > before


def test_a_record_after_the_end_is_said_to_be_lost_not_raised(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "ledger", tables=TABLES, durable=True)
    book = Ledger(store, Settings(), clock=Clock())

    async def go() -> None:
        await book.close()
        store.close()
        assert await book.record(exchange("r1")) is False

    asyncio.run(go())
    assert book.waiting == 1


def test_one_unreadable_record_does_not_hide_the_others(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        record_all(book, [exchange("r1"), exchange("r2", at=NOW - 1)])
        with book.store.read() as reader:
            key = next(reader.scan("records"))[0]
        book.store.write(lambda txn: txn.put("records", key, b"junk"))
        assert [rec.id for rec in book.log.page()[0]] == ["r1"]
        assert book.log.get("r2") is None
