"""The bill of a month, on the page, as JSON and as CSV: one sum in all three."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_server.core.enums import Source
from pool_server.core.models import Usage, WindowObservation
from pool_server.core.settings import Settings
from tests.web import usage
from tests.web.pool import exchange
from tests.web.site import LiveSite, Site

USERS = ("u_1", "u_2", "u_3")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("bill")
    settings = msgspec.structs.replace(Settings(), subscriptions={"claude:work": 100.0})
    with LiveSite(usage.pool(folder, settings)) as made:
        now = usage.stopped(made)
        usage.keep(made, usage.past(USERS, now=now))

        async def observe() -> None:
            for back in range(40, 0, -1):
                seen = WindowObservation("7d", 7 * 86_400, 2.0 * (40 - back), None, Source.HEADERS, now - back * 3600)
                made.ctx.ledger.observe("claude:work", seen)
            while not made.ctx.ledger.queries.window_history(now - 41 * 3600, now).get("claude:work"):
                await asyncio.sleep(0.01)  # they are written together, a moment later

        made.run(observe)
        yield made


def test_the_same_bill_three_ways(site: Site) -> None:
    month = time.strftime("%Y-%m", time.gmtime(site.ctx.clock()))
    told: dict[str, Any] = site.get("/api/usage/bill").json()
    assert told["month"] == month
    prices = {row["account"]: row["price_usd"] for row in told["accounts"]}
    assert prices["claude:work"] == 100.0
    assert sum(row["usd"] for row in told["people"]) == pytest.approx(sum(prices.values()))
    for account, price in prices.items():
        parts = [row["accounts"].get(account, 0.0) for row in told["people"]]
        assert sum(parts) == pytest.approx(price)
    answer = site.get(f"/api/usage/bill?format=csv&month={month}")
    lines = list(csv.reader(io.StringIO(answer.text)))
    assert lines[0] == ["person", "total_usd", "requests_without_price", *prices]
    assert [float(line[1]) for line in lines[1:]] == [row["usd"] for row in told["people"]]
    page = site.get("/bill", Accept="text/html").text
    assert all(row["name"] in page for row in told["people"]) and "so far" in page


def test_requests_without_a_price_are_told_and_in_no_part(site: Site) -> None:
    now = site.ctx.clock()
    known = Usage(1000, output=10, known=True)
    usage.keep(
        site,
        [
            exchange("u_4", 9000 + number, at=now - 60, provider="openai", account="openai:spare", model="of-no-price",
                     usage=known)
            for number in range(3)
        ],
    )  # fmt: skip
    told: dict[str, Any] = site.get("/api/usage/bill").json()
    (spare,) = (row for row in told["accounts"] if row["account"] == "openai:spare")
    (person,) = (row for row in told["people"] if row["user"] == "u_4")
    assert (spare["unpriced"], person["unpriced"], person["usd"]) == (3, 3, 0.0)
    lines = list(csv.reader(io.StringIO(site.get("/api/usage/bill?format=csv").text)))
    assert [line[2] for line in lines[1:] if line[1] == "0.00"] == ["3"]
    page = site.get("/bill", Accept="text/html").text
    assert "3 requests have no price and" in page and "no price</td>" in page and "≥\u00a0$" in page


@pytest.mark.parametrize("month", ["2026", "2026-13", "x", "2026-1", "../etc", "1999-01"])
def test_what_is_no_month(site: Site, month: str) -> None:
    assert site.get(f"/api/usage/bill?month={month}").status == 400


def test_a_month_without_use_is_nobodys(site: Site) -> None:
    told = site.get("/api/usage/bill?month=2031-02").json()
    assert [row["name"] for row in told["people"]] == ["Outside the pool"]
    assert "2031-02" in site.get("/bill?month=2031-02", Accept="text/html").text
