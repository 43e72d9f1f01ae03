"""The operator's home in friends mode: what needs attention, headroom as time, what is in flight, own set-up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pool_server.accounts.held_requests import HeldRequest
from pool_server.language import gettext as _
from pool_server.language import ngettext
from pool_server.texts.labels import account_name
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import banner, headline, headroom, request_rows
from pool_server.web.base.shared import query_params as asking
from pool_server.web.base.shared.names import Names
from pool_server.web.base.shared.query_params import UsageQuery, Viewer
from pool_server.web.dashboard import overview as first
from pool_server.web.home import booking_pages

LATEST = 8


class OperatorValues(NamedTuple):
    """What `operator.html` shows, apart from the set-up. `focal`: the first line and its tone."""

    who: Viewer
    ask: UsageQuery
    names: Names
    hands: list[first.AttentionItem]
    rooms: list[first.HeadroomLine]
    resets: list[first.Reset]
    today: list[first.Compared]
    burning: str
    focal: tuple[str, str]
    latest: Sequence[Mapping[str, Any]]
    booking: booking_pages.BookingValues
    held: list[HeldRequest]
    mine: bool = False
    account_name: Callable[[str], str] = account_name


async def values(handler: PageHandler) -> OperatorValues:
    """For the operator who asks."""
    ctx, now = handler.ctx, handler.ctx.clock()
    who, ask = asking.viewer(handler), asking.read(handler)
    providers = headroom.provider_rows(ctx)
    told = await headline.foretold(ctx, now)

    def read() -> tuple[Any, ...]:
        records, _next = ctx.ledger.log.page(LATEST)
        return first.today(ctx.ledger, ask, now), first.hour(ctx.ledger, ask, now), records

    today, hours, records = await asyncio.to_thread(read)
    names = Names(ctx, who)
    hands = first.hands(ctx.accounts.brief_all(), ctx.accounts.rejected(), now)
    hands += [first.AttentionItem("warn", words, "") for words in banner.others(ctx)]
    in_flight = sum(row.in_flight for row in providers)
    return OperatorValues(
        who=who,
        ask=ask,
        names=names,
        hands=hands,
        rooms=first.rooms(providers, told["providers"], hours, now),
        resets=first.resets(told["resets"], now) or first.shared_resets(providers, now),
        today=today,
        burning=first.burning(list(hours.values()), in_flight),
        focal=focal(hands, providers),
        latest=[request_rows.shown(record, names, admin=True) for record in records],
        booking=booking_pages.page_values(handler),
        held=await asyncio.to_thread(ctx.accounts.held.listed),
    )


def focal(hands: list[first.AttentionItem], providers: list[headroom.ProviderRow]) -> tuple[str, str]:
    """The first line and its tone."""
    if not providers:
        return _("The pool has no accounts yet"), "bad"
    if hands:
        return ngettext("{n} thing needs attention", "{n} things need attention", len(hands)), hands[0].tone
    ready, total = sum(row.ready for row in providers), sum(row.total for row in providers)
    if ready == total:
        return ngettext("The account is ready", "All {n} accounts are ready", total), "good"
    words = ngettext("{ready} of {n} account is ready", "{ready} of {n} accounts are ready", total, ready=ready)
    return words, "warn" if ready else "bad"
