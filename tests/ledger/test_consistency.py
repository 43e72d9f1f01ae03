"""A ledger whose tables disagree is seen, and what its records tell is made true again."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pool_server.core.models import UsageRecord
from pool_server.core.settings import LedgerSettings, Settings
from pool_server.ledger import Ledger, retention
from pool_server.ledger.records import codec
from pool_server.ledger.records.codec import pack, unpack
from pool_server.ledger.records.days import Days
from pool_server.ledger.records.layout import MONTH, RECENT, RECORD_IDS, RECORD_INDEX, RECORDS, ROLLUPS
from pool_server.ledger.rollups import pending
from pool_server.ledger.rollups.sums import Sums
from pool_server.storage import Txn
from tests.ledger.ledger_kit import NOW, exchange, ledger_in, record_all
from tests.ledger.test_months import fresh, in_zone, steps, sum_months

DAY = 86_400.0
FIRST = NOW - 90 * DAY  # of its day some records may be forgotten: what is wrong there stays


def fill(book: Ledger) -> None:
    book.load([exchange("first", at=FIRST)])
    at = [NOW - 80 * DAY, NOW - 79 * DAY, NOW - 10 * DAY, NOW - 3600, NOW - 60]
    record_all(
        book,
        [
            exchange(f"{user}-{n}", at=moment, user=user, account=f"{user}:a", outcome="cut" if n else "ok")
            for n, moment in enumerate(at)
            for user in ("ada", "bob")
        ],
    )
    asyncio.run(Ledger(book.store, book.settings, clock=lambda: NOW).sum_months())


def rows(book: Ledger, table: str) -> list[tuple[bytes, bytes]]:
    with book.store.read() as reader:
        return list(reader.scan(table))


def answers(book: Ledger) -> Any:
    ask = book.queries
    charts = [ask.series("user", step, NOW - 89 * DAY, NOW) for step in ("hour", "day")]
    return charts, ask.summary(NOW - 89 * DAY, NOW), ask.top("account", NOW - 89 * DAY, NOW)


damages = st.lists(
    st.tuples(
        st.sampled_from(["drop", "astray", "change", "garble", "rename"]),
        st.sampled_from([RECORD_IDS, RECORD_INDEX, ROLLUPS]),
        st.floats(0, 0.999),
    ),
    min_size=1,
    max_size=5,
)


def damage(txn: Txn, how: str, table: str, where: float) -> None:
    there = [(key, raw) for key, raw in txn.scan(table) if table != ROLLUPS or not _unseen(key, how)]
    if not there:
        return  # nothing is in the rollups yet
    key, raw = there[int(where * len(there))]
    if how == "astray" and table == RECORD_IDS:
        txn.put(table, b"nobody", b"\1" * 12)
    elif how == "astray" and table == RECORD_INDEX:
        txn.put(table, key[:5] + b"\1" * 12, b"")
    elif how == "change" and table == ROLLUPS and raw != b"\xc1" and key[1:2] not in b"#.":
        txn.put(table, key, Sums.decode(raw).plus(Sums.of(exchange("more"))).encode())
    elif how == "garble" and table == ROLLUPS:
        txn.put(table, key, b"\xc1")
    elif how == "rename" and table == ROLLUPS:
        txn.delete(table, key)
        txn.put(table, key[:6] + bytes([key[6] ^ 1]) + key[7:] if len(key) > 6 else key + b"x", raw)
    else:
        txn.delete(table, key)


def _unseen(key: bytes, how: str) -> bool:
    at = int.from_bytes(key[2:6], "big")
    labels = how == "drop" and key[1:2] in b"gjGkJs"  # there may be fewer rows of labels than labels
    forgotten = key[:1] == b"m" and at < NOW - 2 * DAY
    return labels or forgotten or at < FIRST + DAY


@pytest.mark.slow
@settings(max_examples=25)
@example([("garble", ROLLUPS, 0.0)], 1)  # the pool's row of a month
@example([("garble", ROLLUPS, 0.1), ("garble", ROLLUPS, 0.3)], 1)
@example([("drop", ROLLUPS, 0.0625), ("garble", ROLLUPS, 0.25)], 1)  # a month and a day of it
@given(damages, st.sampled_from([1, 4, 1000]))
def test_whatever_is_damaged_is_found_and_put_right(done: list[tuple[str, str, float]], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(pending, "MOST", most)
        with ledger_in(Path(folder), durable=False) as book:
            fill(book)
            assert book.check().sound
            before = rows(book, RECORD_IDS), rows(book, RECORD_INDEX), answers(book)
            tables = [rows(book, table) for table in (RECORD_IDS, RECORD_INDEX, ROLLUPS)]
            for one in done:
                book.store.write(lambda txn, one=one: damage(txn, *one))  # type: ignore[misc]
            changed = tables != [rows(book, table) for table in (RECORD_IDS, RECORD_INDEX, ROLLUPS)]
            found = book.check()
            months_only = tables[:2] == [rows(book, RECORD_IDS), rows(book, RECORD_INDEX)] and not _days_differ(
                tables[2], rows(book, ROLLUPS)
            )
            assert found.sound is not changed or months_only, "a month that is left out is no damage"
            assert not found.lost_days and not found.unreadable
            book.repair(found)
            assert book.check().sound
            assert (rows(book, RECORD_IDS), rows(book, RECORD_INDEX), answers(book)) == before


def _days_differ(one: list[tuple[bytes, bytes]], two: list[tuple[bytes, bytes]]) -> bool:
    return [row for row in one if row[0][:1] != MONTH] != [row for row in two if row[0][:1] != MONTH]


def test_a_record_that_cannot_be_read_is_told_and_stays_in_the_sums(tmp_path: Path) -> None:
    with ledger_in(tmp_path, durable=False) as book:
        fill(book)
        key, raw = rows(book, RECORDS)[3]
        for at in range(1, len(raw)):
            flipped = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
            with pytest.raises(ValueError, match="cannot be read"):
                unpack(flipped)
        before = answers(book)
        book.store.write(lambda txn: txn.put(RECORDS, key, raw[:-1] + b"\0"))
        found = book.check()
        assert found.unreadable == [key] and not found.days and not found.lost_days
        book.repair(found)
        assert answers(book) == before


def test_days_whose_records_are_gone_are_told_and_left(tmp_path: Path) -> None:
    with ledger_in(tmp_path, durable=False) as book:
        fill(book)
        wrong = next(key for key, _ in rows(book, ROLLUPS) if key[:2] == b"du" and _first(key))
        book.store.write(lambda txn: txn.delete(ROLLUPS, wrong))
        found = book.check()
        assert found.lost_days and not found.days
        book.repair(found)
        assert book.check().lost_days == found.lost_days


def _first(key: bytes) -> bool:
    return int.from_bytes(key[2:6], "big") <= FIRST


def test_records_without_a_checksum_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of before: four bytes shorter."""
    new = pack(exchange("r"))
    old = zstandard.ZstdCompressor(level=-1, dict_data=codec._dictionary, write_checksum=False, write_dict_id=False)
    monkeypatch.setattr(codec._tools, "compressor", old)
    assert len(pack(exchange("r"))) == len(new) - 4
    assert unpack(pack(exchange("r"))) == unpack(new)


