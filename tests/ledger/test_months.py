"""Months that are summed in the background change no answer, whatever comes late and whoever writes it."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.core.models import UsageRecord
from pool_server.core.settings import LedgerSettings as LedgerSettings
from pool_server.core.settings import Settings
from pool_server.ledger import TABLES, Ledger, query
from pool_server.ledger.records.days import Days
from pool_server.ledger.records.layout import MONTH, NOTES, POOL, ROLLUPS
from pool_server.ledger.rollups import months, pending
from pool_server.ledger.rollups.reader import Field, Filters
from pool_server.ledger.rollups.time_slices import ERAS
from pool_server.storage import Store
from tests.ledger.ledger_kit import NOW, Clock, exchange, ledger_in, record_all
from tests.ledger.test_rollups import DAY, ZONES, exchanges, filters, passes, unique

BACK = 100 * DAY
GROUPED: tuple[Field, ...] = ("user", "account", "model", "provider")


def spread_out(rec: UsageRecord) -> UsageRecord:
    """The same a few months back, at times just beside a month's bounds."""
    rec.at = NOW - (NOW - rec.at) * 2.5
    return rec


late = exchanges.map(spread_out)
steps = st.lists(
    st.one_of(
        st.lists(late, min_size=1, max_size=8),  # recorded
        st.just("sum"),
        st.just("prune"),
        st.sampled_from(ZONES),  # started again with this zone
    ),
    max_size=8,
)


def fresh(book: Ledger) -> Ledger:
    """The same ledger for an event loop of its own."""
    return Ledger(book.store, book.settings, clock=Clock())


def in_zone(store: Store, zone: str) -> Ledger:
    return Ledger(store, Settings(ledger=LedgerSettings(timezone=zone)), clock=Clock())


def sum_months(book: Ledger) -> None:
    asyncio.run(fresh(book).sum_months())


def answers(book: Ledger, wanted: Filters, by: Field, frm: float, to: float) -> dict[str, Any]:
    ask = book.queries
    told: dict[str, Any] = {"summary": ask.summary(frm, to, wanted), "matrix": ask.matrix(frm, to, wanted)}
    told["top"] = ask.top(by, frm, to, wanted)
    for metric in ("tokens", "cost", "error_share", "total_p95"):
        told[metric] = ask.series(by, "day", frm, to, wanted, metric=metric, top=2, every=3)
    return told


@pytest.mark.slow
@settings(max_examples=25)
@given(
    done=steps,
    wanted=filters,
    by=st.sampled_from(GROUPED),
    bounds=st.tuples(st.floats(NOW - BACK, NOW), st.floats(NOW - BACK, NOW + DAY)),
    most=st.sampled_from([1, 5, 1000]),
)
def test_no_answer_tells_months_from_days(
    done: list[list[UsageRecord] | str], wanted: Filters, by: Field, bounds: tuple[float, float], most: int
) -> None:
    frm, to = sorted(bounds)
    made, pruned = list[UsageRecord](), set[str]()
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(pending, "MOST", most)
        store = Store.open(Path(folder) / "ledger", tables=TABLES, durable=False)
        book = Ledger(store, Settings(), clock=Clock())
        for step in [*done, "sum"]:
            if isinstance(step, list):
                new = [rec for rec in step if rec.id not in pruned]  # its sums stay: it would count twice
                made += new
                record_all(book, new)
            elif step == "sum":
                sum_months(book)
            elif step == "prune":
                asyncio.run(fresh(book).prune())
                pruned = {rec.id for rec in made}
            else:
                book = in_zone(store, step)
        patch.setattr(query, "LONG_S", 0)
        with_months = answers(book, wanted, by, frm, to)
        patch.setattr(query, "LONG_S", 10**12)
        patch.setattr(months, "with_months", lambda _, slices, __: list(slices))
        assert with_months == answers(book, wanted, by, frm, to)
        whole = book.queries.total(NOW - BACK, NOW + DAY, wanted)
        assert whole["requests"] == sum(passes(rec, wanted) for rec in unique(made))
        store.close()


def kept_months(book: Ledger) -> int:
    with book.store.read() as reader:
        return sum(1 for _ in reader.scan(ROLLUPS, MONTH + POOL, MONTH + POOL + b"\xff"))


