"""Bookings: for a time, the last part of a provider's headroom is one person's.

While a booking runs, everybody else is served until the provider's headroom has come down to what is booked, and is
told then when it ends. Whoever booked, or brought an account of the provider, goes on; who booked waits for nobody's
fair share. What is booked at the same time never adds up to more than the operator allows.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec

from pool_server.core.enums import Denial, Provider
from pool_server.core.settings import BookingSettings
from pool_server.language import gettext as _
from pool_server.language import ngettext
from pool_server.storage import Store, StoreError, Txn
from pool_server.users.changes import append_audit, append_change, commit
from pool_server.users.models import (
    BOOKINGS,
    AuditActor,
    Denied,
    RefusedError,
    UserChange,
    bad_value,
    encode,
    id_key,
    not_found,
)

MOST = 1000  # bookings of everybody, running and to come


class Booking(msgspec.Struct, array_like=True, frozen=True):
    """`percent` of a provider's headroom for `user`, from `since` until `until`, unix seconds."""

    id: str
    user: str
    provider: str
    percent: float
    since: float
    until: float
    made: float

    def runs(self, now: float) -> bool:
        return self.since <= now < self.until


class BookedShare(NamedTuple):
    """What bookings mean to one person: `percent` of the headroom is others' at least until `until`; `own`: a booking
    of theirs runs."""

    percent: float
    until: float
    own: bool


def share(bookings: Iterable[Booking], user: str, now: float) -> BookedShare:
    """Of the bookings of one provider."""
    running = [one for one in bookings if one.runs(now)]
    others = [one for one in running if one.user != user]
    percent = min(100.0, sum(one.percent for one in others))
    return BookedShare(percent, min((one.until for one in others), default=0.0), len(others) < len(running))


def most_at_once(bookings: Sequence[Booking], since: float, until: float) -> float:
    """The most percent that are booked together at any moment between the two."""
    begins = [since, *(one.since for one in bookings if since < one.since < until)]
    return max(sum(one.percent for one in bookings if one.runs(moment)) for moment in begins)


_decode = msgspec.msgpack.Decoder(Booking).decode


