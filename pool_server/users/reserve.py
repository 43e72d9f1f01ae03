"""Reservations: room for a request is taken before it starts and given back, exactly once, when it ends.

Counters live in the state store, one small record a user, changed in transactions, so all workers see one truth.
The record also says what each worker's running requests hold and have used so far. A worker leaves a mark for
every user it holds something for; when it dies, the next one to look settles what it left behind at what was
reported last.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from pool_server.config import Limits
from pool_server.records import Usage
from pool_server.store import Store, StoreError, Txn
from pool_server.users import counters, worker
from pool_server.users.counters import Hold, Stop, Use
from pool_server.users.fairshare import weigh
from pool_server.users.model import HELD, USE, Denied
from pool_server.users.periods import Bounds, Calendar
from pool_server.users.shares import Shares
from pool_server.users.wording import limit_message
from pool_server.words import Denial

log = logging.getLogger(__name__)

T = TypeVar("T")
Used = Callable[[str, float], Mapping[str, float]]
_SEED_STEPS = 5  # the rolling window is rebuilt from this many questions to the ledger


class Reservation(msgspec.Struct, eq=False):
    """Room taken for one request. `tokens` and `cost` are what is held now, `base` the unscaled reservation.

    `seen_…` is what the stream has reported, as far as the store knows. `counted` is False in local mode, `taken`
    when the store could not be written (only the unlimited go on then).
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

    @property
    def hold(self) -> Hold:
        """What it adds to its worker's hold."""
        return Hold(1, self.tokens, self.cost, self.seen_tokens, self.seen_cost)


class _Final(msgspec.Struct, frozen=True):
    """How a reservation ends: what it used."""

    reservation: Reservation
    tokens: int
    cost: float
    weight: float


_encode = msgspec.msgpack.Encoder().encode
_decode_use = msgspec.msgpack.Decoder(Use).decode


