"""The operator's accounts as JSON, and what can be done with one. The page over it is `accounts_page`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime, tzinfo
from typing import Any

import msgspec

from pool_server.accounts import RefreshError
from pool_server.core.enums import Provider
from pool_server.language import gettext as _
from pool_server.language import localized
from pool_server.ledger import Filters, SharedUses
from pool_server.web.admin.account_changes import NewAccounts
from pool_server.web.base.context import WebContext
from pool_server.web.base.handler import Access, ProblemError
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import query_params as asking

USAGE_S = 7 * 86_400.0
TOKENS = ("input", "cache_read", "cache_write", "output", "reasoning")
NO_USAGE = {**dict.fromkeys(TOKENS, 0), "requests": 0, "unpriced": 0, "cost_usd": 0.0}
NO_USE_TODAY = {"total_tokens": 0}
MOST = 20_000
FEW = 64  # accounts
AT_ONCE = 50  # accounts described between two turns of the event loop


class Priority(msgspec.Struct, forbid_unknown_fields=True):
    """Lower goes first; 100 is the ordinary one."""

    priority: int


async def rows(ctx: WebContext, ids: Sequence[str]) -> list[dict[str, Any]]:
    """These accounts as the accounts' room describes them, with `usage` of the last seven days; of an owner's account
    also what it `gave` to others in that time, and what its owner `took` of accounts that are not theirs."""
    now, owners = ctx.clock(), dict(ctx.accounts.owned(tuple(Provider)))
    wanted = set(ids)

    def read() -> tuple[dict[str, dict[str, Any]], SharedUses | None]:
        used = _used(ctx, wanted, now - USAGE_S, now + 1)
        shared = owners.keys() & wanted and ctx.ledger.queries.shared_use(now - USAGE_S, now + 1, owners)
        return {one: {name: row[name] for name in NO_USAGE} for one, row in used.items()}, shared or None

    used, shared = await asyncio.to_thread(read)
    told: list[dict[str, Any]] = []
    for at in range(0, len(ids), AT_ONCE):
        for row in ctx.accounts.describe_some(ids[at : at + AT_ONCE]):
            told.append({**row, "usage": used.get(row["id"], NO_USAGE), "gave": None, "took": None})
            if shared is not None and row["id"] in owners:
                both = shared.account(row["id"]).describe()
                told[-1] |= {"gave": both["gave"], "took": both["took"]}
        await asyncio.sleep(0)
    return told


async def shown(ctx: WebContext, ids: Sequence[str], zone: tzinfo) -> list[dict[str, Any]]:
    """A page's accounts, with `usage` of the last seven days and the tokens of `today` (since midnight of that
    zone)."""
    now, wanted = ctx.clock(), set(ids)
    midnight = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    week, today = await asyncio.to_thread(
        lambda: (_used(ctx, wanted, now - USAGE_S, now + 1), _used(ctx, wanted, midnight, now + 1))
    )
    return [
        {**row, "usage": week.get(row["id"], NO_USAGE), "today": today.get(row["id"], NO_USE_TODAY)["total_tokens"]}
        for row in ctx.accounts.describe_some(ids)
    ]


def _used(ctx: WebContext, wanted: Collection[str], frm: float, to: float) -> dict[str, dict[str, Any]]:
    """What these accounts were used for: a few are asked for one by one, many in one walk over all."""
    queries = ctx.ledger.queries
    if len(wanted) <= FEW:
        return {one: queries.total(frm, to, Filters(account=one)).describe() for one in wanted}
    return {row["key"]: row for row in queries.top("account", frm, to, limit=MOST, timed=False)}


class AccountList(NewAccounts, access=Access.ADMIN):
    """`GET /admin/accounts?limit=&cursor=`: every account with its state, windows and what it was used for, in the
    order of ids, or so many after the `cursor` that the page before gave as `next`; `POST` adds one."""

    async def get(self) -> None:
        if self.wants_page:
            self.redirect("/accounts", status=303)
            return
        accounts, limit = self.ctx.accounts, asking.whole(self, "limit", MOST, most=MOST) or MOST
        after = asking.text(self, "cursor")
        ids = [one for one in sorted(accounts.ids()) if one > after]
        more = {"next": ids[limit - 1]} if len(ids) > limit else {}
        told = {"rejected": accounts.rejected(), "removed": accounts.removed(), **more}
        self.answer({"accounts": await rows(self.ctx, ids[:limit]), **told})


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
                    await accounts.set_disabled(account, action == "disable")
                case "refresh":
                    await accounts.refresh_now(account)
                case "test":
                    result = await accounts.test(account)
                case "reset":
                    accounts.reset(account)
                case "priority":
                    detail = {"priority": self.body_as(Priority).priority}
                    await accounts.set_priority(account, detail["priority"])
                case "lock" | "unlock":
                    accounts.lock(account if action == "lock" else None)
        except RefreshError as failed:
            raise ProblemError(
                502, "refresh_failed", _("the provider did not renew the sign-in: {failed}", failed=localized(failed))
            ) from None
        except OSError as wrong:
            raise ProblemError(
                500, "not_written", _("the account's file cannot be written: {strerror}", strerror=wrong.strerror)
            ) from None
        await self.ctx.users.audit(self.actor, f"account.{action}", account, detail)
        answer: dict[str, Any] = {"account": accounts.describe(account)}
        self.answer(answer if result is None else {**answer, "result": result})
