"""The operator's accounts as JSON, and what can be done with one. The page over it is `accounts_page`."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Any

import msgspec

from pool_server.accounts import RefreshError
from pool_server.core.enums import Provider
from pool_server.language import gettext as _
from pool_server.web.admin.account_changes import NewAccounts
from pool_server.web.base.context import WebContext
from pool_server.web.base.handler import Access, ProblemError
from pool_server.web.base.page import PageHandler

USAGE_S = 7 * 86_400.0
TOKENS = ("input", "cache_read", "cache_write", "output", "reasoning")
NO_USAGE = {**dict.fromkeys(TOKENS, 0), "requests": 0, "unpriced": 0, "cost_usd": 0.0}
MOST = 20_000


class Priority(msgspec.Struct, forbid_unknown_fields=True):
    """Lower goes first; 100 is the ordinary one."""

    priority: int


def rows(ctx: WebContext) -> list[dict[str, Any]]:
    """Every account as the accounts' room describes it, with `usage` of the last seven days; of an owner's account
    also what it `gave` to others in that time, and what its owner `took` of accounts that are not theirs."""
    now = ctx.clock()
    found = ctx.ledger.queries.top("account", now - USAGE_S, now + 1, limit=MOST)
    used = {row["key"]: {name: row[name] for name in NO_USAGE} for row in found}
    owners = dict(ctx.accounts.owned(tuple(Provider)))
    shared = ctx.ledger.queries.shared_use(now - USAGE_S, now + 1, owners) if owners else None
    told = []
    for row in ctx.accounts.describe_all():
        told.append({**row, "usage": used.get(row["id"], NO_USAGE), "gave": None, "took": None})
        if shared is not None and row["id"] in owners:
            both = shared.account(row["id"]).describe()
            told[-1] |= {"gave": both["gave"], "took": both["took"]}
    return told


def used_today(ctx: WebContext, zone: tzinfo) -> dict[str, int]:
    """Account → its tokens since midnight of that zone."""
    now = ctx.clock()
    midnight = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    found = ctx.ledger.queries.top("account", midnight, now + 1, limit=MOST, timed=False)
    return {row["key"]: row["total_tokens"] for row in found}


class AccountList(NewAccounts, access=Access.ADMIN):
    """`GET /admin/accounts`: every account with its state, windows and what it was used for; `POST` adds one."""

    def get(self) -> None:
        if self.wants_page:
            self.redirect("/accounts", status=303)
            return
        accounts = self.ctx.accounts
        told = {"rejected": accounts.rejected(), "removed": accounts.removed()}
        self.answer({"accounts": rows(self.ctx), **told})


class AccountAction(PageHandler, access=Access.ADMIN):
    """`POST /admin/accounts/ID/ACTION` → the account as it is afterwards, and for a test what came back."""

    async def post(self, account: str, action: str) -> None:
        accounts = self.ctx.accounts
        try:
            accounts.describe(account)
        except KeyError:
            raise ProblemError(404, "not_found", _("there is no account {account}", account=account)) from None
        detail: dict[str, Any] = {}
        result: dict[str, Any] | None = None
        try:
            match action:
                case "enable" | "disable":
                    accounts.set_disabled(account, action == "disable")
                case "refresh":
                    await accounts.refresh_now(account)
                case "test":
                    result = await accounts.test(account)
                case "reset":
                    accounts.reset(account)
                case "priority":
                    detail = {"priority": self.body_as(Priority).priority}
                    accounts.set_priority(account, detail["priority"])
                case "lock" | "unlock":
                    accounts.lock(account if action == "lock" else None)
        except RefreshError as failed:
            raise ProblemError(
                502, "refresh_failed", _("the provider did not renew the sign-in: {failed}", failed=failed)
            ) from None
        except OSError as wrong:
            raise ProblemError(
                500, "not_written", _("the account's file cannot be written: {strerror}", strerror=wrong.strerror)
            ) from None
        await self.ctx.users.audit(self.actor, f"account.{action}", account, detail)
        answer: dict[str, Any] = {"account": accounts.describe(account)}
        self.answer(answer if result is None else {**answer, "result": result})
