"""What a friend brings to the pool: invitations, and their own accounts added, changed, tried and withdrawn,
and what was given and taken."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from pool_server.accounts import NewAccount, RefreshError
from pool_server.accounts.describe import AccountRow, QuotaWindowRow, SharingRow
from pool_server.core.enums import AccountState, CredentialKind, Provider
from pool_server.language import gettext as _
from pool_server.language import ngettext
from pool_server.ledger import SharedAmount
from pool_server.providers import SPECS, Credential, CredentialRejectedError, provider_module
from pool_server.texts import format, labels
from pool_server.users import RefusedError
from pool_server.web.admin.account_changes import (
    REJECTED,
    AccountAdding,
    AccountChanges,
    AddedAccount,
    rejected,
    undone,
    words,
)
from pool_server.web.admin.account_words import next_step
from pool_server.web.base.context import WebContext
from pool_server.web.base.handler import Access, BaseHandler, ProblemError
from pool_server.web.base.modules import rendered
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import public_address
from pool_server.web.sign_ins import qr
from pool_server.web.sign_ins.sign_in_api import invitation, offered, reached_at

WEEKS = 8  # of what was given and taken, usually …
MOST_WEEKS = 52  # … and at most
MOST_S = 90 * 86400.0
_OPERATORS = ("admin_key", "disabled", "plan_type", "priority", "proxy_url", "terms", "weight")


class NewInvitation(msgspec.Struct, forbid_unknown_fields=True):
    """`kind` "person" lets somebody in, "account" also lets them bring one account of `provider` ("" = any). `uses`
    None = any number; `expires_in` seconds from now."""

    kind: str = "person"
    provider: str = ""
    label: str = ""
    uses: int | None = 1
    expires_in: float | None = 7 * 86400.0
    limits: dict[str, Any] = {}


class ClaimedInvitation(msgspec.Struct, forbid_unknown_fields=True):
    code: str


class OwnOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What a friend may change of their own account; null or "" takes it away."""

    label: str | msgspec.UnsetType | None = msgspec.UNSET
    models: list[str] | str | msgspec.UnsetType | None = msgspec.UNSET
    reserve: float | msgspec.UnsetType | None = msgspec.UNSET
    people: list[str] | str | msgspec.UnsetType | None = msgspec.UNSET
    groups: list[str] | str | msgspec.UnsetType | None = msgspec.UNSET
    disabled: bool | msgspec.UnsetType | None = msgspec.UNSET
    terms: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET


class Invitations(PageHandler, access=Access.ADMIN):
    """`GET /admin/invitations`; `POST` → `{"id","url","code"}`, shown once: the url opens the door with the code in."""

    def get(self) -> None:
        self.answer({"invitations": self.ctx.users.codes.rows()})

    async def post(self) -> None:
        asked = self.body_as(NewInvitation)
        if asked.kind not in ("person", "account"):
            raise ProblemError(400, "bad_request", _("kind must be person or account"))
        contributes = _invited_provider(asked.provider) if asked.kind == "account" else ""
        seconds = asked.expires_in
        if contributes and (seconds is None or not 0 < seconds <= MOST_S or asked.uses is None):
            raise ProblemError(400, "bad_request", _("an invitation to contribute has an end within 90 days, and uses"))
        made = await self.ctx.users.codes.create(
            actor=self.actor,
            label=asked.label or ("an account" if contributes else ""),
            uses=asked.uses,
            expires=None if seconds is None else self.ctx.clock() + seconds,
            limits=asked.limits,
            contributes=contributes,
        )
        url = f"{reached_at(self)}/?code={made['code']}"
        told = message(self.ctx.pool_name, url, made["code"], asked, contributes=bool(contributes))
        code = self._qr(url)
        self.answer({"id": made["id"], "code": made["code"], "url": url, "message": told, "qr": code}, 201)

    def _qr(self, url: str) -> str:
        """The link as an SVG, "" where it is too long for one."""
        drawn = qr.drawn(url)
        if drawn is None:
            return ""
        return rendered(self.templates(), "qr", **drawn._asdict(), label=_("The link as a QR code")).decode()


def message(pool: str, url: str, code: str, asked: NewInvitation, *, contributes: bool) -> str:
    """The text to paste into a chat."""
    said = (
        _("Join {pool} and share an account of yours; it stays yours: {url}", pool=pool, url=url)
        if contributes
        else _("Join {pool} and use Codex, Claude Code and other CLIs: {url}", pool=pool, url=url)
    )
    if asked.uses is None:
        works = _("The link works for as many as you like")
    else:
        works = ngettext("The link works once", "The link works {n} times", asked.uses)
    if asked.expires_in is not None:
        works += _(", within {time}", time=format.duration(asked.expires_in))
    return f"{said}\n{works}. " + _("If it asks for a code: {code}", code=code)


def _invited_provider(said: str) -> str:
    said = said.strip().lower()
    if said in ("", "any"):
        return "any"
    try:
        return Provider(said).value
    except ValueError:
        raise ProblemError(422, "rejected", _("there is no vendor {said}", said=repr(said[:40]))) from None


