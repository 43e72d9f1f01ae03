"""You gave, you took: what others used of one's accounts, and what one used of theirs, by week."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from pool_server.core.enums import Provider
from pool_server.language import gettext as _
from pool_server.web.base.context import WebContext
from pool_server.web.base.handler import Access, BaseHandler, ProblemError

WEEKS = 8
MOST = 52


def weeks(now: float, count: int, place: ZoneInfo) -> list[tuple[float, float]]:
    """This week and those before it, newest first, from Monday to Monday of that zone, in unix seconds."""
    today = datetime.fromtimestamp(now, place).replace(hour=0, minute=0, second=0, microsecond=0)
    monday = today - timedelta(days=today.weekday())
    heads = [monday - timedelta(weeks=back) for back in range(count)]
    return [(head.timestamp(), (head + timedelta(weeks=1)).timestamp()) for head in heads]


async def by_week(ctx: WebContext, user: str, count: int) -> list[dict[str, Any]]:
    """`{"from","to","gave","took","own"}` of one person, newest week first. Accounts count with who owns them now."""
    owners = dict(ctx.accounts.owned(tuple(Provider)))
    spans = weeks(ctx.clock(), count, ZoneInfo(ctx.settings.ledger.timezone))
    query = ctx.ledger.queries.shared_use

    def read() -> list[dict[str, Any]]:
        return [
            {"from": frm, "to": to, **query(frm, min(to, ctx.clock() + 1), owners).person(user).describe()}
            for frm, to in spans
        ]

    return await asyncio.to_thread(read)


class Balance(BaseHandler, access=Access.FRIEND):
    """`GET /api/me/balance?weeks=8` → `{"weeks":[{"from","to","gave","took","own"}]}`, the newest first; each with
    requests, total_tokens, cost_usd (worth at list prices) and unpriced requests. Nobody else's is told."""

    async def get(self) -> None:
        if self.principal.admin:
            raise ProblemError(409, "not_a_user", _("only pool users give and take; you are not signed in as one"))
        said = self.get_query_argument("weeks", str(WEEKS))
        count = int(said) if said.isdecimal() and len(said) < 4 else WEEKS
        self.answer({"weeks": await by_week(self.ctx, self.principal.user, max(1, min(MOST, count)))})
