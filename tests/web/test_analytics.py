"""The dashboard: complete in its first HTML, its figures the ledger's, its words right; and the banner."""

from __future__ import annotations

import html
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server import language
from pool_server.alerts import AlertFacts, Budget
from pool_server.alerts.incidents import remember
from pool_server.alerts.rules import step
from pool_server.core.enums import AccountState, FaultKind, Outcome, Provider
from pool_server.core.settings import Alerts
from pool_server.ledger import Filters, SeriesLine, UsageSeries, WeekHours
from pool_server.texts import format
from pool_server.web.base.assets.bundle import CHARTS, assets
from pool_server.web.base.assets.localized import look_up_of
from pool_server.web.base.auth import Caller
from pool_server.web.base.shared import banner, headroom, names
from pool_server.web.base.shared.query_params import UsageQuery
from pool_server.web.dashboard import charts, tables
from pool_server.web.dashboard import overview as first
from tests.rows import account_brief, usage_sums
from tests.web import usage
from tests.web.pool import ADMIN, exchange, seen
from tests.web.site import Site

NOW = 1_790_000_000.0
BUDGET = 350 * 1024  # bytes over the wire for the whole page


def words_of(page: str) -> str:
    """A page's text, without its marks."""
    body = page.partition("<main")[2]
    return " ".join(re.sub(r"<[^>]+>", " ", body).replace("&nbsp;", " ").split())


def test_the_first_html_holds_every_number(site: Site) -> None:
    usage.keep(site, usage.past(("local",), now=usage.stopped(site)))
    seen(site.ctx, "claude:work", 63.0)
    page = site.get("/analytics?range=30d&by=model", Accept="text/html").text
    total = site.get("/api/usage/summary?range=30d").json()["total"]
    text = words_of(page)
    assert f"Requests {total['requests']} " in text
    assert f" Tokens {format.count(total['total_tokens'])} " in text
    assert f"API price {format.price(total['cost_usd'], total['unpriced'])}" in text
    chart = site.get("/api/usage/series?range=30d&by=model&bucket=day").json()
    for line in chart["series"]:
        assert line["name"] in text
        assert all(f"<td>{value:,.0f}</td>" in page for value in line["values"] if value)
    assert sum(sum(line["values"]) for line in chart["series"]) == total["total_tokens"]
    for mark in ("5 hours: 63 % used", "work", "glm-4.6", "Half of all answers", "came from a cache", "Busiest on"):
        assert mark in text, mark
    assert "None" not in text
    assert "<script>" not in page
    assert " style=" not in page


def drawings(page: str) -> list[Any]:
    return [json.loads(html.unescape(text)) for text in re.findall(r'data-drawing="([^"]*)"', page)]


@pytest.mark.parametrize("metric", ["tokens", "cost"])
def test_what_is_drawn_is_what_the_api_answers_and_the_table_lists(site: Site, metric: str) -> None:
    usage.keep(site, usage.past(("local",), now=usage.stopped(site)))
    page = site.get(f"/analytics?range=30d&by=model&metric={metric}", Accept="text/html").text
    asked = site.get(f"/api/usage/series?range=30d&by=model&bucket=day&metric={metric}").json()["series"]
    over_time, cached, first_byte, whole = drawings(page)
    count = len(over_time["labels"])
    digits = 2 if metric == "cost" else 0
    want = {line["name"]: [round(value, digits) for value in line["values"][-count:]] for line in asked}
    assert {line["name"]: line["values"] for line in over_time["lines"]} == want
    assert len({line["colour"] for line in over_time["lines"]}) == len(want)
    for chart in (over_time, cached, first_byte, whole):
        assert len(chart["labels"]) == len(chart["ticks"]) == len(chart["lines"][0]["values"])
        assert any(chart["ticks"]) and any(value for line in chart["lines"] for value in line["values"])
    tables = re.findall(r'<table class="values".*?<tbody>(.*?)</tbody>', page, re.S)
    for table, chart in zip(tables, drawings(page), strict=True):
        rows = [re.findall(r"<td>([^<]*)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", table, re.S)]
        listed = [[float(cell.replace(",", "")) if cell else None for cell in row] for row in rows]
        assert listed == [list(row) for row in zip(*(line["values"] for line in chart["lines"]), strict=True)]