def renamed(txn: Txn, old: bytes, new: bytes) -> None:
    """A name changed wherever the rollups, months and what is not in them yet hold it."""
    for table in (ROLLUPS, RECENT):
        for key, raw in list(txn.scan(table)):
            if old in key or old in raw:
                txn.delete(table, key)
                txn.put(table, key.replace(old, new), raw.replace(old, new))


@pytest.mark.parametrize("most", [1, 256])
@pytest.mark.parametrize(
    ("old", "new"), [(b"claude-sonnet-4-5", b"claude-sonnet-4-6"), (b"ada", b"adb"), (b"bob:a", b"bob:b")]
)
def test_a_name_changed_everywhere_is_found_and_put_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, old: bytes, new: bytes
) -> None:
    """Such sums agree with each other in every way."""
    monkeypatch.setattr(pending, "MOST", most)
    with ledger_in(tmp_path, durable=False) as book:
        fill(book)
        before = answers(book)
        book.store.write(lambda txn: renamed(txn, old, new))
        found = book.check()
        assert not found.sound and bool(found.missing) is (most > 1)
        book.repair(found)
        left = book.check()
        assert not left.days and not left.missing, "of the first day nobody can tell"
        if old == b"bob:a":
            assert answers(book) == before and left.sound


def test_no_row_of_a_day_is_missing_or_tells_other_latencies_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "MOST", 1)
    with ledger_in(tmp_path, durable=False) as book:
        fill(book)
        day = Days("UTC").start(NOW - 60)
        found = [
            row for row in rows(book, ROLLUPS) if row[0][:1] != MONTH and int.from_bytes(row[0][2:6], "big") >= day
        ]
        of_each = {key[:2]: (key, raw) for key, raw in found}  # grain and dimension
        assert len(of_each) == 27
        for key, raw in of_each.values():
            sums = Sums.decode(raw)
            sums.spread[7] = sums.spread.get(7, 0) + 1
            for damaged in (None, sums.encode()):
                book.store.write(
                    lambda txn, key=key, damaged=damaged: (  # type: ignore[misc]
                        txn.delete(ROLLUPS, key) if damaged is None else txn.put(ROLLUPS, key, damaged)
                    )
                )
                assert book.check().days == [day], key
            book.store.write(lambda txn, key=key, raw=raw: txn.put(ROLLUPS, key, raw))  # type: ignore[misc]
        assert book.check().sound


