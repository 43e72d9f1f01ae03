"""The shared bill of a month, split among the people: a page, JSON and CSV for the operator."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from pool_server.accounts.describe import AccountBrief
from pool_server.core.enums import CredentialKind
from pool_server.language import gettext as _
from pool_server.language import marked
from pool_server.ledger import OUTSIDE, AccountBill, by_headroom, by_use, tame, totals
from pool_server.texts import format
from pool_server.web.base.context import WebContext
from pool_server.web.base.handler import Access, ProblemError
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import query_params as asking
from pool_server.web.base.shared.names import Names

_MONTH = re.compile(r"20[0-9]{2}-(?:0[1-9]|1[0-2])")
_OUTSIDE = marked("Outside the pool")
MOST_NAMED = 40  # accounts without a price that the page names


class BilledMonth(NamedTuple):
    """A month of the pool's time zone: "2026-11", its bounds in unix seconds, and the months beside it. `label…` are
    what people read."""

    name: str
    frm: float
    to: float
    before: str
    after: str
    label: str
    label_before: str
    label_after: str


def month(said: str, now: float, place: ZoneInfo) -> BilledMonth:
    """The month that was asked for, this one where none was. Raises ProblemError 400."""
    today = datetime.fromtimestamp(now, place)
    name = said or f"{today:%Y-%m}"
    if not _MONTH.fullmatch(name):
        raise ProblemError(400, "bad_request", _("month is a month as 2026-11"))
    count = 12 * int(name[:4]) + int(name[5:]) - 1
    heads = [datetime((count + by) // 12, (count + by) % 12 + 1, 1, tzinfo=place) for by in (-1, 0, 1)]
    ends = heads[1].timestamp(), heads[2].timestamp()
    labels = [format.month_of(heads[which]) for which in (1, 0, 2)]
    return BilledMonth(name, *ends, f"{heads[0]:%Y-%m}", f"{heads[2]:%Y-%m}", *labels)


def bills(ctx: WebContext, rows: Sequence[AccountBrief], asked: BilledMonth) -> tuple[list[AccountBill], list[str]]:
    """The bill of every account that is here, and the subscriptions whose price nobody told.
    Reads weeks: for a thread."""
    queries, prices = ctx.ledger.queries, ctx.ledger.prices
    end = min(asked.to, ctx.clock() + 1)
    used = queries.uses(asked.frm, end) if end > asked.frm else {}
    seen = queries.window_history(asked.frm, end) if end > asked.frm else {}
    found, unknown = [], []
    for row in rows:
        account, mine = row.id, used.get(row.id, [])
        price = prices.subscription(account, row.plan or "")
        if row.kind is CredentialKind.API_KEY and price is None:
            bill = by_use(account, mine)
            found += [bill] if bill.price_usd or bill.unpriced else []
        elif price is None:
            unknown.append(account)
        else:
            found.append(by_headroom(account, price, seen.get(account, []), mine))
    return found, unknown


class PersonBill(msgspec.Struct, frozen=True):
    """What a person owes in dollars, in all and by account; `unpriced` requests are in no part."""

    user: str
    name: str
    usd: float
    unpriced: int
    accounts: dict[str, float]


class BilledAccount(msgspec.Struct, frozen=True):
    """What an account cost; `measured`: split by headroom, else by use."""

    account: str
    price_usd: float
    measured: bool
    unpriced: int


class MonthBill(msgspec.Struct, frozen=True):
    """`without_price`: the subscriptions whose price nobody told."""

    month: str
    people: list[PersonBill]
    accounts: list[BilledAccount]
    without_price: list[str]


class BillHandler(PageHandler, abstract=True):
    """What page and data have in common."""

    async def gather(self) -> tuple[BilledMonth, MonthBill]:
        """The month, and what is owed of it."""
        ctx = self.ctx
        asked = month(self.get_query_argument("month", ""), ctx.clock(), ZoneInfo(ctx.settings.ledger.timezone))
        found, unknown = await asyncio.to_thread(bills, ctx, ctx.accounts.brief_all(), asked)
        names, sums = Names(ctx, asking.viewer(self)), totals(found)
        people = [
            PersonBill(
                user, _(_OUTSIDE) if user == OUTSIDE else names.user(user), usd,
                sum(bill.unpriced.get(user, 0) for bill in found),
                {bill.account: bill.people[user] for bill in found if user in bill.people},
            )
            for user, usd in sorted(sums.items(), key=lambda pair: (pair[0] == OUTSIDE, -pair[1], pair[0]))
        ]  # fmt: skip
        accounts = [
            BilledAccount(bill.account, bill.price_usd, bill.measured, sum(bill.unpriced.values())) for bill in found
        ]
        return asked, MonthBill(asked.name, people, accounts, unknown)


class Bill(BillHandler, access=Access.ADMIN):
    """`GET /api/usage/bill?month=2026-11&format=json|csv` → `{"month","people":[{"user","name","usd","unpriced",
    "accounts"}],"accounts":[{"account","price_usd","measured","unpriced"}],"without_price"}`: dollars, whose parts add
    up to each price; `unpriced` requests are billed by use, have no price here and are in no part."""

    asks = frozenset(("month", "format"))

    async def get(self) -> None:
        fmt = asking.word(self, "format", ("json", "csv"), "json")
        asked, told = await self.gather()
        if fmt == "json":
            self.answer(told)
            return
        out = io.StringIO()
        sheet, accounts = csv.writer(out), [row.account for row in told.accounts]
        sheet.writerow(["person", "total_usd", "requests_without_price", *map(tame, accounts)])
        for row in told.people:
            parts = [f"{row.accounts.get(account, 0.0):.2f}" for account in accounts]
            sheet.writerow([tame(row.name), f"{row.usd:.2f}", row.unpriced, *parts])
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="bill-{asked.name}.csv"')
        self.finish(out.getvalue())


class BillPage(BillHandler, access=Access.ADMIN):
    """`GET /bill?month=`: who owes what of a month's accounts."""

    async def get(self) -> None:
        asked, told = await self.gather()
        whole = sum(row.price_usd for row in told.accounts)
        running = asked.frm <= self.ctx.clock() < asked.to
        unpriced = sum(row.unpriced for row in told.accounts)
        names, more = told.without_price[:MOST_NAMED], len(told.without_price) - MOST_NAMED
        without_price = format.listed(names) + (_(" and {more} more", more=more) if more > 0 else "")
        self.page(
            "bill.html", title="Bill", asked=asked, told=told, whole=whole, unpriced=unpriced, running=running,
            without_price=without_price,
        )  # fmt: skip