@given(st.text(), st.lists(st.none() | st.floats(0, 1e15), min_size=1), st.sampled_from(list(charts.SHORT)))
def test_any_name_and_value_can_be_drawn(name: str, values: list[float | None], kind: str) -> None:
    points = tuple(charts.Point(f"{n}", "") for n in range(len(values)))
    line = charts.ChartLine("k", name, "line-0", values, "")
    shown = charts.Chart("use", "", "", "", kind, True, points, (line,))
    (drawn,) = json.loads(shown.drawing())["lines"]
    assert drawn["name"] == name
    for value, figure in zip(values, drawn["values"], strict=True):
        cell = shown.cell(value)
        assert (cell == "") is (figure is None)
        assert figure is None or float(cell.replace(",", "")) == figure


@pytest.mark.slow
@pytest.mark.pool(usage.discreet("names"))
def test_every_range_split_and_filter_has_a_page(site: Site) -> None:
    ada, boss = usage.friend(site), usage.admin(site)
    usage.keep(site, usage.past((ada.user, "u_gone", ""), now=usage.stopped(site), count=60))
    asked = [f"range={span}" for span in ("24h", "7d", "30d", "1y")]
    asked += [f"by={by}&metric=cost" for by in ("user", "model", "provider", "none")]
    asked += ["from=2020-01-01&to=2020-01-02", "provider=claude&model=claude-opus-4-7", "tz=Asia/Kolkata&range=30d"]
    for query in asked:
        for who in (boss, ada):
            assert "Internal" not in who.page(f"/analytics?{query}"), query
    assert "deleted user" in boss.page("/analytics?range=30d")
    assert "by=account" in boss.page("/analytics?by=account&account=claude:work")
    assert ada.get("/analytics?by=account", Accept="text/html").status == 403
    for wrong in ("range=2d", "by=colour", "metric=love", "from=2026-02-31"):
        assert boss.get(f"/analytics?{wrong}", Accept="text/html").status == 400, wrong


def test_a_pool_without_any_past_says_so(local: Site) -> None:
    text = words_of(local.get("/analytics", Accept="text/html").text)
    for mark in (
        "Nothing used in the last hour; no requests in flight.",
        "Nothing was used in the last 7 days.",
        "No answer in this range, so there is nothing to time.",
        "No request in this range, so none has failed.",
        "Nobody used it in this range.",
        "No known limit",
        "gemini_broken.json cannot be used",
    ):
        assert mark in text, mark
    assert "canvas" not in local.get("/analytics", Accept="text/html").text


@pytest.mark.slow
def test_it_is_light_enough_and_loads_the_charts_on_this_page_only(site: Site) -> None:
    usage.keep(site, usage.past(("local",), now=usage.stopped(site), days=300, count=900))
    answer = site.get("/analytics?range=1y&by=model", Accept="text/html", Accept_Encoding="gzip")
    page = site.get("/analytics?range=1y&by=model", Accept="text/html").text
    scripts = sum(len(asset.gzipped) for name, asset in assets().files.items() if not name.endswith(".svg"))
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(answer.body) + scripts < BUDGET
    assert assets().url(CHARTS) in page
    for other in ("/", "/requests", "/accounts", "/settings"):
        assert CHARTS not in site.get(other, Accept="text/html").text


@pytest.mark.pool(usage.discreet("pool"))
def test_who_used_which_account_and_what_it_was_worth(site: Site) -> None:
    ada, bo = usage.friend(site, "Ada"), usage.friend(site, "Bo")
    usage.keep(site, [exchange(ada.user, n, model="claude-opus-4-7") for n in range(3)])
    usage.keep(site, [exchange(bo.user, 9, model="claude-opus-4-7")])
    text = words_of(usage.admin(site).page("/analytics"))
    assert "Used by Ada (75 %), Bo (25 %)." in text
    assert "of API use for $" in text


