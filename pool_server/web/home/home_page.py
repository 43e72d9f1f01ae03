"""`/`: in local mode the set-up page; in friends mode the door, or the friend's home once they are in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from pool_server.accounts.describe import AccountRow
from pool_server.core.enums import Dialect, Outcome, Provider
from pool_server.language import gettext as _
from pool_server.texts import client_settings
from pool_server.users import FLOOR_COST, Principal
from pool_server.web.base.auth import Caller
from pool_server.web.base.context import WebContext
from pool_server.web.base.handler import Access, ProblemError, denial
from pool_server.web.base.page import PageHandler
from pool_server.web.base.proxies import base_url
from pool_server.web.base.shared import headline, headroom, limits, request_rows, standing
from pool_server.web.home import booking_pages, operator_home, own_account
from pool_server.web.onboarding import private_authority, snippets
from pool_server.web.onboarding.steps import MODEL_PLACE, Client, Step, Usable

LOCAL_KEY = "local"  # any word does: local mode asks for no key, but the clients want to send one
LOCAL_TICKET = "local"  # nothing is handed out that would need a secret
KEY_PLACE = "YOUR-POOL-KEY"  # where the page's script puts a new key
LATEST = 8
_TICKET_S = 600
MOST_CODE = 128  # characters of a code that an invitation link fills in


def local_key(ctx: WebContext) -> str:
    """What local mode's set-up lines carry as the key."""
    return ctx.settings.local_token or LOCAL_KEY


