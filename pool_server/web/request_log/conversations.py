"""`/analytics/conversations`: what each used, what came from caches, and what its moves between accounts cost.
A friend sees their own, without the names of accounts; the operator sees everybody's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from pool_server.core.models import UsageRecord
from pool_server.language import gettext as _
from pool_server.ledger import Filters, GroupSums, LogFilters
from pool_server.texts.labels import account_name
from pool_server.web.base.handler import Access, ProblemError
from pool_server.web.base.listing import matches, page_of
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import query_params as asking
from pool_server.web.base.shared import request_rows
from pool_server.web.base.shared.names import Names, conversations, without_version
from pool_server.web.base.shared.query_params import DAY

LISTED = 1000  # conversations that are searched and sorted
SPAN = 7 * DAY  # for which conversations are ranked
SHOWN = 500  # requests of one conversation
SCANS = 10  # steps in which the log is looked through for them

TOKENS = ("input", "cache_read", "cache_write", "output")

Reread = Callable[[str, int], float | None]  # (model, tokens) → US dollars more than from a cache


class Move(NamedTuple):
    """A conversation went on with another account. `lost` tokens that the account before had in its cache were read
    anew; `cost` is what that cost more, in US dollars. None: not known."""

    at: float
    before: str
    after: str
    lost: int | None
    cost: float | None


def moves(records: Sequence[UsageRecord], reread: Reread) -> list[Move]:
    """Every change of account in a conversation's records, which are in the order of time: as recorded, else by what
    the earlier prompt had and the later one did not read from a cache; what was shortened loses nothing."""
    found = []
    served = [one for one in records if one.account and one.usage.counted and one.usage.prompt]
    for before, after in pairwise(served):
        if before.account == after.account:
            continue
        if after.move is not None and after.move.before == before.account:
            found.append(Move(after.at, before.account, after.account, after.move.tokens, after.move.cost))
            continue
        lost = max(0, min(before.usage.prompt, after.usage.prompt) - after.usage.cache_read)
        found.append(Move(after.at, before.account, after.account, lost, reread(after.answered or after.model, lost)))
    return found


class ConversationUse(NamedTuple):
    """A conversation in the list. `share`: see `cache_share`; `at`: its last request (unix seconds)."""

    key: str
    title: str
    who: str
    at: float
    requests: int
    total_tokens: int
    cost_usd: float
    unpriced: int
    share: float | None


def cache_share(plain: int, cached: int, written: int) -> float | None:
    """The percentage of what was read that came from a cache, by tokens that were sent in plain, read from a cache and
    written to one; None where nothing was read."""
    read = plain + cached + written
    return 100.0 * cached / read if read else None


class ConversationsPage(PageHandler, access=Access.FRIEND):
    """The conversations of the last 7 days, most tokens first or the latest; `?q=&sort=&page=`."""

    async def get(self) -> None:
        ctx, now, who = self.ctx, self.ctx.clock(), asking.viewer(self)
        chosen = {name: asking.text(self, name) for name in ("q", "page", "sort")}
        filters = Filters() if who.admin else Filters(user=who.user)
        found = await asyncio.to_thread(
            ctx.ledger.queries.top, "conversation", now - SPAN + DAY, now + 1, filters, limit=LISTED, timed=False
        )
        known, names = await ctx.ledger.ask(conversations, ctx), Names(ctx, who)
        people = {key: names.user(key) for key in {known.get(row.key).user for row in found if who.admin}}

        def named(row: GroupSums) -> ConversationUse:
            one = known.get(row.key, "" if who.admin else who.user)
            share = cache_share(row.input, row.cache_read, row.cache_write)
            return ConversationUse(
                row.key, one.title, people.get(one.user, ""), one.at, row.requests, row.total_tokens, row.cost_usd,
                row.unpriced, share,
            )  # fmt: skip

        listing = page_of(
            (named(row) for row in found if row.key not in ("", "other")),
            chosen,
            path="/analytics/conversations",
            keep=lambda row: matches((row.key, row.title, row.who), chosen["q"]),
            key=(lambda row: -row.at) if chosen["sort"] == "latest" else (lambda row: -row.total_tokens),
        )
        self.page("conversations.html", title="Conversations", listing=listing, chosen=chosen, admin=who.admin)


class ConversationPage(PageHandler, access=Access.FRIEND):
    """`/analytics/conversations/ID`: its requests in the order of time, and its moves."""

    async def get(self, ident: str) -> None:
        ctx, now, who = self.ctx, self.ctx.clock(), asking.viewer(self)
        since = now - ctx.settings.ledger.retention_days * DAY
        filters = LogFilters(session=ident[:64], user=None if who.admin else who.user, since=since)
        newest = await asyncio.to_thread(self._records, filters)
        if not newest:
            raise ProblemError(404, "not_found", _("there is no such conversation, or it is not yours to see"))
        names = Names(ctx, who)
        moved = moves(newest[::-1], ctx.ledger.prices.reread)
        usages = [one.usage for one in newest if one.usage.counted]
        sums = {name: sum(getattr(one, name) for one in usages) for name in TOKENS}
        self.page(
            "conversation.html",
            title="Conversation",
            ident=ident,
            rows=[{**request_rows.row(one), "account": one.account} for one in newest],
            people=sorted({names.user(one.user) for one in newest}),
            programs=sorted({without_version(one.agent) for one in newest} - {""}),
            models=sorted({one.model for one in newest} - {""}),
            moves=moved if who.admin else [move._replace(before="", after="") for move in moved],
            lost=None if any(move.cost is None for move in moved) else sum(move.cost or 0.0 for move in moved),
            sums=sums,
            share=cache_share(sums["input"], sums["cache_read"], sums["cache_write"]),
            cost=sum(one.cost or 0.0 for one in newest),
            unpriced=sum(one.cost is None and one.usage.counted for one in newest),
            whole=len(newest) < SHOWN,
            admin=who.admin,
            account_name=account_name,
        )

    def _records(self, filters: LogFilters) -> list[UsageRecord]:
        """The newest SHOWN of them."""
        found: list[UsageRecord] = []
        cursor: str | None = None
        for _scan in range(SCANS):
            part, cursor = self.ctx.ledger.log.page(SHOWN - len(found) or 1, cursor, filters)
            found += part
            if cursor is None or len(found) >= SHOWN:
                break
        return found
