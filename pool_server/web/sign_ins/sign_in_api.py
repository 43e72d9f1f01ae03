"""Sign-ins over HTTP: begun, looked at, gone on with and cancelled by the operator; delivered to by a line."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import msgspec

from pool_server.accounts import (
    AccountSignIn,
    PastedCodeError,
    SignInBusyError,
    SignInLimitError,
    SignInStart,
)
from pool_server.core.enums import Provider, SignInFlow, SignInState, SignInStep
from pool_server.language import gettext as _
from pool_server.language import localized
from pool_server.providers import CredentialRejectedError, provider_module
from pool_server.texts import client_settings, labels
from pool_server.web.base.context import WebContext
from pool_server.web.base.cross_site import JSON_OR_FORM, BodyKind
from pool_server.web.base.handler import Access, BaseHandler, ProblemError
from pool_server.web.base.page import PageHandler
from pool_server.web.base.proxies import base_url
from pool_server.web.onboarding import scripts, sign_in_lines

LARGEST = 256 * 1024  # bytes of a credential file that a line delivers


class BegunSignIn(msgspec.Struct, forbid_unknown_fields=True):
    """`account` gets a new sign-in; without it a new account comes of it, called `name`. `workspace` is the id of the
    one to sign in to, `consent`: the words about the subscription were read and agreed to."""

    provider: str
    flow: str = SignInFlow.LINE.value
    account: str = ""
    name: str = ""
    label: str = ""
    proxy_url: str = ""
    workspace: str = ""
    consent: bool = False


class SignInWord(msgspec.Struct, forbid_unknown_fields=True):
    """`code` is what was pasted, `confirm` "replace" or "new"."""

    code: str = ""
    confirm: str = ""


def reached_at(handler: BaseHandler) -> str:
    """How this visitor reaches the pool. ProblemError 400 where that cannot stand in a command."""
    try:
        return base_url(handler.ctx.settings.public_url, handler.scheme, handler.request.host)
    except ValueError as wrong:
        raise ProblemError(400, "bad_request", str(wrong)) from None


def row(handler: BaseHandler, record: AccountSignIn) -> dict[str, Any]:
    """A sign-in as its starter sees it, with the line for both kinds of shell."""
    found = handler.ctx.accounts.sign_ins.shown(record)
    ticket = found.pop("ticket", "")
    if ticket:
        posix, powershell = sign_in_lines.lines(reached_at(handler), ticket)
        found |= {"line": posix.text, "lines": {"sh": posix.text, "powershell": powershell.text}}
    return found


class SignInHandler(PageHandler, abstract=True):
    """What the routes of sign-ins have in common. `owner` is whom the account will belong to, "" = the pool."""

    owner = ""

    async def found(self, ident: str) -> AccountSignIn:
        """ProblemError 404 for one that is not there, or somebody else's."""
        record = await self.ctx.accounts.sign_ins.get(ident)
        if record is None or not (self.principal.admin or record.starter == self.principal.user):
            raise ProblemError(404, "not_found", _("there is no such sign-in"))
        return record

    async def begin(self, asked: BegunSignIn, *, owner: str = "", invitation: str = "") -> AccountSignIn:
        """Begin one. ProblemError 400, 404, 422 or 429 where that cannot be."""
        provider, flow = _provider(asked.provider), _flow(asked.flow)
        page = flow is not SignInFlow.LINE and not provider_module(provider).spec.page_sign_in
        if page or provider not in sign_in_lines.PROGRAMS:
            raise ProblemError(
                422, "no_such_flow", _("{value} cannot be signed in to in this way", value=provider.value)
            )
        if asked.account and (not self.ctx.accounts.knows(asked.account) or not self._own(asked.account, owner)):
            raise ProblemError(404, "not_found", _("there is no account {account}", account=asked.account[:80]))
        if asked.account and not asked.account.startswith(f"{provider.value}:"):
            raise ProblemError(
                422,
                "other_vendor",
                _("{account} is no account of {value}", account=asked.account[:80], value=provider.value),
            )
        start = SignInStart(
            provider, flow, self.principal.user, owner, asked.account, asked.name.strip(), asked.label.strip(),
            asked.proxy_url.strip() or None, asked.workspace.strip(), self._agreed(provider, asked.consent), invitation,
        )  # fmt: skip
        sign_ins = self.ctx.accounts.sign_ins
        try:
            made = await sign_ins.begin(start)
        except SignInLimitError as full:
            raise ProblemError(429, "too_many", localized(full)) from None
        detail = {
            "provider": provider.value,
            "flow": flow.value,
            "consent": start.consent,
            "language": self.locale.code,
        }
        await self.ctx.users.audit(self.actor, "sign_in.start", asked.account, detail)
        record = await sign_ins.get(made["id"])
        assert record is not None
        return record

    def _own(self, account: str, owner: str) -> bool:
        return not owner or self.ctx.accounts.owner(account) == owner

    def _agreed(self, provider: Provider, consent: bool) -> str:
        said = provider_module(provider).spec.consent
        headers = self.request.headers
        person = "Cookie" in headers or "Origin" in headers or "Sec-Fetch-Site" in headers
        if person and said and not consent:
            raise ProblemError(
                422, "consent", _("{said} Tick that you have read this and share it all the same.", said=_(said))
            )
        return said if consent else "not asked: begun by a program"

    async def go_on(self, record: AccountSignIn, said: SignInWord) -> AccountSignIn:
        """Take a pasted address or code, or what somebody decided. ProblemError 409 or 422."""
        sign_ins = self.ctx.accounts.sign_ins
        try:
            if said.confirm:
                after = await sign_ins.confirm(record, said.confirm)
                await self.ctx.users.audit(self.actor, "sign_in.confirm", after.account, {"choice": said.confirm})
                return after
            return await sign_ins.paste(record, said.code)
        except PastedCodeError as wrong:
            raise ProblemError(422, wrong.code, localized(wrong)) from None
        except CredentialRejectedError as refused:
            raise ProblemError(422, "rejected", localized(refused)) from None
        except SignInBusyError as busy:
            raise ProblemError(409, "busy", localized(busy)) from None


