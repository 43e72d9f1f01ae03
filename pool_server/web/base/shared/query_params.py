"""What a page or a call asks of the ledger: range, filters and zone from its address, narrowed to what its caller
may see. Whatever makes no sense is a 400 of one line.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta, tzinfo
from typing import Literal, NamedTuple, TypeVar, cast, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pool_server.core.enums import Provider
from pool_server.language import gettext as _
from pool_server.ledger import LABELS, METRICS, Field, Filters, Metric, Step
from pool_server.web.base.handler import BaseHandler, ProblemError

HOUR, DAY = 3600.0, 86_400.0
RANGES = {"24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY, "1y": 365 * DAY}
STEPS: tuple[Step, ...] = ("minute", "hour", "day")
LONG = ("30d", "1y")  # drawn by day
USUAL = "7d"
LONGEST = 20 * 366 * DAY
ZONE_COOKIE = "tz"  # set by the page's script: the viewer's own zone
MOST_TEXT = 200
ASKED = frozenset(("range", "from", "to", "tz", "user", "provider", "model", "account"))  # what `read` reads

Sees = Literal["own", "pool", "names"]
T = TypeVar("T", bound=str)


class Viewer(NamedTuple):
    """Who looks: the admin sees all; a friend own numbers, the pool's sums and others' names as far as `sees` says.

    Accounts are named to admins alone.
    """

    user: str
    admin: bool
    sees: Sees


class UsageQuery(NamedTuple):
    """A question: `frm` <= time < `to` in unix seconds, `span` a name of RANGES or "custom", `zone` an IANA name."""

    frm: float
    to: float
    span: str
    filters: Filters
    zone: str

    @property
    def step(self) -> Step:
        """The step of a chart of this range."""
        if self.to - self.frm <= 3 * HOUR:
            return "minute"
        return "hour" if self.to - self.frm <= 8.5 * DAY else "day"

    def drawn(self, now: float) -> tuple[Step, int]:
        """The step of a drawn chart, and how many are one bar, so that a bar has 8 px: 30 minutes of a day, 6 hours of
        a week, a day of a month, a week of a year. Minutes are kept for two days."""
        span = self.to - self.frm
        if span <= 26 * HOUR and self.frm > now - 47 * HOUR:
            return "minute", 1 if span <= HOUR else 5 if span <= 6 * HOUR else 30
        if span <= 2 * DAY:
            return "hour", 1
        if span <= 15 * DAY:
            return "hour", 6
        return "day", 1 if span <= 120 * DAY else 7


def viewer(handler: BaseHandler) -> Viewer:
    """Who calls this route."""
    who = handler.principal
    return Viewer(who.user, who.admin, handler.ctx.settings.ledger.friends_see)


def read(handler: BaseHandler, *, own: bool = False, everyone: bool = False) -> UsageQuery:
    """The question in the address. `own` = only the caller's own exchanges may be asked for, unless they are the
    admin; `everyone` = without a word about whom, a friend asks for the pool as far as they may see it.

    Raises Problem 400 for what makes no sense and 403 for what is not the caller's to see.
    """
    zone = zone_of(handler)
    frm, to, span = _range(handler, zone)
    who = viewer(handler)
    account = text(handler, "account") or None
    if account and not who.admin:
        raise ProblemError(403, "forbidden", _("accounts are the operator's to see"))
    provider = word(handler, "provider", tuple(Provider), "") or None
    asked = text(handler, "user") or ("all" if everyone and who.sees != "own" else "")
    user = _whose(handler, who, asked, own=own)
    return UsageQuery(frm, to, span, Filters(provider, account, user, text(handler, "model") or None), zone)


def by(handler: BaseHandler, usual: str) -> Field | None:
    """What a chart or ranking is split by; "none" for nothing. Accounts are the admin's alone."""
    asked = word(handler, "by", (*get_args(Field), "none"), usual)
    if asked == "account" and not viewer(handler).admin:
        raise ProblemError(403, "forbidden", _("accounts are the operator's to see"))
    return None if asked == "none" else cast(Field, asked)


def own_label(who: Viewer, ask: UsageQuery, field: Field | None) -> None:
    """Raises Problem 403 where a friend asks for keys, projects or conversations that are not all their own."""
    if field in ("key", "project", "conversation") and not who.admin and ask.filters.user != who.user:
        raise ProblemError(403, "forbidden", _("only your own use can be told by {field}", field=field))


def step_for(ask: UsageQuery, field: Field | None) -> Step:
    """The step of a chart of this range: of a program or a project hours at least, of a user's only days."""
    if field not in LABELS:
        return ask.step
    hours = field in ("program", "project") and ask.filters.user is None
    return "hour" if hours and ask.step != "day" else "day"