def test_room_is_told_as_time() -> None:
    row = headroom.ProviderRow(Provider.CLAUDE, "Claude", 2, 2, "good", "2 accounts ready", (), None, 0)
    window = {"window": "5h", "room_percent": 40.0, "burn_per_h": 10.0, "lasts_until": None}
    told: dict[str, Any] = {"windows": [window], "lasts_until": NOW + 4 * 3600, "confidence": "high"}

    def lasts(found: dict[str, Any] | None, *, of: headroom.ProviderRow = row) -> tuple[str, str]:
        room = first.rooms([of], {"claude": found} if found else {}, {}, NOW)[0]
        return room.lasts, room.tone

    assert lasts(told) == ("About 4 h", "good")
    assert lasts({**told, "lasts_until": NOW + 1800}) == ("About 30 min", "bad")
    assert lasts({**told, "lasts_until": None}) == ("Over 2 weeks", "good")
    assert lasts({**told, "confidence": "none"}) == ("40 % left", "quiet")
    assert lasts(None) == ("No known limit", "quiet")
    assert lasts(told, of=row._replace(ready=0, next_return=NOW + 600)) == ("Used up", "bad")
    assert lasts(told, of=row._replace(ready=0)) == ("None", "bad")


def test_a_price_that_is_not_known_is_compared_with_nothing() -> None:
    sums = usage_sums(total_tokens=5, requests=1, unpriced=1)
    then = first.EarlierSums(*[0.0] * len(first.EarlierSums._fields))
    price = next(line for line in first.compared(sums, then) if line.label == "API price")
    assert (price.today, price.then, price.change) == ("no price", "$0.00", "no price")


def test_today_is_compared_with_the_same_time_a_week_ago(site: Site) -> None:
    """A week ago only whole hours are known: the hour under way counts by its part that had passed."""
    now = time.time() // usage.DAY * usage.DAY + 10.5 * 3600  # half past ten
    site.ctx.clock = lambda: now
    week = 7 * usage.DAY
    times = [now - 60, now - week - 3 * 3600, now - week - 1200, now - week + 600, now - week + 5 * 3600]
    usage.keep(site, [exchange("local", n, at=at) for n, at in enumerate(times) if at < time.time()])
    ask = UsageQuery(now - usage.DAY, now, "24h", Filters(), "UTC")
    lines = {line.label: line for line in site.run(lambda: first.today(site.ctx.ledger, ask, now))}
    assert lines["Requests"].then == "2"  # one long before, half of the two within the hour
    assert lines["Tokens"].then == format.count(2 * 42_000)


@pytest.mark.parametrize(
    ("have", "had", "said"),
    [(10, 10, "the same"), (5, 0, "none then"), (11, 10, "10 % more"), (5, 10, "50 % less"),
     (1000, 10, "100 times as much"), (1001, 1000, "about the same")],
)  # fmt: skip
def test_changes_in_words(have: float, had: float, said: str) -> None:
    assert first.change(have, had) == said


def test_midnight_is_the_viewers_also_across_a_change_of_clocks() -> None:
    zone = ZoneInfo("Europe/Berlin")
    noon = datetime(2026, 3, 30, 12, tzinfo=zone).timestamp()
    assert datetime.fromtimestamp(first.midnight(noon, zone), zone).hour == 0
    before = datetime.fromtimestamp(first.midnight(noon, zone, days_ago=7), zone)
    assert before.isoformat() == "2026-03-23T00:00:00+01:00"


def test_what_needs_a_hand() -> None:
    row = account_brief()
    ends = account_brief(id="claude:token", expires_at=NOW + 7200, can_refresh=False)
    out = account_brief(id="codex:old", provider=Provider.CODEX, state=AccountState.NEEDS_LOGIN, message="signed out")
    found = first.hands([row, ends, out], [{"file": "x.json", "reason": "not JSON"}], NOW)
    assert [hand.words for hand in found] == [
        "Codex old is signed out: its owner has to sign in again",
        "Claude token: its sign-in expires in 2 h and cannot be refreshed",
        "x.json cannot be used: not JSON",
    ]
    assert (found[0].said, found[0].about) == ("signed out", "/accounts?id=codex%3Aold")
    many = [{"file": f"{n}.json", "reason": "not JSON" if n else "empty"} for n in range(30)]
    assert [hand.words for hand in first.hands([], many, NOW)] == [
        "0.json cannot be used: empty",
        "29 files cannot be used: not JSON",
    ]