def _provider(said: str) -> Provider:
    try:
        return Provider(said.strip().lower())
    except ValueError:
        raise ProblemError(422, "rejected", _("there is no vendor {said}", said=repr(said[:40]))) from None


def _flow(said: str) -> SignInFlow:
    try:
        return SignInFlow(said)
    except ValueError:
        raise ProblemError(
            400, "bad_request", _("flow must be one of {signinflow}", signinflow=", ".join(SignInFlow))
        ) from None


class NewSignIn(SignInHandler, access=Access.ADMIN):
    """`POST /admin/sign-ins` begins one → `{"id","flow","line"?,"url"?,"user_code"?,"interval","expires_in"}`."""

    async def post(self) -> None:
        self.answer(row(self, await self.begin(self.body_as(BegunSignIn))), 201)

    def form_done(self, value: Any) -> None:
        self.redirect(f"/sign-ins/{value['id']}", status=303)


class OneSignIn(SignInHandler, access=Access.ADMIN):
    """`GET /admin/sign-ins/ID` its state; `POST {"code"}` or `{"confirm"}` goes on; `DELETE` cancels."""

    async def get(self, ident: str) -> None:
        self.answer(row(self, await self.found(ident)))

    async def post(self, ident: str) -> None:
        if self.is_form() and self.form().get("_method") == "DELETE":
            await self.delete(ident)
            return
        record = await self.found(ident)
        self.answer(row(self, await self.go_on(record, self.body_as(SignInWord))))

    async def delete(self, ident: str) -> None:
        record = await self.found(ident)
        await self.ctx.accounts.sign_ins.cancel(record.id)
        await self.ctx.users.audit(self.actor, "sign_in.cancel", record.target, {"provider": record.provider.value})
        self.answer({"cancelled": ident})


