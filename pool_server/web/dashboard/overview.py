"""The first screen: how long each provider's room lasts, what burns, what resets next, and what needs a hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from pool_server.accounts.describe import AccountBrief
from pool_server.core.enums import AccountState
from pool_server.language import Words, ngettext
from pool_server.language import gettext as _
from pool_server.ledger import Confidence, Filters, GroupSums, Ledger, UsageSums
from pool_server.texts import format, labels
from pool_server.texts.labels import account_name
from pool_server.web.base.shared import headroom
from pool_server.web.base.shared.query_params import DAY, HOUR, UsageQuery

RESETS = 6
EXPIRES_SOON_S = 3 * DAY
BY_DAYS = 60 * DAY  # of longer ranges hours may not be kept; a part of an hour is nothing beside them
TRUST = Words(
    {
        Confidence.NONE: "",
        Confidence.LOW: "rough estimate",
        Confidence.MEDIUM: "fair estimate",
        Confidence.HIGH: "good estimate",
    }
)
TROUBLE = Words(
    {
        AccountState.NEEDS_LOGIN: "{name} is signed out: its owner has to sign in again",
        AccountState.SUSPENDED: "{name} was suspended by its provider",
    }
)


class HeadroomLine(NamedTuple):
    """One provider: `lasts` is the headline in words, `note` what is to be added. `hour` are its sums of the last
    hour."""

    row: headroom.ProviderRow
    lasts: str
    note: str
    tone: str
    hour: UsageSums | None


class Compared(NamedTuple):
    """One line of today against the same time a week ago, all in words."""

    label: str
    today: str
    then: str
    change: str


class Reset(NamedTuple):
    """One window that will begin anew at `at`; `unused` says in words what will be lost."""

    name: str
    provider: str
    window: str
    at: float
    unused: str


class AttentionItem(NamedTuple):
    """Something only a person can do. `about` links to where."""

    tone: str
    words: str
    about: str
    said: str = ""  # by the vendor


def rooms(
    rows: Sequence[headroom.ProviderRow],
    foretold: Mapping[str, Any],
    hours: Mapping[str, GroupSums],
    now: float,
) -> list[HeadroomLine]:
    """Every provider with its room as time. `hours`: provider → sums of the last hour."""
    found = []
    for row in rows:
        lasts, note, tone = _lasts(row, foretold.get(row.provider), now)
        found.append(HeadroomLine(row, lasts, note, tone, hours.get(row.provider)))
    return found


def _lasts(row: headroom.ProviderRow, told: Mapping[str, Any] | None, now: float) -> tuple[str, str, str]:
    if not row.ready:
        if row.next_return is None:
            return _("None"), _("no account can serve"), "bad"
        return _("Used up"), _("back {next_return}", next_return=format.within(row.next_return, now)), "bad"
    if told is None:
        if row.gauges:
            return _("Unknown"), _("not enough data for a forecast yet"), "quiet"
        return _("No known limit"), _("the provider reports none"), "quiet"
    trust = Confidence(told["confidence"])
    if trust is Confidence.NONE:
        left = min((window["room_percent"] for window in told["windows"]), default=None)
        return _("{left} left", left=format.percent(left)), _("not enough data for a forecast yet"), "quiet"
    ends = told["lasts_until"]
    if ends is None:
        if any(window["burn_per_h"] for window in told["windows"]):
            return _("Over 2 weeks"), _("resets before it is used up at this pace"), "good"
        return _("Over 2 weeks"), _("idle right now"), "good"
    left = ends - now
    tone = "bad" if left < HOUR else "warn" if left < 3 * HOUR else "good"
    return _("About {time}", time=format.duration(max(0.0, left))), _("at this pace; {trust}", trust=TRUST[trust]), tone


def resets(found: Sequence[Mapping[str, Any]], now: float) -> list[Reset]:
    """The next resets of single accounts, from the runway's calendar: for the admin."""
    rows = []
    for reset in found:
        if reset["resets_at"] <= now:
            continue
        unused = reset["unused_at_reset"]
        words = _("not known") if unused is None else format.percent(unused)
        window = labels.window(reset["window"], reset["scope"])
        provider = reset["account"].partition(":")[0]
        rows.append(Reset(account_name(reset["account"]), provider, window, reset["resets_at"], words))
    return rows[:RESETS]