def test_a_label_that_is_no_records_is_found_and_put_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MOST", 1)
    with ledger_in(tmp_path, durable=False) as book:
        fill(book)
        record_all(book, [msgspec.structs.replace(exchange("k", at=NOW - 60), key="key_of_ada")])
        before = rows(book, ROLLUPS)
        (key, raw), *_ = [row for row in before if b"key_of_ada" in row[0]]
        book.store.write(lambda txn: txn.delete(ROLLUPS, key))
        assert book.check().sound, "labels are bounded in number: one may be missing"
        for name, value in ((key, Sums.decode(raw).plus(Sums.decode(raw)).encode()), (key + b"x", raw)):
            book.store.write(lambda txn, name=name, value=value: txn.put(ROLLUPS, name, value))  # type: ignore[misc]
            found = book.check()
            assert len(found.days) == 1
            book.repair(found)
            assert rows(book, ROLLUPS) == before


def test_a_name_changed_in_days_and_their_month_after_their_records_went_is_told(tmp_path: Path) -> None:
    with ledger_in(tmp_path, durable=False) as book:
        book.load([exchange("first", at=FIRST), exchange("r", at=NOW)])
        asyncio.run(Ledger(book.store, book.settings, clock=lambda: NOW).sum_months())
        assert book.check().sound
        book.store.write(lambda txn: renamed(txn, b"claude:work", b"claude:play"))
        found = book.check()
        assert len(found.lost_months) == 1 and not found.sound
        book.repair(found)
        assert book.check().lost_months == found.lost_months


def test_a_month_of_a_version_without_digests_is_sealed_at_the_next_time(tmp_path: Path) -> None:
    with ledger_in(tmp_path, durable=False) as book:
        fill(book)
        seals = [key for key, _ in rows(book, ROLLUPS) if key[:2] == MONTH + b"#"]
        assert seals
        book.store.write(lambda txn: [txn.delete(ROLLUPS, key) for key in seals])
        assert book.check().sound
        asyncio.run(Ledger(book.store, book.settings, clock=lambda: NOW).sum_months())
        assert [key for key, _ in rows(book, ROLLUPS) if key[:2] == MONTH + b"#"] == seals


def test_a_store_whose_old_rows_are_being_forgotten_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kill in the middle leaves it, or a copy made meanwhile: some rows of an hour are gone, others not yet."""
    monkeypatch.setattr(retention, "STEP", 20)
    monkeypatch.setattr(pending, "MOST", 1)
    days = Days("UTC")
    with ledger_in(tmp_path, durable=False) as book:
        fill(book)
        record_all(book, [exchange(f"old-{n}", at=NOW - (88 - n % 3) * DAY, user=f"u{n}") for n in range(40)])
        cut = book.store.write(lambda txn: retention.begin(txn, NOW + 4 * DAY, 90, days))
        assert book.check().sound
        for _ in range(1000):
            more = book.store.write(lambda txn: retention.step(txn, cut))
            assert book.check().sound
            if not more:
                return
        raise AssertionError("it does not end")


@pytest.mark.slow
@settings(max_examples=25)
@given(steps, st.sampled_from([1, 5, 1000]))
def test_a_ledger_that_nobody_damaged_is_sound(done: list[list[UsageRecord] | str], most: int) -> None:
    """Whatever was recorded late, summed up, forgotten and under whichever time zones."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(pending, "MOST", most)
        with ledger_in(Path(folder), durable=False) as made:
            book = made
            for step in done:
                if isinstance(step, list):
                    record_all(fresh(book), step)
                elif step == "sum":
                    sum_months(book)
                elif step == "prune":
                    asyncio.run(fresh(book).prune())
                else:
                    book = in_zone(made.store, step)
                assert book.check().sound


def test_a_late_record_does_not_make_forgotten_days_wrong(tmp_path: Path) -> None:
    """Put right, their sums would be lost."""
    with ledger_in(tmp_path, Settings(ledger=LedgerSettings(retention_days=30)), durable=False) as book:
        book.load([exchange(f"r{n}", at=NOW - n * DAY) for n in range(60)])
        asyncio.run(fresh(book).prune())
        record_all(book, [exchange("late", at=NOW - 50 * DAY)])
        found = book.check()
        assert found.sound
        book.repair(found._replace(days=found.lost_days))
        assert book.queries.total(0, NOW + 1)["requests"] == 61
