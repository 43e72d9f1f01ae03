"""What an account's vendor says was spent, beside what the pool counted."""

from __future__ import annotations

import asyncio

from pool_server.language import gettext as _
from pool_server.language import localized
from pool_server.ledger import Filters
from pool_server.web.base.handler import Access, ProblemError
from pool_server.web.base.page import PageHandler

DAY_S = 86_400
MOST_DAYS = 90


class AccountSpend(PageHandler, access=Access.ADMIN):
    """`GET /admin/accounts/ID/spend?days=7` → `{"from","to","vendor_usd","pool_usd","difference_usd","partial",
    "unpriced"}`: whole UTC days up to last midnight, the vendor's less ours. With reasons in `partial`, `vendor_usd` is
    a part of what was spent and there is no difference. 409: the account has no admin key; 502: its vendor does not
    tell."""

    async def get(self, account: str) -> None:
        accounts = self.ctx.accounts
        if not accounts.knows(account):
            raise ProblemError(404, "not_found", _("there is no account {account}", account=account))
        if not accounts.describe(account).admin_key:
            raise ProblemError(
                409, "no_admin_key", _("{account} has no admin key: set one among its options", account=account)
            )
        said = self.get_query_argument("days", "7")
        days = max(1, min(MOST_DAYS, int(said))) if said.isdecimal() and len(said) < 4 else 7
        to = int(self.ctx.clock()) // DAY_S * DAY_S
        frm = to - days * DAY_S
        try:
            theirs = await accounts.vendor_spend(account, frm, to)
        except ValueError as wrong:
            raise ProblemError(502, "not_told", localized(wrong)) from None
        total = await asyncio.to_thread(self.ctx.ledger.queries.total, frm, to, Filters(account=account))
        ours = total.describe()
        told = {
            "from": frm, "to": to, "vendor_usd": round(theirs.usd, 4), "pool_usd": round(ours.cost_usd, 4),
            "difference_usd": None if theirs.gaps else round(theirs.usd - ours.cost_usd, 4),
            "partial": [localized(one) for one in theirs.gaps], "unpriced": ours.unpriced,
        }  # fmt: skip
        if self.wants_page:
            self.page("spend.html", title="Spend", account=account, days=days, told=told)
            return
        self.answer(told)
