"""What friends see and change of themselves: limits, use, keys, requests, set-up tickets."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from pool_server.users import Principal
from pool_server.web.base.handler import Access, ProblemError
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import own_requests

MOST = 100
MOST_S = 10 * 365 * 86_400.0


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """`expires` in unix seconds, None = never; `expires_in` says it in seconds from now."""

    label: str = ""
    expires: float | None = None
    expires_in: Annotated[float, Meta(gt=0, le=MOST_S)] | None = None


class NewTicket(msgspec.Struct, forbid_unknown_fields=True):
    """`key` is the id of a key of one's own to hand out again; "" = the script brings a new one."""

    key: str = ""
    label: str = ""


class NewPassphrase(msgspec.Struct, forbid_unknown_fields=True):
    new: str
    current: str = ""


class OwnHandler(PageHandler, abstract=True):
    """A route about the caller's own things."""

    @property
    def person(self) -> Principal:
        """The caller, who has keys and limits; the admin and local mode have none."""
        if self.principal.admin:
            raise ProblemError(409, "not_a_user", "only pool users have keys; you are not signed in as one")
        return self.principal


class Me(OwnHandler, access=Access.FRIEND):
    """`GET /api/me`: who, limits, what is used, keys without their secrets."""

    def get(self) -> None:
        self.xsrf_token  # noqa: B018 - sets its cookie, which the next change will need
        self.answer(self.ctx.users.me(self.principal))


class Keys(OwnHandler, access=Access.FRIEND):
    """`POST /api/keys` → `{"id","key","label"}`, the key shown once."""

    async def post(self) -> None:
        asked = self.body_as(NewKey)
        expires = self.ctx.clock() + asked.expires_in if asked.expires_in is not None else asked.expires
        made = await self.ctx.users.people.create_key(self.person.user, asked.label, actor=self.actor, expires=expires)
        self.answer(made)


class OwnKey(OwnHandler, access=Access.FRIEND):
    """`DELETE /api/keys/ID` ends the key and what runs on it."""

    async def delete(self, key: str) -> None:
        await self.ctx.users.people.revoke_key(self.person.user, key, actor=self.actor)
        self.answer({"revoked": key})


class OwnRequests(OwnHandler, access=Access.FRIEND):
    """`GET /api/me/requests?limit=`: the caller's own latest exchanges, failures explained."""

    def get(self) -> None:
        try:
            limit = max(1, min(MOST, int(self.get_query_argument("limit", "20"))))
        except ValueError:
            raise ProblemError(400, "bad_request", "limit must be a whole number") from None
        found = self.ctx.ledger.log.latest(self.principal.user, limit)
        self.answer({"requests": [own_requests.row(record) for record in found]})


class TicketsHandler(OwnHandler, access=Access.FRIEND):
    """`POST /api/setup-tickets` → `{"ticket","expires_in"}`, good for one script within ten minutes."""

    def post(self) -> None:
        asked = self.body_as(NewTicket)
        self.answer(self.ctx.users.tickets.create(self.principal, key_id=asked.key, label=asked.label))


class Passphrase(OwnHandler, access=Access.FRIEND):
    """`POST /api/me/passphrase`: a new one; every other browser is signed out."""

    async def post(self) -> None:
        asked = self.body_as(NewPassphrase)
        entry = await self.ctx.users.sign_in.change_passphrase(
            self.person, asked.current, asked.new, peer=self.peer, cookie=self.session_cookie
        )
        self.set_session(entry.cookie, entry.expires)
        self.answer({"changed": True})