def read_from(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The grains a summary of the last 100 days is read from."""
    seen: list[bytes] = []
    real = months.with_months

    def watched(reader: Any, slices: Any, days: Days) -> Any:
        found = real(reader, slices, days)
        seen.extend(part.grain for part in found)
        return found

    monkeypatch.setattr(months, "with_months", watched)
    book.queries.total(NOW - BACK, NOW)
    return seen


def test_closed_months_are_read_and_stale_ones_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MOST", 1)
    with ledger_in(tmp_path, durable=False) as book:
        record_all(book, [exchange(f"r{n}", at=NOW - n * DAY) for n in range(100)])
        assert MONTH not in read_from(book, monkeypatch)
        sum_months(book)
        assert read_from(book, monkeypatch).count(MONTH) == 2  # July and August; June began before, this one is open
        record_all(book, [exchange("late", at=NOW - 40 * DAY)])
        assert read_from(book, monkeypatch).count(MONTH) == 1
        sum_months(book)
        assert read_from(book, monkeypatch).count(MONTH) == 2
        assert kept_months(book) == 3
        assert book.queries.total(NOW - BACK, NOW + 1)["requests"] == 101


@pytest.mark.parametrize("by", [*GROUPED, None])
def test_months_of_another_time_zone_are_not_read(tmp_path: Path, by: Field | None) -> None:
    """Chatham's September begins within the August of UTC. Of a version that noted no zones."""
    with ledger_in(tmp_path, durable=False) as book:
        chatham, utc = in_zone(book.store, "Pacific/Chatham"), in_zone(book.store, "UTC")
        book.load([exchange(f"r{n}", at=NOW - n * DAY) for n in range(100)])
        book.store.write(lambda txn: txn.delete(NOTES, ERAS))
        sum_months(chatham)
        sum_months(utc)
        assert kept_months(book) == 6
        for zoned in (chatham, utc):
            whole = zoned.queries.total(NOW - BACK, NOW + 1) if by is None else None
            told = [whole.describe()] if whole else zoned.queries.top(by or "user", NOW - BACK, NOW + 1, Filters())
            assert sum(one.requests for one in told) == 100


def test_a_month_that_ends_elsewhere_is_another(tmp_path: Path) -> None:
    """March begins with UTC's in London, and ends an hour before. Of a version that noted no zones."""
    march = datetime(2026, 3, 31, 12, tzinfo=UTC).timestamp()
    with ledger_in(tmp_path, durable=False) as book:
        book.load([exchange("a", at=march)])
        book.store.write(lambda txn: txn.delete(NOTES, ERAS))
        sum_months(in_zone(book.store, "Europe/London"))
        with book.store.read() as reader:
            assert months.stale(reader, NOW, Days("Europe/London")) == []
            (month,) = months.stale(reader, NOW, Days("UTC"))
            assert month == months.around(int(march), Days("UTC"))
        sum_months(in_zone(book.store, "UTC"))
        assert kept_months(book) == 1
        with book.store.read() as reader:
            assert months.stale(reader, NOW, Days("UTC")) == []


def test_days_that_grew_while_they_were_added_up_are_left_for_the_next_time(tmp_path: Path) -> None:
    with ledger_in(tmp_path, durable=False) as book:
        book.load([exchange("a", at=NOW - 60 * DAY)])
        with book.store.read() as reader:
            (month,) = months.stale(reader, NOW, Days("UTC"))
            made = months.summed(reader, month)
        book.load([exchange("b", at=NOW - 60 * DAY)])
        assert not book.store.write(lambda txn: months.keep(txn, month, made))
        assert kept_months(book) == 0
        sum_months(book)
        assert kept_months(book) == 1 and book.queries.total(0, NOW)["requests"] == 2


@pytest.mark.parametrize("timezone", ["America/Sao_Paulo", "Asia/Beirut", "Africa/Cairo", "Pacific/Apia", "UTC"])
def test_months_end_where_days_begin(timezone: str) -> None:
    """Also where the clock is set at midnight, where a day is left out, and over years."""
    days = Days(timezone)
    start, stop = days.start(1_200_000_000), days.start(1_700_000_000)
    found = months._months(start, stop, days)
    assert len(found) in (188, 189, 190)
    for month, after in zip(found, [*found[1:], None], strict=True):
        assert days.start(month.start) == month.start and days.start(month.stop) == month.stop
        assert after is None or month.stop == after.start