class Book:
    """The counters and reservations of everybody."""

    def __init__(
        self, store: Store, calendar: Calendar, shares: Shares, clock: Callable[[], float], used: Used | None
    ) -> None:
        self._store = store
        self.calendar = calendar
        self._shares = shares
        self._clock = clock
        self._used = used
        self._epoch = worker.epoch()
        self._worker = worker.name()
        self._running: dict[str, int] = {}  # user id → this worker's requests, 0 = the mark may go
        self._unsettled: deque[_Final] = deque()

    def reserve(
        self, user: str, provider: str, limits: Limits, tokens: int, cost: float | None
    ) -> Reservation | Denied:
        """Takes room for one request of about `tokens` and `cost` (US dollars, None = price not known)."""
        now = self._clock()
        made = Reservation(user, provider, base=max(tokens, counters.FLOOR_TOKENS))

        def take(txn: Txn, use: Use, marks: Bounds) -> Stop | None:
            stop = counters.stopped(use, limits, now, marks)
            if stop is not None:
                return stop
            made.tokens = int(made.base * use.ratio)
            made.cost = max(cost or 0.0, counters.FLOOR_COST) * use.ratio
            counters.hold(use, self._worker, made.tokens, made.cost, now)
            txn.put(USE, user.encode(), _encode(use))
            if user not in self._running:
                txn.put(HELD, _mark(self._worker, user), b"")
            return None

        try:
            stop = self._with_use(user, now, take)
        except StoreError as exc:
            return self._unguarded(made, limits, exc)
        if stop is not None:
            message = limit_message(stop.denial, stop.limit)
            return Denied(stop.denial, message, 429, stop.retry_at)
        self._running[user] = self._running.get(user, 0) + 1
        return made

    def progress(self, reservation: Reservation, tokens: int, cost: float | None) -> None:
        """The stream has used this much so far (not an increment). What is held grows when it was too little."""
        if reservation.done or not (reservation.counted and reservation.taken):
            return
        seen = max(reservation.seen_tokens, tokens), max(reservation.seen_cost, cost or 0.0)
        grown = msgspec.structs.replace(
            reservation,
            tokens=max(reservation.tokens, seen[0]),
            cost=max(reservation.cost, seen[1]),
            seen_tokens=seen[0],
            seen_cost=seen[1],
        )
        more = Hold(
            0,
            grown.tokens - reservation.tokens,
            grown.cost - reservation.cost,
            grown.seen_tokens - reservation.seen_tokens,
            grown.seen_cost - reservation.seen_cost,
        )

        def grow(txn: Txn, use: Use, _: Bounds) -> bool:
            known = counters.grow(use, self._worker, more)
            if known:
                txn.put(USE, reservation.user.encode(), _encode(use))
            return known

        try:
            known = self._with_use(reservation.user, self._clock(), grow)
        except StoreError:
            return  # the store says so elsewhere; the next report or the settling makes up for it
        if known:
            reservation.tokens, reservation.cost = grown.tokens, grown.cost
            reservation.seen_tokens, reservation.seen_cost = seen

    def settle(self, reservation: Reservation, usage: Usage, cost: float | None) -> None:
        """The request has ended and used this. Only the first call for a reservation counts.

        Where the price is not known, the money limits count what the stream reported, else $0.02 a request.
        """
        spent = cost
        if spent is None:
            spent = reservation.seen_cost or (counters.FLOOR_COST if usage.total else 0.0)
        self._end(_Final(reservation, usage.total, spent, weigh(usage)))

    def release(self, reservation: Reservation) -> None:
        """Nothing was used. The request still counts toward requests a minute."""
        self._end(_Final(reservation, 0, 0.0, 0.0))

    def read(self, user: str) -> tuple[Use, Bounds]:
        """The counters of a user of the pool now. Those that are missing are made and kept."""
        now = self._clock()
        marks = self.calendar.at(now)
        raw = self._store.get(USE, user.encode())
        use = _decode_use(raw) if raw is not None else None
        if use is None or use.epoch != self._epoch:
            return self._with_use(user, now, lambda txn, use, _: self._keep(txn, user, use)), marks
        counters.advance(use, now, marks)
        return use, marks

    def _keep(self, txn: Txn, user: str, use: Use) -> Use:
        txn.put(USE, user.encode(), _encode(use))
        return use

    def settle_waiting(self) -> None:
        """Settles what could not be written before. Called now and then."""
        while self._unsettled:
            final = self._unsettled[0]
            try:
                self._write_end(final)
            except StoreError:
                return
            self._unsettled.popleft()

    def recover(self) -> int:
        """Settles what dead workers left behind; returns for how many users that was."""
        settled, start = 0, b""
        while True:
            with self._store.read() as txn:
                first = next(iter(txn.scan(HELD, start, limit=1)), None)
            if first is None:
                return settled
            name, _, _ = first[0].partition(b"\0")
            start = name + b"\1"
            if name != self._worker.encode() and not worker.alive(name.decode()):
                settled += self._recover_from(name)

    def forget_idle(self, most: int | None = 500) -> None:
        """Takes back the marks of users for whom nothing runs here any more: so many at once, None = all."""
        idle = [user for user, running in self._running.items() if not running][:most]
        if not idle or self._unsettled:  # what is unsettled still holds, and a mark must stay for it
            return
        self._store.write(lambda txn: [txn.delete(HELD, _mark(self._worker, user)) for user in idle])
        for user in idle:
            del self._running[user]

    def _recover_from(self, name: bytes) -> int:
        with self._store.read() as txn:
            marks = [key for key, _ in txn.scan(HELD, name + b"\0", name + b"\1")]
        for mark in marks:
            self._recover_one(mark, name.decode(), mark[len(name) + 1 :].decode())
        return len(marks)

    def _recover_one(self, mark: bytes, name: str, user: str) -> None:
        now = self._clock()

        def end(txn: Txn, use: Use, _: Bounds) -> None:
            if txn.delete(HELD, mark):  # else another worker was first
                counters.abandon(use, name, now)
                txn.put(USE, user.encode(), _encode(use))

        self._with_use(user, now, end)

    def _end(self, final: _Final) -> None:
        reservation = final.reservation
        if reservation.done or not reservation.counted:
            return
        reservation.done = True
        if reservation.taken:
            self._running[reservation.user] -= 1
        if self._unsettled:
            self._unsettled.append(final)
            return
        try:
            self._write_end(final)
        except StoreError:
            self._unsettled.append(final)

    def _write_end(self, final: _Final) -> None:
        reservation, now = final.reservation, self._clock()

        def end(txn: Txn, use: Use, _: Bounds) -> None:
            tokens, cost = final.tokens, final.cost
            if reservation.taken and not counters.unhold(use, self._worker, reservation.hold):
                # Taken for dead and settled at what was reported: add the rest.
                tokens = max(0, tokens - reservation.seen_tokens)
                cost = max(0.0, cost - reservation.seen_cost)
            counters.count(use, tokens, cost, now)
            if final.tokens:
                counters.learn(use, reservation.base, final.tokens)
            txn.put(USE, reservation.user.encode(), _encode(use))
            self._shares.add(txn, reservation.provider, reservation.user, final.weight, now)

        self._with_use(reservation.user, now, end)

    def _with_use(self, user: str, now: float, change: Callable[[Txn, Use, Bounds], T]) -> T:
        """Runs `change` in a transaction on the user's counters, made from the ledger when they are missing.

        The ledger is asked outside the transaction: nobody else waits for it.
        """
        key, marks = user.encode(), self.calendar.at(now)
        seed: bytes | None = None

        def run(txn: Txn) -> tuple[T] | None:
            raw = txn.get(USE, key)
            use = _decode_use(raw) if raw is not None else None
            if use is None or use.epoch != self._epoch:
                if seed is None:
                    return None
                use = _renewed(_decode_use(seed), use, now)
            counters.advance(use, now, marks)
            return (change(txn, use, marks),)

        done = self._store.write(run)
        if done is None:
            seed = _encode(self._seed(user, now))
            done = self._store.write(run)
        assert done is not None
        return done[0]

    def _seed(self, user: str, now: float) -> Use:
        """Counters made from the ledger. The rolling window is asked for in steps, so that it ages as it
        should.
        """
        marks = self.calendar.at(now)
        use = Use(self._epoch, day=marks.day, week=marks.week, month=marks.month)
        oldest = min(marks.month, marks.week, now - counters.ROLLING)
        if self._used is None or _sums(self._used(user, oldest)) == (0, 0.0):
            return use
        use.day_tokens, use.day_cost = _sums(self._used(user, marks.day))
        use.week_tokens, use.week_cost = _sums(self._used(user, marks.week))
        use.month_tokens, use.month_cost = _sums(self._used(user, marks.month))
        step = counters.ROLLING / _SEED_STEPS
        younger = 0
        for back in range(1, _SEED_STEPS + 1):
            start = now - back * step
            total, _ = _sums(self._used(user, start))
            if total > younger:
                use.rolling.insert(0, (int(start + step) // counters.BUCKET * counters.BUCKET, total - younger))
            younger = max(younger, total)
        return use

    def _unguarded(self, made: Reservation, limits: Limits, exc: StoreError) -> Reservation | Denied:
        """The store cannot be written: whoever has limits is turned away, the others lose nothing by going on."""
        if counters.limitless(limits):
            made.taken = False
            return made
        log.warning("limits cannot be kept, turning requests away: %s", exc)
        return Denied(Denial.STORE, "limits cannot be checked just now; try again in a moment", 503, None)


def _renewed(fresh: Use, old: Use | None, now: float) -> Use:
    """Counters of another life of the machine, made anew: its workers are dead, what they reported was used."""
    for left in old.by.values() if old is not None else ():
        counters.count(fresh, left.seen_tokens, left.seen_cost, now)
    return fresh


def _mark(name: str, user: str) -> bytes:
    return f"{name}\0{user}".encode()


def _sums(row: Mapping[str, float]) -> tuple[int, float]:
    """Tokens and US dollars of a usage row of the ledger (`input` without cache, `reasoning` part of `output`)."""
    tokens = sum(row.get(name) or 0 for name in ("input", "cache_read", "cache_write", "output"))
    return int(tokens), float(row.get("cost_usd") or 0.0)
