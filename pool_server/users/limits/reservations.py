"""Reservations: what a request may use is reserved before it starts and released, exactly once, when it ends.

Counters live in the state store, one small record a user and one a key with limits of its own (their "owner"),
changed in transactions, so all workers see one truth.
The record also says what each worker's running requests hold and have used so far. A worker leaves a mark for
every user it holds something for; when it dies, the next one to look settles what it left behind at what was
reported last, or by the ledger when that knows of more.

What is asked for, reported and ended in one turn of the event loop is written in one transaction at the end of the
turn. Nobody sees the difference: this worker writes before it reads, and an exchange waits for `settled` before it
tells its client, and with that anybody who could ask another worker. Where there is no other worker, what is reported
and ended waits a few milliseconds for the next request that asks, and the store follows what is counted in memory a
moment later. A process that is killed meanwhile has left its mark and a hold, as of any request under way: whoever
settles for it asks the ledger.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from pool_server.core import processes
from pool_server.core.enums import Denial
from pool_server.core.models import Denied, Usage
from pool_server.core.settings import Limits
from pool_server.core.tasks import running_loop
from pool_server.storage import Store, StoreError
from pool_server.storage.lmdb.gathered_writes import GatheredWrites, RowChanges
from pool_server.users.limits import HELD, USE, counters, rebuild
from pool_server.users.limits.admission_port import AdmissionPort
from pool_server.users.limits.counters import Hold, Use
from pool_server.users.limits.fair_share import weigh
from pool_server.users.limits.pending import (
    Cap,
    CountedKey,
    Final,
    Pending,
    Reservation,
    ReservationRequest,
    caps_of,
    kept_without_counters,
    reservation_for,
    worst_stop,
)
from pool_server.users.limits.periods import Bounds, Calendar
from pool_server.users.limits.rebuild import Used
from pool_server.users.limits.recent_use import Shares

log = logging.getLogger(__name__)

T = TypeVar("T")
_MOST_ENDS = 500  # settlements written at once, so that the loop does not pause
_COMPANY_S, _BEHIND_S = 0.01, 0.1  # how long what has ended waits for company, and how far the store may be behind


class _NoCounters(Exception):
    """Counters are missing, or of another life of the machine: they must be made from the ledger first."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


_Seeds = dict[str, bytes]  # owner → counters made from the ledger, encoded: a transaction may run again

_encode = msgspec.msgpack.Encoder().encode


