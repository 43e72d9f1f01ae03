"""Both stores of a ledger answer every question alike, whatever was recorded and however much of it is in the sums."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pool_server.core.enums import Source
from pool_server.core.models import UsageRecord, WindowObservation
from pool_server.core.settings import LedgerSettings, Settings
from pool_server.ledger import TABLES, Field, Filters, Ledger, LogFilters, Metric, Step
from pool_server.ledger.bill_split import UsedHere
from pool_server.ledger.quota_history import Watcher
from pool_server.ledger.records.codec import pack
from pool_server.ledger.records.days import NOTICE_S
from pool_server.ledger.rollups.reader import LABELS
from pool_server.storage import Store
from pool_server.storage.lmdb.log_file import leave
from tests.cluster.conftest import Database
from tests.ledger import ledger_kit
from tests.ledger.ledger_kit import NOW, Clock, exchange, ledger_in, record_all
from tests.ledger.test_rollups import DAY, ZONES, exchanges, filters

BACK = NOW - 41 * DAY
WORDS = st.sampled_from(["", "Codex 0.169", "Claude Code", "x%_'é"])
FIELDS: tuple[Field, ...] = ("user", "account", "model", "provider", *LABELS)


def told(rec: UsageRecord, program: str, key: str, session: str, ms: float) -> UsageRecord:
    rec.agent, rec.key, rec.session, rec.project, rec.total_ms = program, key, session, key, ms
    return rec


RESETS = st.sampled_from([None, NOW, NOW + 60, NOW + 9_000])
records = st.lists(st.builds(told, exchanges, WORDS, WORDS, WORDS, st.floats(0, 10**6)), max_size=30)
times = st.tuples(st.floats(BACK, NOW + DAY), st.floats(BACK, NOW + DAY)).map(sorted)


@settings(max_examples=8)
@given(
    history=records,
    wanted=filters,
    bounds=times,
    zones=st.tuples(st.sampled_from(ZONES), st.sampled_from(["", *ZONES[:2]])),
    loaded=st.integers(0, 30),
    folded=st.booleans(),
)
def test_both_stores_answer_alike(
    emptied: Database,
    history: list[UsageRecord],
    wanted: Filters,
    bounds: list[float],
    zones: tuple[str, str],
    loaded: int,
    folded: bool,
) -> None:
    for n, rec in enumerate(history):
        rec.id = f"r{n}"
    timezone = Settings(ledger=LedgerSettings(timezone=zones[0]))
    found = []
    for databases in ([], [emptied]):
        with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
            patch.setattr(ledger_kit, "DATABASES", databases)
            with ledger_in(Path(folder), timezone, durable=False) as book:
                book.load(history[:loaded])
                record_all(book, history[loaded // 2 :])
                if folded and databases:
                    ledger_kit.fold(book)
                found.append(list(answers(book, wanted, bounds[0], bounds[1], zones[1])))
    for one, other in zip(*found, strict=True):
        assert one == other


def answers(book: Ledger, wanted: Filters, frm: float, to: float, tz: str) -> Any:
    """(question, answer) for everything that pages and API ask of the sums."""
    ask = book.queries
    yield "total", described(ask.total(frm, to, wanted))
    yield "summary", ask.summary(frm, to, wanted)
    yield "matrix", ask.matrix(frm, to, wanted)
    yield "uses", {account: together(used) for account, used in ask.uses(frm, to).items()}
    shared = ask.shared_use(frm, to, {"claude:work": "ada"})
    yield "shared", [shared.person(name).brief() for name in ("ada", "bob", "")]
    yield "of a key", described(ask.of_key("ada", "Codex 0.169", frm, to))
    metrics: tuple[Metric, ...] = get_args(Metric)
    for metric in metrics:
        yield metric, ask.heatmap(frm, to, wanted, tz=tz, metric=metric)
        yield metric, ask.series("user", "day", frm, to, wanted, tz=tz, metric=metric, top=2, every=3)
    steps: tuple[Step, ...] = ("hour", "day")
    for step in steps:
        for by in (None, *FIELDS[:4]):
            yield (step, by), ask.series(by, step, frm, to, wanted, tz=tz, top=2)
    mine = Filters(user="ada")
    for field in FIELDS:
        plain = field not in LABELS
        start = frm if plain else max(frm, to - 7 * DAY)
        yield field, ask.top(field, start, to, wanted if plain else mine, metric="total_p95")
        yield field, ask.top(field, start, to, limit=2, timed=False)
    yield from log_answers(book, wanted, frm, to)


@settings(max_examples=6, deadline=None)
@given(
    lives=st.lists(
        st.tuples(
            st.sampled_from(ZONES),
            st.lists(st.integers(0, 3 * DAY) | st.integers(0, NOTICE_S), min_size=1, max_size=6),
            st.integers(0, DAY),
        ),
        min_size=1,
        max_size=4,
    ),
    ranges=st.lists(st.tuples(st.integers(-2 * DAY, 20 * DAY), st.integers(0, 40 * DAY)), min_size=1, max_size=4),
)
@example(  # taken back ten minutes before Kolkata's midnight, which others go by for less than an hour more
    lives=[("Asia/Karachi", [0], 0), ("Asia/Kolkata", [14_800], 0), ("Asia/Karachi", [3300], 0)],
    ranges=[(17_200, 3600)],
)
@example(  # set while all that was recorded is a day old
    lives=[("Asia/Karachi", [], DAY), ("Asia/Kolkata", [2400], DAY)], ranges=[(1000, 3600)]
)
def test_nodes_that_are_started_with_another_zone_lose_no_hour(
    emptied: Database, lives: list[tuple[str, list[int], int]], ranges: list[tuple[int, int]]
) -> None:
    """Nodes of another zone go on beside each new one, which first has a record to send from before it was started."""
    begin, clock, moments, books = NOW - 30 * DAY, Clock(NOW - 30 * DAY), list[float](), list[Ledger]()

    def keep(book: Ledger, at: float) -> None:
        asyncio.run(record(book, exchange(f"r{len(moments)}", at=at)))
        moments.append(at)

    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        store = stack.enter_context(closing(Store.open(Path(folder) / "ledger", tables=TABLES, durable=False)))
        for zone, pauses, late in lives:
            zoned = Settings(ledger=LedgerSettings(timezone=zone))
            port = stack.enter_context(closing(ledger_kit.database_ledger(emptied, zone, clock=clock, empty=not books)))
            books.append(Ledger(store, zoned, clock=lambda: NOW, port=port))
            keep(books[-1], clock.now - late)
            for pause in pauses:
                clock.now += pause
                for book in books:
                    keep(book, clock.now)
            books[0].port.fold()  # type: ignore[attr-defined]
        for book in books:
            for since, length in ranges:
                told = book.queries.summary(begin + since, begin + since + length)
                assert told.total.requests == sum(told.frm <= moment < told.to for moment in moments)


async def record(book: Ledger, rec: UsageRecord) -> None:
    assert await Ledger(book.store, book.settings, clock=lambda: NOW, port=book.port).record(rec)


def together(used: list[UsedHere]) -> Any:
    """Uses of one bucket in one, which may come in parts: requests and what they come to."""
    found: Counter[Any] = Counter()
    for one in used:
        found[one.at, one.seconds, one.user, "tokens"] += one.tokens
        found[one.at, one.seconds, one.user, "nano"] += round(one.cost_usd * 10**9)
    return found


def log_answers(book: Ledger, wanted: Filters, frm: float, to: float) -> Any:
    """The same of single exchanges."""
    some = LogFilters(user=wanted.user, account=wanted.account, model=wanted.model, since=frm, until=to)
    cut, one = LogFilters(outcome="cut", provider="claude"), LogFilters(session="Codex 0.169")
    for only in (some, LogFilters(failed=True), cut, one):
        read: list[UsageRecord] = []
        cursor = None
        while True:
            part, cursor = book.log.page(7, cursor, only)
            read += part
            if cursor is None:
                break
        yield only, sorted(read, key=lambda rec: (-rec.at, rec.id))
        assert [rec.at for rec in read] == sorted((rec.at for rec in read), reverse=True)
        yield (
            only,
            sorted(book.log.export("jsonl", frm, to, only))[:1]
            and sorted(b"".join(book.log.export("jsonl", frm, to, only)).splitlines()),
        )
    yield "one", [book.log.get(f"r{n}") for n in range(60)]


def described(sums: Any) -> Any:
    return sums.describe()


@settings(max_examples=8)
@given(
    seen=st.lists(
        st.tuples(st.floats(NOW - 3 * DAY, NOW), st.sampled_from([0.0, 10.0, 10.5, 99.0]), RESETS),
        max_size=25,
    )
)
def test_both_stores_keep_the_same_sightings(emptied: Database, seen: list[tuple[float, float, float | None]]) -> None:
    found = []
    for databases in ([], [emptied]):
        with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
            patch.setattr(ledger_kit, "DATABASES", databases)
            with ledger_in(Path(folder), durable=False) as book:
                asyncio.run(watch(book, seen))
                series = book.runway.series()
                seen_of = [book.runway.sightings(one, 0, 2 * NOW) for one in series]
                history = book.queries.window_history(NOW - DAY, NOW)
                found.append((series, seen_of, book.runway.all(NOW), history))
    assert found[0] == found[1]


async def watch(book: Ledger, seen: list[tuple[float, float, float | None]]) -> None:
    """Each as a node that has seen nothing before would keep it."""
    for n, (at, percent, resets) in enumerate(seen):
        window, scope = ("5h", "week")[n % 2], ("", "", "opus")[n % 3]
        told = WindowObservation(window, 18_000, percent, resets, Source.HEADERS, at, scope)
        news = Watcher().news("claude:work", told)
        assert news is not None
        await book.port.watch(lambda *_: False).send(news)


def test_what_a_killed_node_had_only_in_its_journal_is_counted_once(emptied: Database, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_kit, "DATABASES", [emptied])
        with ledger_in(tmp_path, durable=False) as book:
            record_all(book, [exchange("r1")])
            leave(book.store.folder, [pack(exchange("r1")), pack(exchange("r2"))])  # of a process that died
            successor = Ledger(book.store, Settings(), clock=Clock(), write_ahead=True, port=book.port)

            async def goes_on() -> None:
                await successor.start()
                assert await successor.record(exchange("r3"))
                await successor.fresh()
                used = await successor.ask(successor.queries.total, NOW - 60, NOW + 60)
                assert successor.healthy and used["requests"] == 3
                await successor.close()

            asyncio.run(goes_on())
            assert emptied.sql("select id from pool.record order by id").split() == ["r1", "r2", "r3"]
