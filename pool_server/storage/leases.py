"""What keeps processes from doing at the same time what must be done once."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

import msgspec

from pool_server.core import processes
from pool_server.storage.lmdb.transaction import Txn
from pool_server.storage.write_behind import WriteBehind

TABLE = "leases"
TABLES = (TABLE,)
RELIED_ON = 2 / 3  # of a lease's life
REFRESH, POLL, PRUNE, FOLD, WATCH, SWEEP, BACKUP = "refresh", "poll", "prune", "fold", "watch", "sweep", "backup"
DUTIES = (REFRESH, POLL, PRUNE, FOLD, WATCH, SWEEP, BACKUP)

_encode = msgspec.msgpack.Encoder().encode


class LeaseTerm(NamedTuple):
    """A lease that was taken. `number` is higher than that of any term before it where its holder may be on another
    machine; `until` (monotonic seconds of this one) is how long it is relied on, which is less than it lasts."""

    name: str
    number: int
    until: float


class LeasesPort(Protocol):
    """Leases by name, each held by one process at a time."""

    again_s: float  # so long who waits for a lease leaves it alone between two tries

    async def take(self, name: str, life_s: float) -> LeaseTerm | None:
        """The lease for so many seconds; None while another process holds it. Raises StoreError."""

    def held(self, term: LeaseTerm) -> bool:
        """Whether something that the lease guards may still be begun: a process can be stopped for any time between
        two of its steps."""

    async def give(self, term: LeaseTerm) -> None:
        """Somebody else may take it; where that cannot be said now, it runs out. Never raises."""

    async def begin(self, token: str) -> bool:
        """The refresh token of that hash is about to be shown to its provider, and by nobody else until it is said what
        came of it, however long its holder is cut off: False where another process has begun. Raises StoreError."""

    async def end(self, token: str) -> None:
        """All can see what came of it, or nothing came. Never raises."""

    async def inherit(self, kept: Collection[str]) -> None:
        """What earlier lives of this process have begun has ended, but for `kept`, of which the new token is on this
        machine's disk. Never raises."""


class Duties(Protocol):
    """Which of the things that one process does for all are this process's now. `on_change` hears the name of a duty
    that was gained or lost."""

    on_change: list[Callable[[str], None]]

    def mine(self, duty: str) -> bool: ...

    async def start(self) -> None:
        """Take what is free."""

    async def step_down(self) -> None:
        """Another process does it all from now on."""

    async def close(self) -> None:
        """This process ends; `on_change` hears nothing of it."""


class FixedDuties(Duties):
    """All of them or none, until this process steps down: one machine's leader."""

    def __init__(self, leader: bool) -> None:
        self._leader = leader
        self.on_change: list[Callable[[str], None]] = []

    def mine(self, duty: str) -> bool:
        return self._leader

    async def start(self) -> None:
        """They are this process's or not."""

    async def close(self) -> None:
        """They end with the process."""

    async def step_down(self) -> None:
        was, self._leader = self._leader, False
        for duty in DUTIES if was else ():
            for hear in self.on_change:
                hear(duty)


class _Lease(msgspec.Struct, frozen=True):
    """`holder` as `processes.name` names it."""

    holder: str
    until: float


_decode = msgspec.msgpack.Decoder(_Lease).decode


class EmbeddedLeases(LeasesPort):
    """Leases among the processes that share a state store: one that has died holds nothing, where that can be
    told. `clock` gives unix seconds."""

    again_s = 0.1

    def __init__(
        self, store: WriteBehind, clock: Callable[[], float], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._holder = processes.name()

    async def take(self, name: str, life_s: float) -> LeaseTerm | None:
        began = self._monotonic()
        taken = self._store.write(lambda txn: self._take(txn, name.encode(), life_s))
        return LeaseTerm(name, 0, began + life_s * RELIED_ON) if taken else None

    def held(self, term: LeaseTerm) -> bool:
        return self._monotonic() < term.until

    async def begin(self, token: str) -> bool:
        return True  # whoever refreshes reads the disk first, which all share

    async def end(self, token: str) -> None:
        """See `begin`."""

    async def inherit(self, kept: Collection[str]) -> None:
        """See `begin`."""

    async def give(self, term: LeaseTerm) -> None:
        key = term.name.encode()
        self._store.owe(TABLE, key, lambda txn: self._give(txn, key))

    def _take(self, txn: Txn, key: bytes, life_s: float) -> bool:
        now, raw = self._clock(), txn.get(TABLE, key)
        if raw is not None and self._elsewhere(_decode(raw), now, life_s):
            return False
        txn.put(TABLE, key, _encode(_Lease(self._holder, now + life_s)))
        return True

    def _elsewhere(self, lease: _Lease, now: float, life_s: float) -> bool:
        if lease.holder == self._holder or not now < lease.until <= now + life_s:
            return False
        return processes.same(lease.holder)

    def _give(self, txn: Txn, key: bytes) -> None:
        raw = txn.get(TABLE, key)
        if raw is not None and _decode(raw).holder == self._holder:
            txn.delete(TABLE, key)
