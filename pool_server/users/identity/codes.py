"""Personal friend codes: made by admins, good for so many people until some day, kept only as hashes.

A code reads `K7QF2-9XM4P-…`: its first group names the record, so that checking one is one bcrypt however many
there are; the rest (75 bits) is the secret.

Whoever knows the shared code could be many people, each with limits of their own: new people are counted by network
and in all. A personal code says itself how many it lets in.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pool_server.core.enums import Denial
from pool_server.core.loopback import is_loopback
from pool_server.core.settings import PoolUsers
from pool_server.language import gettext as _
from pool_server.storage import Store
from pool_server.users.changes import stored
from pool_server.users.identity.directory import checked_limits
from pool_server.users.identity.passwords import Hasher
from pool_server.users.identity.people import checked_label
from pool_server.users.identity.throttle import DAY_S, network, wider
from pool_server.users.models import (
    CODES,
    USED_UP,
    AuditActor,
    AuditRow,
    Code,
    NewPerson,
    RefusedError,
    User,
    bad_value,
    decode_code,
)
from pool_server.users.ports import PeoplePort, Trail

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: nothing that reads like something else
GROUP, GROUPS = 5, 4
MAX_USES = 10_000
_WIDER = 2  # so many times a network's share, for a wider one around it
_MISREAD = str.maketrans("OIL", "011")


def spelt(code: str) -> str:
    """A typed code in its one spelling: upper case, no dashes or spaces, misread letters put right.

    >>> spelt("k7qf2 9xm4p-lo")
    'K7QF29XM4P10'
    """
    return re.sub(r"[^0-9A-Z]", "", code.upper()).translate(_MISREAD)


class Codes:
    """The personal codes."""

    def __init__(self, port: PeoplePort, store: Store, hasher: Hasher, clock: Callable[[], float]) -> None:
        self._port = port
        self._store = store
        self._hasher = hasher
        self._clock = clock

    async def create(
        self,
        *,
        actor: AuditActor,
        label: str = "",
        uses: int | None = 1,
        expires: float | None = None,
        limits: Mapping[str, Any] | None = None,
        contributes: str = "",
    ) -> dict[str, Any]:
        """A new code → its row with "code", shown this once. `uses` None = any number; `expires` in unix seconds;
        `contributes`: see `Code`.

        `limits` become the limits of whoever enters with it. Raises RefusedError 400.
        """
        now = self._clock()
        if uses is not None and not 1 <= uses <= MAX_USES:
            raise bad_value(_("uses must be between 1 and {max_uses}", max_uses=MAX_USES))
        if expires is not None and expires <= now:
            raise bad_value(_("the code would have expired already"))
        preset = checked_limits(dict(limits or {}))
        groups = ["".join(secrets.choice(ALPHABET) for _letter in range(GROUP)) for _group in range(GROUPS)]
        hashed = await self._hasher.hash("".join(groups))
        code = Code(groups[0], hashed, now, uses, expires, preset, checked_label(label or "code"))
        code.contributes = contributes

        detail = {"label": code.label, "uses": uses, **({"contributes": contributes} if contributes else {})}
        trail = Trail([AuditRow.of(now, actor, "code.create", code.prefix, detail)])
        await stored(self._port.code_make(code, trail))
        return {**_row(code, now), "code": "-".join(groups)}

    def rows(self) -> list[dict[str, Any]]:
        """All codes, newest first, without the codes themselves.

        {"id", "label", "created", "uses_left", "expires", "limits", "used_by", "state"}
        """
        now = self._clock()
        with self._store.read() as txn:
            codes = [decode_code(raw) for _id, raw in txn.scan(CODES)]
        return [_row(code, now) for code in sorted(codes, key=lambda code: -code.created)]

    async def revoke(self, code_id: str, *, actor: AuditActor) -> None:
        """The code opens nothing any more; people who came by it stay. RefusedError 404."""
        trail = Trail([AuditRow.of(self._clock(), actor, "code.revoke", code_id)])
        await stored(self._port.code_end(code_id, trail))

    async def check(self, typed: str) -> Code | None:
        """The code behind what was typed, spent and expired ones too; None when wrong. One bcrypt either way."""
        text = spelt(typed)
        raw = self._store.get(CODES, text[:GROUP].encode()) if len(text) == GROUP * GROUPS else None
        code = decode_code(raw) if raw is not None else None
        right = await self._hasher.check(text, code.hash if code is not None else "")
        return code if right else None

    async def take(self, code: Code, user: User) -> None:
        """Somebody who is in already takes up an invitation to contribute. RefusedError 401 when it is used up."""

        def spend(kept: Code) -> bool:
            kept.spend(user.id)
            return True

        if user.id not in code.used_by and not await stored(self._port.code_change(code.prefix, spend)):
            raise RefusedError(Denial.BAD_LOGIN, _(USED_UP), 401)

    def invited(self, user_id: str) -> list[dict[str, Any]]:
        """The invitations to contribute that this person may still use: {"id", "provider", "expires"}."""
        now = self._clock()
        with self._store.read() as txn:
            codes = [decode_code(raw) for _id, raw in txn.scan(CODES)]
        return [
            {"id": code.prefix, "provider": code.contributes, "expires": code.expires}
            for code in codes
            if code.contributes and user_id in code.used_by and user_id not in code.done
            and (code.expires is None or code.expires > now)
        ]  # fmt: skip

    async def contributed(self, code_id: str, user_id: str) -> bool:
        """An account came of an invitation: it is used up for this person. False when it was already."""

        def note(code: Code) -> bool:
            if user_id in code.done:
                return False
            code.done.append(user_id)
            return True

        return bool(await stored(self._port.code_change(code_id, note)))

    def usable(self, code: Code) -> str | None:
        """Why a right code lets nobody new in, None when it does."""
        if code.uses_left == 0:
            return _(USED_UP)
        if code.expires is not None and code.expires <= self._clock():
            return _("this code has expired; ask for a new one")
        return None


def _row(code: Code, now: float) -> dict[str, Any]:
    expired = code.expires is not None and code.expires <= now
    return {
        "id": code.prefix,
        "label": code.label,
        "created": code.created,
        "uses_left": code.uses_left,
        "expires": code.expires,
        "limits": code.limits,
        "used_by": code.used_by,
        "contributes": code.contributes,
        "done": code.done,
        "state": "used up" if code.uses_left == 0 else "expired" if expired else "open",
    }


class TooManyNewPeople(NamedTuple):
    """Why nobody new may come, for the one who tries, and when it may be tried again (unix seconds)."""

    why: str
    retry_at: float | None


def networks_of(peer: str) -> list[str]:
    """Where somebody comes from. Nowhere in particular, where a proxy on this machine has not said."""
    return [] if is_loopback(peer) else [network(peer), *(name for name, _limit in wider(peer))]


def refused(came: list[NewPerson], peer: str, settings: PoolUsers, now: float) -> TooManyNewPeople | None:
    """Why nobody new may come from `peer`; `came` are those of the last day."""
    if len(came) >= settings.new_people_per_day:
        return _too_many(_("the pool has taken in as many new people as it does in a day"), came, now)
    for name in networks_of(peer):
        from_here = [one for one in came if name in one.networks]
        own = name == network(peer)
        if len(from_here) >= settings.new_people_per_network * (1 if own else _WIDER):
            return _too_many(_("as many new people have come from your network as may in a day"), from_here, now)
    return None


def _too_many(why: str, came: list[NewPerson], now: float) -> TooManyNewPeople:
    retry_at = min(now, min(one.at for one in came)) + DAY_S if came else None
    return TooManyNewPeople(
        _("{why}; ask whoever runs it for a code of your own, or come back tomorrow", why=why), retry_at
    )


def taken_in(came: list[NewPerson], peer: str, settings: PoolUsers, now: float) -> list[NewPerson] | TooManyNewPeople:
    """Somebody new comes after those who `came`: who counts from now on, or why they may not."""
    came = [one for one in came if one.at > now - DAY_S]
    return refused(came, peer, settings, now) or [*came, NewPerson(now, networks_of(peer))]
