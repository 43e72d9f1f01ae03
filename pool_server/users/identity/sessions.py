"""Browser sessions: a random id in a signed cookie, everything else in the store under the id's hash."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

from pool_server.users.changes import stored
from pool_server.users.identity.directory import Directory
from pool_server.users.identity.tokens import Signer
from pool_server.users.models import ADMIN_USER, AuditActor, AuditRow, Principal, Session, decode_session
from pool_server.users.ports import DoorPort, Trail
from pool_server.users.replica import Follower

FRIEND_S = 30 * 86400.0
ADMIN_S = 12 * 3600.0
MAX_COOKIE = 512
RESET_S = 600.0  # a session opened with a key may set a passphrase without the old one for so long


class Sessions:
    """Opens, finds and ends sessions. A friend's ends with passphrase or access, an admin's with the password."""

    def __init__(
        self,
        port: DoorPort,
        directory: Directory,
        signer: Callable[[], Signer],
        clock: Callable[[], float],
        guard: Callable[[], str],
        follower: Follower,
    ) -> None:
        self._port = port
        self._directory = directory
        self._signer = signer
        self._clock = clock
        self._follower = follower
        self._guard = guard  # fingerprint of the admin password, "" when there is none
        self.last_seen: dict[str, float] = {}  # user id → when, since the last flush

    async def open(self, user_id: str, *, actor: AuditActor, by_key: bool = False) -> tuple[str, float]:
        """A new session of a friend, or of the admin → the cookie's value and when it ends (unix seconds)."""
        now = self._clock()
        admin = user_id == ADMIN_USER
        view = None if admin else self._directory.view(user_id)
        session = Session(user_id, admin, now, now + (ADMIN_S if admin else FRIEND_S), peer=actor.peer)
        session.epoch = view.epoch if view is not None else 0
        session.guard = self._guard() if admin else ""
        session.by_key = by_key
        value = secrets.token_urlsafe(24)
        trail = Trail([AuditRow.of(now, actor, "session.open", user_id)])
        await stored(self._port.session_open(_key(value), session, trail))
        return self._signer().cookie(value), session.expires

    async def find(self, cookie: str) -> Principal | None:
        """Whose session a cookie is, None when it is nobody's or has ended."""
        now = self._clock()
        mark, session = await self._stored(cookie, now)
        if session is None:
            return None
        if session.admin:
            current = bool(session.guard) and session.guard == self._guard()
            return Principal(ADMIN_USER, "admin", admin=True, session=mark) if current else None
        view = self._directory.view(session.user)
        if view is None or view.epoch != session.epoch:  # changed on another machine a moment ago?
            await self._follower.catch_up()
            view = self._directory.view(session.user)
        if view is None or not view.active or view.epoch != session.epoch:
            return None
        self.last_seen[view.id] = now
        return Principal(view.id, view.name, session=mark)

    async def entered_by_key(self, cookie: str) -> bool:
        """Whether this session was opened with a pool key a moment ago: its friend may have lost the passphrase."""
        now = self._clock()
        _, session = await self._stored(cookie, now)
        return session is not None and session.by_key and 0 <= now - session.created <= RESET_S

    async def _stored(self, cookie: str, now: float) -> tuple[str, Session | None]:
        """A short name for the session and what is kept of it, None when there is none or it has run out."""
        value = self._signer().opened(cookie, now) if 0 < len(cookie) <= MAX_COOKIE else None
        session = await self._port.session(_key(value)) if value else None
        if value is None or session is None:
            return "", None
        return _key(value).hex()[:12], session if session.expires > now else None

    async def end(self, cookie: str, *, actor: AuditActor) -> None:
        """Ends the session of a cookie; nothing happens when there is none."""
        now = self._clock()
        value = self._signer().opened(cookie, now) if len(cookie) <= MAX_COOKIE else None
        if value is None:
            return
        trail = Trail([AuditRow.of(now, actor, "session.end", actor.user)])
        await stored(self._port.session_end(_key(value), trail))


def _key(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()


def stale(raw: bytes, now: float) -> bool:
    """Whether a stored session has run out."""
    return decode_session(raw).expires <= now
