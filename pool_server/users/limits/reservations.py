"""Reservations: what a request may use is reserved before it starts and released, exactly once, when it ends.

Counters live in the state store, one small record a user, changed in transactions, so all workers see one truth.
The record also says what each worker's running requests hold and have used so far. A worker leaves a mark for
every user it holds something for; when it dies, the next one to look settles what it left behind at what was
reported last, or by the ledger when that knows of more.

What is asked for, reported and ended in one turn of the event loop is written in one transaction at the end of the
turn. Nobody sees the difference: this worker writes before it reads, and an exchange tells its client, and with
that anybody who could ask another worker, no sooner than in a later turn, after its record is on the disk. Where there
is no other worker, what is reported and ended waits a few milliseconds for the next request that asks: one transaction
then serves both. A process that is killed meanwhile has left its mark and its hold, as of any request under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from pool_server.core import processes
from pool_server.core.enums import Denial
from pool_server.core.models import Usage
from pool_server.core.settings import COUNTED_BY_DENIAL, Limits
from pool_server.storage import Store, StoreError, Txn
from pool_server.users.limits import counters, rebuild
from pool_server.users.limits.counters import Hold, Stop, Use
from pool_server.users.limits.fair_share import weigh
from pool_server.users.limits.periods import Bounds, Calendar
from pool_server.users.limits.rebuild import Used
from pool_server.users.limits.recent_use import Shares
from pool_server.users.models import HELD, USE, Denied

log = logging.getLogger(__name__)

T = TypeVar("T")
_MOST_ENDS = 500  # settlements written at once, so that the loop does not pause
_COMPANY_S = 0.01  # how long what has ended waits for company, where no other worker could miss it


class Reservation(msgspec.Struct, eq=False):
    """What is reserved for one request. `tokens` and `cost` are what is held now, `base` the unscaled reservation.

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


class _Ask(NamedTuple):
    """A request waits for a reservation."""

    made: Reservation
    limits: Limits
    cost: float | None
    answer: asyncio.Future[Reservation | Denied]


class _Turn:
    """What one turn of the event loop leaves to be written at its end."""

    def __init__(
        self, ended: Sequence[_Final] = (), reported: _Reports | None = None, asked: Sequence[_Ask] = ()
    ) -> None:
        self.ended = list(ended)
        self.reported = reported or {}
        self.asked = list(asked)
        self.users: set[str] = set()  # whom it concerns
        self.due = False  # its end is waited for, …
        self.timer: asyncio.TimerHandle | None = None  # … or a little longer

    def __len__(self) -> int:
        return len(self.ended) + len(self.reported) + len(self.asked)

    def parts(self) -> list[_Turn]:
        """Each change by itself."""
        ended = [_Turn(ended=[final]) for final in self.ended]
        reported = [_Turn(reported={made: seen}) for made, seen in self.reported.items()]
        return ended + reported + [_Turn(asked=[ask]) for ask in self.asked]

    def fail(self, exc: Exception) -> None:
        """Whoever waits is told."""
        for ask in self.asked:
            ask.answer.set_exception(exc)


class _NoCounters(Exception):
    """A user's counters are missing, or of another life of the machine: they must be made from the ledger first."""

    def __init__(self, user: str) -> None:
        super().__init__(user)
        self.user = user


_Reports = dict[Reservation, tuple[int, float]]  # running request → tokens and cost used so far
_Seeds = dict[str, bytes]  # user id → counters made from the ledger, encoded: a transaction may run again

_encode = msgspec.msgpack.Encoder().encode
_decode_use = msgspec.msgpack.Decoder(Use).decode


