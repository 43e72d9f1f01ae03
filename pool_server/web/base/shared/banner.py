"""What is wrong now, in words: the line on top of the operator's pages, and of a friend's as far as it is theirs."""

from __future__ import annotations

from pool_server.alerts import AlertRule, Incident, open_incidents
from pool_server.core.enums import Provider
from pool_server.core.settings import COUNTED_LIMITS
from pool_server.texts import labels
from pool_server.web.base.auth import Caller
from pool_server.web.base.context import WebContext

FRIEND, ADMIN = 2, 3  # ranks, as `Access` has them
SHOWN = 3
_LISTED = (AlertRule.NEEDS_LOGIN, AlertRule.SUSPENDED)
_OF_ACCOUNTS = (*_LISTED, AlertRule.SIGN_IN_ENDS)
_LIMITS = {limit.name.replace("_", " "): limit.label[:1].lower() + limit.label[1:] for limit in COUNTED_LIMITS}


def lines(ctx: WebContext, caller: Caller) -> list[str]:
    """What a caller's pages say on top, oldest first. A friend is told of room that ends, and of nothing else."""
    if caller.rank < FRIEND:
        return []
    found = open_incidents(ctx.ledger.store)
    return [words(one) for one in found if caller.rank >= ADMIN or one.rule is AlertRule.HEADROOM]


def others(ctx: WebContext) -> list[str]:
    """What is wrong beside single accounts: those have their own list on the dashboard."""
    found = open_incidents(ctx.ledger.store)
    return [words(one) for one in found if one.rule not in _LISTED]


def words(incident: Incident) -> str:
    """An incident's sentence with the names people use: "Claude work needs its owner to sign in again"."""
    text = incident.text
    if incident.rule in _OF_ACCOUNTS or incident.rule is AlertRule.HEADROOM:
        name, _, stem = incident.subject.partition(":")
        spoken = labels.PROVIDERS[Provider(name)] if name in tuple(Provider) else name
        text = text.replace(incident.subject, f"{spoken} {stem}".strip(), 1)
    if incident.rule is AlertRule.BUDGET:
        for plain, label in _LIMITS.items():
            text = text.replace(f"the limit {plain}", f"the limit of {label}")
    return text[:1].upper() + text[1:]
