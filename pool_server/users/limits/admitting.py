"""Admission: a request is let in under its user's limits or told why not, and ended once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NotRequired, Protocol, TypedDict, Unpack

from pool_server.core.enums import Denial
from pool_server.core.models import Denied, Principal, Usage
from pool_server.core.settings import Limits
from pool_server.storage import StoreError
from pool_server.users.limits import counters
from pool_server.users.limits.admission_port import AdmissionPort
from pool_server.users.limits.pending import CountedKey, Reservation
from pool_server.users.limits.reservations import Reservations

STALE_S = 5.0  # so long it is tried to read what others have changed of a person
TURN_S = 0.5  # how often somebody who waits for their turn looks again
_BRIEF = frozenset(Denial(name) for name in counters.COUNTED[2:])  # amounts: what is held may be given back soon

Headroom = float | None | Callable[[], float | None]


class Limited(Protocol):
    """Somebody known, and the limits in effect for them."""

    @property
    def id(self) -> str: ...
    @property
    def limits(self) -> Limits: ...


class Demand(TypedDict):
    """What a request asks for: its provider and model ("" = not known), the name the model was asked for by, an honest
    estimate of all tokens of the exchange and of its price in US dollars (None = not known), and the provider's
    headroom in percent (None = not known) or what tells it."""

    provider: str
    model: str
    asked: NotRequired[str]
    tokens: int
    cost: float | None
    headroom: NotRequired[Headroom]


# The user and the key behind a caller, or what is in the way other than their counters.
Facts = Callable[[Principal, str, tuple[str, ...], Headroom], tuple[Limited, CountedKey | None] | Denied]


class Admission:
    """`facts` tells who asks for what (provider, models, headroom); `wait_s` how long somebody may wait for a turn;
    `unread` words a store that cannot be read; `look` takes in what changed elsewhere."""

    def __init__(
        self,
        port: AdmissionPort,
        facts: Facts,
        *,
        clock: Callable[[], float],
        wait_s: Callable[[], float],
        unread: Callable[[str, StoreError], Denied],
        look: Callable[[], Awaitable[None]],
    ) -> None:
        self.port = port
        self._facts = facts
        self._clock = clock
        self._wait_s = wait_s
        self._unread = unread
        self._look = look
        self._freed = asyncio.Event()

    def reserve(self, principal: Principal, **asked: Unpack[Demand]) -> Reservation | Denied:
        """Reserves an amount under the user's limits for one request, or says which limit is in the way; at once, where
        the counters are this machine's own. A reservation must be ended by `settle` or `release`."""
        if principal.local:
            return Reservation(principal.user, asked["provider"], counted=False)
        assert isinstance(self.port, Reservations), "several machines are asked, which takes a moment"
        found = self._facts(principal, asked["provider"], _models(asked), asked.get("headroom"))
        if isinstance(found, Denied):
            return found
        view, key = found
        return self.port.reserve(view.id, asked["provider"], view.limits, asked["tokens"], asked["cost"], key)

    def stopped(self, principal: Principal, *, provider: str = "") -> Denied | None:
        """What stops any request of this caller now (to `provider` if it is told), before anything of it is looked
        into: their access has ended, or a limit is used up that does not free in a moment."""
        if principal.local:
            return None
        found = self._facts(principal, provider, (), None)
        if isinstance(found, Denied):
            return found
        view, key = found
        try:
            denied = self.port.stopped(view.id, view.limits, key)
        except StoreError as exc:
            return self._unread("limits", exc)
        return None if denied is None or self._passes_soon(denied) else denied

    async def reserve_or_wait(self, principal: Principal, **asked: Unpack[Demand]) -> Reservation | Denied:
        """`reserve`, waiting up to `fair_share.wait_s` seconds for a turn.

        Only who is stopped by fair share, or by what their own running requests hold, waits; a used-up limit is
        told at once.
        """
        provider, models, headroom = asked["provider"], _models(asked), asked.get("headroom")
        tokens, cost = asked["tokens"], asked["cost"]
        if principal.local:
            return Reservation(principal.user, provider, counted=False)
        deadline = stale = 0.0
        while True:
            found = self._facts(principal, provider, models, headroom)
            answer = found if isinstance(found, Denied) else await self._reserved(*found, provider, tokens, cost)
            if answer is None:
                now = time.monotonic()
                stale = stale or now + STALE_S
                if now >= stale:
                    return self._unread("people", StoreError("what others have changed of this person is not heard of"))
                with suppress(TimeoutError):
                    async with asyncio.timeout(stale - now):
                        await self._look()
                continue
            if not isinstance(answer, Denied) or not self._passes_soon(answer):
                return answer
            now = time.monotonic()
            deadline = deadline or now + self._wait_s()
            if now >= deadline:
                return answer
            with suppress(TimeoutError):
                await asyncio.wait_for(self._freed.wait(), min(deadline - now, TURN_S))

    async def _reserved(
        self, view: Limited, key: CountedKey | None, provider: str, tokens: int, cost: float | None
    ) -> Reservation | Denied | None:
        asked = self.port.reserve_soon(view.id, provider, view.limits, tokens, cost, key)
        try:
            return await asked
        except asyncio.CancelledError:
            if not asked.cancel() and not asked.cancelled() and asked.exception() is None:
                made = asked.result()  # it came in the moment of being cancelled
                if isinstance(made, Reservation):
                    self.release(made)
            raise

    def progress(self, reservation: Reservation, tokens: int, cost: float | None) -> None:
        """The stream has used `tokens` and `cost` so far (sums, not increments)."""
        self.port.progress(reservation, tokens, cost)

    def settle(self, reservation: Reservation, usage: Usage, cost: float | None) -> None:
        """The exchange is over and used this. Only the first `settle` or `release` of a reservation counts."""
        self.port.settle(reservation, usage, cost)
        self._wake()

    def release(self, reservation: Reservation) -> None:
        """The exchange is over and nothing was used."""
        self.port.release(reservation)
        self._wake()

    def _passes_soon(self, denied: Denied) -> bool:
        if denied.denial is Denial.FAIR_SHARE:
            return True
        soon = denied.retry_at is not None and denied.retry_at - self._clock() <= counters.SOON
        return soon and denied.denial in _BRIEF

    def _wake(self) -> None:
        """Somebody's request ended: who waits looks again."""
        self._freed.set()
        self._freed = asyncio.Event()


def _models(demand: Demand) -> tuple[str, ...]:
    """The names that limits must let in: the model that serves, and what it was asked for by."""
    served, asked = demand["model"], demand.get("asked", "")
    return (served,) if asked in ("", served) else (asked, served)
