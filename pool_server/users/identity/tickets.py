"""Set-up tickets: single-use, good for ten minutes, exchanged for a key by whoever runs the one-line command."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from typing import Any

from pool_server.users.identity.directory import Directory
from pool_server.users.identity.people import People, checked_label
from pool_server.users.models import (
    LOCAL_USER,
    AuditActor,
    Principal,
    Ticket,
    decode_ticket,
    not_found,
)
from pool_server.users.ports import DoorPort

TICKET_S = 600.0
LOCAL_KEY = "local"  # local mode asks for no key, but most CLIs want something in its place
_SHAPE = re.compile(r"[A-Za-z0-9_-]{32}")


class Tickets:
    """Tickets live in the state store under their hash; a restart of the machine may end them early."""

    def __init__(self, port: DoorPort, people: People, directory: Directory, clock: Callable[[], float]) -> None:
        self._port = port
        self._people = people
        self._directory = directory
        self._clock = clock

    async def create(self, principal: Principal, *, key_id: str = "", label: str = "") -> dict[str, Any]:
        """A ticket → {"ticket", "expires_in"} (seconds).

        It hands out the caller's key `key_id` again, or a new one named `label`. Raises RefusedError 404 when that key
        is not the caller's.
        """
        if key_id and self._people.owner(key_id) != principal.user:
            raise not_found("key")
        value = secrets.token_urlsafe(24)
        ticket = Ticket(principal.user, self._clock() + TICKET_S, key_id, checked_label(label) if label else "")
        await self._port.ticket_make(_key(value), ticket)
        return {"ticket": value, "expires_in": int(TICKET_S)}

    async def redeem(self, value: str, *, peer: str, label: str = "", replaces: bool = False) -> dict[str, Any]:
        """Uses a ticket up → {"user": {"id", "name"}, "key", "key_id"}; `label` names a new key, if one is made, and
        with `replaces` earlier keys of that label end.

        Raises RefusedError 404, the same for a ticket that is used, too old, revoked or was never made.
        """
        if not _SHAPE.fullmatch(value):
            raise not_found("ticket")
        ticket = await self._port.ticket_take(_key(value))
        if ticket is None or ticket.expires <= self._clock():
            raise not_found("ticket")
        if ticket.user == LOCAL_USER:
            return {"user": {"id": LOCAL_USER, "name": "you"}, "key": LOCAL_KEY, "key_id": ""}
        view = self._directory.view(ticket.user)
        if view is None or not view.active:
            raise not_found("ticket")
        token = self._people.token(ticket.key) if ticket.key else None
        if ticket.key and token is None:
            raise not_found("ticket")  # its key was revoked meanwhile
        key_id = ticket.key
        if token is None:
            actor = AuditActor("user", view.id, view.name, peer)
            shown = label or ticket.label or "set-up"
            made = await self._people.create_key(view.id, shown, actor=actor, replaces=replaces)
            token, key_id = made["key"], made["id"]
        return {"user": {"id": view.id, "name": view.name}, "key": token, "key_id": key_id}

    async def once(self, what: str, seconds: float) -> bool:
        """Whether this is the first time that `what` is said, of all processes, within `seconds`."""
        now = self._clock()
        return await self._port.once(_key(f"once {what}"), now, now + seconds)

    async def leave(self, what: str, text: str, seconds: float) -> None:
        """Keeps `text` under `what` for whoever takes it, for so long; one left before is replaced."""
        await self._port.ticket_make(_key(f"left {what}"), Ticket("", self._clock() + seconds, "", text))

    async def left(self, what: str) -> str | None:
        """What was left under `what`, for the first who asks."""
        found = await self._port.ticket_take(_key(f"left {what}"))
        return found.label if found is not None and found.expires > self._clock() else None

    async def revoke(self, value: str) -> None:
        """The ticket is worth nothing any more."""
        await self._port.ticket_drop(_key(value))


def stale(raw: bytes, now: float) -> bool:
    """Whether a stored ticket has run out."""
    return decode_ticket(raw).expires <= now


def _key(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()
