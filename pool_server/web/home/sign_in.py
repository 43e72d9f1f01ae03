"""Coming in and going out: the door's forms, their JSON, and the admin's sign-in.

Both ways in take a plain HTML form (and answer with a page) or JSON (and answer with JSON).
"""

from __future__ import annotations

import hmac
from typing import Any, cast

import msgspec

from pool_server.language import gettext as _
from pool_server.users import RefusedError
from pool_server.users.identity.sign_in import SignedIn
from pool_server.web.base.cross_site import JSON_OR_FORM
from pool_server.web.base.handler import Access, ProblemError, denial
from pool_server.web.home.home_page import MOST_CODE, HomePage
from pool_server.web.home.openid import PENDING_S, OpenId, OpenIdError, PendingSignIn

MOST_ANSWER = 2048  # characters of a code


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


class OpenIdHandler(HomePage, abstract=True):
    """What goes to the identity provider and what comes back."""

    cookie = "pool_openid"

    def provider(self) -> OpenId:
        """The issuer of the settings. ProblemError 404 where there is none."""
        settings = self.ctx.settings.single_sign_on
        if self.ctx.local or not settings.issuer or not settings.client_id:
            raise ProblemError(404, "not_found", _("there is nothing here"))
        kept = self.ctx.open_id
        if kept is None or kept.settings != settings:
            kept = self.ctx.open_id = OpenId(settings, self.ctx.send, self.ctx.clock)
        return cast(OpenId, kept)

    @property
    def pending_name(self) -> str:
        return f"__Host-{self.cookie}" if self.is_secure else self.cookie

    @property
    def redirect_uri(self) -> str:
        return f"{self.base_url()}/sign-in/openid/callback"

    def keep(self, pending: PendingSignIn | None) -> None:
        """The browser keeps it until it comes back from the issuer's site, which a strict cookie would not outlive."""
        value = pending.written() if pending is not None else ""
        age = "" if pending is not None else "; Max-Age=0"
        secure = "; Secure" if self.is_secure else ""
        self.add_header("Set-Cookie", f"{self.pending_name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{age}")

    def refused(self, problem: ProblemError) -> None:
        self.door(status=problem.status_code, problem=problem, returning=True)


class OpenIdStart(OpenIdHandler, access=Access.OPEN):
    """`GET /sign-in/openid` leads to the identity provider."""

    async def get(self) -> None:
        pending, provider = PendingSignIn.new(self.ctx.clock()), self.provider()
        try:
            address = await provider.address(pending, self.redirect_uri)
        except OpenIdError as wrong:
            self.refused(ProblemError(502, "identity_provider", str(wrong)))
            return
        self.keep(pending)
        self.redirect(address, status=303)


class OpenIdCallback(OpenIdHandler, access=Access.OPEN):
    """`GET /sign-in/openid/callback?code=&state=`: back from the identity provider, once for each sign-in begun."""

    async def get(self) -> None:
        provider = self.provider()
        pending = PendingSignIn.read(self.get_cookie(self.pending_name, "") or "")
        self.keep(None)
        try:
            entry = await self._entered(provider, pending)
        except OpenIdError as wrong:
            self.refused(ProblemError(401, "identity_provider", str(wrong)))
        except RefusedError as refused:
            self.refused(denial(refused.denied, self.ctx.clock()))
        else:
            self.set_session(entry.cookie, entry.expires)
            # A redirect would still be the other site's: the browser would not send the new cookie along.
            self.page("signed_in.html", title=_("Signed in"))

    async def _entered(self, provider: OpenId, pending: PendingSignIn | None) -> SignedIn:
        said, now = self.get_query_argument("state", ""), self.ctx.clock()
        if pending is None or not hmac.compare_digest(said.encode(), pending.state.encode()) or pending.until <= now:
            raise OpenIdError(_("this sign-in was not begun here, or took too long; start again"))
        if not await self.ctx.users.tickets.once(f"openid {pending.state}", PENDING_S):
            raise OpenIdError(_("this sign-in was finished before; start again"))
        if self.get_query_argument("error", ""):
            raise OpenIdError(_("the identity provider signed nobody in; start again"))
        code = self.get_query_argument("code", "")
        if not code or len(code) > MOST_ANSWER:
            raise OpenIdError(_("the identity provider sent no code; start again"))
        who = await provider.identity(code, pending, self.redirect_uri)
        return await self.ctx.users.sign_in.by_identity(who, peer=self.peer)
