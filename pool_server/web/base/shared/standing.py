"""The focal line of a friend's home: may I go on, until when, and if not, when again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pool_server.language import gettext as _
from pool_server.web.base.shared.headroom import ProviderRow
from pool_server.web.base.shared.limits import LimitRow

NEARLY = 80.0  # percent of a limit from which it is worth a word


class Standing(NamedTuple):
    """`headline` stands alone on its line. `at` (unix seconds) is when what `verb` says happens, None when that is
    not known; `rest` follows. `tone` is good, warn or bad."""

    headline: str
    tone: str
    verb: str = ""
    at: float | None = None
    rest: str = ""


def standing(
    limits: Sequence[LimitRow], providers: Sequence[ProviderRow], headroom: str, *, draining: bool = False
) -> Standing:
    """What matters most to this friend now. Their own used-up limit comes before anything said of the pool.

    `headroom` is the pool's headroom as one sentence without its full stop, "" when there is none.
    """
    ready = [row for row in providers if row.ready]
    said = _("{sentence}.", sentence=headroom) if headroom else ""
    used_up = [row for row in limits if row.used_up]
    if used_up:
        last = max(used_up, key=lambda row: row.frees or 0.0)
        pool = _("The pool itself has headroom.") if ready else said
        return Standing(last.yours_used_up, "bad", last.returns, last.frees, pool)
    if draining:
        return Standing(_("The pool is restarting."), "warn", rest=_("It takes new requests again in a moment."))
    if not providers:
        return Standing(_("The pool has no accounts yet."), "bad")
    if not ready:
        returns = [row.next_return for row in providers if row.next_return]
        if not returns:
            return Standing(_("No account can serve you now."), "bad", rest=_("The operator has to sign in again."))
        return Standing(_("The pool is used up."), "bad", _("Headroom returns"), min(returns), said)
    nearly = [row for row in limits if row.percent >= NEARLY]
    if nearly:
        most = max(nearly, key=lambda row: row.percent)
        return Standing(
            most.yours_used,
            "warn",
            most.returns,
            most.frees,
            said,
        )
    return Standing(_("You can use the pool now."), "good", rest=said)