def shared_resets(rows: Sequence[headroom.ProviderRow], now: float) -> list[Reset]:
    """The next resets without naming an account: for friends."""
    found = [
        Reset(row.label, row.provider, gauge.name, gauge.resets_at, _("not known"))
        for row in rows
        for gauge in row.gauges
        if gauge.resets_at is not None and gauge.resets_at > now
    ]
    return sorted(found, key=lambda reset: reset.at)[:RESETS]


def hands(accounts: Sequence[AccountBrief], rejected: Sequence[Mapping[str, Any]], now: float) -> list[AttentionItem]:
    """What the operator has to do about accounts, the worst first."""
    bad, soon = [], []
    for row in accounts:
        name = f"{labels.PROVIDERS[row.provider]} {account_name(row.id)}"
        expires, about = row.expires_at, "/accounts?" + urlencode({"id": row.id})
        if row.state in TROUBLE:
            bad.append(AttentionItem("bad", TROUBLE[row.state].format(name=name), about, row.message))
        elif expires and not row.can_refresh and expires - now < EXPIRES_SOON_S and not row.disabled:
            when = _("has expired") if expires <= now else _("expires {expires}", expires=format.within(expires, now))
            soon.append(
                AttentionItem(
                    "warn", _("{name}: its sign-in {when} and cannot be refreshed", name=name, when=when), about
                )
            )
    return bad + soon + _rejected_files(rejected)


def _rejected_files(rejected: Sequence[Mapping[str, Any]]) -> list[AttentionItem]:
    """One item a file; files with one fault are one."""
    alike: dict[str, list[str]] = {}
    for row in rejected:
        alike.setdefault(str(row["reason"]), []).append(row["file"])
    return [
        AttentionItem(
            "warn",
            _("{file} cannot be used: {reason}", file=files[0], reason=reason)
            if len(files) == 1
            else ngettext(
                "{n} file cannot be used: {reason}", "{n} files cannot be used: {reason}", len(files), reason=reason
            ),
            "/accounts#rejected",
        )
        for reason, files in alike.items()
    ]


def midnight(now: float, zone: ZoneInfo, *, days_ago: int = 0) -> float:
    """The local midnight that began today, or a day some days ago (also across a change of clocks)."""
    day = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    return (day - timedelta(days=days_ago)).timestamp()


def today(ledger: Ledger, ask: UsageQuery, now: float) -> list[Compared]:
    """Today so far against the same day a week ago up to this time of day, for whom the page is about. Reads the
    ledger: for a thread."""
    zone, filters = ZoneInfo(ask.zone), Filters(user=ask.filters.user)
    here = ledger.queries.total(midnight(now, zone), now + 1, filters).describe()
    began, until = midnight(now, zone, days_ago=7), _week_before(now, zone)
    return compared(here, sums_until(ledger, began, until, filters))


class EarlierSums(NamedTuple):
    """Sums with parts of an hour, for a comparison; the names are those of `UsageSums`."""

    input: float
    cache_read: float
    cache_write: float
    output: float
    reasoning: float
    requests: float
    cost_usd: float
    unpriced: float
    total_tokens: float
    failures: float
    estimated: float
    assumed: float

    @property
    def about(self) -> bool:
        return bool(self.estimated or self.assumed)


