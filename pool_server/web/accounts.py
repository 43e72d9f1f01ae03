"""The operator's accounts as JSON, and what can be done with one. The page over it is `accounts_page`."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.web.base import Access, BaseHandler, Problem
from pool_server.web.pages import PageHandler


class Priority(msgspec.Struct, forbid_unknown_fields=True):
    """Lower goes first; 100 is the ordinary one."""

    priority: int


class AccountList(PageHandler, access=Access.ADMIN):
    """`GET /admin/accounts`: every account with its state, windows and what it was used for."""

    def get(self) -> None:
        if self.wants_page:
            self.redirect("/accounts", status=303)
            return
        self.answer({"accounts": self.ctx.accounts.describe_all()})


class AccountAction(BaseHandler, access=Access.ADMIN):
    """`POST /admin/accounts/ID/ACTION` → the account as it is afterwards, and what a test brought back."""

    async def post(self, account: str, action: str) -> None:
        accounts = self.ctx.accounts
        result: Any = None
        try:
            match action:
                case "enable" | "disable":
                    accounts.set_disabled(account, action == "disable")
                case "refresh":
                    result = await accounts.refresh_now(account)
                case "test":
                    result = await accounts.test(account)
                case "reset":
                    accounts.reset(account)
                case "priority":
                    accounts.set_priority(account, self.body_as(Priority).priority)
                case "lock" | "unlock":
                    accounts.describe(account)
                    accounts.lock(account if action == "lock" else None)
            row = accounts.describe(account)
        except KeyError:
            raise Problem(404, "not_found", f"there is no account {account}") from None
        self.answer({"account": row} | ({"result": result} if isinstance(result, dict) else {}))
