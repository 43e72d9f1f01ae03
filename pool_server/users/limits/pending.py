"""What a turn of the event loop leaves to be written at its end: requests that ask, report and end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from pool_server.core.models import Denied
from pool_server.core.settings import COUNTED_BY_DENIAL, Limits
from pool_server.users.limits import counters
from pool_server.users.limits.counters import Hold, Stop, Use
from pool_server.users.limits.periods import Bounds


class Cap(NamedTuple):
    """Limits a request is held to. `owner` is whose counters they look at: a user's id, or `KeyFacts.owner` with the
    key's `label`."""

    owner: str
    limits: Limits
    label: str = ""


class CountedKey(Protocol):
    """A key whose own limits may count."""

    @property
    def owner(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def counted(self) -> bool: ...


class Reservation(msgspec.Struct, eq=False):
    """What is reserved for one request. `tokens` and `cost` are what is held now, `base` the unscaled reservation.

    `seen_…` is what the stream has reported, as far as the store knows. `counted` is False in local mode, `taken`
    when the store could not be written (only the unlimited go on then). `key` is the owner of the counters of the key
    it is made with, "" for none; they hold it where the key is `limited`.
    """

    user: str
    provider: str
    counted: bool = True
    taken: bool = True
    base: int = 0
    tokens: int = 0
    cost: float = 0.0
    seen_tokens: int = 0
    seen_cost: float = 0.0
    done: bool = False
    key: str = ""
    limited: bool = False

    @property
    def owners(self) -> tuple[str, ...]:
        """Whose counters hold it."""
        return (self.user, self.key) if self.limited else (self.user,)

    @property
    def hold(self) -> Hold:
        """What it adds to its worker's hold."""
        return Hold(1, self.tokens, self.cost, self.seen_tokens, self.seen_cost)


class Final(msgspec.Struct, frozen=True):
    """How a reservation ends: what it used."""

    reservation: Reservation
    tokens: int
    cost: float
    weight: float


class ReservationRequest(NamedTuple):
    """A request waits for a reservation."""

    made: Reservation
    caps: Sequence[Cap]
    cost: float | None
    answer: asyncio.Future[Any]  # the reservation, or why there is none


class Pending:
    """What one turn of the event loop leaves to be written at its end."""

    def __init__(
        self, ended: Sequence[Final] = (), reported: Reports | None = None, asked: Sequence[ReservationRequest] = ()
    ) -> None:
        self.ended = list(ended)
        self.reported = reported or {}
        self.asked = list(asked)
        self.owners: set[str] = set()  # whose counters it concerns
        self.due = False  # its end is waited for, …
        self.timer: asyncio.TimerHandle | None = None  # … or a little longer

    def __len__(self) -> int:
        return len(self.ended) + len(self.reported) + len(self.asked)

    def parts(self) -> list[Pending]:
        """Each change by itself."""
        ended = [Pending(ended=[final]) for final in self.ended]
        reported = [Pending(reported={made: seen}) for made, seen in self.reported.items()]
        return ended + reported + [Pending(asked=[ask]) for ask in self.asked]

    def fail(self, exc: Exception) -> None:
        """Whoever waits is told."""
        for ask in self.asked:
            ask.answer.set_exception(exc)


Reports = dict[Reservation, tuple[int, float]]  # running request → tokens and cost used so far


def reservation_for(
    user: str, provider: str, limits: Limits, tokens: int, key: CountedKey | None
) -> tuple[Reservation, tuple[Cap, ...]]:
    """What a request asks for, and the limits it is held to."""
    made = Reservation(user, provider, base=max(tokens, counters.FLOOR_TOKENS))
    if key is not None:
        made.key, made.limited = key.owner, key.counted
    return made, caps_of(user, limits, key)


def caps_of(user: str, limits: Limits, key: CountedKey | None) -> tuple[Cap, ...]:
    """The user's limits, and those of the key where it has any that are counted."""
    if key is None or not key.counted:
        return (Cap(user, limits),)
    return Cap(user, limits), Cap(key.owner, key.limits, key.label)


def worst_stop(uses: Mapping[str, Use], caps: Sequence[Cap], now: float, marks: Bounds) -> Denied | None:
    """The limit in the way; of the user's and the key's the one that frees last."""
    denied, last = None, 0.0
    for cap in caps:
        stop = counters.stopped(uses[cap.owner], cap.limits, now, marks)
        if stop is not None and (frees := math.inf if stop.retry_at is None else stop.retry_at) > last:
            denied, last = denied_by(stop, cap.label), frees
    return denied


def denied_by(stop: Stop, key: str) -> Denied:
    """What is told of a limit in the way; `key` is the label of the key whose own it is, "" for a user's."""
    amount = COUNTED_BY_DENIAL[stop.denial].amount(stop.limit)
    message = f"the limit of {amount} of your key “{key}”" if key else f"your limit of {amount}"
    return Denied(stop.denial, f"{message} is reached", 429, stop.retry_at)


def kept_without_counters(cap: Cap, here: int) -> bool:
    """Whether limits are kept where nobody counts: at most how many run at the same time is limited, and `here` is how
    many do."""
    at_once = msgspec.structs.replace(cap.limits, concurrent=None)
    return counters.limitless(at_once) and (cap.limits.concurrent is None or here < cap.limits.concurrent)
