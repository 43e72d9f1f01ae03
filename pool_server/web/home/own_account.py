"""What friends see and change of themselves: limits, use, keys, requests, set-up tickets."""

from __future__ import annotations

import msgspec

from pool_server.users import Principal
from pool_server.web.base.handler import Access, ProblemError
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import key_changes, own_requests

MOST = 100


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
    """`POST /api/keys {"label"?,"expires"?,"expires_in"?,"limits"?}` → `{"id","key","label"}`, the key shown once."""

    async def post(self) -> None:
        await key_changes.create(self, self.person.user)


class OwnKey(OwnHandler, access=Access.FRIEND):
    """`PATCH /api/keys/ID {"label"?,"expires"?,"expires_in"?,"limits"?}` → the key's row; `DELETE` ends the key and
    what runs on it."""

    async def patch(self, key: str) -> None:
        await key_changes.change(self, self.person.user, key)

    async def delete(self, key: str) -> None:
        await self.ctx.users.people.revoke_key(self.person.user, key, actor=self.actor)
        self.answer({"revoked": key})


class KeyPage(OwnHandler, access=Access.FRIEND):
    """One key of one's own: its limits as they stand and to change."""

    def get(self, key: str) -> None:
        values = key_changes.page_values(self.ctx, self.person.user, key)
        self.page("key.html", title=values["key"]["label"], **values, up=("/", "Home"), call=f"/api/keys/{key}")


class OwnRequests(OwnHandler, access=Access.FRIEND):
    """`GET /api/me/requests?limit=`: the caller's own latest exchanges, failures explained."""

    asks = frozenset(("limit",))

    def get(self) -> None:
        try:
            limit = max(1, min(MOST, int(self.get_query_argument("limit", "20"))))
        except ValueError:
            raise ProblemError(400, "bad_request", "limit must be a whole number") from None
        found = self.ctx.ledger.log.latest(self.principal.user, limit)
        self.answer({"requests": [own_requests.row(record) for record in found]})


class TicketsHandler(OwnHandler, access=Access.FRIEND):
    """`POST /api/setup-tickets` → `{"ticket","expires_in"}`, good for one script within ten minutes."""

    async def post(self) -> None:
        asked = self.body_as(NewTicket)
        self.answer(await self.ctx.users.tickets.create(self.principal, key_id=asked.key, label=asked.label))


class Passphrase(OwnHandler, access=Access.FRIEND):
    """`POST /api/me/passphrase`: a new one; every other browser is signed out."""

    async def post(self) -> None:
        asked = self.body_as(NewPassphrase)
        entry = await self.ctx.users.sign_in.change_passphrase(
            self.person, asked.current, asked.new, peer=self.peer, cookie=self.session_cookie
        )
        self.set_session(entry.cookie, entry.expires)
        self.answer({"changed": True})
