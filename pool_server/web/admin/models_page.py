"""`/admin/models`: what the pool serves, its price and use, and for one model the accounts that serve it."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from pool_server.accounts import SelectionRequest
from pool_server.accounts.describe import StandingRow
from pool_server.core.enums import Provider, Refusal
from pool_server.dialects import SPECS as DIALECTS
from pool_server.language import gettext as _
from pool_server.ledger import Prices, UsageSums
from pool_server.providers import SPECS
from pool_server.texts import format, labels
from pool_server.texts.labels import provider_name
from pool_server.web.base.handler import Access
from pool_server.web.base.listing import matches, page_of
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import query_params as asking
from pool_server.web.base.shared.query_params import DAY

MOST = 5_000  # models whose use is looked up
UNFIT = frozenset(
    {Refusal.PROVIDER, Refusal.MODEL_NOT_SERVED, Refusal.PLAN_UNFIT, Refusal.TRANSPORT}
)  # it is another model's account


class ModelServer(NamedTuple):
    """An account that has the model: `words` say whether it would be selected now, `tone` is good, warn or bad."""

    account: str
    words: str
    tone: str


def price(prices: Prices, model: str, now: float) -> str:
    """ "$2.00 in, $10.00 out" for a million tokens; "" where no price is known."""
    entry = prices.find(model)
    if entry is None:
        return ""
    found = entry.at(now)
    about = "≈ " if found.assumed else ""
    return about + _("{input} in, {output} out", input=_dollars(found.input), output=_dollars(found.output))


def _dollars(amount: float) -> str:
    """Cents, and what is less than ten of them to the last digit."""
    return format.money(amount) if amount >= 0.1 or not amount else _("${amount}", amount=format.figure(f"{amount:g}"))


def request(model: str, provider: str) -> SelectionRequest:
    """What asks for a model in its vendor's own way, for nobody in particular."""
    home = next((spec.home for one, spec in SPECS.items() if one == provider), SPECS[Provider.OPENAI].home)
    return SelectionRequest(tuple(Provider), DIALECTS[home].asked_with, home, model, "")


def servers(explained: list[StandingRow], now: float) -> list[ModelServer]:
    """Rows of `Accounts.explain` of the accounts that have the model, those that would serve it first."""
    found = []
    for row in explained:
        refusal = row.refusal
        if refusal in UNFIT:
            continue
        back = _(", back {until}", until=format.within(row.until, now)) if refusal and row.until else ""
        words = f"{labels.REFUSALS[refusal]}{back}" if refusal else _("would serve it now")
        found.append(ModelServer(row.account, words, "warn" if refusal else "good"))
    return found


class ListedModel(NamedTuple):
    """A row of the list: `price` in words, `context` in tokens, `week`: its sums of seven days, None: not used."""

    id: str
    provider: str
    provider_name: str
    price: str
    context: int
    week: UsageSums | None
    aliases: list[str]
    fallbacks: list[str]


class ModelsPage(PageHandler, access=Access.ADMIN):
    """A slim row a model, most used first; `?q=&page=`, and `?id=` opens one."""

    async def get(self) -> None:
        ctx, now = self.ctx, self.ctx.clock()
        chosen = {name: asking.text(self, name) for name in ("q", "page", "id")}
        served = await ctx.models()
        used = await asyncio.to_thread(ctx.ledger.queries.top, "model", now - 7 * DAY, now + 1, limit=MOST, timed=False)
        weeks = {row.key: row for row in used}
        settings, prices = ctx.settings.models, ctx.ledger.prices
        rows = [
            ListedModel(
                one.id,
                one.family or one.owner,
                provider_name(one.family or one.owner),
                price(prices, one.id, now),
                one.context,
                weeks.get(one.id),
                sorted(name for name, to in settings.aliases.items() if to == one.id),
                [step.model for step in settings.fallbacks.get(one.id, ())],
            )
            for one in served
        ]
        listing = page_of(
            rows,
            chosen,
            path="/admin/models",
            keep=lambda row: (
                row.id == chosen["id"] if chosen["id"] else matches((row.id, row.provider_name), chosen["q"])
            ),
            key=lambda row: (-(row.week.total_tokens if row.week else 0), row.provider, row.id),
        )
        opened = next((row for row in listing.rows if row.id == chosen["id"]), None)
        self.page(
            "models.html",
            title="Models",
            listing=listing,
            chosen=chosen,
            unpriced=sum(not row.price for row in rows),
            dated=format.duration(prices.age_days(now) * DAY),
            servers=servers(ctx.accounts.explain(request(opened.id, opened.provider)), now) if opened else [],
        )
