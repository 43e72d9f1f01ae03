"""The usage API: sums that equal the raw records for any filter, privacy, and what a bad parameter is told."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.core.settings import Settings
from pool_server.web.routes import TABLE
from tests.web import usage
from tests.web.pool import ADMIN, exchange
from tests.web.site import LiveSite, Site

NAMES = ("input", "cache_read", "cache_write", "output", "reasoning", "requests", "cost_usd")
USERS = ("u_1", "u_2", "u_3")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, list[dict[str, Any]]]]:
    """A local pool with a past, and that past as the export tells it."""
    with LiveSite(usage.pool(tmp_path_factory.mktemp("filled"), Settings())) as site:
        usage.keep(site, usage.past(USERS, now=usage.stopped(site)))
        lines = site.get("/api/usage/export?format=jsonl&range=30d").body.splitlines()
        yield site, [json.loads(line) for line in lines]


def added(raw: list[dict[str, Any]]) -> dict[str, float]:
    """Raw exchanges as the sums every answer carries."""
    sums: dict[str, float] = {name: sum(row[name] or 0 for row in raw) for name in NAMES if name != "requests"}
    return {**sums, "requests": len(raw)}


def same(have: dict[str, Any], want: dict[str, float]) -> None:
    for name, value in want.items():
        assert have[name] == pytest.approx(value, abs=1e-6), name


FILTERS = {
    "user": st.sampled_from(USERS),
    "provider": st.sampled_from(("claude", "openai")),
    "account": st.sampled_from(("claude:work", "claude:home", "openai:spare")),
    "model": st.sampled_from(("claude-opus-4-7", "claude-haiku-4-5", "glm-4.6")),
}


@settings(max_examples=60, deadline=None)
@given(chosen=st.fixed_dictionaries({}, optional=FILTERS), hours=st.floats(0.5, 500), back=st.floats(0, 300))
def test_sums_equal_the_raw_records_for_any_filter(
    filled: tuple[Site, list[dict[str, Any]]], chosen: dict[str, str], hours: float, back: float
) -> None:
    site, raw = filled
    to = site.ctx.clock() + 1 - back * 3600
    query = urlencode({**chosen, "from": to - hours * 3600, "to": to})
    summary = site.get(f"/api/usage/summary?{query}").json()
    inside = [
        row
        for row in raw
        if summary["from"] <= row["at"] < summary["to"] and all(row[name] == chosen[name] for name in chosen)
    ]
    same(summary["total"], added(inside))
    for field, groups in (("provider", summary["providers"]), ("model", summary["models"])):
        for key, sums in groups.items():
            same(sums, added([row for row in inside if row[field] == key]))
    top = site.get(f"/api/usage/top?by=user&{query}").json()["top"]
    assert {row["key"] for row in top} == {row["user"] for row in inside}
    chart = site.get(f"/api/usage/series?by=account&metric=cost&bucket=hour&{query}").json()
    counted = [row for row in raw if chart["from"] <= row["at"] < chart["to"]]
    counted = [row for row in counted if all(row[name] == chosen[name] for name in chosen)]
    for line in chart["series"]:
        mine = [row for row in counted if row["account"] == line["key"]]
        assert sum(line["values"]) == pytest.approx(sum(row["cost_usd"] or 0 for row in mine))
    assert sum(map(sum, (line["values"] for line in chart["series"]))) == pytest.approx(added(counted)["cost_usd"])


def test_the_log_goes_through_everything_page_by_page(filled: tuple[Site, list[dict[str, Any]]]) -> None:
    site, raw = filled
    found: list[str] = []
    cursor = ""
    while True:
        page = site.get(f"/api/usage/requests?limit=70&user=u_2&cursor={cursor}").json()
        found += [row["id"] for row in page["requests"]]
        if page["cursor"] is None:
            break
        cursor = page["cursor"]
    wanted = sorted((row for row in raw if row["user"] == "u_2"), key=lambda row: -row["at"])
    assert found == [row["id"] for row in wanted]
    failed = site.get("/api/usage/requests?failed=1&limit=500").json()["requests"]
    assert {row["outcome"] for row in failed} == {"upstream", "exhausted"}
    assert all(row["message"] and row["attempts"][0]["fault"] == "network" for row in failed)
    one = site.get(f"/api/usage/requests?id={found[0]}").json()["requests"]
    assert [row["id"] for row in one] == [found[0]]
    assert site.get("/api/usage/requests?id=nobody").json() == {"requests": [], "cursor": None}


@pytest.mark.parametrize("metric", ["tokens", "cost", "failures"])
def test_the_smaller_groups_are_one_line_and_nothing_is_lost(
    filled: tuple[Site, list[dict[str, Any]]], metric: str
) -> None:
    site, _ = filled
    every, few = (
        site.get(f"/api/usage/series?by=account&metric={metric}&range=30d&top={top}").json()["series"] for top in (9, 1)
    )
    assert [line["name"] for line in few][1:] == ["everything else"]
    assert few[0] == every[0]
    rest = [sum(values) for values in zip(*(line["values"] for line in every[1:]), strict=True)]
    assert few[1]["values"] == pytest.approx(rest)


def test_heat_map_matrix_and_forecast(filled: tuple[Site, list[dict[str, Any]]]) -> None:
    site, raw = filled
    heat = site.get("/api/usage/heatmap?metric=requests&range=30d").json()
    assert (len(heat["cells"]), {len(day) for day in heat["cells"]}) == (7, {24})
    assert sum(map(sum, heat["cells"])) == len(raw)
    rows = site.get("/api/usage/matrix?range=30d").json()["rows"]
    assert sum(row["requests"] for row in rows) == len(raw)
    assert set(site.get("/api/usage/forecast").json()) == {"now", "accounts", "providers", "resets"}


@pytest.mark.parametrize(
    "path",
    [
        "summary?from=yesterday", "summary?from=nan", "summary?from=-5", "summary?from=10&to=5", "summary?range=2d",
        "summary?from=0&to=99999999999", "summary?provider=acme", "summary?tz=Moon/Base", "summary?tz=Europe",
        "summary?tz=../../etc/passwd", "summary?model=" + "x" * 201, "series?by=colour", "series?bucket=week",
        "series?metric=love", "series?bucket=minute&range=30d", "series?top=0", "series?top=many", "top?by=none",
        "top?limit=501", "heatmap?metric=", "requests?cursor=zz", "requests?cursor=00", "requests?status=99",
        "requests?outcome=sad", "requests?failed=perhaps", "requests?limit=-1", "export?format=xlsx",
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(filled: tuple[Site, list[dict[str, Any]]], path: str) -> None:
    answer = filled[0].get(f"/api/usage/{path}")
    if path == "heatmap?metric=":
        assert answer.status == 200  # an empty field of a form is none
        return
    assert answer.status == 400
    message = answer.json()["error"]["message"]
    assert message
    assert "\n" not in message
    assert filled[0].get(f"/api/usage/{path}", Accept="text/html").status == 400


def test_days_are_taken_in_the_zone_asked_for(filled: tuple[Site, list[dict[str, Any]]]) -> None:
    site, _ = filled
    day = site.get("/api/usage/series?from=2026-03-28&to=2026-03-30&bucket=day&tz=Europe/Berlin").json()
    # the night of the change of clocks: 23 hours
    assert [b - a for a, b in zip(day["buckets"], day["buckets"][1:], strict=False)] == [86_400, 82_800]
    assert day["to"] - day["from"] == 86_400 * 2 + 82_800


@pytest.mark.pool(usage.discreet("pool"))
def test_a_cell_is_never_a_formula_and_lines_are_complete(site: Site) -> None:
    ada = usage.friend(site)
    usage.keep(site, [exchange(ada.user, 1, message="=HYPERLINK(1)", agent="+cmd|calc", model="@sum")])
    answer = usage.admin(site).get("/api/usage/export?range=24h")
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert "attachment" in answer.headers["Content-Disposition"]
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["message"], row["agent"], row["model"]) == ("'=HYPERLINK(1)", "'+cmd|calc", "'@sum")
    assert (row["user_name"], row["account"], row["input"]) == ("Ada", "claude:work", "1200")
    own = ada.get("/api/usage/export?range=24h&format=jsonl")
    assert "claude:work" not in own.text
    assert json.loads(own.text)["message"] == "=HYPERLINK(1)"


def test_what_a_chart_shows_can_be_taken_along(filled: tuple[Site, list[dict[str, Any]]]) -> None:
    site, _ = filled
    query = "by=model&metric=tokens&range=30d&tz=Asia/Tokyo"
    rows = list(csv.reader(io.StringIO(site.get(f"/api/usage/export?what=series&{query}").text)))
    chart = site.get(f"/api/usage/series?{query}").json()
    assert rows[0] == ["time (Asia/Tokyo)", *(line["name"] for line in chart["series"])]
    assert len(rows) == 1 + len(chart["buckets"])
    assert all(row[0].endswith("00:00") for row in rows[1:])
    for column, line in enumerate(chart["series"], start=1):
        assert [float(row[column]) for row in rows[1:]] == line["values"]
    assert site.get("/api/usage/export?what=series&by=account").status == 200
    assert site.get("/api/usage/export?what=dreams").status == 400


def test_an_export_is_written_as_it_is_read(site: Site) -> None:
    """A long answer leaves in pieces: nothing of it waits for its end."""
    now = usage.stopped(site)
    usage.keep(site, [exchange("local", n, at=now - n) for n in range(1, 1300)])
    answer = site.get("/api/usage/export?format=jsonl&range=24h")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in answer.headers
    assert len(answer.body.splitlines()) == 1299


ROUTES = ("summary", "series", "top", "heatmap", "matrix", "forecast", "requests", "export", "bill")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("query", ["form=1", "User=Bo", "user_id=x&range=7d", "model%5B%5D=a", "=x", "limt=", "%00=1"])
def test_a_parameter_that_nobody_reads_is_refused(
    filled: tuple[Site, list[dict[str, Any]]], route: str, query: str
) -> None:
    """A filter that is misspelt must not seem to have matched everything."""
    site, _ = filled
    answer = site.get(f"/api/usage/{route}?{query}")
    assert answer.status == 400 and "no parameter is called" in answer.json()["error"]["message"]


def test_every_route_of_the_usage_says_what_it_reads() -> None:
    found = [handler for path, handler in TABLE if path.startswith("/api/usage/")]
    assert len(found) == len(ROUTES)
    assert all(handler.asks is not None for handler in found)


_TOKENS = re.compile(r"[\w|:-]{24,}")  # a page's random ones, which could spell a short name


class Two:
    """Ada and Bo with something to their names."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.ada, self.bo = usage.friend(site, "Ada"), usage.friend(site, "Bo")
        usage.keep(site, [exchange(self.ada.user, 1), exchange(self.ada.user, 2), exchange(self.bo.user, 3)])