class Invitation(PageHandler, access=Access.FRIEND):
    """`POST /api/invitations` `{"code"}`: a friend who is in already takes up an invitation to contribute."""

    async def post(self) -> None:
        asked = self.body_as(ClaimedInvitation)
        await self.ctx.users.sign_in.claim(self.principal, asked.code, peer=self.peer)
        self.answer({"invitations": self.ctx.users.codes.invited(self.principal.user)})


class OwnAccountRow(msgspec.Struct, frozen=True):
    """An account as its owner sees it: nothing of the pool's. `next` is the one thing to do, in words."""

    id: str
    provider: Provider
    kind: CredentialKind
    plan: str | None
    label: str
    state: AccountState
    reason: str | None
    message: str
    windows: list[QuotaWindowRow]
    hosts: list[str]
    models: list[str]
    people: list[str] | None
    groups: list[str] | None
    reserve: float
    disabled: bool
    expires_at: float | None
    in_flight: int
    terms: SharingRow
    next: str


class OwnChanges(AccountChanges, abstract=True):
    """What the routes about a friend's own accounts have in common. Another's account answers like a missing one."""

    def own(self, account: str) -> str:
        accounts = self.ctx.accounts
        if not accounts.knows(account) or accounts.owner(account) != self.principal.user:
            raise ProblemError(404, "not_found", _("you have no account {account}", account=account[:80]))
        return account

    def rows(self) -> list[OwnAccountRow]:
        """One's own accounts, without anything of the pool's."""
        accounts, user = self.ctx.accounts, self.principal.user
        found = [one for one, owner in accounts.owned(tuple(Provider)) if owner == user]
        return [self._row(accounts.describe(one)) for one in found]

    def _row(self, row: AccountRow) -> OwnAccountRow:
        now, zone = self.ctx.clock(), format.zone(self.viewer_zone())
        step = next_step(row, now, format.clock(row.until, now, zone) if row.until else "", owner=True)
        return OwnAccountRow(
            id=row.id,
            provider=row.provider,
            kind=row.kind,
            plan=row.plan,
            label=row.label,
            state=row.state,
            reason=row.reason,
            message=row.message,
            windows=row.windows,
            hosts=row.hosts,
            models=row.models,
            people=row.people,
            groups=row.groups,
            reserve=row.reserve,
            disabled=row.disabled,
            expires_at=row.expires_at,
            in_flight=row.in_flight,
            terms=row.sharing,
            next=step,
        )


class OwnAccounts(AccountAdding, OwnChanges, access=Access.FRIEND):
    """`GET /api/accounts`: one's own; `POST` brings one, on an invitation."""

    untested = False

    def get(self) -> None:
        self.answer({"accounts": self.rows(), "invitations": self.ctx.users.codes.invited(self.principal.user)})

    async def post(self) -> None:
        asked = self.body_as(AddedAccount)
        if self.principal.admin:
            raise ProblemError(409, "not_a_user", _("the operator adds accounts on the accounts page"))
        try:
            new = await asyncio.to_thread(self.read, asked)
        except CredentialRejectedError as error:
            raise rejected(error) from None
        used = invitation(self.ctx, self.principal.user, new.provider.value)
        made = await self.add(await self._bounded(new), consent=asked.consent)
        await self.ctx.users.codes.contributed(used, self.principal.user)
        self.answer(made, 201)

    async def _bounded(self, new: NewAccount) -> NewAccount:
        """A friend's account: theirs, without the operator's options, and not in the pool's own network."""
        refused = [name for name in _OPERATORS if new.data.get(name)]
        if refused:
            raise ProblemError(422, "rejected", _("{refused} is for the operator alone", refused=refused[0]))
        module = provider_module(new.provider)
        try:
            cred = module.parse(new.data, f"{new.provider.value}:new", now=self.ctx.clock())
        except CredentialRejectedError as error:
            raise rejected(error) from None
        addresses = [cred.base_url] if cred.base_url else self._on_this_machine(new.provider, cred)
        for address in addresses:
            if why := await public_address.refusal(address):
                raise ProblemError(422, "rejected", why)
        bounds = {"public_only": True} if cred.base_url else {}  # a name may lead elsewhere later
        return NewAccount(new.provider, {**new.data, **bounds, "owner": self.principal.user}, new.name)

    def _on_this_machine(self, provider: Provider, cred: Credential) -> list[str]:
        """The addresses of a vendor that runs on the pool's own machine."""
        settings = self.ctx.settings
        if not SPECS[provider].preset or settings.upstreams.presets.get(provider.value):
            return []
        return [one for one in provider_module(provider).addresses(cred, settings) if one.startswith("http://")]

    def form_done(self, value: Any) -> None:
        self.redirect("/contribute", status=303)


