"""The operator's accounts as JSON, and what can be done with one or, on a page of its own, with several."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime, tzinfo
from typing import Any, Literal, NamedTuple

import msgspec

from pool_server.accounts import Accounts
from pool_server.accounts.describe import AccountRow, RejectedFileRow, RemovedAccount
from pool_server.core.enums import AccountState, CredentialKind, Provider
from pool_server.language import gettext as _
from pool_server.language import marked, ngettext
from pool_server.ledger import AccountUsage, Filters, SharedAmount, SharedUse, SharedUses, UsageSums
from pool_server.texts import format, labels
from pool_server.users import RefusedError
from pool_server.web.admin.account_changes import UNDONE, NewAccounts, undone
from pool_server.web.base.context import WebContext
from pool_server.web.base.handler import Access, ProblemError
from pool_server.web.base.listing import matches, natural
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import query_params as asking

USAGE_S = 7 * 86_400.0
NO_USAGE = AccountUsage(0, 0, 0, 0, 0, 0, 0.0, 0)
MOST = 20_000
FEW = 64  # accounts
AT_ONCE = 50  # accounts described between two turns of the event loop

Action = Literal["enable", "disable", "refresh", "reset", "remove", "restore"]
MOST_PICKED = 1000  # accounts on the page, and in a request
REFRESHED = 8  # sign-ins refreshed at the same time
UNDO: dict[Action, Action] = {"enable": "disable", "disable": "enable", "remove": "restore"}
DONE = {
    "enable": marked("Turned on: {names}."),
    "disable": marked("Turned off: {names}. Answers in flight are finished."),
    "refresh": marked("Refreshed: {names}."),
    "reset": marked("Reset: {names}."),
    "remove": marked("Removed: {names}. Their files are kept for 30 days."),
    "restore": marked("Brought back: {names}."),
}
NAMED = 5  # names that a sentence lists


class ListedAccount(AccountRow, frozen=True):
    """With what it was used for in seven days; of an owner's account also what it gave, and what its owner took."""

    usage: AccountUsage
    gave: SharedAmount | None
    took: SharedAmount | None

    @classmethod
    def of(cls, row: AccountRow, usage: AccountUsage, shared: SharedUse | None) -> ListedAccount:
        gave, took = (None, None) if shared is None else shared.brief()[:2]
        return cls(**msgspec.structs.asdict(row), usage=usage, gave=gave, took=took)


class AccountsAnswer(msgspec.Struct):
    """`next` goes on after this page."""

    accounts: list[ListedAccount]
    rejected: list[RejectedFileRow]
    removed: list[RemovedAccount]
    next: str | None = None


class Priority(msgspec.Struct, forbid_unknown_fields=True):
    """Lower goes first; 100 is the ordinary one."""

    priority: int


async def rows(ctx: WebContext, ids: Sequence[str]) -> list[ListedAccount]:
    """These accounts as the accounts' room describes them, with `usage` of the last seven days; of an owner's account
    also what it `gave` to others in that time, and what its owner `took` of accounts that are not theirs."""
    now, owners = ctx.clock(), dict(ctx.accounts.owned(tuple(Provider)))
    wanted = set(ids)

    def read() -> tuple[dict[str, UsageSums], SharedUses | None]:
        used = _used(ctx, wanted, now - USAGE_S, now + 1)
        shared = owners.keys() & wanted and ctx.ledger.queries.shared_use(now - USAGE_S, now + 1, owners)
        return used, shared or None

    used, shared = await asyncio.to_thread(read)
    told: list[ListedAccount] = []
    for at in range(0, len(ids), AT_ONCE):
        for row in ctx.accounts.describe_some(ids[at : at + AT_ONCE]):
            both = shared.account(row.id) if shared is not None and row.id in owners else None
            told.append(ListedAccount.of(row, usage_of(used.get(row.id)), both))
        await asyncio.sleep(0)
    return told


def usage_of(sums: UsageSums | None) -> AccountUsage:
    """The part that the list tells."""
    return NO_USAGE if sums is None else AccountUsage(*(getattr(sums, one) for one in AccountUsage.__struct_fields__))


