"""The tables under the charts: why requests failed, when the pool is busy, who used it, and what the accounts did."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any, NamedTuple

from pool_server.accounts.describe import AccountBrief, AccountRow
from pool_server.core.enums import CredentialKind, FaultKind, Outcome
from pool_server.language import gettext as _
from pool_server.language import ngettext
from pool_server.ledger import AccountUser, AccountValue, GroupSums, UsageSums, WeekHours
from pool_server.texts import format, labels
from pool_server.texts.labels import account_name
from pool_server.web.base.shared import headroom
from pool_server.web.base.shared.names import Names

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
BUSIEST = tuple(f"Busiest on {day}s from {{start}} to {{end}}" for day in DAYS)
DAY_S = 86_400.0
LEVELS = 5  # shades of the heat map, beside "nothing"
NAMED = 4  # people named beside an account
ORDER = {"bad": 0, "warn": 1, "good": 2, "quiet": 3}


class Cause(NamedTuple):
    """One way of not being answered: how often, and what part of all requests that is, in percent."""

    key: str
    words: str
    number: int
    percent: float


class Cell(NamedTuple):
    """One hour of one weekday: its shade, 0 (nothing) to LEVELS, and its value in words."""

    level: int
    words: str


class Heat(NamedTuple):
    """The hours of the week; `since` in words when hours are not known for all of the range."""

    sentence: str
    since: str
    days: tuple[tuple[str, str, tuple[Cell, ...]], ...]  # (day, its short name, its hours)
    most: str = ""  # the fullest hour in words, for the legend


class PersonUsage(NamedTuple):
    """One person's sums; `percent` is their part of the tokens of all who are listed."""

    key: str
    name: str
    sums: UsageSums
    percent: float


class AccountLine(NamedTuple):
    """One account: how it stands, how full its windows are, what it did in the range and what it is worth."""

    row: AccountRow
    name: str
    plan: str
    words: str
    tone: str
    gauges: tuple[tuple[headroom.Gauge, str], ...]
    sums: UsageSums | None
    said: str


def causes(total: UsageSums, *, own: bool) -> list[Cause]:
    """How exchanges ended that were not answered, most frequent first."""
    found = []
    for key, count in sorted(total.outcomes.items(), key=lambda item: -item[1]):
        if key == Outcome.OK or not count:
            continue
        words = labels.OUTCOMES[Outcome(key)]
        if key == Outcome.CLIENT_GONE and not own:
            words = _("canceled by the client")
        found.append(Cause(key, words, count, 100 * count / total.requests))
    return found


def faults(total: UsageSums) -> list[Cause]:
    """What providers answered to single attempts, most frequent first; another account may still have served."""
    attempts = total.attempts or 1
    ranked = sorted(total.faults.items(), key=lambda item: -item[1])
    return [Cause(key, labels.FAULTS[FaultKind(key)], count, 100 * count / attempts) for key, count in ranked]


def causes_sentence(total: UsageSums, found: Sequence[Cause]) -> str:
    """What one sees in the table of failures."""
    requests = total.requests
    if not requests:
        return _("No request in this range, so none has failed.")
    failed = total.failures
    if not failed:
        shown = format.count(requests)
        return ngettext("The one request was served.", "Every one of {n} requests was served.", requests, n=shown)
    share = format.percent(100 * failed / requests)
    worst = next((cause for cause in found if cause.key != Outcome.CLIENT_GONE), None)
    values = {"failed": format.count(failed), "requests": format.requests(requests), "share": share}
    if worst is None:
        return _("{failed} of {requests} failed ({share}).", **values)
    return _("{failed} of {requests} failed ({share}), mostly: {cause}.", **values, cause=worst.words)


def heat(found: WeekHours, frm: float, where: tzinfo) -> Heat:
    """The hours of the week as shades; `found` as `Queries.heatmap` answers a range that begins at `frm`."""
    began = datetime.fromtimestamp(found.frm, where)
    since = format.written(began) if found.frm - frm > DAY_S else ""
    say = format.money if found.metric == "cost" else format.count
    cells = [[value or 0 for value in day] for day in found.cells]
    most = max(max(day) for day in cells)
    days = tuple(
        (_(name), _(short), tuple(Cell(_level(value, most), say(value) if value else _("nothing")) for value in day))
        for name, short, day in zip(DAYS, format.WEEKDAYS, cells, strict=True)
    )
    if not most:
        return Heat(_("Nothing was used, so no hour is busier than another."), since, days)
    weekday, at = max(((d, h) for d in range(7) for h in range(24)), key=lambda place: cells[place[0]][place[1]])
    quiet = [hour for hour in range(24) if not any(day[hour] for day in cells)]
    hours = {"start": f"{at:02d}:00", "end": f"{(at + 1) % 24:02d}:00"}
    words = _(BUSIEST[weekday], **hours)
    if quiet:
        words += _("; nothing at all in {n} of the 24 hours.", n=len(quiet))
    else:
        words += _("; no hour of the day is always quiet.")
    return Heat(words, since, days, say(most))


