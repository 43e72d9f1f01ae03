"""How many connections a server keeps open, and which one gives way to a new one. Pure: no sockets, no clock.

A connection *waits* while no request is under way on it, *works* otherwise. Where there are too many, the one that has
waited longest ends: those that have not sent a request first, of the newcomer's own address first. Where none waits,
the newcomer is turned away. Where descriptors run short, the newcomer is turned away and some that wait end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import StrEnum
from itertools import chain, islice
from typing import Generic, NamedTuple, TypeVar

C = TypeVar("C")


class TooMany(StrEnum):
    """Why a new connection is one too many."""

    TOTAL = "total"
    ADDRESS = "address"
    DESCRIPTORS = "descriptors"


class ConnectionLimits(NamedTuple):
    """`total` open connections, `per_address` of one address. One whose descriptor's number is `descriptor` or more is
    too many: the system gives out the lowest free number, so that at least so many are in use. `first_byte_s`: how
    long a new connection may say nothing."""

    total: int = 8192
    per_address: int = 256
    descriptor: int = 1 << 31
    first_byte_s: float = 10.0


class Admitted(NamedTuple, Generic[C]):
    """`refused` None: the newcomer may stay. `ended` gives way to it, for the reason `why`."""

    refused: TooMany | None
    ended: C | None = None
    why: TooMany | None = None


class ConnectionTable(Generic[C]):
    """The open connections of one server. `group` maps a peer's address to whom it counts as (a household's network),
    `exempt` says which addresses are many people at once (a proxy's) and have no cap of their own."""

    def __init__(
        self,
        limits: ConnectionLimits,
        *,
        group: Callable[[str], str] = str,
        exempt: Callable[[str], bool] = lambda address: False,
    ) -> None:
        self.limits = limits
        self._group = group
        self._exempt = exempt
        self._of: dict[C, str] = {}  # → group, "" = exempt
        self._groups: dict[str, dict[C, None]] = {}
        self._new: dict[C, None] = {}  # have not sent a request yet, longest wait first
        self._idle: dict[C, None] = {}  # wait for their next one, longest wait first

    def __len__(self) -> int:
        return len(self._of)

    def judge(self, address: str, descriptor: int) -> Admitted[C]:
        """May one more connection from `address` be opened? Changes nothing."""
        limits = self.limits
        own = self._groups.get(self._key(address), {})
        if len(own) >= limits.per_address:
            return self._verdict(TooMany.ADDRESS, own)
        if len(self._of) >= limits.total:
            return self._verdict(TooMany.TOTAL)
        if descriptor >= limits.descriptor:  # kept, it would hide how many are in use from those that fill gaps
            return Admitted(TooMany.DESCRIPTORS)
        return Admitted(None)

    def longest_waits(self, most: int) -> list[C]:
        """Up to `most` connections that wait, in the order in which they should end."""
        return list(islice(chain(self._new, self._idle), most))

    def _verdict(self, why: TooMany, among: dict[C, None] | None = None) -> Admitted[C]:
        for waiting in (self._new, self._idle):
            found = next((one for one in (waiting if among is None else among) if one in waiting), None)
            if found is not None:
                return Admitted(None, found, why)
        return Admitted(why)

    def opened(self, connection: C, address: str) -> None:
        """A new connection, which waits."""
        key = self._key(address)
        self._of[connection] = key
        self._new[connection] = None
        if key:
            self._groups.setdefault(key, {})[connection] = None

    def works(self, connection: C) -> None:
        """A request has begun."""
        if self._new.pop(connection, _ABSENT) is _ABSENT:
            self._idle.pop(connection, None)

    def waits(self, connection: C) -> None:
        """The request is answered."""
        if connection in self._of and connection not in self._new:
            self._idle[connection] = None

    def closed(self, connection: C) -> None:
        """The connection ends; telling it twice changes nothing."""
        key = self._of.pop(connection, None)
        if key is None:
            return
        self.works(connection)
        if key:
            own = self._groups[key]
            del own[connection]
            if not own:
                del self._groups[key]

    @property
    def open(self) -> Collection[C]:
        """All of them."""
        return self._of.keys()

    @property
    def new(self) -> Collection[C]:
        """Those that have not sent a request yet, longest wait first."""
        return list(self._new)

    def _key(self, address: str) -> str:
        return "" if self._exempt(address) else self._group(address) or "unknown"


_ABSENT = object()
