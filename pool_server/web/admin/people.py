"""The admin's people: users, their limits and keys, personal codes, and the audit log, as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.language import gettext as _
from pool_server.users import AuditRow
from pool_server.web.base.handler import Access, BaseHandler, ProblemError
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import key_changes

MOST = 500


class NewUser(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    limits: dict[str, Any] = {}
    note: str = ""


class NewCode(msgspec.Struct, forbid_unknown_fields=True):
    """`uses` None = any number of people; `expires_in` seconds from now, None = never."""

    label: str = ""
    uses: int | None = 1
    expires_in: float | None = None
    limits: dict[str, Any] = {}


class AdminHandler(PageHandler, abstract=True):
    """JSON for the admin; a browser that wanders here is led to the page."""

    def limit(self, usual: int) -> int:
        """The `limit` of a list, 1 to MOST."""
        try:
            return max(1, min(MOST, int(self.get_query_argument("limit", str(usual)))))
        except ValueError:
            raise ProblemError(400, "bad_request", _("{name} must be a whole number", name="limit")) from None


class UsersHandler(AdminHandler, access=Access.ADMIN):
    """`GET …?cursor=&limit=&deleted=1` lists; `POST {"name","limits"?,"note"?}` → `{"id","name","key"}`."""

    def get(self) -> None:
        if self.wants_page:
            self.redirect("/people", status=303)
            return
        rows, following = self.ctx.users.people.list_users(
            cursor=self.get_query_argument("cursor", None),
            limit=self.limit(200),
            deleted=bool(self.get_query_argument("deleted", "")),
        )
        self.answer({"users": rows, "next": following})

    async def post(self) -> None:
        asked = self.body_as(NewUser)
        made = await self.ctx.users.people.create_user(
            asked.name, actor=self.actor, limits=asked.limits, note=asked.note
        )
        self.answer(made)


class UserHandler(AdminHandler, access=Access.ADMIN):
    """One user: `GET`, `PATCH {"disabled"?,"name"?,"limits"?,"note"?,"weight"?,
    "groups"?}`, `DELETE`."""

    async def get(self, user: str) -> None:
        users = self.ctx.users
        await users.limits.fetch([user], [key["id"] for key in users.people.list_keys(user)])
        self.answer({**users.people.get(user), "keys": users.keys(user), "standing": users.limits.of(user)})

    async def patch(self, user: str) -> None:
        self.answer(await self.ctx.users.people.patch_user(user, self.body_as(dict), actor=self.actor))

    async def delete(self, user: str) -> None:
        await self.ctx.users.people.delete_user(user, actor=self.actor)
        self.answer({"deleted": user})


class UserKeysHandler(PageHandler, access=Access.ADMIN):
    """A user's keys: `GET`, and `POST {"label"?,"expires"?,"expires_in"?,"limits"?}` → the new key, shown once."""

    def get(self, user: str) -> None:
        self.ctx.users.people.get(user)
        self.answer({"keys": self.ctx.users.keys(user)})

    async def post(self, user: str) -> None:
        await key_changes.create(self, user)


class UserKeyHandler(PageHandler, access=Access.ADMIN):
    """One key of a user: `PATCH {"label"?,"expires"?,"expires_in"?,"limits"?}` → its row; `DELETE` revokes it."""

    async def patch(self, user: str, key: str) -> None:
        await key_changes.change(self, user, key)

    async def delete(self, user: str, key: str) -> None:
        await self.ctx.users.people.revoke_key(user, key, actor=self.actor)
        self.answer({"revoked": key})


class UserActionHandler(PageHandler, access=Access.ADMIN):
    """`POST …/ID/rotate` → one new key in place of all; the other actions → the person's row."""

    async def post(self, user: str, action: str) -> None:
        users, actor = self.ctx.users, self.actor
        match action:
            case "rotate":
                self.answer(await users.people.rotate(user, actor=actor))
                return
            case "enable" | "disable":
                await users.people.patch_user(user, {"disabled": action == "disable"}, actor=actor)
            case "sign-out":
                await users.people.end_sessions(user, actor=actor)
            case "forget-passphrase":
                await users.sign_in.reset_passphrase(user, actor=actor)
        self.answer(users.people.get(user))


class KeyRotation(UserActionHandler, access=Access.ADMIN):
    """`POST …/ID/rotate` by itself, for the API."""

    async def post(self, user: str, action: str = "rotate") -> None:
        await super().post(user, "rotate")


class CodesHandler(PageHandler, access=Access.ADMIN):
    """`GET /admin/codes` and `POST {"label"?,"uses"?,"expires_in"?,"limits"?}` → the code, shown once."""

    def get(self) -> None:
        self.answer({"codes": self.ctx.users.codes.rows()})

    async def post(self) -> None:
        asked = self.body_as(NewCode)
        expires = None if asked.expires_in is None else self.ctx.clock() + asked.expires_in
        made = await self.ctx.users.codes.create(
            actor=self.actor, label=asked.label, uses=asked.uses, expires=expires, limits=asked.limits
        )
        self.answer(made)


class CodeHandler(PageHandler, access=Access.ADMIN):
    """`DELETE /admin/codes/ID`: the code opens nothing any more; who came by it stays."""

    async def delete(self, code: str) -> None:
        await self.ctx.users.codes.revoke(code, actor=self.actor)
        self.answer({"revoked": code})


class AuditHandler(AdminHandler, access=Access.ADMIN):
    """`GET /admin/audit?cursor=&limit=&actor=&action=&target=` → `{"rows","next"}`, newest first."""

    async def get(self) -> None:
        if self.wants_page:
            self.redirect("/audit", status=303)
            return
        rows, following = await audit(self, self.limit(100))
        self.answer({"rows": rows, "next": following})


async def audit(handler: BaseHandler, limit: int) -> tuple[list[AuditRow], int | None]:
    """A page of the audit log by the filters in the query; Problem 400 for a cursor that is no number."""
    argument = handler.get_query_argument
    try:
        cursor = int(argument("cursor", "0")) or None
    except ValueError:
        raise ProblemError(400, "bad_request", _("{name} must be a whole number", name="cursor")) from None
    return await handler.ctx.users.audit_log(
        cursor=cursor,
        limit=limit,
        actor=argument("actor", ""),
        action=argument("action", ""),
        target=argument("target", ""),
    )
