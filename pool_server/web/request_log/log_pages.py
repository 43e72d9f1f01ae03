"""The request log: find one exchange by id, person, time or failure, and open it. Nothing of a body is ever kept.

A friend finds own exchanges, without the accounts and decisions behind them; the admin all of everyone's.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from pool_server.core.enums import Outcome
from pool_server.core.models import UsageRecord
from pool_server.language import gettext as _
from pool_server.ledger import LogFilters
from pool_server.texts import format, labels
from pool_server.texts.labels import account_name, provider_name
from pool_server.web.base.handler import Access, BaseHandler, ProblemError
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import query_params as asking
from pool_server.web.base.shared import request_rows
from pool_server.web.base.shared.names import Names
from pool_server.web.request_log import story

PAGE = 50
FIELDS = ("id", "user", "provider", "account", "model", "outcome", "status", "failed", "range", "from", "to")


class LogPage(NamedTuple):
    """A page of the log; `following` is the cursor of the next one, None when there is none."""

    records: list[UsageRecord]
    following: str | None


def wanted(handler: BaseHandler) -> LogFilters:
    """The filters of the address. Without a range, everything that is kept."""
    ask = asking.read(handler, own=True)
    ranged = any(asking.text(handler, name) for name in ("range", "from", "to"))
    outcome = asking.word(handler, "outcome", tuple(Outcome), "") or None
    failed = asking.word(handler, "failed", ("1", "0"), "0") == "1"
    return LogFilters(
        user=ask.filters.user,
        account=ask.filters.account,
        model=ask.filters.model,
        provider=ask.filters.provider,
        outcome=outcome,
        status=asking.whole(handler, "status", None, least=100, most=599),
        failed=failed,
        since=ask.frm if ranged else None,
        until=ask.to if ranged else None,
    )


async def find(handler: BaseHandler) -> LogPage:
    """The exchanges the address asks for, newest first; with an id, that one alone."""
    filters = wanted(handler)
    ident = asking.text(handler, "id")
    if ident:
        record = await mine(handler, ident)
        return LogPage([] if record is None else [record], None)
    limit = asking.whole(handler, "limit", PAGE) or PAGE
    cursor = asking.text(handler, "cursor") or None
    log = handler.ctx.ledger
    try:
        records, following = await asyncio.to_thread(log.log.page, limit, cursor, filters)
    except ValueError as wrong:
        raise ProblemError(400, "bad_request", str(wrong)) from None
    return LogPage(records, following)


async def mine(handler: BaseHandler, ident: str) -> UsageRecord | None:
    """The exchange with this id, if there is one and the caller may see it."""
    ledger = handler.ctx.ledger
    record = await ledger.ask(ledger.log.get, ident)
    who = asking.viewer(handler)
    return record if record is not None and (who.admin or record.user == who.user) else None


class Requests(BaseHandler, access=Access.FRIEND):
    """`GET /api/usage/requests?cursor=&limit=` and the filters of the log → `{"requests":[…],"cursor"}`; `cursor` is
    null at the end."""

    asks = asking.ASKED | {*FIELDS, "cursor", "limit"}

    async def get(self) -> None:
        found = await find(self)
        who = asking.viewer(self)
        names = Names(self.ctx, who)
        rows = [request_rows.shown(record, names, admin=who.admin) for record in found.records]
        self.answer({"requests": rows, "cursor": found.following})


class AdminRequests(PageHandler, access=Access.ADMIN):
    """`GET /admin/requests`: recent exchanges with their decision records; no bodies. A browser gets the page."""

    async def get(self) -> None:
        if self.wants_page:
            query = f"?{self.request.query}" if self.request.query else ""
            self.redirect(f"/requests{query}", status=303)
            return
        found = await find(self)
        names = Names(self.ctx, asking.viewer(self))
        rows = [request_rows.shown(record, names, admin=True) for record in found.records]
        self.answer({"requests": rows, "cursor": found.following})


class RequestsPage(PageHandler, access=Access.FRIEND):
    """`/requests`: the log as a table; every filter is in the address."""

    def _times(self, chosen: dict[str, str]) -> dict[str, str]:
        """The range as the form's fields hold it, in the viewer's zone, however the address says it."""
        ask = asking.read(self, own=True)
        ranged = {"from": bool(chosen["range"] or chosen["from"]), "to": bool(chosen["to"])}
        ends = {"from": ask.frm, "to": ask.to}
        where = ZoneInfo(ask.zone)
        return {
            name: f"{datetime.fromtimestamp(at, where):%Y-%m-%dT%H:%M}" if ranged[name] else ""
            for name, at in ends.items()
        }

    async def get(self) -> None:
        found = await find(self)
        who = asking.viewer(self)
        names = Names(self.ctx, who)
        rows = [request_rows.shown(record, names, admin=who.admin) for record in found.records]
        if asking.text(self, "id") and len(rows) == 1:
            self.redirect(f"/requests/{quote(rows[0]['id'], safe='')}", status=303)
            return
        chosen = {name: asking.text(self, name) for name in FIELDS}
        set_ = {name: value for name, value in chosen.items() if value}
        older = urlencode({**set_, "cursor": found.following}) if found.following else ""
        chosen |= self._times(chosen)
        self.page(
            "requests.html",
            title="Requests",
            rows=rows,
            chosen=chosen,
            filtered=bool(set_),
            older=older,
            first=not asking.text(self, "cursor"),
            admin=who.admin,
            outcomes=[(one.value, labels.OUTCOMES[one]) for one in Outcome],
            providers=[(one.value, labels.PROVIDERS[one]) for one in self.ctx.accounts.offered()],
            account_name=account_name,
            quote=quote,
        )


class RequestPage(PageHandler, access=Access.FRIEND):
    """`/requests/ID`: one exchange, attempt by attempt."""

    async def get(self, ident: str) -> None:
        record = await mine(self, ident)
        if record is None:
            raise ProblemError(404, "not_found", _("there is no such request, or it is not yours to see"))
        who = asking.viewer(self)
        self.page(
            "request.html",
            title="Request",
            record=record,
            counts=story.counts(record.usage),
            row=request_rows.shown(record, Names(self.ctx, who), admin=who.admin),
            attempts=story.attempts(record, named=who.admin),
            story=story.story(record, format.zone(self.viewer_zone())) if who.admin else None,
            asked_for=story.asked_for(record),
            passed_on=story.passed_on(record),
            account_name=account_name,
            provider_name=provider_name,
            admin=who.admin,
        )