def _level(value: float, most: float) -> int:
    """A shade that can be told apart: by the square root, so that quiet hours are not all alike."""
    return 0 if value <= 0 else max(1, round(LEVELS * (value / most) ** 0.5))


def people(rows: Sequence[GroupSums], names: Names) -> list[PersonUsage]:
    """Who used how much, the largest first."""
    whole = sum(row.total_tokens for row in rows) or 1
    return [PersonUsage(row.key, names.user(row.key), row, 100 * row.total_tokens / whole) for row in rows]


def first_accounts(rows: Sequence[AccountBrief], most: int) -> list[str]:
    """The accounts of the table: those first that need a hand."""

    def place(row: AccountBrief) -> tuple[int, str, str]:
        return ORDER[labels.TONES[row.state]], row.provider, account_name(row.id)

    return [row.id for row in heapq.nsmallest(most, rows, key=place)]


def accounts(
    rows: Sequence[AccountRow],
    foretold: Mapping[str, Sequence[Mapping[str, Any]]],
    used: Sequence[GroupSums],
    users: Sequence[AccountUser],
    values: Sequence[AccountValue],
    names: Names,
    now: float,
    *,
    cut: bool = False,
) -> list[AccountLine]:
    """These accounts in their order. `used` and `users` are rankings of the range (by account, by
    person and account; `cut` = the latter of its last 31 days alone), `values` what each was worth in 30 days."""
    sums = {row.key: row for row in used}
    worth = {row.account: row for row in values}
    lines = []
    for row in rows:
        ident, state = row.id, row.state
        windows = {(w["window"], w["scope"]): w for w in foretold.get(ident, ())}
        gauges = tuple(
            (headroom.gauge(w, now), window_words(windows.get((w.window, w.scope)), now)) for w in row.windows
        )
        shared = _users(ident, users, names, cut=cut)
        said = f"{shared} {_worth(worth.get(ident))}".strip()
        subscribed = row.plan if row.kind is not CredentialKind.API_KEY else None
        plan = subscribed.replace("_", " ") if subscribed else labels.CREDENTIALS[row.kind]
        lines.append(
            AccountLine(
                row, account_name(ident), plan, labels.STATES[state], labels.TONES[state], gauges, sums.get(ident), said
            )
        )
    return lines


def window_words(told: Mapping[str, Any] | None, now: float) -> str:
    """How long one window lasts, in words; "" when nothing can be said."""
    if told is None or told["burn_per_h"] is None:
        return ""
    ends, unused = told["empties_at"], told["unused_at_reset"]
    if ends is not None:
        return _("used up") if ends <= now else _("empty {ends} at this pace", ends=format.within(ends, now))
    if unused is not None and unused >= 1:
        return _("{unused} will go unused", unused=format.percent(unused))
    return _("lasts until its reset")


def _users(ident: str, rows: Sequence[AccountUser], names: Names, *, cut: bool) -> str:
    """ "Used by Mara (62 %), Jonas (30 %)"; `cut` = of the last 31 days of the page's range."""
    mine = [row for row in rows if row.account == ident and row.total_tokens]
    whole = sum(row.total_tokens for row in mine)
    if not whole:
        return _("Nobody used it in the last 31 days.") if cut else _("Nobody used it in this range.")
    shares = [
        f"{format.isolated(names.user(row.user))} ({format.percent(100 * row.total_tokens / whole)})"
        for row in mine[:NAMED]
    ]
    rest = len(mine) - NAMED
    people = format.listed(shares)
    if rest > 0:
        people += _(" and {more} more", more=rest)
    return _("In the last 31 days used by {people}.", people=people) if cut else _("Used by {people}.", people=people)


def _worth(row: AccountValue | None) -> str:
    """What 30 days of an account were worth beside its price."""
    if row is None or not row.subscription_usd or not row.requests:
        return ""
    monthly = row.subscription_usd
    worth = format.price(row.api_cost_usd, row.unpriced)
    if worth == format.no_price():
        return ""
    return _("In 30 days it gave {worth} of API use for {monthly} a month.", worth=worth, monthly=format.money(monthly))
