from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.core.models import UsageRecord
from pool_server.ledger import EXPORT_COLUMNS, Ledger, LogFilters, request_log
from pool_server.ledger.ports import matches
from pool_server.ledger.request_log import tame
from tests.ledger.ledger_kit import NOW, exchange, ledger_in, record_all

USERS, ACCOUNTS, MODELS = ["ada", "bob"], ["claude:work", "codex:x"], ["gpt-5", "claude-sonnet-4-5"]
ENDINGS = [("ok", 200), ("upstream", 502), ("denied", 429), ("client_gone", 200)]


def history(n: int = 60) -> list[UsageRecord]:
    return [
        exchange(
            f"r{i:03}", at=NOW - i * 7, user=USERS[i % 2], account=ACCOUNTS[i % 3 % 2], model=MODELS[i % 5 % 2],
            outcome=ENDINGS[i % 4][0], status=ENDINGS[i % 4][1],
        )
        for i in range(n)
    ]  # fmt: skip


def every_page(book: Ledger, limit: int, filters: LogFilters) -> list[str]:
    rows, cursor = book.log.page(limit, None, filters)
    while cursor is not None:
        more, cursor = book.log.page(limit, cursor, filters)
        rows += more
    return [rec.id for rec in rows]


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory, each_store: str):  # type: ignore[no-untyped-def]
    with ledger_in(tmp_path_factory.mktemp("log"), durable=False) as made:
        record_all(made, history())
        yield made


@settings(max_examples=80, deadline=None)
@given(
    filters=st.builds(
        LogFilters,
        user=st.sampled_from([None, *USERS, "nobody"]),
        account=st.sampled_from([None, *ACCOUNTS]),
        model=st.sampled_from([None, *MODELS]),
        provider=st.sampled_from([None, "claude", "codex"]),
        outcome=st.sampled_from([None, "ok", "upstream", "denied"]),
        status=st.sampled_from([None, 200, 429, 502]),
        failed=st.booleans(),
        since=st.none() | st.floats(NOW - 500, NOW),
        until=st.none() | st.floats(NOW - 500, NOW + 10),
    ),
    limit=st.integers(1, 70),
)
def test_pages_hold_exactly_what_was_asked_for(book: Ledger, filters: LogFilters, limit: int) -> None:
    assert every_page(book, limit, filters) == [rec.id for rec in history() if matches(rec, filters)]


def test_rare_combinations_take_several_quick_pages(
    book: Ledger, each_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "SCAN_LIMIT", 10)
    rows, cursor = book.log.page(50, None, LogFilters(provider="qwen"))
    assert rows == []
    assert (cursor is not None) == (each_store == "embedded"), "a database compares all of it at once"
    wanted = LogFilters(provider="codex", model="gpt-5")
    assert every_page(book, 50, wanted) == [rec.id for rec in history() if matches(rec, wanted)]


def test_equal_hashes_do_not_mix_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_server.ledger.records.layout._hash4", lambda text: b"same")
    with ledger_in(tmp_path) as other:
        record_all(other, history(10))
        assert {rec.user for rec in other.log.latest("ada")} == {"ada"}


@pytest.mark.parametrize("cursor", ["", "zz", "00", "0" * 25, "no cursor", "é"])
def test_a_foreign_cursor_is_refused(book: Ledger, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        book.log.page(10, cursor)


def test_jsonl_holds_every_exchange_oldest_first(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "_EXPORT_STEP", 7)
    pieces = list(book.log.export("jsonl", NOW - 1000, NOW + 1, LogFilters(user="ada")))
    lines = [json.loads(line) for line in b"".join(pieces).splitlines()]
    assert [line["id"] for line in lines] == [rec.id for rec in reversed(history()) if rec.user == "ada"]
    assert lines[0]["input"] == 100
    assert len(pieces) > 2


def test_csv_has_a_header_and_is_safe_to_open(tmp_path: Path, each_store: str) -> None:
    with ledger_in(tmp_path) as other:
        rec = exchange("r1", user="=HYPERLINK(1)", model="no-price")
        rec.message = 'says "no",\nloudly'
        record_all(other, [rec])
        text = b"".join(other.log.export("csv", NOW - 1, NOW + 1)).decode()
    header, line = list(csv.reader(io.StringIO(text)))
    row = dict(zip(header, line, strict=True))
    assert tuple(header) == EXPORT_COLUMNS
    assert (row["user"], row["message"], row["cost_usd"]) == ("'=HYPERLINK(1)", rec.message, "")


@pytest.mark.parametrize("sign", list("=+-@＝＋－＠"))
@pytest.mark.parametrize("before", ["", " ", "\t", "\n", "\r", "\u3000", "\xa0"])
def test_no_text_begins_a_formula_in_any_spreadsheet(sign: str, before: str) -> None:
    assert tame(f"{before}{sign}1") == f"'{before}{sign}1"
    assert tame(f"a{before}{sign}1") == f"a{before}{sign}1"
    assert [tame(number) for number in (-1, -0.5, None)] == [-1, -0.5, None]


def test_an_empty_range_exports_nothing(book: Ledger) -> None:
    assert b"".join(book.log.export("jsonl", NOW + 10, NOW + 20)) == b""


def test_odd_ids_are_simply_not_there(book: Ledger) -> None:
    for ident in ("x" * 5000, "\ud800", "é" * 200):
        assert book.log.get(ident) is None