def drawn_by(ask: UsageQuery, field: Field | None, now: float) -> tuple[Step, int]:
    """`UsageQuery.drawn`, no finer than what is kept of `field`."""
    step, every = ask.drawn(now)
    least = step_for(ask, field) if field in LABELS else step
    coarser = STEPS.index(least) > STEPS.index(step)
    return (least, 1) if coarser else (step, every)


def metric(handler: BaseHandler) -> Metric:
    return cast(Metric, word(handler, "metric", METRICS, "tokens"))


def text(handler: BaseHandler, name: str) -> str:
    """One parameter, "" when it is absent. Problem 400 when it is too long to be a name."""
    value = handler.get_query_argument(name, "")
    if len(value) > MOST_TEXT:
        raise ProblemError(400, "bad_request", _("{name} is too long", name=name))
    return value


def word(handler: BaseHandler, name: str, allowed: tuple[T, ...], usual: str) -> T:
    """A parameter that must be one of some words."""
    value = text(handler, name) or usual
    if value != usual and value not in allowed:
        listed = ", ".join(str(one) for one in allowed)
        raise ProblemError(400, "bad_request", _("{name} must be one of {listed}", name=name, listed=listed))
    return cast(T, value)


def whole(handler: BaseHandler, name: str, usual: int | None, *, least: int = 1, most: int = 500) -> int | None:
    """A parameter that must be a whole number."""
    value = text(handler, name)
    if not value:
        return usual
    if not (value.isascii() and value.isdigit() and least <= int(value) <= most):
        said = _("{name} must be a whole number from {least} to {most}", name=name, least=least, most=most)
        raise ProblemError(400, "bad_request", said)
    return int(value)


def zone_of(handler: BaseHandler) -> str:
    """The zone asked for, else the viewer's own as their browser told us, else the operator's."""
    asked = text(handler, "tz")
    if asked and not is_zone(asked):
        raise ProblemError(400, "bad_request", _("tz must be the name of a time zone, like Europe/Berlin"))
    told = handler.get_cookie(ZONE_COOKIE, "") or ""
    return asked or (told if told and is_zone(told) else handler.ctx.settings.ledger.timezone)


def is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def moment(name: str, value: str, where: tzinfo, *, end: bool = False) -> float:
    """Unix seconds from unix seconds, a date or an ISO time; a date as the end of a range means the end of it."""
    try:
        at = float(value)
    except ValueError:
        at = _iso(value, where, end=end)
    if not (math.isfinite(at) and 0 <= at < 1e11):
        raise ProblemError(400, "bad_request", _("{name} must be unix seconds or a date like 2026-03-31", name=name))
    return at


def _iso(value: str, where: tzinfo, *, end: bool) -> float:
    try:
        found = datetime.fromisoformat(value)
        if len(value) <= 10 and end:
            found += timedelta(days=1)
        return (found if found.tzinfo else found.replace(tzinfo=where)).timestamp()
    except (ValueError, OverflowError, OSError):
        return math.nan


def _range(handler: BaseHandler, zone: str) -> tuple[float, float, str]:
    now = handler.ctx.clock()
    first, last = text(handler, "from"), text(handler, "to")
    span = word(handler, "range", (*RANGES, "custom"), USUAL)
    where = ZoneInfo(zone) if is_zone(zone) else ZoneInfo("UTC")
    if not first and not last:
        span = span if span in RANGES else USUAL
        return _begin(now - RANGES[span], where, days=span in LONG), now + 1, span
    to = moment("to", last, where, end=True) if last else now + 1
    frm = moment("from", first, where) if first else to - RANGES[USUAL]
    if to <= frm:
        raise ProblemError(400, "bad_request", _("to must be after from"))
    if to - frm > LONGEST:
        raise ProblemError(400, "bad_request", _("the range may be at most 20 years long"))
    return frm, to, "custom"


def _begin(at: float, where: tzinfo, *, days: bool) -> float:
    """The full hour, or of long ranges the midnight, with which a range begins: charts and sums then hold the same."""
    local = datetime.fromtimestamp(at, where).replace(minute=0, second=0, microsecond=0)
    return (local.replace(hour=0) if days else local).timestamp()


def _whose(handler: BaseHandler, who: Viewer, asked: str, *, own: bool) -> str | None:
    """The user id to filter by, None for everybody."""
    if asked == "me" or (not asked and not who.admin):
        return who.user
    if asked in ("", "all"):
        if who.admin or (who.sees != "own" and not own):
            return None
        raise ProblemError(403, "forbidden", _("here you see your own numbers only"))
    user = known(handler, asked)
    if not (who.admin or user == who.user or (who.sees == "names" and not own)):
        raise ProblemError(403, "forbidden", _("other people's numbers are not yours to see"))
    return user


def known(handler: BaseHandler, asked: str) -> str:
    """A user's id, from the id itself or from a name somebody has."""
    row = handler.ctx.users.people.named(asked)
    return asked if row is None else str(row["id"])
