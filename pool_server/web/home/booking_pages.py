"""Bookings of a provider's headroom: who has what for how long, as JSON and as a part of the home pages."""

from __future__ import annotations

from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from pool_server.core.enums import Provider
from pool_server.core.settings import BookingSettings
from pool_server.language import gettext as _
from pool_server.texts import labels
from pool_server.users.bookings import Booking
from pool_server.web.base.handler import Access, BaseHandler, ProblemError
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import query_params
from pool_server.web.base.shared.names import Names

USUAL_PERCENT = 20.0  # what the form begins with


class NewBooking(msgspec.Struct, forbid_unknown_fields=True):
    """`percent` of a provider's headroom for so many `hours`, from a moment on: unix seconds or an ISO time, which
    without an offset is one of the caller's zone; "" = now. `person`: whom an operator books it for, by id or name."""

    provider: str
    percent: float
    hours: float
    since: str | float = msgspec.field(name="from", default="")
    person: str = ""


class BookingRow(msgspec.Struct):
    """Times are unix seconds."""

    id: str
    person: str
    name: str
    provider: str
    percent: float
    since: float = msgspec.field(name="from")
    until: float
    running: bool
    mine: bool


class BookingsAnswer(msgspec.Struct):
    bookings: list[BookingRow]


class BookingHandler(PageHandler, abstract=True):
    """Everybody sees all of them; a person makes and ends their own, the operator anybody's."""

    @property
    def person(self) -> str:
        """Whose bookings the caller decides about, "" for everybody's."""
        if self.principal.local:
            raise ProblemError(409, "not_a_user", _("only pool users book headroom"))
        return "" if self.principal.admin else self.principal.user


class AllBookings(BookingHandler, access=Access.FRIEND):
    """`GET /api/bookings`; `POST {"provider","percent","hours","from"?}` → the booking, 201."""

    def get(self) -> None:
        self.answer(BookingsAnswer(rows(self)))

    async def post(self) -> None:
        asked, person = self.body_as(NewBooking), self.person
        if not person:
            person = self._named(asked.person)
        elif asked.person not in ("", person):
            raise ProblemError(403, "forbidden", _("only the operator books for others"))
        since = self._since(asked.since)
        room, _windows = self.ctx.accounts.glance(Provider(asked.provider)) if asked.provider in _PROVIDERS else (0, [])
        if room is None:
            raise ProblemError(409, "unknown_headroom", _("its accounts do not tell how much is left"))
        made = await self.ctx.users.bookings.make(
            person, asked.provider, asked.percent, since, asked.hours * 3600, actor=self.actor
        )
        self.answer(_row(made, Names(self.ctx, query_params.viewer(self)), self), 201)

    def _since(self, asked: str | float) -> float:
        if asked == "":
            return 0.0
        return query_params.moment("from", str(asked), ZoneInfo(query_params.zone_of(self)))

    def _named(self, person: str) -> str:
        people = self.ctx.users.people
        found = people.find(person)
        if found is not None:
            return found.id
        return str(people.get(person)["id"])


class OneBooking(BookingHandler, access=Access.FRIEND):
    """`DELETE /api/bookings/ID`: it holds nothing any more."""

    async def delete(self, identifier: str) -> None:
        await self.ctx.users.bookings.end(identifier, self.person or None, actor=self.actor)
        self.answer({"ended": identifier})


_PROVIDERS = frozenset(provider.value for provider in Provider)


def rows(handler: BaseHandler) -> list[BookingRow]:
    """Those that run or are to come."""
    names = Names(handler.ctx, query_params.viewer(handler))
    return [_row(one, names, handler) for one in handler.ctx.users.bookings.coming()]


class BookingValues(NamedTuple):
    """What a home page shows of bookings; nothing where nobody can book. `bookable`: providers with their labels."""

    bookings: list[BookingRow]
    bookable: list[tuple[str, str]]
    booking_terms: BookingSettings
    booking_percent: str


def page_values(handler: BaseHandler) -> BookingValues:
    """For the reader's home page."""
    ctx, settings = handler.ctx, handler.ctx.settings.bookings
    offered = bool(settings.most_percent) and not ctx.local
    there = [one for one in Provider if ctx.accounts.has(one) and ctx.accounts.glance(one)[0] is not None]
    return BookingValues(
        rows(handler) if offered else [],
        [(one.value, labels.PROVIDERS[one]) for one in there if offered],
        settings,
        f"{min(USUAL_PERCENT, settings.most_percent):g}",
    )


def _row(made: Booking, names: Names, handler: BaseHandler) -> BookingRow:
    who = handler.principal
    now = handler.ctx.clock()
    mine = made.user == who.user and not who.admin
    return BookingRow(
        made.id, made.user, names.user(made.user), made.provider, made.percent, made.since, made.until,
        made.runs(now), mine,
    )  # fmt: skip