async def used(ctx: WebContext, ids: Sequence[str], zone: tzinfo) -> tuple[dict[str, UsageSums], dict[str, UsageSums]]:
    """What a page's accounts were used for in the last seven days, and today (since midnight of that zone)."""
    now, wanted = ctx.clock(), set(ids)
    midnight = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    return await asyncio.to_thread(
        lambda: (_used(ctx, wanted, now - USAGE_S, now + 1), _used(ctx, wanted, midnight, now + 1))
    )


def _used(ctx: WebContext, wanted: Collection[str], frm: float, to: float) -> dict[str, UsageSums]:
    """What these accounts were used for: a few are asked for one by one, many in one walk over all."""
    queries = ctx.ledger.queries
    if len(wanted) <= FEW:
        return {one: queries.total(frm, to, Filters(account=one)).describe() for one in wanted}
    return {row.key: row for row in queries.top("account", frm, to, limit=MOST, timed=False)}


class AccountList(NewAccounts, access=Access.ADMIN):
    """`GET /admin/accounts?limit=&cursor=`: every account with its state, windows and what it was used for, in the
    order of ids, or so many after the `cursor` that the page before gave as `next`; `POST` adds one."""

    async def get(self) -> None:
        if self.wants_page:
            self.redirect("/accounts", status=303)
            return
        accounts, limit = self.ctx.accounts, asking.whole(self, "limit", MOST, most=MOST) or MOST
        after = asking.text(self, "cursor")
        ids = [one for one in sorted(accounts.ids()) if one > after]
        more = {"next": ids[limit - 1]} if len(ids) > limit else {}
        told = {"rejected": accounts.rejected(), "removed": accounts.removed(), **more}
        self.answer({"accounts": await rows(self.ctx, ids[:limit]), **told})


class AccountAction(PageHandler, access=Access.ADMIN):
    """`POST /admin/accounts/ID/ACTION` → the account as it is afterwards, and for a test what came back."""

    async def post(self, account: str, action: str) -> None:
        accounts = self.ctx.accounts
        try:
            accounts.describe(account)
        except KeyError:
            raise ProblemError(404, "not_found", _("there is no account {account}", account=account)) from None
        detail: dict[str, Any] = {}
        result: dict[str, Any] | None = None
        try:
            match action:
                case "enable" | "disable" | "refresh" | "reset":
                    await act(accounts, account, action)
                case "test":
                    result = await accounts.test(account)
                case "priority":
                    detail = {"priority": self.body_as(Priority).priority}
                    await accounts.set_priority(account, detail["priority"])
                case "lock" | "unlock":
                    accounts.lock(account if action == "lock" else None)
        except UNDONE as wrong:
            raise undone(wrong, account) from None
        await self.ctx.users.audit(self.actor, f"account.{action}", account, detail)
        answer: dict[str, Any] = {"account": accounts.describe(account)}
        self.answer(answer if result is None else {**answer, "result": result})


class SeveralAccounts(msgspec.Struct, forbid_unknown_fields=True):
    """`accounts` by id; from a form, the ticked ones by name. `sure` = removal was asked for a second time."""

    action: Action
    accounts: list[str] | dict[str, Any] = []
    sure: bool = False


class FailedAccount(msgspec.Struct):
    account: str
    message: str


class DoneAccounts(msgspec.Struct):
    """What was done with which accounts, and which it could not be done with."""

    action: Action
    done: list[str]
    failed: list[FailedAccount]

    @property
    def words(self) -> str:
        """What was done, "" where nothing was."""
        return _(DONE[self.action], names=named(self.done)) if self.done else ""


class PickedAccount(NamedTuple):
    """A row of the page."""

    id: str
    name: str
    provider: Provider
    told: str  # its vendor and plan
    owner: str
    words: str
    tone: str


