"""On days when clocks are set forward or back every chart holds each exchange once, and names each hour once."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pool_server.core.settings import LedgerSettings as LedgerSettings
from pool_server.core.settings import Settings
from pool_server.texts import format
from tests.ledger.ledger_kit import Clock, exchange, ledger_in, record_all

STEP = 900  # seconds from one exchange to the next
CHANGES = {  # zone → the days of its clock changes, and how many hours those have
    "Europe/Berlin": {(2026, 3, 29): 23.0, (2025, 10, 26): 25.0},
    "America/New_York": {(2026, 3, 8): 23.0, (2025, 11, 2): 25.0},
    "America/Havana": {(2026, 3, 8): 23.0, (2025, 11, 2): 25.0},  # at midnight, which comes twice or never
    "Africa/Cairo": {(2026, 4, 24): 23.0, (2025, 10, 30): 25.0},
    "America/Santiago": {(2025, 9, 7): 23.0, (2026, 4, 4): 25.0},
    "Atlantic/Azores": {(2026, 3, 29): 23.0, (2025, 10, 26): 25.0},
    "Pacific/Chatham": {(2025, 9, 28): 23.0, (2026, 4, 5): 25.0},
    "Australia/Lord_Howe": {(2025, 10, 5): 23.5, (2026, 4, 5): 24.5},
    "Asia/Kolkata": {(2026, 3, 29): 24.0},
}
NOT_BY_HOURS = ("Pacific/Chatham", "Australia/Lord_Howe", "Asia/Kolkata")  # their hours are not whole hours of UTC
CASES = [
    (zone, day, kept)
    for zone, days in CHANGES.items()
    for day in days
    for kept in ((zone,) if zone in NOT_BY_HOURS else (zone, "UTC"))
]


@pytest.mark.parametrize(("zone", "day", "kept"), CASES)
def test_each_exchange_is_drawn_once_and_each_hour_has_its_name(
    tmp_path: Path, zone: str, day: tuple[int, int, int], kept: str
) -> None:
    """`kept`: the ledger's zone; `zone`: the viewer's."""
    where = ZoneInfo(zone)
    edges = [(datetime(*day, tzinfo=where) + timedelta(days=by)).timestamp() for by in (-1, 0, 1, 2)]
    lengths = [24.0, CHANGES[zone][day], 24.0]
    assert [(b - a) / 3600 for a, b in pairwise(edges)] == lengths
    at = [edges[0] + STEP * number for number in range(int((edges[-1] - edges[0]) / STEP))]
    clock = Clock(edges[-1] + 86_400)
    with ledger_in(tmp_path, Settings(ledger=LedgerSettings(timezone=kept)), clock, durable=False) as book:
        record_all(book, [exchange(f"r{number}", at=moment) for number, moment in enumerate(at)])
        ask, span = book.queries.series, (edges[0], edges[-1])
        days = ask(None, "day", *span, tz=zone, metric="requests")
        assert days.buckets == [int(edge) for edge in edges[:-1]]
        assert days.series[0].values == [hours * 3600 / STEP for hours in lengths]
        hours = ask(None, "hour", *span, tz=zone, metric="requests")
        counts = [value or 0 for value in hours.series[0].values]
        assert sum(counts) == len(at) and max(counts) == 3600 / STEP
        moments = [datetime.fromtimestamp(bucket, where) for bucket in hours.buckets]
        names = [f"{moment:%Y-%m-%d} {format.time_of_day(moment)}" for moment in moments]
        assert len(set(names)) == len(names)
        assert [datetime.fromisoformat(name).replace(tzinfo=where) for name in names if len(name) == 16] == [
            moment for moment, name in zip(moments, names, strict=True) if len(name) == 16
        ]
        quarters = ask(None, "hour", *span, tz=zone, metric="requests", every=6)
        assert len(quarters.buckets) == 12 and sum(value or 0 for value in quarters.series[0].values) == len(at)
        begins = {datetime.fromtimestamp(bucket, where).hour for bucket in quarters.buckets}
        assert begins - {1} == {0, 6, 12, 18}  # 1 where midnight is left out
        heat = book.queries.heatmap(*span, tz=zone, metric="requests").cells
        assert sum(value or 0 for day in heat for value in day) == len(at)
        for a, b, count in zip(edges[:-1], edges[1:], lengths, strict=True):
            assert book.queries.total(a, b).describe().requests == count * 3600 / STEP


def test_a_time_that_clocks_show_twice_says_which() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    first = datetime(2026, 10, 25, 2, 30, tzinfo=berlin).timestamp()
    said = [format.time_of_day(datetime.fromtimestamp(first + 1800 * step, berlin)) for step in range(-2, 5)]
    assert said == ["01:30", "02:00+02:00", "02:30+02:00", "02:00+01:00", "02:30+01:00", "03:00", "03:30"]
    assert format.clock(first + 3600, first + 3600, berlin) == "02:30+01:00"
    assert format.clock(first, first + 9 * 86_400, berlin) == "25 Oct 02:30+02:00"
    lord_howe = ZoneInfo("Australia/Lord_Howe")  # by half an hour
    night = datetime(2026, 4, 5, 1, 15, tzinfo=lord_howe).timestamp()
    said = [format.time_of_day(datetime.fromtimestamp(night + 1800 * step, lord_howe)) for step in range(4)]
    assert said == ["01:15", "01:45+11:00", "01:45+10:30", "02:15"]