def total(answer: Any) -> int:
    return int(answer["total"]["requests"])


@pytest.mark.pool(usage.discreet("own"))
def test_a_friend_who_sees_own_sees_nothing_else(site: Site) -> None:
    two = Two(site)
    summary = two.ada.json("/api/usage/summary")
    assert (total(summary), "pool" in summary) == (2, False)
    for path in ("user=all", f"user={two.bo.user}", "user=Bo"):
        for route in ("summary", "series", "top", "heatmap", "requests", "export"):
            assert two.ada.get(f"/api/usage/{route}?{path}").status == 403, (route, path)
    assert [row["key"] for row in two.ada.json("/api/usage/top?by=user")["top"]] == [two.ada.user]
    assert "Bo" not in _TOKENS.sub("", two.ada.page("/analytics"))
    assert "the whole pool" not in two.ada.page("/analytics")


@pytest.mark.pool(usage.discreet("pool"))
def test_a_friend_of_a_discreet_pool_sees_sums_but_nobody(site: Site) -> None:
    two = Two(site)
    summary = two.ada.json("/api/usage/summary")
    assert (total(summary), summary["pool"]["requests"]) == (2, 3)
    rows = two.ada.json("/api/usage/top?by=user&user=all")["top"]
    assert [(row["name"], row["requests"]) for row in rows] == [("you", 2), ("everybody else", 1)]
    chart = two.ada.json("/api/usage/series?by=user&user=all&metric=requests")["series"]
    assert {line["name"]: sum(line["values"]) for line in chart} == {"you": 2, "everybody else": 1}
    assert two.ada.get("/api/usage/series?by=user&user=all&metric=total_p95").status == 400
    assert two.ada.get(f"/api/usage/summary?user={two.bo.user}").status == 403
    page = two.ada.page("/analytics?user=all&by=user")
    assert "everybody else" in page
    assert two.bo.user not in page
    assert ">Bo<" not in page


