"""Which of the providers and accounts that could serve a request are open to whoever makes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pool_server.core.enums import ErrorKind, Provider
from pool_server.core.models import ClientError
from pool_server.core.settings import Limits


def open_to(x: Any, held_to: Sequence[Limits]) -> tuple[Provider, ...]:
    """Of the exchange `x`: those that its limits name, where they name any, and whose headroom others have not booked.
    Where none is left it is the first that is closed, whose refusal says why."""
    found: tuple[Provider, ...] = x.providers
    allowed = [one.providers for one in held_to if one.providers is not None]
    if allowed:
        has = x.services.accounts.has
        kept = tuple(one for one in found if all(one in names for names in allowed) and has(one))
        found = kept or found[:1]
    return _unbooked(x, found) if x.services.users.bookings.providers() else found


def _unbooked(x: Any, found: tuple[Provider, ...]) -> tuple[Provider, ...]:
    users, gauge = x.services.users, x.services.gauge
    booked = users.bookings.providers()
    closed = [one for one in found if one in booked and users.booked_out(x.principal, one.value, gauge.percent(one))]
    if not closed:
        return found
    x.providers = tuple(one for one in found if one not in closed)
    decision = x.services.accounts.select(x.new_ask())
    return x.providers if decision.account is not None or decision.retry_at is not None else tuple(closed[:1])


def force_refused(x: Any) -> ClientError | None:
    """The error when X-Pool-Account names an account that the caller of the exchange `x` may not force."""
    if x.forced is None:
        return None
    try:
        owner = x.services.accounts.owner(x.forced)
    except KeyError:
        owner = None
    if owner is not None and x.services.users.may_force(x.principal, owner):
        return None
    message = "X-Pool-Account names an account you may not force."
    return ClientError(ErrorKind.FORBIDDEN, message, 403, code="account_not_yours")
