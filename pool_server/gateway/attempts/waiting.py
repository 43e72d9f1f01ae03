"""How long a request waits for an account to return: a moment where that is near, until its own time where it asked to
be held (`X-Pool-Wait`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from pool_server.accounts import Decision, SelectionRequest
from pool_server.accounts.held_requests import HeldRequest
from pool_server.core.deadlines import wait_until
from pool_server.dialects import BadBodyError


class BadWaitError(BadBodyError):
    """`X-Pool-Wait` cannot be understood; says how it is written."""


def asked(x: Any, headers: Mapping[str, str]) -> float:
    """Until when the client of the exchange `x` lets itself be held, unix seconds: by its own word, else by its key's.
    0 = not at all, also where the operator holds nobody. Raises BadWaitError."""
    settings = x.services.settings
    if not settings.night_shift.longest_h:
        return 0.0
    wait = headers.get("x-pool-wait") or x.services.users.waits(x.principal)
    try:
        return wait_until(wait, x.at, settings.ledger.timezone) if wait else 0.0
    except ValueError as wrong:
        raise BadWaitError(f"X-Pool-Wait: {wrong}") from None


async def turn(x: Any, ask: SelectionRequest, decision: Decision, falls_back: Callable[[], object]) -> Decision:
    """The decision for the exchange `x`, at once where one of another model may serve. Only answers that can be kept
    alive are held."""
    accounts, now = x.services.accounts, time.time()
    if decision.account is not None or decision.retry_at is None:
        return decision
    deadline, held = now + x.services.settings.choosing.wait_s, False
    if decision.retry_at > deadline and x.wait_until and x.peek.stream:
        deadline, held = accounts.held.deadline(x.principal.user, x.wait_until), True
    if decision.retry_at > deadline or falls_back():
        return decision
    if not held:
        turned: Decision = await accounts.wait_turn(ask, deadline=deadline)
        return turned
    request = HeldRequest(x.id, x.principal.user, x.peek.model, x.agent, now, deadline, "")
    found: Decision = await accounts.held.hold(
        request, lambda: accounts.wait_turn(ask, deadline=deadline), lambda: accounts.select(ask)
    )
    return found