class Bookings:
    """`alive` says whether somebody may still use the pool: nothing is kept for others. `poll` applies changes in this
    worker at once."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        settings: Callable[[], BookingSettings],
        alive: Callable[[str], bool],
        poll: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._alive = alive
        self._poll = poll
        self._known: dict[str, list[Booking]] | None = None  # by provider
        self.owns: Callable[[str, str], bool] = lambda user, provider: False  # an account of the provider

    def refusal(self, user: str, provider: str, headroom: float | None) -> Denied | None:
        """Why somebody may not use this provider now that so many percent are left; None while that is not known.
        Raises StoreError."""
        if headroom is None or not (found := self._of(provider)):
            return None
        booked = share(found, user, self._clock())
        if booked.own or headroom > booked.percent or not booked.percent or self.owns(user, provider):
            return None
        message = f"what is left of {provider} is booked by others in the pool; it is free again when that ends"
        return Denied(Denial.BOOKED, message, 429, booked.until)

    def left_for(self, user: str, provider: str, headroom: float | None) -> float | None:
        """How much of the headroom fair shares are made of for somebody; None where it is not known, or they need not
        wait for anybody. Raises StoreError."""
        if headroom is None or not (found := self._of(provider)):
            return headroom
        booked = share(found, user, self._clock())
        return None if booked.own else headroom - booked.percent

    def providers(self) -> Collection[str]:
        """Those of which anything is booked, now or to come; none where the store cannot be read."""
        try:
            return self._by_provider().keys() if self._settings().most_percent else ()
        except StoreError:
            return ()

    def coming(self) -> list[Booking]:
        """Those that run or are to come, by their beginning. Raises StoreError."""
        now = self._clock()
        found = [one for rows in self._by_provider().values() for one in rows if one.until > now]
        return sorted(found, key=lambda one: (one.since, one.id))

    async def make(
        self, user: str, provider: str, percent: float, since: float, lasts_s: float, *, actor: AuditActor
    ) -> Booking:
        """Books from `since` (unix seconds; now where that is past) for so long; durable on return. Raises
        RefusedError: 400 for what cannot be, 409 where it is taken, 503."""
        now, settings = self._clock(), self._settings()
        begin = max(since, now)
        made = Booking("b_" + secrets.token_hex(6), user, provider, percent, begin, begin + lasts_s, now)
        _check(made, now, settings)

        def write(txn: Txn) -> None:
            rows = [one for one in map(_decode, (raw for _, raw in txn.scan(BOOKINGS))) if one.until > now]
            rows = [one for one in rows if self._alive(one.user)]
            if len(rows) >= MOST or sum(one.user == user for one in rows) >= settings.per_person:
                raise RefusedError(Denial.BOOKED, _("no more bookings: end one first"), 409)
            same = [one for one in rows if one.provider == provider]
            free = settings.most_percent - most_at_once(same, made.since, made.until)
            if percent > free + 1e-9:
                why = _("only {free} % can still be booked then", free=f"{max(0.0, free):g}")
                raise RefusedError(Denial.BOOKED, why, 409)
            txn.put(BOOKINGS, id_key(made.id), encode(made))
            append_change(txn, UserChange("user", now, user))
            detail = {"provider": provider, "percent": percent, "since": begin, "until": made.until}
            append_audit(txn, now, actor, "booking.make", user, detail)

        await commit(self._store, write)
        self.forget()
        self._poll()
        return made

    async def end(self, identifier: str, user: str | None, *, actor: AuditActor) -> None:
        """Ends one, of that person or of anybody (None). RefusedError 404 where there is none, 503."""
        now = self._clock()

        def write(txn: Txn) -> None:
            raw = txn.get(BOOKINGS, id_key(identifier))
            found = _decode(raw) if raw is not None else None
            if found is None or user not in (None, found.user):
                raise not_found("booking")
            txn.delete(BOOKINGS, id_key(identifier))
            append_change(txn, UserChange("user", now, found.user))
            append_audit(txn, now, actor, "booking.end", found.user, {"provider": found.provider})

        await commit(self._store, write)
        self.forget()
        self._poll()

    def forget(self) -> None:
        """Anything may have changed."""
        self._known = None

    def _of(self, provider: str) -> list[Booking]:
        """Those of a provider, while bookings are offered."""
        return self._by_provider().get(provider, []) if self._settings().most_percent else []

    def _by_provider(self) -> dict[str, list[Booking]]:
        if self._known is None:
            known: dict[str, list[Booking]] = {}
            with self._store.read() as txn:
                for _key, raw in txn.scan(BOOKINGS):
                    if self._alive((one := _decode(raw)).user):
                        known.setdefault(one.provider, []).append(one)
            self._known = known
        return self._known


def stale(raw: bytes, now: float) -> bool:
    """Whether it is over."""
    return _decode(raw).until <= now


def _check(made: Booking, now: float, settings: BookingSettings) -> None:
    """Raises RefusedError."""
    if not settings.most_percent:
        raise RefusedError(Denial.BOOKED, _("the operator of this pool offers no bookings"), 409)
    if made.provider not in {provider.value for provider in Provider}:
        raise bad_value(_("there is no such provider"))
    if not 0 < made.percent <= settings.most_percent:
        raise bad_value(_("a booking takes up to {most} %", most=f"{settings.most_percent:g}"))
    if not 0 < made.until - made.since <= settings.longest_h * 3600:
        raise bad_value(_("a booking lasts up to {hours} h", hours=f"{settings.longest_h:g}"))
    if made.since > now + settings.ahead_days * 86_400:
        ahead = settings.ahead_days
        said = ngettext("a booking begins within {n} day", "a booking begins within {n} days", ahead, n=f"{ahead:g}")
        raise bad_value(said)
