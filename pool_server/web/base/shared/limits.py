"""A user's limits and what is used of them, as bars with words. Pure but for the reads of `used`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pool_server.core.settings import COUNTED_LIMITS, Limits
from pool_server.language import gettext as _
from pool_server.ledger import Field, Filters, GroupSums, UsageSums
from pool_server.texts import format
from pool_server.users import LimitStanding, Principal
from pool_server.web.base.context import WebContext
from pool_server.web.base.shared import price_notes
from pool_server.web.base.shared.names import conversations
from pool_server.web.base.shared.price_notes import PriceBasis, PriceNotes

DAY = 86_400.0
MOST_KEYS = 1000  # of one user
LISTED = 5  # programs and conversations on a home page


class LimitRow(NamedTuple):
    """One limit: `percent` of it used, the figures in words, and when some of it comes back (unix seconds)."""

    label: str
    percent: float
    words: str
    frees: float | None
    yours: str = ""
    returns: str = ""
    resets: bool = True  # at a moment; else it frees up little by little

    @property
    def used_up(self) -> bool:
        return self.percent >= 100

    @property
    def yours_used_up(self) -> str:
        return _("{yours} used up.", yours=self.yours)

    @property
    def yours_used(self) -> str:
        return _("{yours} {percent} used.", yours=self.yours, percent=format.percent(self.percent))

    @property
    def state(self) -> str:
        """ "Used up", or how much is used."""
        return _("Used up") if self.used_up else _("{percent} used", percent=format.percent(self.percent))

    @property
    def tone(self) -> str:
        """bad, warn or "" for what is fine and needs no colour."""
        return "bad" if self.used_up else "warn" if self.percent >= 80 else ""


def rows(standing: LimitStanding, now: float) -> list[LimitRow]:
    """The limits that are set."""
    found, key = [], standing.key
    for counted in COUNTED_LIMITS:
        name = counted.name
        limit = getattr(standing.limits, name)
        if limit is None:
            continue
        used = standing.used.get(name) or 0
        say = format.money if counted.dollars else format.count
        frees = standing.frees.get(name)
        percent = 100.0 * used / limit if limit else 100.0
        words = _("{used} of {limit}", used=say(used), limit=say(limit))
        frees = frees if used and frees and frees > now else None
        yours = _(counted.yours)
        if key:
            yours = _("On your key “{key}”, {yours}", key=key, yours=yours[:1].lower() + yours[1:])
        found.append(
            LimitRow(_(counted.label), percent, words, frees, yours, _(counted.returns), "reset" in counted.returns)
        )
    return found


def usual(limits: Limits) -> dict[str, str]:
    """The settings' limits for everybody, as a form shows them: "none" where there is none."""
    values = {counted.name: getattr(limits, counted.name) for counted in COUNTED_LIMITS}
    return {name: _("none") if value is None else str(value).removesuffix(".0") for name, value in values.items()}


async def used(ctx: WebContext, user: str) -> list[tuple[str, UsageSums]]:
    """What a user has used in the last 24 hours and the last 7 days."""
    ledger, now = ctx.ledger, ctx.clock()
    return [
        (label, (await ledger.ask(ledger.queries.total, now - span, now + 1, Filters(user=user))).describe())
        for label, span in ((_("last 24 hours"), DAY), (_("last 7 days"), 7 * DAY))
    ]


class LabelUse(NamedTuple):
    """A program or a conversation, by its name."""

    name: str
    sums: GroupSums


async def labelled(ctx: WebContext, user: str) -> list[tuple[str, list[LabelUse]]]:
    """What a user has used most in the last 7 days, by program and by conversation."""
    ledger, now, mine = ctx.ledger, ctx.clock(), Filters(user=user)
    kinds: tuple[tuple[str, Field], ...] = ((_("Program"), "program"), (_("Conversation"), "conversation"))
    found = [
        (label, await ledger.ask(ledger.queries.top, field, now - 6 * DAY, now + 1, mine, limit=LISTED))
        for label, field in kinds
    ]
    known = await ledger.ask(conversations, ctx)
    return [
        (label, [LabelUse(known.get(row.key, user).title or row.key, row) for row in rows])
        for label, rows in found
        if rows
    ]


class KeyUse(NamedTuple):
    """A key as pages show it: `tokens` of its last 7 days, `own` limits (None: it has none), their `bars`, the tightest
    first. Times are unix seconds."""

    id: str
    label: str
    created: float
    expires: float | None
    last_used: float | None
    wait: str
    tokens: int
    own: Limits | None
    bars: list[LimitRow]


async def keys(ctx: WebContext, user: str) -> list[KeyUse]:
    """A user's keys."""
    ledger, now, mine = ctx.ledger, ctx.clock(), Filters(user=user)
    top = ledger.queries.top
    found = await ledger.ask(top, "key", now - 6 * DAY, now + 1, mine, limit=MOST_KEYS, timed=False)
    tokens = {row.key: row.total_tokens for row in found}
    return [
        _key(row, tokens.get(row["id"], 0), ctx.users.limits.key_standing(row["id"]), now)
        for row in ctx.users.people.list_keys(user)
    ]


def _key(row: Mapping[str, Any], tokens: int, standing: LimitStanding | None, now: float) -> KeyUse:
    bars = [] if standing is None else sorted(rows(standing, now), key=lambda bar: -bar.percent)
    own = None if standing is None else standing.limits
    return KeyUse(
        row["id"], row["label"], row["created"], row["expires"], row["last_used"], row["wait"], tokens, own, bars
    )


def of_caller(ctx: WebContext, who: Principal) -> list[LimitRow]:
    """The limits a caller is held to: their own, and those of the key they use."""
    if who.admin or who.local:
        return []
    now = ctx.clock()
    return [row for one in ctx.users.limits.of_caller(who.user, who.key) for row in rows(one, now)]


async def price_notes_of(ctx: WebContext, user: str) -> PriceNotes:
    """What the prices of a user's last 7 days leave out and rest on."""
    ledger, now, mine = ctx.ledger, ctx.clock(), Filters(user=user)
    models = await ledger.ask(ledger.queries.top, "model", now - 7 * DAY, now + 1, mine, limit=1000, timed=False)
    total = PriceBasis(
        sum(row.estimated for row in models),
        sum(row.estimated_cost_usd for row in models),
        sum(row.assumed for row in models),
        sum(row.assumed_cost_usd for row in models),
    )
    return price_notes.notes(total, {row.key: row for row in models}, ctx.ledger.prices, now)
