"""Sums over rollups equal sums over raw records, for any filter, range, grouping and zone."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool_server.core.enums import CostBasis
from pool_server.core.models import MoveCost, Usage, UsageRecord
from pool_server.core.settings import LedgerSettings as LedgerSettings
from pool_server.core.settings import Settings
from pool_server.ledger import Ledger
from pool_server.ledger.chart import METRICS
from pool_server.ledger.records.days import Days
from pool_server.ledger.rollups import pending
from pool_server.ledger.rollups.pending import cell_of, labels_of, starts_of
from pool_server.ledger.rollups.reader import Field, Filters, newest_rows
from pool_server.ledger.rollups.sums import COUNTS, LeadingCounts, Sums, bucket_edges, bucket_of, percentiles
from pool_server.ledger.rollups.time_slices import Slice
from pool_server.ledger.rollups.writer import merge
from tests.ledger.ledger_kit import NOW, Clock, exchange, ledger_in, record_all

HOUR, DAY = 3600, 86400

DAY = 86_400
USERS = ["ada", "bob", ""]
ACCOUNTS = ["claude:work", "claude:", "codex:work", "codex:work2"]
MODELS = ["claude-sonnet-4-5", "gpt-5", "no-such-model", ""]
ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Pacific/Chatham"]

names = {
    "user": st.sampled_from(USERS),
    "account": st.sampled_from(ACCOUNTS),
    "model": st.sampled_from(MODELS),
    "provider": st.sampled_from(["claude", "codex", "qwen"]),
}
exchanges = st.builds(
    lambda n, at, user, account, model, outcome, tokens: exchange(
        f"r{n}",
        at=at,
        user=user,
        account=account,
        model=model,
        outcome=outcome,
        input=tokens,
        cache_read=tokens * 3,
        output=tokens // 2,
        reasoning=tokens // 4,
    ),
    n=st.integers(0, 60),  # small, so that ids repeat
    at=st.floats(NOW - 40 * DAY, NOW, allow_nan=False),
    user=names["user"],
    account=names["account"],
    model=names["model"],
    outcome=st.sampled_from(["ok", "upstream", "cut", "client_gone"]),
    tokens=st.integers(0, 10**6),
)
filters = st.builds(Filters, **{field: st.none() | values for field, values in names.items()})


def passes(rec: UsageRecord, f: Filters) -> bool:
    account = rec.account or rec.provider + ":"
    wanted = ((f.user, rec.user), (f.account, account), (f.model, rec.model), (f.provider, rec.provider))
    return all(want is None or want == have for want, have in wanted)


def unique(records: list[UsageRecord]) -> list[UsageRecord]:
    return list({rec.id: rec for rec in reversed(records)}.values())


def check(sums: Sums, records: list[UsageRecord]) -> None:
    assert sums["requests"] == len(records)
    for field in ("input", "cache_read", "cache_write", "output", "reasoning"):
        assert sums[field] == sum(getattr(rec.usage, field) for rec in records)
    assert sums["cost_nano"] == sum(round((rec.cost or 0) * 10**9) for rec in records)
    assert sums["unpriced"] == sum(rec.cost is None and rec.usage.total > 0 for rec in records)
    assert sums.outcomes == Counter(rec.outcome for rec in records)
    assert sum(sums.first.values()) == sum(rec.first_byte_ms is not None for rec in records)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    records=st.lists(exchanges, max_size=40),
    asked=st.lists(
        st.tuples(filters, st.floats(NOW - 41 * DAY, NOW + DAY), st.floats(NOW - 41 * DAY, NOW + DAY)),
        min_size=1,
        max_size=12,
    ),
    timezone=st.sampled_from(ZONES),
    most=st.sampled_from([1, 20, 1000]),
)
def test_sums_over_rollups_are_sums_over_records(
    records: list[UsageRecord], asked: list[tuple[Filters, float, float]], timezone: str, most: int
) -> None:
    """However many of them are in the rollups yet."""
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as folder,
        ledger_in(Path(folder), Settings(ledger=LedgerSettings(timezone=timezone)), durable=False) as book,
    ):
        patch.setattr(pending, "MOST", most)
        record_all(book, records)
        kept = unique(records)
        for wanted, frm, to in asked:
            start, stop = int(frm) // 60 * 60, -(-int(to) // 60) * 60 if to > int(to) // 60 * 60 else int(to)
            within = [r for r in kept if start <= r.at < (stop if stop > to else to) and passes(r, wanted)]
            if to <= frm:
                within = []
            check(book.queries.total(frm, to, wanted), within)
            by_hand = [r for r in book.log.scan(start, max(start, stop)) if passes(r, wanted)]
            check(book.queries.total(start, stop, wanted), by_hand)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    records=st.lists(exchanges, max_size=40),
    wanted=filters,
    by=st.sampled_from(["user", "account", "model", "provider"]),
    zones=st.tuples(st.sampled_from(ZONES), st.sampled_from(["", *ZONES[:2]])),
    most=st.sampled_from([1, 20, 1000]),
)
def test_every_view_adds_up_to_the_total(
    records: list[UsageRecord], wanted: Filters, by: Field, zones: tuple[str, str], most: int
) -> None:
    frm, to = NOW - 41 * DAY, NOW + DAY
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as folder,
        ledger_in(Path(folder), Settings(ledger=LedgerSettings(timezone=zones[0])), durable=False) as book,
    ):
        patch.setattr(pending, "MOST", most)
        record_all(book, records)
        kept = [r for r in unique(records) if passes(r, wanted)]
        tokens = sum(r.usage.total for r in kept)
        assert sum(row.total_tokens for row in book.queries.top(by, frm, to, wanted, limit=99)) == tokens
        pairs = book.queries.matrix(frm, to, wanted)
        assert sum(row.total_tokens for row in pairs) == tokens
        some = {row.account for row in pairs[::2]}
        assert book.queries.matrix(frm, to, wanted, accounts=some) == [row for row in pairs if row.account in some]
        owners = {row.account: row.user for row in pairs[1::2]}
        everybody = book.queries.shared_use(frm, to, owners)
        for one in {row.user for row in pairs} - {""}:
            alone = book.queries.shared_use(frm, to, owners, person=one).person(one)
            assert alone.brief() == everybody.person(one).brief()
        for step in ("hour", "day"):
            chart = book.queries.series(by, step, frm, to, wanted, tz=zones[1], top=2)
            assert sum(line.total for line in chart.series) == tokens
            assert all(len(line.values) == len(chart.buckets) for line in chart.series)
        heat = book.queries.heatmap(frm, to, wanted, tz=zones[1])
        assert sum(value or 0 for day in heat.cells for value in day) == tokens
        summary = book.queries.summary(frm, to, wanted)
        assert summary.total.total_tokens == tokens
        assert sum(part.total_tokens for part in summary.models.values()) == tokens
        assert sum(part.requests for part in summary.providers.values()) == len(kept)


@pytest.mark.parametrize("timezone", ZONES)
def test_days_of_a_chart_are_local_days(tmp_path: Path, timezone: str) -> None:
    where = ZoneInfo(timezone)
    moments = [datetime(2026, 3, day, hour, 30, tzinfo=where) for day in (7, 8, 9, 28, 29, 30) for hour in (0, 12, 23)]
    with ledger_in(tmp_path, Settings(ledger=LedgerSettings(timezone=timezone))) as book:
        record_all(book, [exchange(f"r{i}", at=m.timestamp()) for i, m in enumerate(moments)])
        frm = datetime(2026, 3, 7, tzinfo=where).timestamp()
        to = datetime(2026, 3, 31, tzinfo=where).timestamp()
        chart = book.queries.series(None, "day", frm, to, metric="requests")
        assert len(chart.buckets) == 24
        assert [v for v in chart.series[0].values if v] == [3] * 6
        for bucket in chart.buckets:
            assert datetime.fromtimestamp(bucket, where).hour == 0
        heat = book.queries.heatmap(frm, to, metric="requests").cells
        assert {hour for day in heat for hour, n in enumerate(day) if n} == {0, 12, 23}


@pytest.mark.usefixtures("each_store")
def test_hours_tell_what_they_used_at_list_prices_or_in_tokens(tmp_path: Path) -> None:
    hour = NOW // HOUR * HOUR
    paid = [exchange(f"p{n}", at=at) for n, at in enumerate((hour, hour + 5, hour - 9 * HOUR))]
    free = [
        exchange(f"f{n}", at=at, model="a-model-of-nobody", account="openai:x") for n, at in enumerate((hour, hour))
    ]
    with ledger_in(tmp_path) as book:
        assert book.queries.by_hour(NOW - DAY, NOW) == []
        record_all(book, free)
        assert book.queries.by_hour(NOW - DAY, NOW) == [(hour, 2 * 1170)]
        record_all(book, paid)
        (early, once), (late, twice) = book.queries.by_hour(NOW - DAY, NOW)
        assert (early, late) == (hour - 9 * HOUR, hour)
        assert 0 < once < 1 and twice == pytest.approx(2 * once)


def test_those_who_want_to_know_hear_what_hours_used(tmp_path: Path) -> None:
    async def go() -> list[tuple[int, float]]:
        heard: asyncio.Future[list[tuple[int, float]]] = asyncio.get_running_loop().create_future()
        book.on_hours.append(heard.set_result)
        await book.record(exchange("r1"))
        await book.start(leader=False)
        try:
            return await heard
        finally:
            await book.close()

    with ledger_in(tmp_path, clock=Clock()) as book:
        ((hour, amount),) = asyncio.run(go())
    assert hour <= NOW < hour + HOUR and amount > 0


def test_what_is_recent_moves_into_the_rollups_and_no_answer_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "MOST", 9)

    def tables() -> tuple[int, int]:
        with book.store.read() as reader:
            return reader.count("recent"), reader.count("rollups")

    with ledger_in(tmp_path) as book:
        other = Ledger(book.store, Settings(), clock=Clock())  # another worker: what one wrote, the other moves
        for i in range(8):
            record_all((book, other)[i % 2], [exchange(f"r{i}", user=USERS[i % 2])])
        assert tables() == (8, 0)
        before = book.queries.top("user", NOW - 60, NOW + 60)
        assert [row.requests for row in before] == [4, 4]
        record_all(other, [exchange("r8", user="eve")])
        assert tables() == (0, 3 * (5 + 4 * 3))  # grains, dimensions without and with the user
        assert [row for row in book.queries.top("user", NOW - 60, NOW + 60) if row.key != "eve"] == before
        record_all(book, [exchange("r8", user="eve")])
        assert tables() == (0, 3 * (5 + 4 * 3))  # known: it adds nothing


def test_a_batch_merged_at_once_equals_one_by_one() -> None:
    records = [exchange(f"r{i}", at=NOW + i * 40, user=USERS[i % 2], fault="rate" * (i % 2)) for i in range(50)]
    days = Days("Europe/Berlin")
    for i, rec in enumerate(records):
        rec.agent, rec.session = f"program {i % 3}", f"s{i % 7}"
    parts = [(starts_of(rec, days), cell_of(rec), Sums.of(rec), labels_of(rec)) for rec in records]
    for which in (0, 1):
        together = merge(parts)[which]
        apart: dict[bytes, Sums] = {}
        for part in parts:
            for key, sums in merge([part])[which].items():
                apart.setdefault(key, Sums()).add(sums)
        assert together and {k: v.encode() for k, v in together.items()} == {k: v.encode() for k, v in apart.items()}


@given(st.builds(exchange, st.just("r"), input=st.integers(0, 2**40), output=st.integers(0, 2**40)))
def test_sums_survive_their_encoding(rec: UsageRecord) -> None:
    sums = Sums.of(rec)
    again = Sums.decode(sums.encode())
    assert again.n == sums.n
    assert (again.first, again.total, again.outcomes, again.faults) == (
        sums.first, sums.total, sums.outcomes, sums.faults,
    )  # fmt: skip


@given(st.lists(st.floats(0, 3.6e6), min_size=1, max_size=200))
def test_percentiles_are_within_a_fifth(values: list[float]) -> None:
    spread: Counter[int] = Counter(bucket_of(v) for v in values)
    found = percentiles(spread)
    assert found is not None
    values.sort()
    for point in (50, 95):
        true = values[max(0, -(-len(values) * point // 100) - 1)]
        low, high = bucket_edges(bucket_of(true))
        assert low - 0.1 <= getattr(found, f"p{point}") <= high + 0.1
        assert high <= max(1.0, low * 1.19)


def test_nothing_has_no_percentile() -> None:
    assert percentiles({}) is None


def test_errors_and_latencies_come_from_rollups(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        bad = [exchange(f"b{i}", outcome="upstream", status=503, fault="overload") for i in range(3)]
        record_all(book, [*bad, exchange("g")])
        total = book.queries.summary(NOW - 60, NOW + 60).total
        assert total.outcomes == {"upstream": 3, "ok": 1}
        assert total.faults == {"overload": 3}
        assert (total.failures, total.error_share) == (3, 0.75)
        assert total.first_byte_ms is not None and total.first_byte_ms.p50 == pytest.approx(250, rel=0.2)
        assert total.cache_share == pytest.approx(1000 / 1150)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_can_be_charted_and_ranked(tmp_path: Path, metric: str) -> None:
    with ledger_in(tmp_path) as book:
        record_all(book, [exchange("r1"), exchange("r2", user="bob", outcome="cut")])
        chart = book.queries.series("user", "minute", NOW - 120, NOW + 60, metric=metric)  # type: ignore[arg-type]
        assert {line.key for line in chart.series} == {"ada", "bob"}
        assert len(book.queries.top("user", NOW - 60, NOW + 60, metric=metric)) == 2  # type: ignore[arg-type]
        assert len(book.queries.heatmap(NOW - 60, NOW + 60, metric=metric).cells) == 7  # type: ignore[arg-type]


def test_the_leading_counts_are_the_first_of_a_row() -> None:
    assert LeadingCounts.__struct_fields__ == COUNTS[: len(LeadingCounts.__struct_fields__)]


@pytest.mark.parametrize("metric", METRICS)
def test_the_rest_of_a_chart_is_what_its_members_records_say(tmp_path: Path, metric: str) -> None:
    """The line beyond the largest holds the same as a chart of its members alone would."""
    records = [
        exchange(
            f"r{n}",
            at=NOW - DAY * (n % 3),
            user=f"user{n % 4}",
            outcome="upstream" if n % 5 == 0 else "ok",
            input=100 + n,
            output=n,
        )
        for n in range(40)
    ]
    with ledger_in(tmp_path) as book:
        record_all(book, records)
        ends = NOW - 3 * DAY, NOW + 60
        lines = book.queries.series("user", "day", *ends, metric=metric, top=1).series  # type: ignore[arg-type]
        assert len(lines) == 2 and lines[1].key == "other"
        rest = [rec for rec in records if rec.user != lines[0].key]
    with ledger_in(tmp_path / "rest") as alone:
        record_all(alone, rest)
        drawn = alone.queries.series(None, "day", *ends, metric=metric).series  # type: ignore[arg-type]
        assert drawn[0].values == pytest.approx(lines[1].values, nan_ok=True)


def test_an_endless_chart_is_refused(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book, pytest.raises(ValueError, match="steps of a minute"):
        book.queries.series(None, "minute", 0, NOW)


def test_the_rest_is_one_line(tmp_path: Path) -> None:
    with ledger_in(tmp_path, clock=Clock()) as book:
        record_all(book, [exchange(f"r{i}", user=f"user{i}", input=100 - i) for i in range(5)])
        lines = book.queries.series("user", "day", NOW - DAY, NOW, top=2).series
        assert [line.key for line in lines] == ["user0", "user1", "other"]
        assert lines[2].total == 98 + 97 + 96


def test_estimates_and_assumed_prices_are_summed_apart(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as book:
        told, guessed, assumed = exchange("r1"), exchange("r2"), exchange("r3")
        guessed.usage = Usage(input=7, output=3, estimated=True)
        guessed.cost, told.cost, assumed.cost = 0.5, 1.0, 0.25
        assumed.cost_basis = CostBasis.ASSUMED.value
        record_all(book, [told, guessed, assumed])
        total = book.queries.total(NOW - 3600, NOW + 60).describe()
        assert (total.estimated, total.estimated_cost_usd) == (1, 0.5)
        assert (total.assumed, total.assumed_cost_usd) == (1, 0.25)
        assert total.cost_usd == 1.75 and "+:estimated" not in total.outcomes
        for timed in (True, False):
            (row,) = book.queries.top("user", NOW - 3600, NOW + 60, timed=timed)
            assert (row.estimated, row.assumed_cost_usd) == (1, 0.25)


def test_moves_are_summed_and_an_unknown_price_is_no_price() -> None:
    sums = Sums()
    kinds = (MoveCost("claude:a", 1000, 0.25), MoveCost("claude:a", 0, 0.0), MoveCost("claude:b"), None)
    for number, move in enumerate(kinds):
        sums.add(Sums.of(msgspec.structs.replace(exchange(str(number)), move=move)))
    told = Sums.decode(sums.encode()).describe()
    assert (told.moves, told.move_tokens, told.move_cost_usd, told.moves_unpriced) == (3, 1000, 0.25, 1)
    assert sums.slim().describe().moves == 3


def test_the_newest_use_of_a_label_is_counts_alone_as_in_its_rows() -> None:
    """With histograms of the newest exchanges alone, a key's percentiles would be of few of its requests."""
    rec = msgspec.structs.replace(exchange("r1"), key="k1")
    share = pending.Share(starts_of(rec, Days("UTC")), cell_of(rec), Sums.of(rec).encode(), labels_of(rec))
    day = [Slice(b"d", share.starts[2], share.starts[2] + 1)]
    (of_key,) = newest_rows([share], day, Filters(user="ada"), ("key",))
    (of_user,) = newest_rows([share], day, Filters(user="ada"), ("user",))
    assert Sums.decode(of_key[2]).describe().outcomes == {}
    assert Sums.decode(of_user[2]).describe().outcomes == {"ok": 1}
    assert Sums.decode(of_key[2]).n == Sums.of(rec).n
