"""What keeps counters and reservations, as the rest of the room asks it: of one machine, or of several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from pool_server.core.models import Denied, Usage
from pool_server.core.settings import Limits
from pool_server.users.limits.counters import Use
from pool_server.users.limits.pending import CountedKey, Reservation
from pool_server.users.limits.periods import Bounds, Calendar

if TYPE_CHECKING:
    from pool_server.users.limits.recent_use import Shares


class AdmissionPort(Protocol):
    """One rule, whoever asks: `counters` says it. A reservation that was made is ended by `settle` or `release`."""

    calendar: Calendar

    def reserve_soon(
        self, user: str, provider: str, limits: Limits, tokens: int, cost: float | None, key: CountedKey | None = None
    ) -> asyncio.Future[Reservation | Denied | None]:
        """A reservation for one request of about so much, under the user's limits and those of the key; None where
        user or key have changed elsewhere, which is known here by then: ask again. Cancel the future to take
        nothing."""

    def progress(self, reservation: Reservation, tokens: int, cost: float | None) -> None:
        """The request has used so much by now, not an increment."""

    def settle(self, reservation: Reservation, usage: Usage, cost: float | None) -> None:
        """The request has ended and used this."""

    def release(self, reservation: Reservation) -> None:
        """It has ended and used nothing."""

    async def settled(self) -> None:
        """Returns when what has ended is seen by the other processes of this machine that share the counters: they may
        be asked as soon as the client has its answer."""

    def stopped(self, user: str, limits: Limits, key: CountedKey | None = None) -> Denied | None:
        """The limit in the way of any request now, as far as it is known without waiting."""

    def read(self, owner: str) -> tuple[Use, Bounds]:
        """The counters of a user, or of a key, as they were last heard of; see `fetch`."""

    async def fetch(self, owners: Sequence[str]) -> None:
        """Returns when `read` tells how the counters of these are now. Never raises."""

    def write_turn(self) -> None:
        """Nothing that was asked or told before is left to be written later."""

    def settle_waiting(self) -> None:
        """Tries again to write what could not be. Called now and then."""

    def recover(self, most: int | None = None) -> int:
        """Settles what dead processes left behind, for so many owners at most; for how many that was."""

    def forget_idle(self, most: int | None = 500) -> None:
        """Drops what is kept of owners for whom nothing runs. Called now and then."""

    def stand_beside(self, another: bool) -> None:
        """Another server of this machine shares the counters from now on, or one that did has ended."""

    async def start(self) -> None:
        """Begins what runs by itself."""

    async def finish(self) -> None:
        """Ends that, and writes what waits. Raises StoreError."""


# From the calendar, what knows of fair shares, and the clock (unix seconds).
MakeAdmission = Callable[[Calendar, "Shares", Callable[[], float]], AdmissionPort]