class Reservations:
    """The counters and reservations of everybody."""

    def __init__(
        self,
        store: Store,
        calendar: Calendar,
        shares: Shares,
        clock: Callable[[], float],
        used: Used | None,
        *,
        many: bool = True,
    ) -> None:
        """`many`: other workers share the store, always; see `stand_beside`."""
        self._many = many
        self._beside = 0  # servers that share it for a while
        self._store = store
        self.calendar = calendar
        self._shares = shares
        self._clock = clock
        self._used = used
        self._epoch = processes.epoch()
        self._worker = processes.name()
        self._running: dict[str, int] = {}  # user id → this worker's requests, 0 = the mark may go
        self._turn = _Turn()
        self._uncounted: dict[str, int] = {}  # user id → this worker's requests of which the store knows nothing
        self._unsettled: list[_Final] = []  # could not be written
        self._closed = False

    def reserve(
        self, user: str, provider: str, limits: Limits, tokens: int, cost: float | None
    ) -> Reservation | Denied:
        """Reserves for one request of about `tokens` and `cost` (US dollars, None = price not known)."""
        self.write_turn()
        now = self._clock()
        made = Reservation(user, provider, base=max(tokens, counters.FLOOR_TOKENS))

        def take(txn: Txn, seeds: _Seeds) -> Stop | None:
            use = self._use(txn, user, now, seeds)
            stop = self._take_one(txn, use, made, limits, cost, now)
            if stop is None:
                txn.put(USE, user.encode(), _encode(use))
            return stop

        try:
            return self._answer(made, self._write(take))
        except StoreError as exc:
            return self._unguarded(made, limits, exc)

    def reserve_soon(
        self, user: str, provider: str, limits: Limits, tokens: int, cost: float | None
    ) -> asyncio.Future[Reservation | Denied]:
        """`reserve` at the end of this turn of the event loop. Cancel the future to take nothing."""
        made = Reservation(user, provider, base=max(tokens, counters.FLOOR_TOKENS))
        ask = _Ask(made, limits, cost, asyncio.get_running_loop().create_future())
        self._turn.asked.append(ask)
        self._write_soon(user)
        return ask.answer

    def _take_one(
        self, txn: Txn, use: Use, made: Reservation, limits: Limits, cost: float | None, now: float
    ) -> Stop | None:
        stop = counters.stopped(use, limits, now, self.calendar.at(now))
        if stop is not None:
            return stop
        made.tokens = int(made.base * use.ratio)
        made.cost = max(cost or 0.0, counters.FLOOR_COST) * use.ratio
        counters.hold(use, self._worker, made.tokens, made.cost, now)
        if made.user not in self._running:
            txn.put(HELD, _mark(self._worker, made.user), b"")
        return None

    def _answer(self, made: Reservation, stop: Stop | None) -> Reservation | Denied:
        if stop is not None:
            return _denied(stop)
        self._running[made.user] = self._running.get(made.user, 0) + 1
        return made

    def progress(self, reservation: Reservation, tokens: int, cost: float | None) -> None:
        """The stream has used this much so far (not an increment). What is held grows when it was too little."""
        if reservation.done or not (reservation.counted and reservation.taken):
            return
        seen_tokens, seen_cost = self._seen(reservation)
        self._turn.reported[reservation] = max(seen_tokens, tokens), max(seen_cost, cost or 0.0)
        self._write_soon(reservation.user, self._company_s)

    def _seen(self, reservation: Reservation) -> tuple[int, float]:
        """What the stream has reported so far, be it written or not."""
        return self._turn.reported.get(reservation) or (reservation.seen_tokens, reservation.seen_cost)

    def settle(self, reservation: Reservation, usage: Usage, cost: float | None) -> None:
        """The request has ended and used this. Only the first call for a reservation counts.

        Where the price is not known, the money limits count what the stream reported, else $0.02 a request.
        """
        spent = cost
        if spent is None:
            spent = self._seen(reservation)[1] or (counters.FLOOR_COST if usage.total else 0.0)
        self._end(_Final(reservation, usage.total, spent, weigh(usage)))

    def release(self, reservation: Reservation) -> None:
        """Nothing was used. The request still counts toward requests a minute."""
        self._end(_Final(reservation, 0, 0.0, 0.0))

    def stopped(self, user: str, limits: Limits) -> Denied | None:
        """The limit in the way of one more request, whatever it asks for. Takes nothing."""
        if counters.limitless(limits):
            return None
        use, marks = self.read(user)
        stop = counters.stopped(use, limits, self._clock(), marks)
        return None if stop is None else _denied(stop)

    def read(self, user: str) -> tuple[Use, Bounds]:
        """The counters of a user of the pool now. Those that are missing are made and kept."""
        if user in self._turn.users:
            self.write_turn()
        now = self._clock()
        marks = self.calendar.at(now)
        raw = self._store.get(USE, user.encode())
        use = _decode_use(raw) if raw is not None else None
        if use is None or use.epoch != self._epoch:
            return self._with_use(user, now, lambda txn, use: self._keep(txn, user, use)), marks
        counters.advance(use, now, marks)
        return use, marks

    def _keep(self, txn: Txn, user: str, use: Use) -> Use:
        txn.put(USE, user.encode(), _encode(use))
        return use

    @property
    def _company_s(self) -> float:
        return 0.0 if self._many or self._beside else _COMPANY_S

    def stand_beside(self, another: bool) -> None:
        """Another server shares the store from now on, as while an upgrade lasts, or one that did has ended."""
        self.write_turn()
        self._beside += 1 if another else -1

    def write_turn(self) -> None:
        """Writes what was left to the end of this turn of the event loop."""
        turn, self._turn = self._turn, _Turn()
        if turn.timer is not None:
            turn.timer.cancel()
        if turn:
            turn.asked = [ask for ask in turn.asked if not ask.answer.done()]
            self._unsettled += self._write_all(turn)

    def settle_waiting(self) -> None:
        """Settles what could not be written before. Called now and then."""
        self.write_turn()
        while self._unsettled:
            left = self._write_all(_Turn(ended=self._unsettled[:_MOST_ENDS]))
            self._unsettled[:_MOST_ENDS] = left
            if left:
                return

    def close(self) -> None:
        """Settles what waits and takes the marks back; what ends later is written at once. Raises StoreError."""
        self._closed = True
        self.settle_waiting()
        self.forget_idle(None)

    def recover(self, most: int | None = None) -> int:
        """Settles what dead workers left behind, for at most so many users; returns for how many that was."""
        self.write_turn()
        settled, start = 0, b""
        while most is None or settled < most:
            with self._store.read() as txn:
                first = next(iter(txn.scan(HELD, start, limit=1)), None)
            if first is None:
                return settled
            name, _, _ = first[0].partition(b"\0")
            start = name + b"\1"
            if name != self._worker.encode() and not processes.alive(name.decode()):
                settled += self._recover_from(name, None if most is None else most - settled)
        return settled

    def forget_idle(self, most: int | None = 500) -> None:
        """Takes back the marks of users for whom nothing runs here any more: so many at once, None = all."""
        self.write_turn()
        idle = [user for user, running in self._running.items() if not running][:most]
        if not idle or self._unsettled:  # what is unsettled still holds, and a mark must stay for it
            return
        self._store.write(lambda txn: [txn.delete(HELD, _mark(self._worker, user)) for user in idle])
        for user in idle:
            del self._running[user]

    def _recover_from(self, name: bytes, most: int | None) -> int:
        with self._store.read() as txn:
            marks = [key for key, _ in txn.scan(HELD, name + b"\0", name + b"\1", limit=most)]
        for mark in marks:
            self._recover_one(mark, name.decode(), mark[len(name) + 1 :].decode())
        return len(marks)

    def _recover_one(self, mark: bytes, name: str, user: str) -> None:
        """Asks the ledger, about half a millisecond, where the dead worker alone held something, and before the
        transaction. Its answer is taken only if nobody else holds anything then: all it knows of the others has
        been settled by that time, and nothing is counted twice."""
        now = self._clock()
        raw = self._store.get(USE, user.encode())
        fresh = self._seed(user, now) if raw is not None and list(_decode_use(raw).by) == [name] else None

        def end(txn: Txn, use: Use) -> None:
            if not txn.delete(HELD, mark):
                return  # another worker was first
            counters.abandon(use, name, now)
            if fresh is not None and not use.by:
                counters.raise_to(use, fresh, now)
            txn.put(USE, user.encode(), _encode(use))

        self._with_use(user, now, end)

    def _end(self, final: _Final) -> None:
        reservation = final.reservation
        if reservation.done or not reservation.counted:
            return
        reservation.done = True
        self._turn.reported.pop(reservation, None)  # the end says more
        if reservation.taken:
            self._running[reservation.user] -= 1
        elif self._uncounted[reservation.user] > 1:
            self._uncounted[reservation.user] -= 1
        else:
            del self._uncounted[reservation.user]
        if self._unsettled:  # the store fails
            self._unsettled.append(final)
            return
        self._turn.ended.append(final)
        self._write_soon(reservation.user, self._company_s)

    def _write_soon(self, user: str, within_s: float = 0.0) -> None:
        """Has this turn's changes, one of this user the latest, written at its end or `within_s`; at once where no loop
        runs."""
        turn = self._turn
        turn.users.add(user)
        if turn.due or (within_s and turn.timer is not None):
            return
        try:
            loop = None if self._closed else asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is None:
            self.write_turn()
        elif within_s:
            turn.timer = loop.call_later(within_s, self.write_turn)
        else:
            turn.due = True
            loop.call_soon(self.write_turn)

    def _write_all(self, turn: _Turn) -> list[_Final]:
        """Writes all of it in one transaction; returns what has ended and the store could not take.

        Reports it could not take are dropped: the next one, or the settling, makes up for them.
        """
        try:
            known, stops = self._write(lambda txn, seeds: self._change_all(txn, turn, seeds))
        except StoreError as exc:
            for ask in turn.asked:
                ask.answer.set_result(self._unguarded(ask.made, ask.limits, exc))
            return turn.ended
        except Exception as exc:
            if len(turn) > 1:  # one that cannot be counted must not keep the others from it
                return [left for part in turn.parts() for left in self._write_all(part)]
            if not turn.asked:
                log.exception("what a request has used could not be counted")
            turn.fail(exc)
            return []
        for made in known:
            made.seen_tokens, made.seen_cost = turn.reported[made]
            made.tokens, made.cost = max(made.tokens, made.seen_tokens), max(made.cost, made.seen_cost)
        for ask, stop in zip(turn.asked, stops, strict=True):
            ask.answer.set_result(self._answer(ask.made, stop))
        return []

    def _change_all(self, txn: Txn, turn: _Turn, seeds: _Seeds) -> tuple[list[Reservation], list[Stop | None]]:
        """Returns the reservations whose reports the store knows now, and what stops each who asked."""
        now = self._clock()
        uses: dict[str, Use] = {}
        weights: dict[tuple[str, str], float] = {}

        def use_of(made: Reservation) -> Use:
            if made.user not in uses:
                uses[made.user] = self._use(txn, made.user, now, seeds)
            return uses[made.user]

        known = [made for made, seen in turn.reported.items() if self._grow_one(use_of(made), made, *seen)]
        for final in turn.ended:
            made = final.reservation
            self._settle_one(use_of(made), final, now)
            key = made.provider, made.user
            weights[key] = weights.get(key, 0.0) + final.weight
        stops = [self._take_one(txn, use_of(ask.made), ask.made, ask.limits, ask.cost, now) for ask in turn.asked]
        for user, use in uses.items():
            txn.put(USE, user.encode(), _encode(use))
        for (provider, user), weight in weights.items():
            self._shares.add(txn, provider, user, weight, now)
        return known, stops

    def _grow_one(self, use: Use, made: Reservation, tokens: int, cost: float) -> bool:
        more_tokens, more_cost = max(0, tokens - made.tokens), max(0.0, cost - made.cost)
        more = Hold(0, more_tokens, more_cost, tokens - made.seen_tokens, cost - made.seen_cost)
        return counters.grow(use, self._worker, more)

    def _settle_one(self, use: Use, final: _Final, now: float) -> None:
        made, tokens, cost = final.reservation, final.tokens, final.cost
        if made.taken and not counters.unhold(use, self._worker, made.hold):
            # Taken for dead and settled at what was reported: add the rest.
            tokens = max(0, tokens - made.seen_tokens)
            cost = max(0.0, cost - made.seen_cost)
        counters.count(use, tokens, cost, now)
        if final.tokens:
            counters.learn(use, made.base, final.tokens)

    def _with_use(self, user: str, now: float, change: Callable[[Txn, Use], T]) -> T:
        """Runs `change` in a transaction on the user's counters."""
        return self._write(lambda txn, seeds: change(txn, self._use(txn, user, now, seeds)))

    def _write(self, change: Callable[[Txn, _Seeds], T]) -> T:
        """Runs `change` in a transaction, again when counters it needs must first be made from the ledger.

        The ledger is asked outside the transaction: nobody else waits for it.
        """
        seeds: _Seeds = {}
        while True:
            try:
                return self._store.write(lambda txn: change(txn, seeds))
            except _NoCounters as missing:
                seeds[missing.user] = _encode(self._seed(missing.user, self._clock()))

    def _use(self, txn: Txn, user: str, now: float, seeds: _Seeds) -> Use:
        """The user's counters now. Raises _NoCounters."""
        raw = txn.get(USE, user.encode())
        use = _decode_use(raw) if raw is not None else None
        if use is None or use.epoch != self._epoch:
            if user not in seeds:
                raise _NoCounters(user)
            use = _renewed(_decode_use(seeds[user]), use, now)
        counters.advance(use, now, self.calendar.at(now))
        return use

    def _seed(self, user: str, now: float) -> Use:
        return rebuild.counters_of(self._used, user, self._epoch, self.calendar.at(now), now)

    def _unguarded(self, made: Reservation, limits: Limits, exc: StoreError) -> Reservation | Denied:
        """The store cannot be written: requests of users whose limits need it are refused, the others go on. How many
        there are at the same time is known here, of this worker."""
        here = self._running.get(made.user, 0) + self._uncounted.get(made.user, 0)
        at_once = msgspec.structs.replace(limits, concurrent=None)
        if counters.limitless(at_once) and (limits.concurrent is None or here < limits.concurrent):
            self._uncounted[made.user] = self._uncounted.get(made.user, 0) + 1
            made.taken = False
            return made
        log.warning("limits cannot be kept, turning requests away: %s", exc)
        return Denied(Denial.STORE, "limits cannot be checked just now; try again in a moment", 503, None)


def _denied(stop: Stop) -> Denied:
    message = f"your limit of {COUNTED_BY_DENIAL[stop.denial].amount(stop.limit)} is reached"
    return Denied(stop.denial, message, 429, stop.retry_at)


def _renewed(fresh: Use, old: Use | None, now: float) -> Use:
    """Counters of another life of the machine, made anew: its workers are dead, what they reported was used."""
    for left in old.by.values() if old is not None else ():
        counters.count(fresh, left.seen_tokens, left.seen_cost, now)
    return fresh


def _mark(name: str, user: str) -> bytes:
    return f"{name}\0{user}".encode()
