"""What prices leave out and rest on looks so: on the pages, in the API, in exports."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tomli

from pool_server.core.enums import CostBasis
from pool_server.core.models import Usage
from pool_server.ledger import Prices
from pool_server.web.base.shared import price_notes
from pool_server.web.base.shared.price_notes import PriceBasis
from tests.rows import usage_sums
from tests.web.pool import exchange
from tests.web.site import Site

PRICES = Prices()
WRITTEN = 1_795_824_000.0  # 28 November 2026
NOTHING = PriceBasis(0, 0.0, 0, 0.0)


def test_nothing_to_note_is_not_noted() -> None:
    found = price_notes.notes(NOTHING, {"gpt-5": usage_sums()}, PRICES, WRITTEN)
    assert (found.missing, found.more, found.sentences) == ((), 0, ())


def test_models_without_a_price_are_named_with_lines_that_the_settings_take() -> None:
    models = {f"house-{n:02}": usage_sums(unpriced=n) for n in range(11)} | {
        'odd "name\\ü': usage_sums(unpriced=99),
        "": usage_sums(unpriced=7),
    }
    found = price_notes.notes(NOTHING, models, PRICES, WRITTEN)
    assert [one.model for one in found.missing[:2]] == ['odd "name\\ü', "house-10"] and found.more == 3
    assert "house-10" in found.heading and "and 3 more" in found.heading
    for one in found.missing:
        assert tomli.loads(one.lines)["prices"].keys() == {one.model}


@pytest.mark.parametrize(("days", "told"), [(0, False), (60, False), (61, True), (400, True), (-9, False)])
def test_an_old_table_is_told(days: int, told: bool) -> None:
    found = price_notes.notes(NOTHING, {}, PRICES, WRITTEN + days * 86_400)
    assert [f"{days} days old" in sentence for sentence in found.sentences] == ([True] if told else [])


def test_estimates_and_assumed_prices_are_told_with_their_worth() -> None:
    total = PriceBasis(1, 1.5, 2000, 3.0)
    one, two = price_notes.notes(total, {}, PRICES, WRITTEN).sentences
    assert "1 request ($1.50" in one and "estimated" in one
    assert "$3.00" in two and "2,000 requests" in two
    unpriced = price_notes.notes(total._replace(estimated_cost_usd=0.0, assumed=0), {}, PRICES, WRITTEN)
    assert "$" not in unpriced.sentences[0]


GUESS = Usage(input=900, output=100, estimated=True)
TOLD = Usage(input=1000, output=0, known=True)
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("estimated", {"usage": GUESS, "model": "gpt-4.1", "cost": 0.25}, "≈ 1,000", "≈\u00a0$0.25"),
    (
        "assumed",
        {"usage": TOLD, "model": "o3", "cost": 0.25, "cost_basis": CostBasis.ASSUMED.value},
        ">1,000<",
        "≈\u00a0$0.25",
    ),
    ("told", {"usage": TOLD, "model": "o3", "cost": 0.25, "cost_basis": CostBasis.TOLD.value}, ">1,000<", ">$0.25<"),
    ("unpriced", {"usage": TOLD, "model": "house-model"}, ">1,000<", "no price"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "more", "tokens", "price"), CASES, ids=[case[0] for case in CASES])
def test_every_page_marks_what_is_not_told(
    local: Site, name: str, more: dict[str, Any], tokens: str, price: str
) -> None:
    record = exchange("local", **more)
    local.run(lambda: local.ctx.ledger.record(record))
    for path in ("/", "/requests"):
        page = local.get(path).text
        assert tokens in page and price in page, path
    one = local.get(f"/requests/{record.id}").text
    assert price.strip("<>") in one
    assert ("tokens are estimated" in one) is (name == "estimated")
    assert ("came with the answer" in one) is (name == "told")
    analytics, home = local.get("/analytics").text, local.get("/").text
    for page in (analytics, home):
        assert ("house-model" in page and "[prices.&quot;house-model&quot;]" in page) is (name == "unpriced")
        assert ("are estimated: no usage was told" in page) is (name == "estimated")
        assert ("rests on prices not confirmed" in page) is (name == "assumed")


def test_exports_and_api_say_what_is_estimated_and_what_a_price_rests_on(local: Site) -> None:
    record = exchange("local", usage=GUESS, model="gpt-4.1", cost_basis=CostBasis.ASSUMED.value, cost=0.5)
    local.run(lambda: local.ctx.ledger.record(record))
    (row,) = local.get("/api/usage/requests").json()["requests"]
    assert row["usage"]["estimated"] and not row["usage"]["known"] and row["cost_basis"] == "assumed"
    assert row["total_tokens"] == 1000
    (line,) = [json.loads(one) for one in local.get("/api/usage/export?format=jsonl").text.splitlines()]
    assert line["estimated"] is True and line["cost_basis"] == "assumed"
    sheet = local.get("/api/usage/export?format=csv").text.splitlines()
    assert {"estimated", "cost_basis", "answered", "speed", "geo", "audio_in"} <= set(sheet[0].split(","))
    total = local.get("/api/usage/summary").json()["total"]
    assert (total["estimated"], total["assumed"], total["estimated_cost_usd"]) == (1, 1, 0.5)
    (model,) = local.get("/api/usage/top?by=model").json()["top"]
    assert (model["estimated"], model["assumed_cost_usd"]) == (1, 0.5)
