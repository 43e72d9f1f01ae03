"""The models page: what can be called, at which price, and which account would serve it now."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pool_server.accounts.describe import StandingRow
from pool_server.core.enums import Refusal
from pool_server.core.settings import Models, PoolUsers, Settings
from pool_server.dialects import ModelInfo
from pool_server.ledger import Prices
from pool_server.web.admin.models_page import price, servers
from tests.web.pool import ADMIN, exchange
from tests.web.site import Site
from tests.web.test_friends import Browser

NOW = 1_795_000_000.0
PAGE = {"Accept": "text/html"}
ALIASED = Settings(
    friend_code="swim",
    pool_users=PoolUsers(admin_password=ADMIN),
    models=Models(aliases={"sonnet": "claude-sonnet-5"}),
)


def row(account: str, refusal: Refusal | None, until: float | None = None) -> StandingRow:
    return StandingRow(account, refusal is None, refusal, until, None, {}, 100)


def test_accounts_of_other_models_are_left_out() -> None:
    found = servers(
        [row("claude:a", None), row("claude:b", Refusal.COOLING, NOW + 720), row("codex:c", Refusal.PROVIDER),
         row("openai:d", Refusal.MODEL_NOT_SERVED), row("claude:e", Refusal.DISABLED)],
        NOW,
    )  # fmt: skip
    assert found == [
        ("claude:a", "would serve it now", "good"),
        ("claude:b", "cooling down after a fault, back in 12 min", "warn"),
        ("claude:e", "turned off by the operator", "warn"),
    ]


def test_a_price_is_of_a_million_tokens_and_none_is_none() -> None:
    prices = Prices()
    assert price(prices, "claude-sonnet-5", NOW) == "$2.00 in, $10.00 out"
    assert price(prices, "of-nobody-at-all", NOW) == ""


async def two() -> Sequence[ModelInfo]:
    return [ModelInfo("claude-sonnet-5", "claude", context=200_000, family="claude"), ModelInfo("<b>own</b>", "openai")]


@pytest.mark.slow
@pytest.mark.pool(ALIASED)
def test_the_page_opens_a_model_and_says_who_serves_it(site: Site) -> None:
    admin = Browser(site, site.post("/admin", {"password": ADMIN}))
    assert "No account that can serve has told its models yet" in admin.get("/admin/models").text
    site.ctx.models = two
    site.run(lambda: site.ctx.ledger.record(exchange("u_1", 1, model="claude-sonnet-5")))
    page = admin.get("/admin/models").text
    assert "2 models can be called" in page
    assert "<b>own</b>" not in page
    assert page.index("claude-sonnet-5") < page.index("&lt;b&gt;own"), "the most used comes first"
    assert "1 model has no price" in page
    opened = admin.get("/admin/models?id=claude-sonnet-5").text
    assert "claude:work" in opened and "would serve it now" in opened
    assert opened.index("claude:work") < opened.index("openai:spare"), "an endpoint of one's own may have any model"
    assert "sonnet</dd>" in opened, "the names it is also called"
    assert "No model matches" in admin.get("/admin/models?q=nothing").text


def test_models_are_the_operators(friends: Site) -> None:
    made = friends.post("/api/friend/login", {"code": "swim", "name": "Ada", "passphrase": "long enough"})
    assert Browser(friends, made).get("/admin/models").status == 403
