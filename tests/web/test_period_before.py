"""A range is compared with the one before it, bar by bar and as a whole, and a chart is split by any label."""

from __future__ import annotations

import csv
import io
import json
import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.ledger import Filters
from pool_server.web.dashboard import period_before
from pool_server.web.dashboard.period_before import DAY, ComparedRange
from tests.web import usage
from tests.web.pool import exchange
from tests.web.site import Site
from tests.web.test_analytics import drawings


def asked(frm: float, to: float, zone: str = "UTC") -> ComparedRange:
    return ComparedRange(frm, to, zone, Filters())


def test_days_before_are_days_of_the_calendar_also_across_a_change_of_clocks() -> None:
    zone = ZoneInfo("Europe/Berlin")
    frm, to = (datetime(2026, 3, day, tzinfo=zone).timestamp() for day in (28, 31))  # the clocks change on the 29th
    began, until = period_before.before(asked(frm, to, "Europe/Berlin"))
    assert datetime.fromtimestamp(began, zone).isoformat() == "2026-03-25T00:00:00+01:00"
    assert datetime.fromtimestamp(until, zone).isoformat() == "2026-03-28T00:00:00+01:00"


def test_hours_before_are_as_many_hours() -> None:
    assert period_before.before(asked(10 * DAY, 10 * DAY + 7200)) == (10 * DAY - 7200, 10 * DAY)


@given(
    st.floats(1e9, 4e9), st.floats(60, 20 * 366 * DAY), st.sampled_from(["UTC", "Asia/Kathmandu", "America/Sao_Paulo"])
)
def test_any_range_has_one_before_it(frm: float, length: float, zone: str) -> None:
    began, until = period_before.before(asked(frm, frm + length, zone))
    assert began < frm and began <= until
    assert abs((until - began) - length) <= 7201.0  # a change of clocks
    assert until <= frm + 0.6 * DAY
    assert min(period_before.before(asked(0.0, length, zone))) >= 0.0


@pytest.fixture
def two_weeks(site: Site) -> Site:
    now = time.time()
    ages = [0.5, 1.5, 2.5, 8.5]  # days: three of this week, one of the week before
    records = [
        exchange("local", n, at=now - age * DAY, agent=f"Program {n % 2}", session=f"talk-{n}", project="site")
        for n, age in enumerate(ages)
    ]
    usage.keep(site, records)
    return site


def test_every_sum_says_how_it_differs(two_weeks: Site) -> None:
    page = two_weeks.get("/analytics?range=7d&by=model").text
    assert '<dt>Requests</dt><dd>3</dd><dd class="small muted">200 % more</dd>' in page
    assert "Compared with the 7 days before." in page
    assert "the 7 days before" not in json.dumps(drawings(page)[0])


@pytest.mark.parametrize("span", ["24h", "7d", "30d", "1y"])
def test_the_range_before_is_a_line_of_as_many_steps(two_weeks: Site, span: str) -> None:
    page = two_weeks.get(f"/analytics?range={span}&by=model&compare=1").text
    chart = drawings(page)[0]
    if span == "1y":
        assert chart["lines"][-1]["colour"] == "before"
        return
    *parts, line = chart["lines"]
    assert line["colour"] == "before" and line["name"].startswith("the ")
    assert len(line["values"]) == len(chart["labels"]) == len(chart["at"]) - 1
    if span == "7d":
        assert sum(line["values"] or [0]) == 42_000 and sum(map(sum, (p["values"] for p in parts))) == 3 * 42_000
    assert chart["at"] == sorted(chart["at"])


@pytest.mark.parametrize("field", ["program", "project", "conversation"])
@pytest.mark.parametrize("span", ["24h", "7d", "30d"])
def test_use_is_told_by_every_label_and_its_table_is_what_is_drawn(two_weeks: Site, field: str, span: str) -> None:
    page = two_weeks.get(f"/analytics?range={span}&by={field}").text
    if (field, span) == ("conversation", "30d"):  # of everybody for so long it is not told: the usual split is shown
        assert "by=conversation#use" not in page and "by=model" in page
        return
    assert f"by={field}#use" in page.replace("&amp;", "&")
    chart = drawings(page)[0]
    sheet = two_weeks.get(f"/api/usage/export?what=series&range={span}&by={field}").text
    head, *rows = csv.reader(io.StringIO(sheet))
    assert head[1:] == [line["name"] for line in chart["lines"]]
    count = len(chart["labels"])
    for number, line in enumerate(chart["lines"], start=1):
        assert [float(row[number]) for row in rows[-count:]] == line["values"]


@pytest.mark.pool(usage.discreet("own"))
def test_keys_have_the_names_of_their_people(site: Site) -> None:
    ada = usage.friend(site)
    [key] = site.run(lambda: site.ctx.users.people.list_keys(ada.user))
    record = exchange(ada.user, 1)
    record.key = key["id"]
    usage.keep(site, [record])
    own = drawings(ada.page("/analytics?range=7d&by=key"))[0]["lines"]
    assert [line["name"] for line in own] == ["first key"]
    told = drawings(usage.admin(site).page("/analytics?range=7d&by=key"))[0]["lines"]
    assert [line["name"] for line in told] == ["first key (Ada)"]


@pytest.mark.pool(usage.discreet("pool"))
def test_what_is_split_by_labels_is_offered_where_it_is_ones_own(site: Site) -> None:
    ada = usage.friend(site)
    usage.keep(site, [exchange(ada.user, 1, agent="Codex 0.169.0")])
    assert "by=conversation#use" in ada.page("/analytics")
    assert "by=conversation#use" not in ada.page("/analytics?user=all")
    assert "by=account#use" not in ada.page("/analytics")