def local_tickets(ctx: WebContext) -> list[str]:
    """The tickets that local mode's scripts are had by, the newest first. Where a token is asked for, the script holds
    it: such a ticket is good for ten to twenty minutes."""
    if not ctx.settings.local_token:
        return [LOCAL_TICKET]
    slot = int(ctx.clock() // _TICKET_S)
    return [ctx.users.page_token(f"local set-up {one}") for one in (slot, slot - 1)]


class SetupValues(NamedTuple):
    """What the set-up tabs show. `tickets`: client → the ticket of its one-line command; `bars`: client → its status
    bar; `trust`: the lines about a private authority; `anything`: whether any client is served, now or later."""

    base: str
    clients: tuple[Client, ...]
    endpoints: tuple[snippets.Endpoint, ...]
    tickets: dict[str, str]
    trust: tuple[Step, ...]
    anything: bool
    bars: dict[str, tuple[Step, ...]] = snippets.BARS
    key_place: str = KEY_PLACE
    model_place: str = MODEL_PLACE
    one_line: Callable[[str, str, str], tuple[Step, Step]] = snippets.one_line


class HomePage(PageHandler, abstract=True):
    """What the door, the friend's home and the local set-up page are made of."""

    def door(
        self,
        *,
        status: int = 200,
        problem: ProblemError | None = None,
        name: str = "",
        returning: bool = False,
        code: str = "",
    ) -> None:
        """The page for whoever is not in; `problem` says what was wrong with the form just sent."""
        self.page(
            "door.html", title="Sign in", status=status, problem=problem, name=name, returning=returning, code=code
        )

    async def enter(self, cookie: str, *, first_key: str) -> None:
        """The home of somebody who has just come in for the first time, with the key that is shown once."""
        principal = await self.ctx.users.sessions.find(cookie)
        if principal is None:
            raise ProblemError(401, "sign_in", _("sign in first"))
        self.caller = Caller(Access.FRIEND, "session", principal)
        await self.home(principal, first_key=first_key)

    async def home(self, principal: Principal, *, first_key: str = "") -> None:
        """The friend's home, or in local mode the set-up page: the same page without keys and limits."""
        ctx, base = self.ctx, self.base_url()
        key = local_key(ctx) if principal.local else first_key or KEY_PLACE
        latest = await ctx.ledger.ask(ctx.ledger.log.latest, principal.user, LATEST)
        bars = [] if principal.local else limits.rows(ctx.users.limits.standing(principal.user), ctx.clock())
        providers = headroom.provider_rows(ctx)
        values: dict[str, Any] = {
            "first_key": first_key,
            "providers": providers,
            "standing": standing.standing(bars, providers, await headline.sentence(ctx), draining=ctx.draining),
            "limits": bars,
            "used": await limits.used(ctx, principal.user),
            "labelled": await limits.labelled(ctx, principal.user),
            "notes": await limits.price_notes_of(ctx, principal.user),
            "price_lines": principal.local,
            "floor_cost": FLOOR_COST,
            "keys": [] if principal.local else await limits.keys(ctx, principal.user),
            "told_at": None if principal.local else own_account.chosen(ctx, principal.user),
            "offers_mail": own_account.offers_mail(ctx),
            "own": [] if principal.local else self._own(principal),
            "folded": any(record.outcome == Outcome.OK for record in latest) and not first_key,
            "wanted": self.get_query_argument("client", ""),
            "held": await asyncio.to_thread(ctx.accounts.held.listed, principal.user),
            **booking_pages.page_values(self)._asdict(),
            "transcripts_offered": ctx.transcripts.offered,
            "transcripts_since": ctx.users.consents.given(principal.user),
            "latest": [request_rows.row(record) for record in latest],
            **(await self._setup(base, key, principal))._asdict(),
            "local": principal.local,
            "principal": principal,
            "by_key": await ctx.users.sessions.entered_by_key(self.session_cookie) and not first_key,
        }
        self.page("home.html", title="Home", **values)

    def _own(self, principal: Principal) -> list[AccountRow]:
        """The accounts this friend has brought."""
        accounts = self.ctx.accounts
        owned = [one for one, owner in accounts.owned(tuple(Provider)) if owner == principal.user]
        return [accounts.describe(one) for one in owned]

    async def operator(self) -> None:
        """The operator's home; they are no friend of their own, so their lines wait for a key."""
        base = self.base_url()
        found = await operator_home.values(self)
        values = {**found._asdict(), **found.booking._asdict(), **(await self._setup(base, KEY_PLACE, None))._asdict()}
        self.page("operator.html", title="Home", **values, first_key="", local=False)

    async def _setup(self, base: str, key: str, principal: Principal | None) -> SetupValues:
        """What the set-up tabs show; for nobody in particular there is no one-line command."""
        tickets: dict[str, str] = {}
        if principal is not None:
            tickets = {cli: await self.ticket(principal, cli) for cli in client_settings.CLIS}
        usable = await self.usable(principal)
        return SetupValues(
            base,
            snippets.usable_first(snippets.clients(base, key, usable)),
            snippets.endpoints(base),
            tickets,
            private_authority.trust(private_authority.certificates(self.ctx.settings.tls_ca)),
            any(one.served or one.back for one in usable),
        )

    async def usable(self, principal: Principal | None) -> Usable:
        """What this person can be told to ask for in each dialect; None: nobody in particular. A page that only
        refreshes what changed does not show it."""
        if self.get_query_argument("part", ""):
            return Usable()
        return Usable(*await asyncio.gather(*(self.ctx.usable(principal, Dialect(one)) for one in Usable._fields)))

    async def ticket(self, principal: Principal, cli: str) -> str:
        """A set-up ticket for one client's command; none for a page that only refreshes what changed."""
        if principal.local:
            return local_tickets(self.ctx)[0]
        if self.get_query_argument("part", ""):
            return ""
        made = await self.ctx.users.tickets.create(principal, label=client_settings.LABELS[cli])
        return str(made["ticket"])

    def base_url(self) -> str:
        """How this visitor reaches the pool."""
        try:
            return base_url(self.ctx.settings.public_url, self.scheme, self.request.host)
        except ValueError as wrong:
            raise ProblemError(400, "bad_request", str(wrong)) from None


class Home(HomePage, access=Access.OPEN):
    async def get(self) -> None:
        principal = self.caller.principal
        if principal is None and self.ctx.local:
            self.redirect("/admin", status=303)
        elif principal is None or self.caller.via == "key":
            back, denied = bool(self.get_query_argument("back", "")), self.caller.denied
            problem = denial(denied, self.ctx.clock()) if denied is not None else None
            status = problem.status_code if problem is not None else 200
            code = self.get_query_argument("code", "")[:MOST_CODE]
            self.door(returning=back, code=code, problem=problem, status=status)
        elif principal.admin and not principal.local:
            await self.operator()
        else:
            await self.home(principal)