def test_the_operator_s_first_screen_agrees_with_itself(friends: Site) -> None:
    """A window that is seen has a reset, also before the ledger knows how fast it is used; a bad file is no alarm."""
    friends.run(lambda: seen(friends.ctx, "claude:work", 38.0))
    boss = {"Cookie": "pool_session=" + friends.post("/admin", {"password": ADMIN}).cookies()["pool_session"]}
    page = friends.get("/", Accept="text/html", **boss).text
    assert "next reset" in page and "No resets known yet" not in page and "Next resets" in page
    assert '<h1 class="state warn">1 thing needs attention' in page


def test_a_name_keeps_its_colour_in_any_company_range_and_process(tmp_path: Path) -> None:
    book, people = names.ColourBook(tmp_path / "colours.json"), [f"u_{n}" for n in range(8)]
    alone = names.colours("user", people[3:4], book)
    found = names.colours("user", people, book)
    assert found[people[3]] == alone[people[3]]
    assert len(set(found.values())) == len(people)
    assert names.colours("user", list(reversed(people)), book) == found
    assert names.colours("user", people, names.ColourBook(tmp_path / "colours.json")) == found
    assert names.colours("user", ["other", "others"], book) == {"other": "", "others": ""}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"user/a": 99}'])
def test_a_spoilt_colour_file_is_written_again(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "colours.json"
    path.write_bytes(content)
    assert names.colours("user", ["a"], names.ColourBook(path)) == {"a": "line-0"}


def test_colours_of_providers_are_their_own_and_the_sheet_has_all() -> None:
    book = names.ColourBook(Path("/nowhere/colours.json"))
    assert names.colours("provider", ["claude", "codex"], book) == {
        "claude": "claude",
        "codex": "codex",
    }
    sheet = assets().files["app.css"].body.decode()
    swatches = assets().files["analytics.css"].body.decode()
    for slot in range(names.COLOURS):
        assert f"--line-{slot}: light-dark(" in sheet
        assert f".swatch.line-{slot} " in swatches
    assert not re.search(r"#[0-9a-f]{3,8}\b|rgb\(|oklch\(", swatches)


def chart(step: str, buckets: list[int], *values: float) -> UsageSeries:
    return UsageSeries(0, 0, step, 1, "UTC", "tokens", buckets, [SeriesLine("a", [*values])])


def test_the_axis_names_hours_days_or_months() -> None:
    day = [int(NOW) // 86_400 * 86_400 + n * 86_400 for n in range(100)]
    months = [point.tick for point in charts.points(chart("day", day), UTC) if point.tick]
    assert months == ["Oct", "Nov", "Dec"]
    days = [point.tick for point in charts.points(chart("day", day[:30]), UTC) if point.tick]
    assert days == ["21 Sep", "28 Sep", "5 Oct", "12 Oct", "19 Oct"]
    hours = [day[0] + n * 3600 for n in range(24)]
    assert [p.tick for p in charts.points(chart("hour", hours), UTC)][:4] == ["00:00", "", "", "03:00"]


@pytest.mark.parametrize(("day", "hours"), [((2026, 10, 25), 25), ((2026, 3, 29), 23), ((2026, 6, 1), 24)])
@pytest.mark.parametrize("minutes", [60, 30, 15])
def test_a_day_on_which_the_clocks_change_names_each_step_once(
    day: tuple[int, int, int], hours: int, minutes: int
) -> None:
    zone = ZoneInfo("Europe/Berlin")
    began = int(datetime(*day, tzinfo=zone).timestamp())
    steps = [began + n * minutes * 60 for n in range(hours * 60 // minutes)]
    asked = chart("hour" if minutes == 60 else "minute", steps)
    axis = charts.points(msgspec.structs.replace(asked, every=1 if minutes == 60 else minutes), zone)
    labels = [point.label for point in axis]
    assert len(set(labels)) == len(labels) == len(steps)
    assert datetime.fromtimestamp(began + hours * 3600, zone).hour == 0
    assert sum("+0" in label for label in labels) == (2 * 60 // minutes if hours == 25 else 0)


def test_an_empty_beginning_is_not_drawn() -> None:
    days = [n * 86_400 for n in range(10)]
    late = chart("day", days, *[0] * 6, 5, 0, 1, 2)
    assert charts.begins(late) == 6
    assert charts.cut(late, 6).series[0].values == [5, 0, 1, 2]
    assert charts.begins(chart("day", days, 0, 5, *[1] * 8)) == 0
    assert charts.begins(chart("hour", days, *[0] * 9, 1)) == 0


def test_failures_in_words() -> None:
    outcomes = {"ok": 190, "client_gone": 4, "upstream": 6}
    total = usage_sums(requests=200, failures=6, attempts=210, faults={"network": 4, "quota": 9}, outcomes=outcomes)
    found = tables.causes(total, own=False)
    assert [(cause.words, cause.number) for cause in found] == [("provider failed", 6), ("canceled by the client", 4)]
    assert tables.causes_sentence(total, found) == "6 of 200 requests failed (3 %), mostly: provider failed."
    assert [cause.key for cause in tables.faults(total)] == ["quota", "network"]
    assert {*Outcome} >= {Outcome(cause.key) for cause in found}
    every = tables.faults(usage_sums(attempts=210, faults={kind.value: 1 for kind in FaultKind}))
    assert len(every) == len(FaultKind)


@pytest.mark.parametrize("tongue", ["en", "de", "zh"])
def test_days_of_the_heat_map_can_be_told_apart(tongue: str) -> None:
    language.speak(look_up_of(tongue))
    try:
        heat = tables.heat(WeekHours(0, 1, "UTC", "tokens", [[1] * 24] * 7), 0, UTC)
    finally:
        language.speak(None)
    assert len({short for _day, short, _cells in heat.days}) == 7


@given(st.lists(st.lists(st.integers(0, 10**9), min_size=24, max_size=24), min_size=7, max_size=7))
def test_the_strongest_shade_is_the_busiest_hour(cells: list[list[int]]) -> None:
    heat = tables.heat(WeekHours(0, 1, "UTC", "tokens", [[*day] for day in cells]), 0, UTC)
    shades = [[cell.level for cell in day] for *_names, day in heat.days]
    most = max(max(day) for day in cells)
    for values, levels in zip(cells, shades, strict=True):
        for value, level in zip(values, levels, strict=True):
            assert (level == 0) == (value == 0)
            assert (level == tables.LEVELS) or value < most or most == 0


@pytest.mark.pool(usage.discreet("pool"))
def test_the_banner_says_what_is_wrong_to_whom_it_concerns(site: Site) -> None:
    ada, boss = usage.friend(site), usage.admin(site)
    assert 'id="banner"' not in boss.page("/accounts")
    facts = AlertFacts(
        budgets=(Budget("Bo", "tokens_week", 0.81),),
        accounts={"claude:work": AccountState.NEEDS_LOGIN},
        lasts_until={"codex": 1801.0},
    )
    wrong, _events = step({}, facts, Alerts(), 1.0)
    site.run(lambda: remember(site.ctx.ledger.notes, wrong))
    told = words_of("<main" + boss.page("/accounts").partition('id="banner"')[2].partition("</div>")[0])
    assert "Claude work needs its owner to sign in again; Codex runs out in 0.5 h at this pace" in told
    assert "Bo has used 81 % of the limit of tokens a week" in told
    german = boss.get("/accounts", Accept="text/html", **{"Accept-Language": "de"}).text
    assert "Claude work braucht" in german and "Bo hat 81 %" in german
    own = ada.page("/")
    assert "Codex runs out" in own
    assert "Claude work" not in own
    assert "81 %" not in own
    assert "81 %" in boss.page("/analytics")
    assert "Friend code" in site.get("/", Accept="text/html").text
    assert "Codex runs out" not in site.get("/", Accept="text/html").text
    gone = AlertFacts(accounts={"claude:gone": AccountState.NEEDS_LOGIN})
    quiet, _events = step(wrong, gone, Alerts(), 2.0)  # it stays open for a while, and one has no account any more
    site.run(lambda: remember(site.ctx.ledger.notes, quiet))
    assert not any("sign in again" in line for line in banner.lines(site.ctx, Caller(3)))
    site.run(lambda: remember(site.ctx.ledger.notes, {}))
    assert banner.lines(site.ctx, Caller(3)) == []
