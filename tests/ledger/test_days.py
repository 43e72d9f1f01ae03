"""Days begin by the clocks of the time zone that was set when they began; no sum changes when another is set."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.core.settings import LedgerSettings as LedgerSettings
from pool_server.core.settings import Settings
from pool_server.ledger import TABLES, Ledger
from pool_server.ledger.records.days import NOTICE_S, Days, Era, changed, eras_in, eras_note
from pool_server.ledger.records.layout import NOTES, RECORDS
from pool_server.ledger.rollups import months, pending
from pool_server.ledger.rollups.reader import Filters
from pool_server.ledger.rollups.time_slices import ERAS, days_kept
from pool_server.storage import Store
from tests.ledger.ledger_kit import NOW, exchange, record_all

DAY = 86_400
HOUR = 3600
ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia",
    "Pacific/Pago_Pago", "Pacific/Kiritimati", "America/Sao_Paulo",
]  # fmt: skip


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def test_a_change_of_the_zone_cuts_the_day_it_falls_in() -> None:
    noon = at("2026-05-10T12:00")
    eras = changed([Era(0, "UTC")], "Europe/Berlin", noon)
    days = Days(eras)
    assert eras == [Era(0, "UTC"), Era(at("2026-05-10T22:00"), "Europe/Berlin")]
    assert days.start(noon) == at("2026-05-10T00:00") and days.after(noon) == at("2026-05-10T22:00")
    assert days.after(days.after(noon)) == at("2026-05-11T22:00")
    back = Days(changed(eras, "America/New_York", at("2026-05-12T12:00")))
    assert back.start(at("2026-05-13T03:00")) == at("2026-05-12T22:00")
    assert back.after(at("2026-05-13T03:00")) == at("2026-05-13T04:00")
    assert str(back.zone) == "America/New_York" and back.date(noon).hour == 12


def test_a_change_is_not_sudden_and_can_be_taken_back() -> None:
    late = at("2026-05-10T21:00")  # the next midnight in Berlin is too near for other processes to hear of it
    eras = changed([Era(0, "UTC")], "Europe/Berlin", late)
    assert eras[-1].since == at("2026-05-11T22:00") >= late + NOTICE_S
    assert changed(eras, "UTC", late + HOUR) == [Era(0, "UTC")]
    assert changed(eras, "Asia/Tokyo", late + HOUR) == [Era(0, "UTC"), Era(at("2026-05-11T15:00"), "Asia/Tokyo")]
    near = eras[-1].since - NOTICE_S  # others may go by it until they ask again
    assert changed(eras, "UTC", near) == [*eras, Era(at("2026-05-12T00:00"), "UTC")]
    assert changed(eras, "Europe/Berlin", 0) == eras, "a clock that has gone back takes nothing away"
    assert changed([], "Asia/Tokyo", late) == [Era(0, "Asia/Tokyo")]


@pytest.mark.parametrize("raw", [None, b"", b"{}", b"[[1]]", b"[[0, 5]]", b"\xff"])
def test_a_note_that_cannot_be_read_is_none(raw: bytes | None) -> None:
    assert eras_in(raw) == []


@settings(max_examples=200)
@given(
    st.sampled_from(ZONES),
    st.lists(st.tuples(st.sampled_from(ZONES), st.integers(0, 90 * DAY)), max_size=4),
    st.integers(0, 365 * DAY),
)
def test_days_and_months_follow_each_other_without_a_gap(
    first: str, changes: list[tuple[str, int]], moment: int
) -> None:
    begin = at("2026-01-01T00:00")
    eras, now = [Era(0, first)], begin
    for name, pause in changes:
        now += pause
        eras = changed(eras, name, now)
    assert eras_in(eras_note(eras)) == eras
    days, asked = Days(eras), begin + moment
    start, stop = days.start(asked), days.after(asked)
    assert start <= asked < stop <= start + 49 * HOUR
    assert Days(eras).start(stop) == stop and Days(eras).after(start) == stop and days.start(start) == start
    assert start <= days.hour(asked) <= asked < days.hour(asked) + HOUR
    month = months.around(start, Days(eras))
    assert month.start <= start < month.stop
    assert days.start(month.start) == month.start and days.start(month.stop) == month.stop
    assert months.around(month.stop, days).start == month.stop


def in_zone(store: Store, zone: str, now: float) -> Ledger:
    return Ledger(store, Settings(ledger=LedgerSettings(timezone=zone)), clock=lambda: now)


def test_a_day_whose_records_are_forgotten_is_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MOST", 1)
    morning, evening = at("2026-05-10T08:00"), at("2026-05-10T23:00")
    with closing(Store.open(tmp_path / "ledger", tables=TABLES, durable=False)) as store:
        record_all(in_zone(store, "UTC", evening), [exchange("a", at=evening)])
        store.write(lambda txn: txn.delete_range(RECORDS, b"", b"\xff", limit=1))
        book = in_zone(store, "Europe/Berlin", evening)
        record_all(book, [exchange("late", at=morning)])
        told = book.queries.summary(morning, evening + HOUR)
        assert told.total.requests == 2
        with store.read() as reader:
            assert days_kept(reader, "UTC").eras[-1].since == at("2026-05-11T22:00")


def test_a_store_of_a_version_that_noted_no_zones_is_noted_at_the_start(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path / "ledger", tables=TABLES, durable=False)) as store:
        in_zone(store, "UTC", NOW).load([exchange(f"r{n}", at=NOW - n * HOUR) for n in range(48)])
        store.write(lambda txn: txn.delete(NOTES, ERAS))
        asyncio.run(in_zone(store, "UTC", NOW).prune())
        book = in_zone(store, "Asia/Kolkata", NOW)
        for n in range(1, 48):
            assert book.queries.total(NOW - n * HOUR, NOW + 1)["requests"] == n + 1


@pytest.mark.slow
@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(ZONES), st.lists(st.integers(0, 3 * DAY), min_size=1, max_size=6), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.tuples(st.integers(-60 * HOUR, 20 * DAY), st.integers(0, 40 * DAY)), min_size=1, max_size=6),
    st.sampled_from([1, 3, 1000]),
)
def test_no_change_of_the_zone_loses_or_doubles_an_hour(
    lives: list[tuple[str, list[int], bool]], ranges: list[tuple[int, int]], most: int
) -> None:
    """A server that is started again and again with another zone: each range tells what its records do."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(pending, "MOST", most)
        store = Store.open(Path(folder) / "ledger", tables=TABLES, durable=False)
        now, moments, begin = NOW - 20 * DAY, list[float](), NOW - 20 * DAY
        for zone, pauses, prune in lives:
            for pause in pauses:
                now += pause
                record_all(in_zone(store, zone, now), [exchange(f"r{len(moments)}", at=now)])
                moments.append(now)
            book = in_zone(store, zone, now)
            if prune:
                asyncio.run(book.prune())
                book = in_zone(store, zone, now)
                asyncio.run(book.sum_months())
                book = in_zone(store, zone, now)
            assert book.check().sound
            for since, length in ranges:
                asked = book.queries.summary(begin + since, begin + since + length)
                inside = sum(asked.frm <= moment < asked.to for moment in moments)
                assert asked.total.requests == inside
                told = book.queries.top("user", begin + since, begin + since + length, Filters())
                assert sum(one.requests for one in told) == inside
                drawn = book.queries.series(None, "day", begin + since, begin + since + length, metric="requests")
                expected = sum(drawn.frm <= moment < drawn.to for moment in moments)
                assert sum(value or 0 for line in drawn.series for value in line.values) == expected
        store.close()