class OwnSignIns(SignInHandler, access=Access.FRIEND):
    """`POST /api/sign-ins`: a friend's own account is signed in, anew on an invitation or again."""

    async def post(self) -> None:
        asked, user = self.body_as(BegunSignIn), self.principal.user
        if self.principal.admin:
            raise ProblemError(409, "not_a_user", _("the operator signs accounts in on the accounts page"))
        if asked.proxy_url:
            raise ProblemError(422, "rejected", _("proxy_url is for the operator alone"))
        used = "" if asked.account else invitation(self.ctx, user, asked.provider.strip().lower())
        record = await self.begin(asked, owner=user, invitation=used)
        self.answer(row(self, record), 201)

    def form_done(self, value: Any) -> None:
        self.redirect(f"/sign-ins/{value['id']}", status=303)


class OwnSignIn(OneSignIn, access=Access.FRIEND):
    """`/api/sign-ins/ID`: as the operator's, for one's own."""


def invitation(ctx: WebContext, user: str, provider: str) -> str:
    """The invitation on which somebody may bring an account of this provider. ProblemError 403 where there is none."""
    held = ctx.users.codes.invited(user)
    fit = [one["id"] for one in held if one["provider"] in ("any", provider)]
    if held and not fit:
        raise ProblemError(
            403, "not_invited", _("your invitation is for another vendor's account: ask the operator for one for this")
        )
    if not fit:
        raise ProblemError(403, "not_invited", _("ask the operator for an invitation to contribute an account"))
    return str(fit[0])


class Contribute(PageHandler, access=Access.OPEN):
    """`GET /contribute/TICKET`: the line's script, which spends nothing; `POST` the credential file it has got: 201
    `{"account","test"}`. A used, old or foreign ticket answers a script that says so and fails."""

    body_cap = LARGEST
    open_cap = LARGEST
    takes = JSON_OR_FORM | {BodyKind.OTHER, BodyKind.ABSENT}

    async def get(self, ticket: str) -> None:
        powershell = self.get_query_argument("shell", "") == "powershell"
        base, sign_ins = reached_at(self), self.ctx.accounts.sign_ins
        record = await sign_ins.by_ticket(ticket)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        if record is None:
            self.finish(scripts.refusal(base, powershell=powershell))
            return
        await sign_ins.fetched(record)
        pool = self.ctx.pool_name
        self.finish(sign_in_lines.script(record.provider, powershell=powershell, base=base, ticket=ticket, pool=pool))

    async def post(self, ticket: str) -> None:
        if self.is_form() and any(name in self.request.headers for name in ("Cookie", "Origin", "Sec-Fetch-Site")):
            self.form()  # a browser's form carries the page's token, whatever it is for
        sign_ins = self.ctx.accounts.sign_ins
        record = await sign_ins.by_ticket(ticket)
        if record is None:
            raise ProblemError(404, "not_found", _("this line was used or has expired; ask for a new one"))
        try:
            text = bytes(self._chunks).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ProblemError(422, "rejected", _("the file is no UTF-8 text")) from None
        try:
            after = await sign_ins.deliver(record, text)
        except CredentialRejectedError as refused:
            raise ProblemError(422, "rejected", localized(refused)) from None
        except SignInBusyError as busy:
            raise ProblemError(409, "busy", localized(busy)) from None
        if after.state is SignInState.FAILED:
            raise ProblemError(422, after.code, after.told)
        if after.step is SignInStep.CONFIRM and after.open:
            self.answer({"state": "confirm", "message": after.told}, 202)
            return
        self.answer({"account": after.account, "test": after.test}, 201)


def offered(allowed: Set[str]) -> list[Provider]:
    """The vendors whose own programs somebody may run for a sign-in, `allowed` being what an invitation names."""
    return [one for one in sign_in_lines.PROGRAMS if allowed & {"any", one.value}]


class SignInPage(SignInHandler, access=Access.FRIEND):
    """`/sign-ins/ID`: one sign-in as it goes, live: the line, the code or the address, and how it ended."""

    async def get(self, ident: str) -> None:
        record = await self.found(ident)
        self.page(
            "sign_in.html",
            title="Sign in",
            row=row(self, record),
            label=labels.PROVIDERS[record.provider],
            steps=labels.SIGN_IN_STEPS,
            install=client_settings.INSTALL.get(record.provider.value, ""),
            notice=_(provider_module(record.provider).spec.notice),
            act=f"{'/admin' if self.principal.admin else '/api'}/sign-ins/{record.id}",
            back="/accounts" if self.principal.admin else "/contribute",
        )