def sums_until(ledger: Ledger, began: float, until: float, filters: Filters) -> EarlierSums:
    """Sums up to a moment within an hour. Whole hours are kept: the last one counts by the part of it that had
    passed."""
    if until - began > BY_DAYS:
        whole = ledger.queries.total(began, until, filters).describe()
        return EarlierSums(*(getattr(whole, name) for name in EarlierSums._fields))
    full = until - until % HOUR
    then = ledger.queries.total(began, full, filters).describe() if full > began else None
    part = ledger.queries.total(full, full + HOUR, filters).describe()
    share = (until - full) / HOUR
    return EarlierSums(
        *((getattr(then, name) if then else 0) + share * getattr(part, name) for name in EarlierSums._fields)
    )


def _week_before(now: float, zone: ZoneInfo) -> float:
    return (datetime.fromtimestamp(now, zone) - timedelta(days=7)).timestamp()


def compared(today_: UsageSums, then: EarlierSums) -> list[Compared]:
    """The lines of the comparison."""
    lines = []
    for label, have, had in (
        (_("Tokens"), today_.total_tokens, then.total_tokens),
        (_("Requests"), today_.requests, then.requests),
        (_("Failed"), today_.failures, then.failures),
    ):
        lines.append(Compared(label, format.count(have), format.count(had), change(have, had)))
    prices = prices_of(today_, then)
    costs = format.no_price() if format.no_price() in prices else change(today_.cost_usd, then.cost_usd)
    lines.insert(2, Compared(_("API price"), *prices, costs))
    return lines


def prices_of(now: UsageSums, then: EarlierSums) -> tuple[str, str]:
    """Both prices in words."""
    return (
        format.price(now.cost_usd, now.unpriced, about=now.about),
        format.price(then.cost_usd, then.unpriced, about=then.about),
    )


def change(have: float, had: float) -> str:
    """ "12 % more", "a third of it" is not tried: percent as long as they say something."""
    if round(have, 2) == round(had, 2):
        return _("the same")
    if had <= 0:
        return _("none then")
    percent = 100 * (have - had) / had
    if percent >= 900:
        return _("{times} times as much", times=f"{have / had:.0f}")
    if abs(percent) < 0.5:
        return _("about the same")
    figure = f"{abs(percent):.0f}"
    return _("{percent} % more", percent=figure) if percent > 0 else _("{percent} % less", percent=figure)


def burning(hours: Sequence[GroupSums], in_flight: int, *, mine: bool = False) -> str:
    """What is being used now, as a sentence, from the last hour's sums. `mine` = they are the reader's own, while
    what is under way is everybody's."""
    tokens = sum(row.total_tokens for row in hours)
    under_way = _in_flight(in_flight)
    if mine:
        under_way = _("{requests} in the pool", requests=under_way)
    if not tokens:
        if mine:
            return _("You used nothing in the last hour; {requests}.", requests=under_way)
        return _("Nothing used in the last hour; {requests}.", requests=under_way)
    price = format.price(
        sum(row.cost_usd for row in hours),
        sum(row.unpriced for row in hours),
        about=any(row.estimated for row in hours),
    )
    values = {"tokens": format.of_tokens(tokens), "price": price, "requests": under_way}
    if price == format.no_price():
        if mine:
            return _("You used {tokens} in the last hour; {requests}.", **values)
        return _("{tokens} in the last hour; {requests}.", **values)
    if mine:
        return _("You used {tokens} in the last hour, worth {price} at API prices; {requests}.", **values)
    return _("{tokens} in the last hour, worth {price} at API prices; {requests}.", **values)


def _in_flight(count: int) -> str:
    if not count:
        return _("no requests in flight")
    return ngettext("{n} request in flight", "{n} requests in flight", count)


def hour(ledger: Ledger, ask: UsageQuery, now: float) -> dict[str, GroupSums]:
    """Provider → sums of the last hour, for whom the page is about. Reads the ledger: for a thread."""
    mine = Filters(user=ask.filters.user)
    return {row.key: row for row in ledger.queries.top("provider", now - HOUR, now + 1, mine)}
