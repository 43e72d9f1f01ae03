"""The operator's pages: accounts, people, audit, what if. Each is a table over what the JSON API answers too."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec

from pool_server.accounts.describe import AccountBrief, AccountRow
from pool_server.core.enums import AccountState
from pool_server.core.settings import COUNTED_LIMITS
from pool_server.language import gettext as _
from pool_server.language import localized, marked
from pool_server.ledger import AccountUsage, Filters, UsageSums
from pool_server.texts import format, labels
from pool_server.users import AuditRow, RefusedError
from pool_server.web.admin import account_words, accounts, ledger_replay, people
from pool_server.web.base.handler import Access, ProblemError
from pool_server.web.base.listing import matches, natural, page_of
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import headroom, key_changes, limits, request_rows
from pool_server.web.base.shared import query_params as asking
from pool_server.web.base.shared.names import Names
from pool_server.web.base.shared.query_params import DAY
from pool_server.web.dashboard import charts

SELF_TOLD = frozenset({"session.open", "session.end"})
INLINE = 20  # accounts whose particulars are part of the page; of more they are fetched when a row is opened
UNGROUPED = 12  # accounts that need no headings between them
ORDER = {"bad": 0, "warn": 1, "quiet": 3, "good": 2}


class AccountsPage(PageHandler, access=Access.ADMIN):
    """A slim row an account, those that need attention first; `?q=&state=&provider=&page=`, and `?id=` opens one."""

    async def get(self) -> None:
        zone, ctx = format.zone(self.viewer_zone()), self.ctx
        chosen = {name: asking.text(self, name) for name in ("q", "state", "provider", "page", "id")}
        briefs, removed = ctx.accounts.brief_all(), ctx.accounts.removed()
        added, undo = asking.text(self, "added"), asking.text(self, "removed")
        names = {owner: self._name(owner) for owner in {row.owner for row in briefs} if owner}
        listing = page_of(
            (ListedRow.of(row, names.get(row.owner, "")) for row in briefs),
            chosen,
            path="/accounts",
            keep=lambda row: row.wanted(chosen),
            key=lambda row: (ORDER[row.tone], row.brief.provider, row.brief.priority, natural(row.brief.id)),
        )
        ids = [row.brief.id for row in listing.rows]
        week, today = await accounts.used(ctx, ids, zone)
        shown = [self._shown(row, week.get(row.id), today.get(row.id)) for row in ctx.accounts.describe_some(ids)]
        self.page(
            "accounts.html",
            title="Accounts",
            listing=listing,
            shown=shown,
            ready=sum(row.state is AccountState.READY for row in briefs),
            chosen=chosen,
            inline=len(shown) <= INLINE,
            grouped=listing.found > UNGROUPED,
            states=[(one.value, labels.STATES[one]) for one in AccountState],
            providers=[(one, labels.PROVIDERS[one]) for one in sorted({row.provider for row in briefs})],
            rejected=ctx.accounts.rejected(),
            trouble={name: localized(why) for name, why in ctx.accounts.folder_trouble().items()},
            locked=[row.id for row in briefs if row.locked],
            added=next((row for row in briefs if row.id == added), None),
            undo=undo if undo in {row["account"] for row in removed} else "",
            removed=removed,
            several=f"/admin/several-accounts?{urlencode({name: chosen[name] for name in ('q', 'state', 'provider')})}",
        )

    def _shown(self, row: AccountRow, week: UsageSums | None, today: UsageSums | None) -> ShownAccount:
        now, zone = self.ctx.clock(), format.zone(self.viewer_zone())
        gauges = [headroom.gauge(window, now) for window in row.windows]
        return ShownAccount(
            row=row,
            listed=ListedRow.of(row, self._name(row.owner) if row.owner else ""),
            people_names=[self._name(one) for one in row.people or ()],
            week=accounts.usage_of(week),
            about=week is not None and week.about,
            today=0 if today is None else today.total_tokens,
            words=labels.STATES[row.state],
            gauges=gauges,
            slim=headroom.slim(gauges),
            why=account_words.standing(row, format.clock(row.until, now, zone) if row.until else ""),
            next_step=account_words.next_step(row, now),  # "why" has said when it is back
            score_terms=account_words.terms(row, now),
        )

    def _name(self, user: str) -> str:
        try:
            return str(self.ctx.users.people.get(user)["name"])
        except RefusedError:
            return user


class ListedRow(NamedTuple):
    """What the list is searched, sorted and grouped by."""

    brief: AccountBrief
    tone: str
    provider_name: str
    group: str
    owner_name: str

    @classmethod
    def of(cls, row: AccountBrief, owner_name: str) -> ListedRow:
        tone, provider = labels.TONES[row.state], labels.PROVIDERS[row.provider]
        group = {"good": provider, "quiet": _("Off")}.get(tone, _("Not taking requests"))
        return cls(row, tone, provider, group, owner_name)

    def wanted(self, chosen: Mapping[str, str]) -> bool:
        """Whether the address asks for it."""
        row = self.brief
        if chosen["id"]:
            return row.id == chosen["id"]
        same = chosen["state"] in ("", row.state) and chosen["provider"] in ("", row.provider)
        return same and matches(
            (row.id, row.label, row.owner, self.owner_name, row.plan, self.provider_name), chosen["q"]
        )


class ShownAccount(NamedTuple):
    """A row of the page: words, bars and the score in sentences. `week`: its use of seven days, `about` whether that
    rests on estimates; `today`: the tokens since midnight."""

    row: AccountRow
    listed: ListedRow
    people_names: list[str]
    week: AccountUsage
    about: bool
    today: int
    words: str
    gauges: list[headroom.Gauge]
    slim: list[headroom.Gauge]
    why: str
    next_step: str
    score_terms: tuple[account_words.Term, ...]


SORTS = {
    "seen": (marked("Last seen"), lambda row: (-(row["last_seen"] or 0.0), natural(row["name"]))),
    "name": (marked("Name"), lambda row: natural(row["name"])),
    "tokens": (marked("Tokens, 7 days"), lambda row: (-row["tokens"], natural(row["name"]))),
    "joined": (marked("Joined"), lambda row: -(row["created"] or 0.0)),
}
PERSON_STATES = (("active", marked("Active")), ("disabled", marked("Off")))
EVERYBODY = 100_000
LATEST = 8  # requests of a person
CHARTED_DAYS = 30


class PeoplePage(PageHandler, access=Access.ADMIN):
    """Everybody, with their limits and usage, and the personal codes; `?q=&state=&sort=&page=`."""

    async def get(self) -> None:
        users, now = self.ctx.users, self.ctx.clock()
        chosen = {name: asking.text(self, name) for name in ("q", "state", "page")}
        chosen["sort"] = asking.word(self, "sort", tuple(SORTS), "seen")
        everybody, _next = users.people.list_users(limit=EVERYBODY)
        ledger = self.ctx.ledger
        week = await ledger.ask(ledger.queries.top, "user", now - 7 * DAY, now + 1, limit=EVERYBODY, timed=False)
        used = {row.key: row for row in week}
        for row in everybody:
            row["week"] = used.get(row["id"])
            row["tokens"] = row["week"].total_tokens if row["week"] else 0
        listing = page_of(
            everybody,
            chosen,
            path="/people",
            keep=lambda row: chosen["state"] in ("", row["state"]) and matches((row["name"], row["note"]), chosen["q"]),
            key=SORTS[chosen["sort"]][1],
        )
        await users.limits.fetch([row["id"] for row in listing.rows])
        for row in listing.rows:
            row["bars"] = limits.rows(users.limits.standing(row["id"]), now)
        self.page(
            "people.html",
            title="People",
            listing=listing,
            chosen=chosen,
            sorts=[(name, _(label)) for name, (label, _order) in SORTS.items()],
            states=[(value, _(label)) for value, label in PERSON_STATES],
            codes=users.codes.rows(),
            names={row["id"]: row["name"] for row in everybody},
        )


class PersonPage(PageHandler, access=Access.ADMIN):
    """One person: limits to change, keys to revoke, access to end."""

    async def get(self, user: str) -> None:
        users = self.ctx.users
        row = users.people.get(user)
        await users.limits.fetch([user], [key["id"] for key in users.people.list_keys(user)])
        ledger, names = self.ctx.ledger, Names(self.ctx, asking.viewer(self))
        latest = await ledger.ask(ledger.log.latest, user, LATEST)
        now, zone = self.ctx.clock(), self.viewer_zone()
        used = await ledger.ask(
            ledger.queries.series, "model", "day", now - CHARTED_DAYS * DAY, now + 1, Filters(user=user), tz=zone
        )
        drawn = charts.use(used, "model", names, format.zone(zone), charts.SPANS["30d"])
        self.page(
            "person.html",
            title=row["name"],
            row=row,
            bars=limits.rows(users.limits.standing(user), self.ctx.clock()),
            used=await limits.used(self.ctx, user),
            keys=await limits.keys(self.ctx, user),
            counted=COUNTED_LIMITS,
            latest=[request_rows.shown(record, names, admin=True) for record in latest],
            account_name=labels.account_name,
            usual=limits.usual(self.ctx.settings.limits),
            chart=drawn._replace(at=()),  # its bars open on the analytics page
        )


class PersonKeyPage(PageHandler, access=Access.ADMIN):
    """One key of a person: its limits as they stand and to change."""

    async def get(self, user: str, key: str) -> None:
        row = self.ctx.users.people.get(user)
        values = await key_changes.page_values(self.ctx, user, key)
        up = (f"/people/{user}", row["name"])
        call = f"/admin/pool-users/{user}/keys/{key}"
        self.page("key.html", title=values.key.label, **values._asdict(), up=up, call=call)


class AuditLine(NamedTuple):
    """A row of the audit log, the name of the `person` it is about, "" for none, and its details in words."""

    row: AuditRow
    person: str
    facts: str


class AuditPage(PageHandler, access=Access.ADMIN):
    """Who did what, when; filters are in the address."""

    async def get(self) -> None:
        rows, following = await people.audit(self, 100)
        filters = {name: self.get_query_argument(name, "") for name in ("actor", "action", "target")}
        older = urlencode({**{k: v for k, v in filters.items() if v}, "cursor": following}) if following else ""
        self.page("audit.html", title="Audit", rows=[self._line(row) for row in rows], filters=filters, older=older)

    def _line(self, row: AuditRow) -> AuditLine:
        person = self._name(row.target)
        told = {name: value for name, value in row.detail.items() if name != "name" or value != person}
        return AuditLine(row, person, "" if row.action in SELF_TOLD else labels.detail(told))

    def _name(self, target: str) -> str:
        """The name of the person an entry is about, "" when it is about something else."""
        if not target.startswith("u_"):
            return ""
        try:
            return str(self.ctx.users.people.get(target)["name"])
        except RefusedError:
            return ""


class WhatIfPage(PageHandler, access=Access.ADMIN):
    """`GET /admin/what-if`: the last replay of the ledger as a page or JSON. `POST` `{"days","changes"}` begins
    another; 409 while one runs."""

    async def get(self) -> None:
        state = await asyncio.to_thread(self._file.read)
        runs = state.runs(self.ctx.clock())
        if not self.wants_page:
            self.answer({"running": runs, **msgspec.to_builtins(state)})
            return
        if state.began_at and not runs and state.found is None and not state.error:
            state.error = marked("the replay ended without a word")
        if runs:
            self.set_header("Refresh", "3")
        self.page(
            "what_if.html", title="What if", state=state, runs=runs, doing=ledger_replay.doing(state),
            days=ledger_replay.DAYS, seeds=ledger_replay.SEEDS, rows=ledger_replay.rows(state),
        )  # fmt: skip

    async def post(self) -> None:
        asked, now, file = self.body_as(ledger_replay.AskedReplay), self.ctx.clock(), self._file
        try:
            state = ledger_replay.ReplayState(asked.days, asked.lines(), now, now, doing=marked("starting"))
        except ValueError as wrong:
            raise ProblemError(400, "bad_request", str(wrong)) from None
        if not await asyncio.to_thread(file.begin, state, now):
            raise ProblemError(409, "running", _("a replay is running: wait for its end"))
        reread = self.ctx.reread() if self.ctx.reread is not None else None
        ledger_replay.start(self.ctx.settings, None if reread is None else reread.path, file, state, self.ctx.clock)
        self.answer({"running": True}, 202)

    @property
    def _file(self) -> ledger_replay.ReplayFile:
        return ledger_replay.ReplayFile(Path(self.ctx.settings.data_dir))