class Reservations(AdmissionPort):
    """The counters and reservations of everybody, in the state store of one machine."""

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
        self._rows = GatheredWrites(store, within_s=_BEHIND_S, at_once=frozenset((HELD,)))
        self.calendar = calendar
        self._shares = shares
        self._clock = clock
        self._used = used
        self._epoch = processes.epoch()
        self._worker = processes.name()
        self._running: dict[str, int] = {}  # owner → this worker's requests, 0 = the mark may go; …
        self._under_way = 0  # … and all of them
        self._bare: set[str] = set()  # whose row in the store has no hold of this worker: it comes before memory's
        self._turn = Pending()
        self._uncounted: dict[str, int] = {}  # owner → this worker's requests of which the store knows nothing
        self._unsettled: list[Final] = []  # could not be written
        self._closed = False

    def reserve(
        self, user: str, provider: str, limits: Limits, tokens: int, cost: float | None, key: CountedKey | None = None
    ) -> Reservation | Denied:
        """Reserves for one request of about `tokens` and `cost` (US dollars, None = price not known), under the user's
        limits and those of the `key` it is made with."""
        self.write_turn()
        made, caps = reservation_for(user, provider, limits, tokens, key)

        def take(txn: RowChanges, seeds: _Seeds) -> Denied | None:
            now = self._clock()
            uses = {cap.owner: self._use(txn, cap.owner, now, seeds) for cap in caps}
            denied = self._take_one(txn, uses, made, caps, cost, now)
            if denied is None:
                _keep(txn, uses)
            return denied

        try:
            return self._answer(made, self._write(take))
        except StoreError as exc:
            return self._unguarded(made, caps, exc)

    def reserve_soon(
        self, user: str, provider: str, limits: Limits, tokens: int, cost: float | None, key: CountedKey | None = None
    ) -> asyncio.Future[Reservation | Denied | None]:
        """`reserve` at the end of this turn of the event loop; at once where nothing else is under way that could share
        its transaction. Cancel the future to take nothing."""
        made, caps = reservation_for(user, provider, limits, tokens, key)
        ask = ReservationRequest(made, caps, cost, running_loop().create_future())
        self._turn.asked.append(ask)
        if self._under_way or not self._alone:
            self._write_soon(made)
        else:
            self.write_turn()
        return ask.answer

    def _take_one(
        self,
        txn: RowChanges,
        uses: dict[str, Use],
        made: Reservation,
        caps: Sequence[Cap],
        cost: float | None,
        now: float,
    ) -> Denied | None:
        denied = worst_stop(uses, caps, now, self.calendar.at(now))
        if denied is not None:
            return denied
        ratio = uses[made.user].ratio
        made.tokens = int(made.base * ratio)
        made.cost = max(cost or 0.0, counters.FLOOR_COST) * ratio
        for owner in made.owners:
            if owner not in self._running or owner in self._bare:
                txn.put(HELD, _mark(self._worker, owner), b"")
            counters.hold(uses[owner], self._worker, made.tokens, made.cost, now)
        return None

    def _answer(self, made: Reservation, denied: Denied | None) -> Reservation | Denied:
        if denied is not None:
            return denied
        for owner in made.owners:
            self._running[owner] = self._running.get(owner, 0) + 1
        self._under_way += 1
        return made

    def progress(self, reservation: Reservation, tokens: int, cost: float | None) -> None:
        """The stream has used this much so far (not an increment). What is held grows when it was too little."""
        if reservation.done or not (reservation.counted and reservation.taken):
            return
        seen_tokens, seen_cost = self._seen(reservation)
        self._turn.reported[reservation] = max(seen_tokens, tokens), max(seen_cost, cost or 0.0)
        self._write_soon(reservation, _COMPANY_S)

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
        self._end(Final(reservation, usage.total, spent, weigh(usage)))

    def release(self, reservation: Reservation) -> None:
        """Nothing was used. The request still counts toward requests a minute."""
        self._end(Final(reservation, 0, 0.0, 0.0))

    async def settled(self) -> None:
        if not self._alone and self._turn.ended:
            await asyncio.sleep(0)  # `write_turn` comes first

    def stopped(self, user: str, limits: Limits, key: CountedKey | None = None) -> Denied | None:
        """The limit in the way of one more request, whatever it asks for. Takes nothing."""
        caps = [cap for cap in caps_of(user, limits, key) if not counters.limitless(cap.limits)]
        now = self._clock()
        return worst_stop({cap.owner: self.read(cap.owner)[0] for cap in caps}, caps, now, self.calendar.at(now))

    def read(self, owner: str) -> tuple[Use, Bounds]:
        """The counters of a user of the pool, or of a key, now. Those that are missing are made and kept."""
        if owner in self._turn.owners:
            self.write_turn()
        now = self._clock()
        marks = self.calendar.at(now)
        raw = self._rows.get(USE, owner.encode())
        use = rebuild.decode_use(raw) if raw is not None else None
        if use is None or use.epoch != self._epoch:
            return self._with_use(owner, lambda txn, use, _: self._kept(txn, owner, use)), marks
        counters.advance(use, now, marks)
        return use, marks

    def _kept(self, txn: RowChanges, owner: str, use: Use) -> Use:
        _keep(txn, {owner: use})
        return use

    @property
    def _alone(self) -> bool:
        return not (self._many or self._beside)

    def stand_beside(self, another: bool) -> None:
        """Another server shares the store from now on, as while an upgrade lasts, or one that did has ended."""
        self.write_turn()
        self._rows.share()
        self._beside += 1 if another else -1

    def write_turn(self) -> None:
        """Writes what was left to the end of this turn of the event loop."""
        turn, self._turn = self._turn, Pending()
        if turn.timer is not None:
            turn.timer.cancel()
        if turn:
            turn.asked = [ask for ask in turn.asked if not ask.answer.done()]
            self._unsettled += self._write_all(turn)

    def settle_waiting(self) -> None:
        """Settles what could not be written before. Called now and then."""
        self.write_turn()
        self._rows.try_commit()
        while self._unsettled:
            left = self._write_all(Pending(ended=self._unsettled[:_MOST_ENDS]))
            self._unsettled[:_MOST_ENDS] = left
            if left:
                return

    async def start(self) -> None:
        """Nothing runs by itself here."""

    async def finish(self) -> None:
        self.close()

    async def fetch(self, owners: Sequence[str]) -> None:
        """Everything is read where it is."""

    def close(self) -> None:
        """Settles what waits and takes the marks back; what ends later is written at once. Raises StoreError."""
        self._closed = True
        self.settle_waiting()
        self._rows.commit()
        self.forget_idle(None)

    def recover(self, most: int | None = None) -> int:
        """Settles what dead workers left behind, for at most so many owners; returns for how many that was."""
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
        """Takes back the marks of owners for whom nothing runs here any more: so many at once, None = all."""
        self.write_turn()
        idle = [owner for owner, running in self._running.items() if not running][:most]
        if not idle or self._unsettled:  # what is unsettled still holds, and a mark must stay for it
            return
        self._rows.commit()
        self._store.write(lambda txn: [txn.delete(HELD, _mark(self._worker, owner)) for owner in idle])
        for owner in idle:
            del self._running[owner]

    def _recover_from(self, name: bytes, most: int | None) -> int:
        with self._store.read() as txn:
            marks = [key for key, _ in txn.scan(HELD, name + b"\0", name + b"\1", limit=most)]
        for mark in marks:
            self._recover_one(mark, name.decode(), mark[len(name) + 1 :].decode())
        return len(marks)

    def _recover_one(self, mark: bytes, name: str, owner: str) -> None:
        """Asks the ledger, about half a millisecond, where the dead worker alone held something, and before the
        transaction. Its answer is taken only if nobody else holds anything then: all it knows of the others has
        been settled by that time, and nothing is counted twice."""
        now = self._clock()
        raw = self._rows.get(USE, owner.encode())
        fresh = self._seed(owner, now) if raw is not None and list(rebuild.decode_use(raw).by) == [name] else None

        def end(txn: RowChanges, use: Use, now: float) -> None:
            if not txn.delete(HELD, mark):
                return  # another worker was first
            counters.abandon(use, name, now)
            if fresh is not None and not use.by:
                counters.raise_to(use, fresh, now)
            _keep(txn, {owner: use})

        self._with_use(owner, end)

    def _end(self, final: Final) -> None:
        reservation = final.reservation
        if reservation.done or not reservation.counted:
            return
        reservation.done = True
        self._turn.reported.pop(reservation, None)  # the end says more
        self._under_way -= reservation.taken
        for owner in reservation.owners:
            if reservation.taken:
                self._running[owner] -= 1
            elif self._uncounted[owner] > 1:
                self._uncounted[owner] -= 1
            else:
                del self._uncounted[owner]
        if self._unsettled:  # the store fails
            self._unsettled.append(final)
            return
        self._turn.ended.append(final)
        self._write_soon(reservation, _COMPANY_S)

    def _write_soon(self, made: Reservation, within_s: float = 0.0) -> None:
        """Has this turn's changes, one of this reservation the latest, written at its end or, where no other worker
        could miss them, `within_s`; at once where no loop runs."""
        turn, within_s = self._turn, within_s if within_s and self._alone else 0.0
        turn.owners.add(made.user)
        turn.owners.add(made.key)
        if turn.due or (within_s and turn.timer is not None):
            return
        try:
            loop = None if self._closed else running_loop()
        except RuntimeError:
            loop = None
        if loop is None:
            self.write_turn()
        elif within_s:
            turn.timer = loop.call_later(within_s, self.write_turn)
        else:
            turn.due = True
            loop.call_soon(self.write_turn)

    def _write_all(self, turn: Pending) -> list[Final]:
        """Writes all of it in one transaction; returns what has ended and the store could not take.

        Reports it could not take are dropped: the next one, or the settling, makes up for them.
        """
        try:
            known, stops = self._write(lambda txn, seeds: self._change_all(txn, turn, seeds))
        except StoreError as exc:
            for ask in turn.asked:
                ask.answer.set_result(self._unguarded(ask.made, ask.caps, exc))
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

    def _change_all(
        self, txn: RowChanges, turn: Pending, seeds: _Seeds
    ) -> tuple[list[Reservation], list[Denied | None]]:
        """Returns the reservations whose reports the store knows now, and what stops each who asked."""
        now = self._clock()
        uses: dict[str, Use] = {}
        weights: dict[tuple[str, str], float] = {}

        def uses_of(owners: Sequence[str]) -> list[tuple[str, Use]]:
            for owner in owners:
                if owner not in uses:
                    uses[owner] = self._use(txn, owner, now, seeds)
            return [(owner, uses[owner]) for owner in owners]

        known = [made for made, seen in turn.reported.items() if self._grow(uses_of(made.owners), made, *seen)]
        for final in turn.ended:
            made = final.reservation
            late = (made.key,) if made.key and not made.limited and self._counted(txn, made.key) else ()
            for owner, use in uses_of((*made.owners, *late)):
                self._settle_one(use, final, now, held=owner not in late)
            share = made.provider, made.user
            weights[share] = weights.get(share, 0.0) + final.weight
        stops = [
            self._take_one(txn, dict(uses_of([cap.owner for cap in ask.caps])), ask.made, ask.caps, ask.cost, now)
            for ask in turn.asked
        ]
        _keep(txn, uses)
        for (provider, user), weight in weights.items():
            self._shares.add(txn, provider, user, weight, now)
        return known, stops

    def _grow(self, uses: Sequence[tuple[str, Use]], made: Reservation, tokens: int, cost: float) -> bool:
        """Whether the user's counters took the report in."""
        more_tokens, more_cost = max(0, tokens - made.tokens), max(0.0, cost - made.cost)
        more = Hold(0, more_tokens, more_cost, tokens - made.seen_tokens, cost - made.seen_cost)
        took = [counters.grow(use, self._worker, more) for _, use in uses]
        return took[0]

    def _counted(self, txn: RowChanges, owner: str) -> bool:
        """Whether these counters are kept at all: a key's that was given limits while the request was under way."""
        raw = txn.get(USE, owner.encode())
        return raw is not None and rebuild.decode_use(raw).epoch == self._epoch

    def _settle_one(self, use: Use, final: Final, now: float, *, held: bool) -> None:
        made, tokens, cost = final.reservation, final.tokens, final.cost
        if held and made.taken and not counters.unhold(use, self._worker, made.hold):
            # Taken for dead and settled at what was reported: add the rest.
            tokens = max(0, tokens - made.seen_tokens)
            cost = max(0.0, cost - made.seen_cost)
        counters.count(use, tokens, cost, now)
        if final.tokens:
            counters.learn(use, made.base, final.tokens)

    def _with_use(self, owner: str, change: Callable[[RowChanges, Use, float], T]) -> T:
        """Runs `change` in a transaction on the owner's counters, with the time that it is then, not before."""

        def timed(txn: RowChanges, seeds: _Seeds) -> T:
            return change(txn, self._use(txn, owner, now := self._clock(), seeds), now)

        return self._write(timed)

    def _write(self, change: Callable[[RowChanges, _Seeds], T]) -> T:
        """Runs `change` in a transaction, again when counters it needs must first be made from the ledger.

        The ledger is asked outside the transaction: nobody else waits for it.
        """
        seeds: _Seeds = {}
        while True:
            try:
                return self._rows.write(lambda txn: change(txn, seeds), gather=self._alone)
            except _NoCounters as missing:
                seeds[missing.owner] = _encode(self._seed(missing.owner, self._clock()))

    def _use(self, txn: RowChanges, owner: str, now: float, seeds: _Seeds) -> Use:
        """The owner's counters now. Raises _NoCounters."""
        raw = txn.get(USE, owner.encode())
        use = rebuild.decode_use(raw) if raw is not None else None
        if use is None or use.epoch != self._epoch:
            if owner not in seeds:
                raise _NoCounters(owner)
            use = rebuild.renewed(rebuild.decode_use(seeds[owner]), use, now)
        counters.advance(use, now, self.calendar.at(now))
        if self._alone and self._worker not in use.by and not self._rows.gathered(USE, owner.encode()):
            self._bare.add(owner)
        else:
            self._bare.discard(owner)
        return use

    def _seed(self, owner: str, now: float) -> Use:
        return rebuild.counters_of(self._used, owner, self._epoch, self.calendar.at(now), now)

    def _unguarded(self, made: Reservation, caps: Sequence[Cap], exc: StoreError) -> Reservation | Denied:
        """The store cannot be written: requests of users whose limits need it are refused, the others go on. How many
        there are at the same time is known here, of this worker."""
        if all(self._kept_here(cap) for cap in caps):
            for owner in made.owners:
                self._uncounted[owner] = self._uncounted.get(owner, 0) + 1
            made.taken = False
            return made
        log.warning("limits cannot be kept, turning requests away: %s", exc)
        return Denied(Denial.STORE, "limits cannot be checked just now; try again in a moment", 503, None)

    def _kept_here(self, cap: Cap) -> bool:
        here = self._running.get(cap.owner, 0) + self._uncounted.get(cap.owner, 0)
        return kept_without_counters(cap, here)


def _keep(txn: RowChanges, uses: Mapping[str, Use]) -> None:
    for owner, use in uses.items():
        txn.put(USE, owner.encode(), _encode(use))


def _mark(name: str, owner: str) -> bytes:
    return f"{name}\0{owner}".encode()