class OwnAccount(OwnChanges, access=Access.FRIEND):
    """`PATCH /api/accounts/ID` one's own terms; `DELETE` withdraws it at once and deletes its credential."""

    async def patch(self, account: str) -> None:
        given = {
            name: value
            for name, value in msgspec.structs.asdict(self.body_as(OwnOptions)).items()
            if value is not msgspec.UNSET
        }
        changes: dict[str, Any] = {
            name: value for name, value in given.items() if name in ("reserve", "disabled", "terms")
        }
        if "label" in given:
            changes["label"] = (given["label"] or "").strip() or None
        if "models" in given:
            changes["models"] = words(given["models"] or "") or None
        if "people" in given:
            changes["people"] = None if given["people"] is None else self.people(given["people"])
        if "groups" in given:
            changes["groups"] = None if given["groups"] is None else self.groups(given["groups"])
        try:
            await self.ctx.accounts.change(self.own(account), changes)
        except REJECTED as error:
            raise rejected(error) from None
        await self.ctx.users.audit(self.actor, "account.change", account, changes)
        self.answer({"account": next(row for row in self.rows() if row.id == account)})

    async def delete(self, account: str) -> None:
        try:
            await self.ctx.accounts.withdraw_account(self.own(account))
        except OSError as error:
            raise rejected(error) from None
        await self.ctx.users.audit(self.actor, "account.withdraw", account)
        self.answer({"withdrawn": account})


class OwnTest(OwnChanges, access=Access.FRIEND):
    """`POST /api/accounts/ID/test`: one minimal real request with one's own account."""

    async def post(self, account: str) -> None:
        try:
            result = await self.ctx.accounts.test(self.own(account))
        except RefreshError as failed:
            raise undone(failed, account) from None
        await self.ctx.users.audit(self.actor, "account.test", account)
        self.answer({"result": result})


class ContributePage(OwnChanges, access=Access.FRIEND):
    """`GET /contribute`: a friend's own accounts, and what an invitation lets them bring."""

    async def get(self) -> None:
        if self.principal.admin:
            self.redirect("/accounts", status=303)
            return
        invited = self.ctx.users.codes.invited(self.principal.user)
        allowed = {one["provider"] for one in invited}
        rows = self.rows()
        programs = offered(allowed)
        self.page(
            "contribute.html",
            title="Your accounts",
            rows=rows,
            names={one: self._name(one) for row in rows for one in row.people or ()},
            hours_zone=self.ctx.settings.ledger.timezone,
            weeks=await by_week(self.ctx, self.principal.user, WEEKS),
            invited=invited,
            programs=[(one.value, labels.PROVIDERS[one], _(SPECS[one].consent)) for one in programs],
            keys=[(one.value, spec.label) for one, spec in SPECS.items() if allowed & {"any", one.value}],
            pages=any(SPECS[one].page_sign_in for one in programs),
            states={state.value: (labels.STATES[state], labels.TONES[state]) for state in AccountState},
        )

    def _name(self, user: str) -> str:
        """A person's name; their id once they are gone."""
        try:
            return str(self.ctx.users.people.get(user)["name"])
        except RefusedError:
            return user


# -- you gave, you took: what others used of one's accounts, and what one used of theirs, by week


def weeks(now: float, count: int, place: ZoneInfo) -> list[tuple[float, float]]:
    """This week and those before it, newest first, from Monday to Monday of that zone, in unix seconds."""
    today = datetime.fromtimestamp(now, place).replace(hour=0, minute=0, second=0, microsecond=0)
    monday = today - timedelta(days=today.weekday())
    heads = [monday - timedelta(weeks=back) for back in range(count)]
    return [(head.timestamp(), (head + timedelta(weeks=1)).timestamp()) for head in heads]


class WeekOfSharing(msgspec.Struct, frozen=True):
    """What others used of one's accounts, and what one used of others' and of one's own."""

    frm: float = msgspec.field(name="from")
    to: float
    gave: SharedAmount
    took: SharedAmount
    own: SharedAmount


async def by_week(ctx: WebContext, user: str, count: int) -> list[WeekOfSharing]:
    """Of one person, newest week first. Accounts count with who owns them now."""
    owners = dict(ctx.accounts.owned(tuple(Provider)))
    spans = weeks(ctx.clock(), count, ZoneInfo(ctx.settings.ledger.timezone))
    query = ctx.ledger.queries.shared_use

    def read() -> list[WeekOfSharing]:
        found = []
        for frm, to in spans:
            used = query(frm, min(to, ctx.clock() + 1), owners, person=user).person(user)
            found.append(WeekOfSharing(frm, to, *used.brief()))
        return found

    return await asyncio.to_thread(read)


class Balance(BaseHandler, access=Access.FRIEND):
    """`GET /api/me/balance?weeks=8` → `{"weeks":[{"from","to","gave","took","own"}]}`, the newest first; each with
    requests, total_tokens, cost_usd (worth at list prices) and unpriced requests. Nobody else's is told."""

    async def get(self) -> None:
        if self.principal.admin:
            raise ProblemError(409, "not_a_user", _("only pool users give and take; you are not signed in as one"))
        said = self.get_query_argument("weeks", str(WEEKS))
        count = int(said) if said.isdecimal() and len(said) < 4 else WEEKS
        self.answer({"weeks": await by_week(self.ctx, self.principal.user, max(1, min(MOST_WEEKS, count)))})
