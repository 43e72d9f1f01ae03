"""Coming in and going out: the door's forms, their JSON, and the admin's sign-in.

Both ways in take a plain HTML form (and answer with a page) or JSON (and answer with JSON).
"""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.users import RefusedError
from pool_server.web.base.cross_site import JSON_OR_FORM
from pool_server.web.base.handler import Access, ProblemError, denial
from pool_server.web.home.home_page import MOST_CODE, HomePage


class FriendLogin(msgspec.Struct, forbid_unknown_fields=True):
    """Code, name and passphrase the first time; name and passphrase, or a key, from then on."""

    code: str = ""
    name: str = ""
    passphrase: str = ""
    key: str = ""


class AdminLogin(msgspec.Struct, forbid_unknown_fields=True):
    """`totp` is the code of an authenticator app, where the settings ask for one."""

    password: str
    totp: str = ""


class Login(HomePage, access=Access.OPEN):
    """`POST /api/friend/login` → the session cookie, `{"user", "is_new"}`, for somebody new the first key."""

    takes = JSON_OR_FORM

    def get(self) -> None:
        self.redirect("/", status=303)

    async def post(self) -> None:
        asked, form = self._asked()
        try:
            entry = await self.ctx.users.sign_in.friend_login(
                peer=self.peer, code=asked.code, name=asked.name, passphrase=asked.passphrase, key=asked.key
            )
        except RefusedError as refused:
            if not form:
                raise
            self._again(asked, denial(refused.denied, self.ctx.clock()))
            return
        self.set_session(entry.cookie, entry.expires)
        if not form:
            answer: dict[str, Any] = {"user": {"id": entry.user, "name": entry.name}, "is_new": entry.is_new}
            if entry.key:
                answer |= {"key": entry.key, "key_id": entry.key_id}
            self.xsrf_token  # noqa: B018 - sets its cookie, which the next change will need
            self.answer(answer)
        elif entry.key:
            await self.enter(entry.cookie, first_key=entry.key)
        else:
            self.redirect("/", status=303)

    def _asked(self) -> tuple[FriendLogin, bool]:
        """What was sent, and whether by a form. Nothing in the query string counts."""
        if not self.is_form():
            return self.body_as(FriendLogin), False
        known = {name: value for name, value in self.form().items() if name in FriendLogin.__struct_fields__}
        return FriendLogin(**known), True

    def _again(self, asked: FriendLogin, problem: ProblemError) -> None:
        if problem.retry_after is not None:
            self.set_header("Retry-After", str(max(1, round(problem.retry_after))))
        self.door(
            status=problem.status_code,
            problem=problem,
            name=asked.name,
            returning=not asked.code,
            code=asked.code[:MOST_CODE],
        )


class Logout(HomePage, access=Access.FRIEND):
    """`POST /api/friend/logout` ends this browser's session; the first page follows for a form."""

    takes = JSON_OR_FORM

    async def post(self) -> None:
        form = self.is_form()
        if form:
            self.form()
        await self.ctx.users.sessions.end(self.session_cookie, actor=self.actor)
        self.clear_session()
        if form:
            self.redirect("/", status=303)
        else:
            self.answer({"signed_out": True})


class Admin(HomePage, access=Access.OPEN):
    """`/admin`: the admin's sign-in, and for whoever is signed in the way to the accounts."""

    takes = JSON_OR_FORM

    def get(self) -> None:
        if self.caller.rank >= Access.ADMIN:
            self.redirect("/", status=303)
        else:
            self.page("admin.html", title="Operator", problem=None)

    async def post(self) -> None:
        form = self.is_form()
        asked = (
            AdminLogin(self.form().get("password", ""), self.form().get("totp", ""))
            if form
            else self.body_as(AdminLogin)
        )
        try:
            entry = await self.ctx.users.sign_in.admin_login(asked.password, peer=self.peer, totp=asked.totp)
        except RefusedError as refused:
            if not form:
                raise
            problem = denial(refused.denied, self.ctx.clock())
            if problem.retry_after is not None:
                self.set_header("Retry-After", str(max(1, round(problem.retry_after))))
            self.page("admin.html", title="Operator", status=problem.status_code, problem=problem)
            return
        self.set_session(entry.cookie, entry.expires)
        if form:
            self.redirect("/", status=303)
        else:
            self.xsrf_token  # noqa: B018 - sets its cookie, which the next change will need
            self.answer({"user": {"id": entry.user, "name": entry.name}, "admin": True})
