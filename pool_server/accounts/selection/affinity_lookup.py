"""What is known of a conversation when it asks for an account: its pins and its cache."""

from __future__ import annotations

from pool_server.accounts.selection.affinity import Pins
from pool_server.accounts.selection.select import Affinity, SelectionRequest
from pool_server.accounts.selection.warmth import WarmthMemory


def affinity_of(pins: Pins, warmth: WarmthMemory, request: SelectionRequest, now: float) -> Affinity:
    """Where the conversation of `request` lives."""
    hard = request.holder or None
    for kind, thing in () if request.holder else request.hard:
        owner = pins.owner(request.user, kind, thing, now)
        if owner is not None and owner.partition(":")[0] in request.providers:
            hard = owner
            break
    if request.session is None:
        return Affinity(None, hard)
    for provider in request.providers:
        pinned = pins.pinned(provider, request.user, request.session, now)
        if pinned is not None:
            return Affinity(pinned, hard, warmth.find(request.user, request.session, now))
    return Affinity(None, hard)
