"""What is wrong now, in words: the line on top of the operator's pages, and of a friend's as far as it is theirs."""

from __future__ import annotations

from pool_server.alerts import AlertRule, Incident, open_incidents
from pool_server.core.enums import Provider
from pool_server.language import LazyText, localized
from pool_server.language import gettext as _
from pool_server.texts import labels
from pool_server.web.base.auth import Caller
from pool_server.web.base.context import WebContext

FRIEND, ADMIN = 2, 3  # ranks, as `Access` has them
SHOWN = 3
_LISTED = (AlertRule.NEEDS_LOGIN, AlertRule.SUSPENDED)
_OF_ACCOUNT = (*_LISTED, AlertRule.SIGN_IN_ENDS)


def lines(ctx: WebContext, caller: Caller) -> list[str]:
    """What a caller's pages say on top, oldest first. A friend is told of room that ends, and of nothing else."""
    if caller.rank < FRIEND:
        return []
    found = _now(ctx)
    return [words(one) for one in found if caller.rank >= ADMIN or one.rule is AlertRule.HEADROOM]


def others(ctx: WebContext) -> list[str]:
    """What is wrong beside single accounts: those have their own list on the dashboard."""
    return [words(one) for one in _now(ctx) if one.rule not in _LISTED]


def _now(ctx: WebContext) -> list[Incident]:
    """What is wrong at this moment: an incident stays open for a while after its cause has gone, and its account may
    have been removed since the last look."""
    return [
        one
        for one in open_incidents(ctx.ledger.notes)
        if one.quiet_since is None and (one.rule not in _OF_ACCOUNT or ctx.accounts.knows(one.subject))
    ]


def words(incident: Incident) -> str:
    """An incident's sentence with the names people use: "Claude work needs its owner to sign in again"."""
    if not incident.message:
        return incident.text[:1].upper() + incident.text[1:]
    spoken = {
        name: localized(value) if isinstance(value, LazyText) else _SPOKEN.get(name, str)(value)
        for name, value in incident.values.items()
    }
    text = _(incident.message, **spoken)
    return text[:1].upper() + text[1:]


def _account(ident: str) -> str:
    name, _colon, stem = ident.partition(":")
    return f"{_provider(name)} {stem}".strip()


def _provider(name: str) -> str:
    return labels.PROVIDERS[Provider(name)] if name in tuple(Provider) else name


_SPOKEN = {"account": _account, "provider": _provider, "limit": _, "what": _, "wrong": _}
