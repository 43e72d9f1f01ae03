"""Use by program, key, project and conversation: by the rollups, bounded in number, by user."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pool_server.core.models import UsageRecord
from pool_server.core.settings import Settings
from pool_server.ledger import Field, Filters, Ledger
from pool_server.ledger.records import layout
from pool_server.ledger.rollups import pending
from tests.ledger.ledger_kit import NOW, Clock, exchange, ledger_in, record_all

HOUR = 3600.0
DAY = 24 * HOUR
LABELS: tuple[Field, ...] = ("program", "key", "project", "conversation")


def labelled(ident: str, *, user: str = "ada", at: float = NOW, program: str = "", **more: str) -> UsageRecord:
    record = exchange(ident, user=user, at=at)
    record.agent, record.key = program, more.get("key", "")
    record.project, record.session = more.get("project", ""), more.get("session", "")
    return record


def by(book: Ledger, field: Field, filters: Filters | None = None, back: float = HOUR) -> dict[str, int]:
    rows = book.queries.top(field, NOW - back, NOW + 60, filters or Filters())
    return {row.key: row.requests for row in rows}


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.usefixtures("each_store")
def test_use_is_told_by_each_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: bool) -> None:
    if moved:
        monkeypatch.setattr(pending, "MOST", 1)
    with ledger_in(tmp_path) as book:
        for n in range(6):
            record_all(
                book,
                [
                    labelled(
                        f"r{n}",
                        user=("ada", "bob")[n % 2],
                        program=("Codex 0.169.0", "Claude Code 2.1.332")[n // 3],
                        key=f"key_{n % 3}",
                        project="site" if n else "",
                        session=f"s{n // 2}",
                    )
                ],
            )
        assert by(book, "program") == {"Codex 0.169.0": 3, "Claude Code 2.1.332": 3}
        assert by(book, "program", Filters(user="ada")) == {"Codex 0.169.0": 2, "Claude Code 2.1.332": 1}
        assert by(book, "key") == {"key_0": 2, "key_1": 2, "key_2": 2}
        assert by(book, "project") == {"site": 5}, "an exchange without a label is in no row"
        assert by(book, "conversation", Filters(user="bob")) == {"s0": 1, "s1": 1, "s2": 1}
        (row, *_) = book.queries.top("program", NOW - HOUR, NOW + 60, timed=False)
        assert row.total_tokens > 0 and row.cost_usd > 0


@pytest.mark.usefixtures("each_store")
def test_series_by_label_and_what_is_not_kept(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        record_all(book, [labelled("r1", program="Codex", session="s1"), labelled("r2", at=NOW - DAY, program="Codex")])
        chart = book.queries.series("program", "day", NOW - 2 * DAY, NOW + 60, metric="requests")
        assert [(line.key, line.total) for line in chart.series] == [("Codex", 2)]
        hours = book.queries.series("program", "hour", NOW - 3 * HOUR, NOW + 60, metric="requests")
        assert hours.series[0].total == 1
        assert book.queries.series("conversation", "day", NOW - DAY, NOW + 60).series[0].key == "s1"
        for field, step in (("program", "minute"), ("conversation", "hour")):
            with pytest.raises(ValueError, match="not kept by the"):
                book.queries.series(field, step, NOW - HOUR, NOW + 60)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="known by user only, not by model"):
            book.queries.top("program", NOW - HOUR, NOW + 60, Filters(model="m"))
        with pytest.raises(ValueError, match="of one user, or of at most 8 days"):
            book.queries.top("conversation", NOW - 30 * DAY, NOW)
        assert book.queries.top("conversation", NOW - 30 * DAY, NOW, Filters(user="ada"))
        with pytest.raises(ValueError, match="not by account"):
            book.queries.top("key", NOW - HOUR, NOW + 60, Filters(provider="claude"))


@pytest.mark.usefixtures("each_store")
def test_no_user_makes_more_rows_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MOST", 10)
    monkeypatch.setitem(layout.MOST_LABELS, layout.USER_PROGRAM, 5)
    monkeypatch.setitem(layout.MOST_LABELS, layout.PROGRAM, 7)
    with ledger_in(tmp_path) as book:
        record_all(book, [labelled(f"r{n}", program=f"program {n:02}\0{'x' * 300}") for n in range(40)])
        record_all(book, [labelled(f"b{n}", user="bob", program="program 00") for n in range(10)])
        found = by(book, "program", Filters(user="ada"))
        assert len(found) == 6 and sum(found.values()) == 40 and found["other"] == 35
        assert all(len(name) <= 64 and "\0" not in name for name in found)
        assert by(book, "program", Filters(user="bob")) == {"program 00": 10}, "others are not cut for it"
        record_all(book, [labelled(f"c{n}", program="program 00") for n in range(10)])
        assert sum(by(book, "program", Filters(user="ada")).values()) == 50
        everyone = by(book, "program")
        assert len(everyone) == 8 and sum(everyone.values()) == 60 and everyone["program 00 " + "x" * 53] == 1


@pytest.mark.usefixtures("each_store")
def test_loading_a_history_makes_the_same_rows(tmp_path: Path) -> None:
    records = [labelled(f"r{n}", at=NOW - n * HOUR, program=f"p{n % 3}", session=f"s{n % 4}") for n in range(30)]
    with ledger_in(tmp_path / "a") as book:
        record_all(book, records)
        one = {field: by(book, field, back=3 * DAY) for field in LABELS}
    with ledger_in(tmp_path / "b") as again:
        again.load(records)
        assert {field: by(again, field, back=3 * DAY) for field in LABELS} == one


@pytest.mark.slow
def test_conversations_are_forgotten_with_their_exchanges(tmp_path: Path) -> None:
    clock = Clock()
    with ledger_in(tmp_path, clock=clock) as book:
        book.load([labelled("r1", at=NOW - 5 * DAY, program="Codex", session="s1")])
        days = Settings().ledger.retention_days
        for _ in range(days + 3):
            clock.now += DAY
            asyncio.run(book.prune())
        later = clock.now
        assert not book.queries.top("conversation", NOW - 6 * DAY, later, Filters(user="ada"))
        assert book.queries.top("program", NOW - 6 * DAY, later)[0].requests == 1


def test_a_pending_row_of_an_older_program_is_read(tmp_path: Path) -> None:
    old = pending._encode(((60, 0, 0), ("ada", "claude:work", "m"), b""))
    assert pending._decode(old).labels == ("", "", "", "")