@pytest.mark.pool(usage.discreet("names"))
def test_a_friend_who_may_see_names_still_sees_no_request_of_others(site: Site) -> None:
    two = Two(site)
    rows = two.ada.json("/api/usage/top?by=user&user=all")["top"]
    assert [(row["name"], row["requests"]) for row in rows] == [("you", 2), ("Bo", 1)]
    assert total(two.ada.json("/api/usage/summary?user=Bo")) == 1
    for route in ("requests", "export"):
        assert two.ada.get(f"/api/usage/{route}?user=Bo").status == 403
    theirs = f"req-{two.bo.user}-3"
    assert two.ada.json(f"/api/usage/requests?id={theirs}")["requests"] == []
    assert two.ada.get(f"/requests/{theirs}", Accept="text/html").status == 404


@pytest.mark.pool(usage.discreet("names"))
def test_accounts_are_named_to_the_admin_alone(site: Site) -> None:
    two = Two(site)
    for path in ("series?by=account", "top?by=account", "summary?account=claude:work", "matrix"):
        assert two.ada.get(f"/api/usage/{path}").status == 403, path
    for path in ("summary", "series?by=model", "forecast", "requests", "top?by=provider"):
        assert "claude:work" not in two.ada.get(f"/api/usage/{path}").text, path
    for page in ("/analytics?user=all", "/requests", f"/requests/req-{two.ada.user}-1"):
        assert "work" not in two.ada.page(page).replace("Network", ""), page
    boss = usage.admin(site)
    assert total(boss.json("/api/usage/summary")) == 3
    assert total(boss.json("/api/usage/summary?user=Ada")) == 2
    assert boss.json("/api/usage/top?by=account")["top"][0]["key"] == "claude:work"
    bearer = site.get("/api/usage/summary", Authorization=f"Bearer {ADMIN}")
    assert total(bearer.json()) == 3


def test_nobody_sees_anything_without_coming_in(friends: Site) -> None:
    for route in ("summary", "series", "top", "heatmap", "matrix", "forecast", "requests", "export"):
        assert friends.get(f"/api/usage/{route}").status == 401, route
    for page in ("/analytics", "/requests", "/requests/x"):
        assert friends.get(page, Accept="text/html").status == 303, page
    assert friends.get("/admin/requests").status == 401
