"""Admission of requests over PostgreSQL: one call before a request, none after it. What ends is told at once and in
order, what streams report with the node's beat.

The database decides and this node remembers what it holds there. So whatever was forgotten, by an answer that was lost
or a primary that died with its last moments, is put right from here: the gate closes, calls under way end, the database
is told what this node holds, what it had not counted is told again, the gate opens.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

import msgspec

from pool_server.cluster.fair_shares import FairShares
from pool_server.cluster.node import ClusterNode, PinQuestion
from pool_server.cluster.node_reservations import (
    DATABASE_LIMITS,
    NodeReservations,
    limits_sent,
    marks_sent,
    owner_of,
    rows_of,
)
from pool_server.cluster.standings import Standings
from pool_server.core.enums import Denial
from pool_server.core.models import Usage
from pool_server.core.settings import Limits, Settings
from pool_server.core.tasks import wait_at_most
from pool_server.storage.errors import StoreError
from pool_server.storage.postgres import admission_calls as calls
from pool_server.storage.postgres.admission_calls import NANO, AdmissionVerdict, nano
from pool_server.storage.postgres.connection import Connection
from pool_server.users.identity.keys import REVOKED_KEY
from pool_server.users.limits import counters
from pool_server.users.limits.admission_port import AdmissionPort
from pool_server.users.limits.counters import Stop, Use
from pool_server.users.limits.fair_share import weigh
from pool_server.users.limits.pending import (
    Cap,
    CountedKey,
    Reservation,
    denied_by,
    kept_without_counters,
    reservation_for,
)
from pool_server.users.limits.periods import Bounds, Calendar
from pool_server.users.models import Denied

log = logging.getLogger(__name__)

WITHIN_S = 5.0  # a call that takes longer is taken for lost
BEAT_S = 1.0  # so often a node says that it lives, ...
REPORT_S = 0.25  # ... and what its streams have reported
WAITING = 2000  # requests that wait for a database that does not answer, at most
SOON_S = 5.0  # when who is turned away may come again
TRIES = 3
ELSEWHERE_S = (0.02, 0.08, 0.2)  # a request that ended at another node may still be held: who asks at once asks again
SWEEP_S = 10.0  # so often dead nodes are looked for, ...
SILENT_S = 120.0  # ... which have been silent for so long, ...
CONNECTED_S = 30.0  # ... unless they could not speak: by a node that has had the database for so long itself
SWEPT_AT_ONCE = 200
IDLE_S = 60.0  # a hold of nothing goes after so long; longer than what a server that dies may forget

_OF_NODE = "select settled, dead, extract(epoch from clock_timestamp())::float8 as at from pool.node where id = $1"

Answer = Reservation | Denied | None


class AwayTerms(NamedTuple):
    """What becomes of requests while the database does not answer: see the settings of these names."""

    wait_s: float
    grace_s: float
    allow: bool

    @classmethod
    def of(cls, settings: Settings) -> AwayTerms:
        return cls(settings.store_wait_s, settings.store_grace_s, settings.store_when_away == "allow")


class DatabaseAdmission(AdmissionPort):
    """`known` tells up to which number this process goes by changes of people. `fair` counts what each request has
    taken of a provider."""

    def __init__(
        self,
        node: ClusterNode,
        calendar: Calendar,
        clock: Callable[[], float],
        *,
        known: Callable[[], int],
        fair: FairShares,
        terms: AwayTerms,
    ) -> None:
        self.calendar = calendar
        self._node = node
        self._clock = clock
        self._ahead = 0.0  # the database's clock, of this node's
        self._known = known
        self._fair = fair
        self.terms = terms
        self._held = NodeReservations()
        self._standings = Standings(node.pool, lambda now: self.calendar.at(now))
        self._begun: set[str] = set()  # keys whose counters are there
        self._asking: set[asyncio.Task[Answer]] = set()
        self._unsure = True  # the database may not know what this node holds
        self._inside = 0  # calls under way
        self._open, self._empty = asyncio.Event(), asyncio.Event()
        self._wake, self._closing, self._round_done = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._waiting = 0
        self._beaten = self._swept = 0.0
        self._task: asyncio.Task[None] | None = None
        node.on_lost.append(self._doubt)

    # -- life

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def finish(self) -> None:
        """Tells what has ended; what cannot be told any more is made up for from the records."""
        self._closing.set()
        self._wake.set()
        if self._task is not None:
            await self._task
        await self._standings.close()

    def recover(self, most: int | None = None) -> int:
        return 0  # whoever has the duty buries dead nodes

    def settle_waiting(self) -> None:
        self._wake.set()

    def forget_idle(self, most: int | None = 500) -> None:
        self._standings.forget()

    def write_turn(self) -> None:
        self._wake.set()

    def stand_beside(self, another: bool) -> None:
        """Another process of this machine is another node."""

    # -- a request

    def reserve_soon(
        self, user: str, provider: str, limits: Limits, tokens: int, cost: float | None, key: CountedKey | None = None
    ) -> asyncio.Future[Answer]:
        made, caps = reservation_for(user, provider, limits, tokens, key)
        task = asyncio.get_running_loop().create_task(self._reserve(made, caps, cost, self._known()))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        return self._beside(task)

    def _beside(self, task: asyncio.Task[Answer]) -> asyncio.Future[Answer]:
        """What the task finds; whoever leaves before that does not stop it, since nobody would know what was decided,
        and what it reserves is released."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def done(task: asyncio.Task[Answer]) -> None:
            if task.cancelled():
                answer.cancel()
            elif answer.done():
                if task.exception() is None and isinstance(found := task.result(), Reservation):
                    self.release(found)
            elif (exc := task.exception()) is not None:
                answer.set_exception(exc)
            else:
                answer.set_result(task.result())

        task.add_done_callback(done)
        return answer

    async def _reserve(self, made: Reservation, caps: Sequence[Cap], cost: float | None, known: int) -> Answer:
        """`known`: up to which change of people the caps are those of the person; later ones make them stale. However
        the calls fail, nobody waits longer than for a database that is away."""
        began = time.monotonic()
        until = asyncio.get_running_loop().time() + max(self.terms.wait_s, WITHIN_S)
        while True:
            away = self._node.away_for()
            if not away:
                try:
                    async with asyncio.timeout_at(until):
                        return await self._decided_anywhere(made, caps, cost, known)
                except (StoreError, TimeoutError) as exc:
                    self._node.look_soon()
                    log.info("an admission was not answered: %s", exc or "no answer in time")
            left = self.terms.wait_s - max(time.monotonic() - began, away)
            if left <= 0 or self._waiting >= WAITING:
                return self._unguarded(made, caps)
            self._waiting += 1
            try:
                await asyncio.sleep(min(left, REPORT_S / 5))
            finally:
                self._waiting -= 1

    async def _decided_anywhere(self, made: Reservation, caps: Sequence[Cap], cost: float | None, known: int) -> Answer:
        """Nobody is in the way of their own next request, at whichever node it comes: an answer has ended for its
        client a moment before the database is told."""
        answer = await self._decided(made, caps, cost, known)
        for pause in ELSEWHERE_S:
            if not isinstance(answer, Denied) or answer.denial is not Denial.CONCURRENT or self._busy_here(caps):
                break
            await asyncio.sleep(pause)
            answer = await self._decided(made, caps, cost, known)
        return answer

    def _busy_here(self, caps: Sequence[Cap]) -> bool:
        """Whether what runs at this node alone fills a limit."""
        most = [(self._held.running(cap.owner), cap.limits.concurrent) for cap in caps]
        return any(limit is not None and running >= limit for running, limit in most)

    async def _decided(self, made: Reservation, caps: Sequence[Cap], cost: float | None, known: int) -> Answer:
        if not self._node.sure and not self._all_kept_here(caps):
            return _turned_away(self._clock())  # what is counted there may be worth nothing
        if self._held.ending(made.user):
            await self._told()
        amount = nano(max(cost or 0.0, counters.FLOOR_COST))
        limits = [limits_sent(cap.limits) for cap in caps]
        for _ in range(TRIES):
            async with self._entered() as connection:
                for owner in {cap.owner for cap in caps[1:]} - self._begun:
                    await connection.value("select pool.use_begin_1($1, $2, $3, null)", *owner_of(owner), self._marks())
                    self._begun.add(owner)
                asked = self._clock()
                with self._pins_asked() as pins:
                    found = await calls.admit(
                        connection, self._node.id, (made.user, owner_of(made.key)[1]), known,
                        (made.base, amount), limits[0], limits[1] if len(limits) > 1 else None, self._marks(),
                        pins=[key for question in pins for key in question.keys],
                    )  # fmt: skip
                    for question in pins:
                        question.told(found.pins)
                self._ahead = min(max(self._ahead, found.at - self._clock()), found.at - asked)
                if found.word == "ok":
                    return self._took(made, found)
            if found.word == "dead":
                self._doubt()
            elif found.word != "clock":
                return self._here(_refused(found, caps))
        raise StoreError("the database takes this node for dead, or its clock for wrong, again and again")

    @contextmanager
    def _pins_asked(self) -> Iterator[list[PinQuestion]]:
        """What requests want to know of pins; who waits for it hears of it also where it is not answered."""
        asked = list(self._node.pin_questions)
        self._node.pin_questions.clear()
        try:
            yield asked
        finally:
            for question in asked:
                question.told(None)

    def _took(self, made: Reservation, found: AdmissionVerdict) -> Reservation:
        made.tokens, made.cost = found.tokens, found.cost / NANO
        self._held.take(made, found.tokens, found.cost, found.made)
        for owner in made.owners:
            self._standings.held(owner, made, self._now())
        self._standings.want(made.owners)
        return made

    def _unguarded(self, made: Reservation, caps: Sequence[Cap]) -> Reservation | Denied:
        """The database does not answer: whoever has limits is turned away, the others go on for a while."""
        in_grace = self.terms.grace_s < 0 or self._node.away_for() <= self.terms.grace_s
        if in_grace and self._all_kept_here(caps):
            made.taken = False
            self._held.begin(made)
            return made
        return _turned_away(self._clock())

    def _all_kept_here(self, caps: Sequence[Cap]) -> bool:
        return self.terms.allow or all(kept_without_counters(cap, self._held.running(cap.owner)) for cap in caps)

    def progress(self, reservation: Reservation, tokens: int, cost: float | None) -> None:
        if not reservation.done and reservation.counted and reservation.taken:
            self._held.report(reservation, tokens, nano(cost or 0.0))

    def settle(self, reservation: Reservation, usage: Usage, cost: float | None) -> None:
        if reservation.done or not reservation.counted:
            return
        spent = nano(cost) if cost is not None else self._held.seen(reservation).cost
        if cost is None and not spent and usage.total:
            spent = nano(counters.FLOOR_COST)
        self._end(reservation, usage.total, spent)
        self._fair.count(reservation.provider, reservation.user, weigh(usage))

    def release(self, reservation: Reservation) -> None:
        if not reservation.done and reservation.counted:
            self._end(reservation, 0, 0)

    async def settled(self) -> None:
        """Told at once, but nobody waits until it is: whoever is refused meanwhile is asked about again."""

    def _end(self, made: Reservation, tokens: int, cost: int) -> None:
        made.done = True
        self._held.end(made, tokens, cost)
        for owner in made.owners:
            self._standings.ended(owner, made, tokens, cost / NANO, self._now())
        self._wake.set()

    # -- how limits stand

    def stopped(self, user: str, limits: Limits, key: CountedKey | None = None) -> Denied | None:
        """By what is known here of the counters; nobody is turned away by what is not."""
        return self._here(self._standings.stopped(user, limits, key, self._now()))

    def _here(self, denied: Denied | None) -> Denied | None:
        """With the time at which a limit frees by this machine's clock, which may be wrong, not by the database's."""
        if denied is None or denied.retry_at is None:
            return denied
        return msgspec.structs.replace(denied, retry_at=denied.retry_at - self._ahead)

    def read(self, owner: str) -> tuple[Use, Bounds]:
        now = self._now()
        self._standings.want([owner])
        return self._standings.use(owner, now), self.calendar.at(now)

    async def fetch(self, owners: Sequence[str]) -> None:
        if any(self._held.ending(owner_of(owner)[0]) for owner in owners):
            await self._told()
        await self._standings.fetch(owners)

    def _now(self) -> float:
        return self._clock() + self._ahead

    def _marks(self) -> list[int]:
        return marks_sent(self.calendar.at(self._now()))

    # -- the gate

    @asynccontextmanager
    async def _entered(self) -> AsyncIterator[Connection]:
        """A connection for a call that decides something, in a moment when the database knows what this node holds."""
        async with asyncio.timeout(WITHIN_S):
            await self._open.wait()
            self._inside += 1
            self._empty.clear()
            try:
                async with self._node.pool.connection() as connection:
                    yield connection
            except BaseException:
                self._doubt()
                raise
            finally:
                self._inside -= 1
                if not self._inside:
                    self._empty.set()

    def _doubt(self) -> None:
        """What the database has for this node may not be what it does hold."""
        self._unsure = True
        self._open.clear()
        self._wake.set()

    async def _told(self) -> None:
        """Returns when what had ended before was told."""
        self._wake.set()
        await wait_at_most(self._round_done, WITHIN_S)

    # -- what this node tells

    async def _run(self) -> None:
        while not self._closing.is_set():
            await wait_at_most(self._wake, REPORT_S)
            await self._tell()
        if self._held.ended and not self._node.away_for():
            await self._tell()

    async def _tell(self) -> None:
        self._wake.clear()
        done, self._round_done = self._round_done, asyncio.Event()
        try:
            async with asyncio.timeout(WITHIN_S):
                await self._round()
        except (StoreError, TimeoutError) as exc:
            log.info("what requests hold and use is not told just now: %s", exc or "no answer in time")
            self._doubt()
        except Exception:
            log.exception("what requests hold and use could not be told")
            self._doubt()
        finally:
            done.set()
        if self._unsure:
            await wait_at_most(self._closing, REPORT_S / 5)

    async def _round(self) -> None:
        if self._unsure:
            await self._make_sure()
        async with self._node.upkeep.connection() as connection:
            while batch := self._held.batch():
                span = self._held.settled, self._held.settled + len(batch)
                await calls.settle(connection, self._node.id, span, rows_of(batch), self._marks())
                self._held.told(span)
            await self._beat(connection)
            await self._fair.round(connection)
        if time.monotonic() - self._swept >= SWEEP_S and self._node.connected_for() >= CONNECTED_S:
            self._swept = time.monotonic()
            await self._sweep()

    async def _beat(self, connection: Connection) -> None:
        now = time.monotonic()
        if now - self._beaten < (REPORT_S if self._held.has_grown else BEAT_S):
            return
        self._beaten, grown = now, self._held.take_grown()
        rows = [row for one, reported in grown for row in one.growth(reported)]
        if not await calls.beat(connection, self._node.id, rows):
            self._doubt()
            return
        for one, reported in grown:
            one.grew(reported)

    async def _make_sure(self) -> None:
        """Puts right what the database has for this node. Raises StoreError, TimeoutError."""
        self._open.clear()
        if self._inside:
            await self._empty.wait()
        self._unsure = False
        async with self._node.upkeep.connection() as connection:
            row = await connection.row(_OF_NODE, self._node.id)
            if row is None or row["dead"] is not None:
                log.warning("this node was taken for dead; it goes on as another one")
                self._held.begin_anew(row["settled"] if row is not None else 0)
                await self._node.renew()
            else:
                self._held.go_back_to(row["settled"])
                self._ahead = row["at"] - self._clock()
            await calls.hold_sync(connection, self._node.id, self._held.totals(), self._held.made())
        if not self._unsure:
            self._open.set()

    async def _sweep(self) -> None:
        """Counts what dead nodes held; each node does, whoever comes first."""
        async with self._node.upkeep.connection() as connection:
            await calls.bury_dead(connection, SILENT_S, self._marks())
            await calls.forget_holds(connection, IDLE_S)
            await connection.value("select pool.use_raise_1($1, null, $2)", self._marks(), SWEPT_AT_ONCE)


def _refused(found: AdmissionVerdict, caps: Sequence[Cap]) -> Denied | None:
    if found.word == "gone":
        return REVOKED_KEY
    if found.word == "stale":
        return None
    limit, cap = DATABASE_LIMITS[found.stop], caps[-1] if found.of_key else caps[0]
    return denied_by(Stop(limit.denial, getattr(cap.limits, limit.name), found.retry_at), cap.label)


def _turned_away(now: float) -> Denied:
    message = "limits cannot be checked just now; try again in a moment"
    return Denied(Denial.STORE, message, 503, now + SOON_S)
