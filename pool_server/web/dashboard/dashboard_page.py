"""`/analytics`: who used what, what it cost, how much is left and until when. Complete in its first HTML."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from pool_server.accounts.describe import AccountBrief
from pool_server.core.enums import AccountState
from pool_server.language import Words
from pool_server.ledger import (
    LABEL_RANGE_S,
    LABELS,
    AccountUser,
    AccountValue,
    Field,
    GroupSums,
    Ledger,
    Metric,
    UsageSeries,
    UsageSummary,
    UsageSums,
    WeekHours,
)
from pool_server.texts import labels
from pool_server.texts.labels import account_name
from pool_server.users import FLOOR_COST
from pool_server.web.base.handler import Access, ProblemError
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import banner, headline, headroom, price_notes, visible
from pool_server.web.base.shared import query_params as asking
from pool_server.web.base.shared.names import Names
from pool_server.web.base.shared.query_params import UsageQuery, Viewer
from pool_server.web.dashboard import charts as charts
from pool_server.web.dashboard import overview as first
from pool_server.web.dashboard import period_before, tables
from pool_server.web.dashboard.overview import EarlierSums

FILTERS = ("user", "provider", "model", "account")
KEPT = ("range", "from", "to", "by", "metric", "compare", "tz", *FILTERS)
LISTED = 100  # people and models to choose from
SHOWN_PEOPLE = 30  # in the table, those who used most …
FEW_PEOPLE = 12  # … and for the operator, whose people page has all
SHOWN_ACCOUNTS = 10  # in the table, those that need attention first; the accounts page has all
LONGEST_SHARED = 31 * asking.DAY  # who used which account is asked of so much at most: it is the widest question


class Gathered(NamedTuple):
    """Everything the page reads of the ledger, raw."""

    today: list[first.Compared]
    hours: dict[str, GroupSums]
    summary: UsageSummary
    before: EarlierSums
    use: UsageSeries
    used_before: UsageSeries | None
    cache: UsageSeries
    times: dict[str, UsageSeries]
    heat: WeekHours
    people: list[GroupSums]
    models: list[GroupSums]
    accounts: list[GroupSums]
    matrix: list[AccountUser]
    values: list[AccountValue]


def gather(
    ledger: Ledger,
    who: Viewer,
    ask: UsageQuery,
    field: Field | None,
    metric: Metric,
    plans: dict[str, str],
    now: float,
    *,
    listed: Collection[str] = (),
    compared: bool = False,
) -> Gathered:
    """Reads the ledger: for a thread. `plans` maps account ids to their plans, and is empty for friends; `listed` = the
    accounts of which the page says who used them; `compared` = the chart of use shows the range before as well.

    Raises ValueError when the range has too many steps for a chart."""
    frm, to, filters = ask.frm, ask.to, ask.filters
    step, every = ask.drawn(now)
    # The range before may be kept in coarser steps: both are then drawn in these.
    asked = period_before.ComparedRange(frm, to, ask.zone, filters)
    longer = frm - period_before.before(asked)[0] if compared else 0.0
    own, wide = asking.drawn_by(ask, field, now + longer)

    def line(name: Metric) -> UsageSeries:
        return ledger.queries.series(None, step, frm, to, filters, tz=ask.zone, metric=name, every=every)

    return Gathered(
        today=first.today(ledger, ask, now),
        hours=first.hour(ledger, ask, now),
        summary=ledger.queries.summary(frm, to, filters),
        before=period_before.sums(ledger, asked),
        use=visible.series(ledger, who, ask, field, own, metric, every=wide),
        used_before=period_before.series(ledger, asked, own, wide, metric) if compared else None,
        cache=line("cache_share"),
        times={name: line(name) for name in ("first_byte_p50", "first_byte_p95", "total_p50", "total_p95")},
        heat=ledger.queries.heatmap(frm, to, filters, tz=ask.zone, metric=metric),
        people=visible.top(ledger, who, ask, "user", metric, LISTED, timed=False),
        models=ledger.queries.top("model", frm, to, filters, metric=metric, limit=LISTED, timed=False),
        accounts=ledger.queries.top("account", frm, to, filters, limit=1000, timed=False) if who.admin else [],
        matrix=ledger.queries.matrix(max(frm, to - LONGEST_SHARED), to, filters, accounts=listed) if who.admin else [],
        values=ledger.runway.value(plans, now) if plans else [],
    )


class NowValues(NamedTuple):
    """The first screen."""

    rooms: list[first.HeadroomLine]
    resets: list[first.Reset]
    hands: list[first.AttentionItem]
    burning: str
    today: list[first.Compared]


class RangeValues(NamedTuple):
    """What follows the range and filters. `mine`: the sums are the reader's own; `singles`: may the requests behind a
    sum be seen?"""

    mine: bool
    singles: bool
    total: UsageSums
    notes: price_notes.PriceNotes
    price_lines: bool
    differences: dict[str, str]
    before: str
    use: charts.Chart
    small: tuple[charts.Chart, ...]
    causes: list[tables.Cause]
    faults: list[tables.Cause]
    causes_sentence: str
    heat: tables.Heat
    people: list[tables.PersonUsage]
    more_people: bool
    floor_cost: float = FLOOR_COST


class AddressValues(NamedTuple):
    """The link that changes one thing of the address, what was chosen, and the choices of the filter form."""

    link: Callable[..., str]
    chosen: dict[str, str]
    dates: list[str]
    choices: dict[str, list[tuple[str, str]]]
    ready: AccountState = AccountState.READY


class AnalyticsPage(PageHandler, access=Access.FRIEND):
    """The dashboard; range, filters, split and measure are in the address. Friends get the same parts, narrower."""

    async def get(self) -> None:
        who, ask = asking.viewer(self), asking.read(self)
        several = ask.filters.user is None and not self.ctx.local
        field = asking.by(self, "user" if several else "model")
        asking.own_label(who, ask, field)
        fields = _fields(who, ask, local=self.ctx.local)
        if field in LABELS and field not in dict(fields):  # another range or filter was chosen, of which it is not told
            field = "user" if several else "model"
        metric: Metric = "cost" if asking.word(self, "metric", ("tokens", "cost"), "tokens") == "cost" else "tokens"
        compared = asking.word(self, "compare", ("1", "0"), "0") == "1"
        now, ctx = self.ctx.clock(), self.ctx
        accounts = ctx.accounts.brief_all() if who.admin else []
        shown = ctx.accounts.describe_some(tables.first_accounts(accounts, SHOWN_ACCOUNTS))
        plans = {row.id: row.plan for row in shown if row.plan}
        told = await headline.foretold(ctx, now)
        try:
            listed = {row.id for row in shown}
            found = await asyncio.to_thread(
                gather, ctx.ledger, who, ask, field, metric, plans, now, listed=listed, compared=compared
            )
        except ValueError as wrong:
            raise ProblemError(400, "bad_request", str(wrong)) from None
        names, providers = await Names.of(ctx, who, field), headroom.provider_rows(ctx)
        self.page(
            "analytics.html",
            title="Analytics",
            who=who,
            ask=ask,
            field=field or "none",
            metric=metric,
            span=charts.SPANS[ask.span],
            fields=fields,
            names=names,
            found=found,
            account_name=account_name,
            **self._now(who, ask, told, providers, accounts, found, now)._asdict(),
            **self._range(who, ask, field, found, names)._asdict(),
            **self._address(ask, field, found, names)._asdict(),
            more_accounts=max(0, len(accounts) - SHOWN_ACCOUNTS),
            accounts=tables.accounts(
                shown,
                told.get("accounts", {}),
                found.accounts,
                found.matrix,
                found.values,
                names,
                now,
                cut=ask.to - ask.frm > LONGEST_SHARED,
            ),
        )

    def _now(
        self,
        who: Viewer,
        ask: UsageQuery,
        told: Any,
        providers: list[headroom.ProviderRow],
        accounts: list[AccountBrief],
        found: Gathered,
        now: float,
    ) -> NowValues:
        in_flight = sum(row.in_flight for row in providers)
        return NowValues(
            first.rooms(providers, told["providers"], found.hours, now),
            (first.resets(told["resets"], now) if who.admin else []) or first.shared_resets(providers, now),
            self._hands(accounts, now) if who.admin else [],
            first.burning(list(found.hours.values()), in_flight, mine=_own(who, ask)),
            found.today,
        )

    def _hands(self, accounts: list[AccountBrief], now: float) -> list[first.AttentionItem]:
        """What the operator has to do, and what is wrong beside it."""
        wrong = [first.AttentionItem("warn", words, "") for words in banner.others(self.ctx)]
        return first.hands(accounts, self.ctx.accounts.rejected(), now) + wrong

    def _range(self, who: Viewer, ask: UsageQuery, field: str | None, found: Gathered, names: Names) -> RangeValues:
        total, where = found.summary.total, ZoneInfo(ask.zone)
        began = charts.begins(found.use)
        first_shown = began if found.use.step == found.cache.step else 0
        times = {name: charts.cut(chart, first_shown) for name, chart in found.times.items()}
        mine, shown = _own(who, ask), FEW_PEOPLE if who.admin else SHOWN_PEOPLE
        earlier = (period_before.BEFORE[ask.span], found.used_before) if found.used_before is not None else None
        causes = tables.causes(total, own=mine)
        return RangeValues(
            mine=mine,
            singles=who.admin or mine,
            total=total,
            notes=price_notes.notes(
                price_notes.PriceBasis.of(total), found.summary.models, self.ctx.ledger.prices, self.ctx.clock()
            ),
            price_lines=who.admin,
            differences=period_before.differences(total, found.before),
            before=period_before.BEFORE[ask.span],
            use=charts.use(
                charts.cut(found.use, began),
                field,
                names,
                where,
                charts.SPANS[ask.span],
                quiet=began > 0,
                before=earlier,
            ),
            small=(
                charts.cache(charts.cut(found.cache, first_shown), total.cache_share, where),
                charts.latency(
                    "first_byte", times["first_byte_p50"], times["first_byte_p95"], total.first_byte_ms, where
                ),
                charts.latency("total", times["total_p50"], times["total_p95"], total.total_ms, where),
            ),
            causes=causes,
            faults=tables.faults(total),
            causes_sentence=tables.causes_sentence(total, causes),
            heat=tables.heat(found.heat, ask.frm, where),
            people=tables.people(found.people, names)[:shown],
            more_people=len(found.people) > shown,
        )

    def _address(self, ask: UsageQuery, field: str | None, found: Gathered, names: Names) -> AddressValues:
        chosen = {name: value for name in KEPT if (value := asking.text(self, name))}
        if chosen.get("by", field) != (field or "none"):
            del chosen["by"]

        def link(path: str = "/analytics", **changes: str) -> str:
            left = {name: value for name, value in {**chosen, **changes}.items() if value}
            return f"{path}?{urlencode(left)}" if left else path

        where = ZoneInfo(ask.zone)
        dates = [f"{datetime.fromtimestamp(at, where):%Y-%m-%d}" for at in (ask.frm, ask.to - 2)]
        picked = ask.filters
        return AddressValues(
            link,
            chosen,
            dates,
            {
                "user": _choices([row.key for row in found.people if row.key], picked.user, names.user),
                "provider": [(one.value, labels.PROVIDERS[one]) for one in self.ctx.accounts.offered()],
                "model": _choices([row.key for row in found.models if row.key], picked.model, str),
                "account": _choices([row.key for row in found.accounts if row.key], picked.account, str),
            },
        )


FIELDS = Words(
    {"user": "by person", "model": "by model", "provider": "by provider", "account": "by account",
     "program": "by program", "project": "by project", "conversation": "by conversation", "key": "by key"}
)  # fmt: skip


def _fields(who: Viewer, ask: UsageQuery, *, local: bool) -> list[tuple[str, str]]:
    """What the use may be split by here: accounts are the operator's to see, keys, projects and conversations one's own
    as well, and labels are known by person alone."""
    picked = ask.filters
    labelled = not (picked.model or picked.provider or picked.account)
    own = who.admin or picked.user == who.user
    single = labelled and own and (picked.user is not None or ask.to - ask.frm <= LABEL_RANGE_S)
    shown = {
        "user": not local,
        "account": who.admin,
        "program": labelled,
        "project": labelled and own,
        "conversation": single,
        "key": single and not local,
    }
    return [(field, words) for field, words in FIELDS.items() if shown.get(field, True)]


def _own(who: Viewer, ask: UsageQuery) -> bool:
    """Is the page about the friend who looks at it?"""
    return ask.filters.user == who.user and not who.admin


def _choices(keys: list[str], picked: str | None, name: Any) -> list[tuple[str, str]]:
    """What a filter offers: what is in the range, and what is chosen already."""
    known = keys if picked is None or picked in keys else [picked, *keys]
    return [(key, name(key)) for key in known if key != "others"]
