"""The first sentence of the page: how long each provider's room lasts at the present pace, in words.

The forecast reads weeks of quota history, so it is made in a thread and kept for half a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pool_server.accounts.describe import ProviderStatus
from pool_server.core.enums import AccountState
from pool_server.language import gettext as _
from pool_server.ledger import Confidence
from pool_server.texts import format, labels
from pool_server.web.base.context import WebContext

KEPT_S = 30.0
LONG_S = 20 * 3600.0  # what lasts longer than a day's work needs no figure
_DEAD = frozenset({AccountState.NEEDS_LOGIN, AccountState.SUSPENDED, AccountState.DISABLED})


class Clause(NamedTuple):
    """What is said of one provider; `one` follows a single name, `many` several with the same to say."""

    name: str
    one: str
    many: str


async def sentence(ctx: WebContext) -> str:
    """ "Claude has about 3 h 10 min of room at the present pace; Codex lasts all day", "" without any account."""
    now = ctx.clock()
    rows = ctx.accounts.summary()
    providers = (await foretold(ctx, now))["providers"]
    return joined([clause(row, providers.get(row.provider), now) for row in rows])


async def foretold(ctx: WebContext, now: float) -> Mapping[str, Any]:
    """The ledger's runway over the accounts that can still serve, at most KEPT_S old."""
    made, kept = ctx.foretold
    if 0 <= now - made < KEPT_S:
        return kept
    alive = [row.id for row in ctx.accounts.brief_all() if row.state not in _DEAD]
    found: Mapping[str, Any] = await asyncio.to_thread(ctx.ledger.runway.all, now, alive)
    ctx.foretold = (now, found)
    return found


def clause(row: ProviderStatus, foretold: Mapping[str, Any] | None, now: float) -> Clause:
    """One provider, from its row of `Accounts.summary()` and the ledger's forecast for it."""
    name = labels.PROVIDERS[row.provider]
    if not row.ready:
        back = row.next_return
        if back is None:
            return Clause(name, _("needs the operator"), _("need the operator"))
        within = format.within(back, now)
        return Clause(
            name,
            _("has no headroom (back {within})", within=within),
            _("have no headroom (back {within})", within=within),
        )
    if foretold is not None and foretold["confidence"] != Confidence.NONE:
        ends = foretold["lasts_until"]
        if ends is None or ends - now > LONG_S:
            return Clause(name, _("lasts all day"), _("last all day"))
        time = format.duration(ends - now)
        one = _("lasts for about {time} at this pace", time=time)
        return Clause(name, one, _("last for about {time} at this pace", time=time))
    if row.room_percent is not None:
        left = format.percent(row.room_percent)
        one = _("has {left} headroom left", left=left)
        return Clause(name, one, _("have {left} headroom left", left=left))
    return Clause(name, _("is ready"), _("are ready"))


def joined(clauses: Sequence[Clause]) -> str:
    """Providers of which the same is to be said share a clause."""
    groups: dict[tuple[str, str], list[str]] = {}
    for each in clauses:
        groups.setdefault((each.one, each.many), []).append(each.name)
    said = []
    for (one, many), names in groups.items():
        if len(names) == 1:
            said.append(f"{names[0]} {one}")
        else:
            listed = _("{names} and {name}", names=format.listed(names[:-1]), name=names[-1])
            said.append(f"{listed} {many}")
    return format.clauses(said)