def named(ids: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    few = format.listed(labels.account_name(one) for one in ids[:NAMED])
    return _("{few} and {n} more", few=few, n=len(ids) - NAMED) if len(ids) > NAMED else few


async def act(accounts: Accounts, account: str, action: Action) -> None:
    """Raises one of UNDONE."""
    match action:
        case "enable" | "disable":
            await accounts.set_disabled(account, action == "disable")
        case "refresh":
            await accounts.refresh_now(account)
        case "reset":
            accounts.reset(account)
        case "remove":
            await accounts.remove(account)
        case "restore":
            await accounts.restore(account)


async def tried(accounts: Accounts, account: str, action: Action) -> str:
    """Why it could not be done, "" when it was."""
    try:
        await act(accounts, account, action)
    except UNDONE as wrong:
        return undone(wrong, account).message
    return ""


class SeveralAccountsPage(PageHandler, access=Access.ADMIN):
    """`GET ?q=&state=&provider=` lists what can be ticked; `POST {"action","accounts"}` → `{"action","done","failed"}`,
    each failed one with its `account` and `message`."""

    most_fields = MOST_PICKED + 16

    def get(self) -> None:
        self._show()

    async def post(self) -> None:
        asked = self.body_as(SeveralAccounts)
        picked = list(dict.fromkeys(asked.accounts))
        if not picked:
            raise ProblemError(400, "bad_request", _("tick an account first"))
        if len(picked) > MOST_PICKED:
            raise ProblemError(400, "bad_request", f"at most {MOST_PICKED} accounts at once")
        if asked.action == "remove" and not asked.sure and self.is_form():
            self._show(ticked=frozenset(picked), asks=True)
            return
        some, accounts = asyncio.Semaphore(REFRESHED), self.ctx.accounts

        async def one(account: str) -> str:
            async with some:
                return await tried(accounts, account, asked.action)

        wrong = dict(zip(picked, await asyncio.gather(*map(one, picked)), strict=True))
        done = [account for account in picked if not wrong[account]]
        for account in done:
            await self.ctx.users.audit(self.actor, f"account.{asked.action}", account)
        failed = [FailedAccount(account, why) for account, why in wrong.items() if why]
        self.answer(DoneAccounts(asked.action, done, failed))

    def form_done(self, value: Any) -> None:
        self._show(result=value, ticked=frozenset(value.done) | {one.account for one in value.failed})

    def _show(
        self, *, result: DoneAccounts | None = None, ticked: frozenset[str] = frozenset(), asks: bool = False
    ) -> None:
        chosen = {name: asking.text(self, name) for name in ("q", "state", "provider")}
        rows = self._rows(chosen, ticked)
        self.page(
            "several_accounts.html",
            title="Several accounts",
            rows=[row for row in rows if row.id in ticked] if asks else rows,
            ticked=ticked,
            asks=asks,
            heading=ngettext("Remove this account?", "Remove {n} accounts?", len(ticked)) if asks else "",
            chosen=chosen,
            result=result,
            undo=UNDO.get(result.action) if result is not None and result.done else None,
            states=[(one.value, labels.STATES[one]) for one in AccountState],
            providers=[(one, labels.PROVIDERS[one]) for one in sorted({row.provider for row in rows})],
        )

    def _rows(self, chosen: dict[str, str], ticked: frozenset[str]) -> list[PickedAccount]:
        """What is searched for, and what is ticked, by vendor and name."""
        found = []
        for row in self.ctx.accounts.brief_all():
            provider, state = row.provider, row.state
            plan = _(", API key") if row.kind is CredentialKind.API_KEY else f" {(row.plan or '').replace('_', ' ')}"
            told = labels.PROVIDERS[provider] + plan.rstrip()
            owner = self._name(row.owner) if row.owner else ""
            searched = (row.id, row.label, told, owner)
            same = chosen["state"] in ("", state) and chosen["provider"] in ("", provider)
            if row.id in ticked or (same and matches(searched, chosen["q"])):
                name = labels.account_name(row.id)
                words, tone = labels.STATES[state], labels.TONES[state]
                found.append(PickedAccount(row.id, name, provider, told, owner, words, tone))
        return sorted(found, key=lambda row: (row.provider, natural(row.id)))[:MOST_PICKED]

    def _name(self, user: str) -> str:
        try:
            return str(self.ctx.users.people.get(user)["name"])
        except RefusedError:
            return user
