"""What a node's requests hold in the database, as the node knows it, and what has ended and was not told yet. Amounts
are the database's: tokens and nano-dollars. Does no I/O.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from pool_server.core.enums import Denial
from pool_server.core.settings import COUNTED_BY_DENIAL, Limits
from pool_server.storage.postgres.admission_calls import Ended, HeldTotals, HoldGrowth, bounded, nano
from pool_server.users.limits.pending import Reservation
from pool_server.users.limits.periods import Bounds

MOST = 500  # ends told at once
KEPT_S = 10.0  # what a primary that died may have forgotten is no older
_KEPT_US = int(KEPT_S * 1_000_000)  # a request's number is its time

# The limits that the database counts, in the order in which its functions take them and tell the one in the way.
DATABASE_LIMITS = tuple(
    COUNTED_BY_DENIAL[denial]
    for denial in (
        Denial.REQUESTS_PER_MINUTE, Denial.CONCURRENT, Denial.TOKENS_5H,
        Denial.TOKENS_DAY, Denial.TOKENS_WEEK, Denial.TOKENS_MONTH,
        Denial.COST_DAY, Denial.COST_WEEK, Denial.COST_MONTH,
    )
)  # fmt: skip

Owner = tuple[str, str]  # user and key, "" for the user's own counters


def owner_of(text: str) -> Owner:
    """`u_1` → ("u_1", ""), and a key's."""
    user, _, key = text.partition("\0")
    return user, key


def limits_sent(limits: Limits) -> list[int | None] | None:
    """Limits as the database takes them."""
    values = [(getattr(limits, one.name), one.dollars) for one in DATABASE_LIMITS]
    return bounded([nano(value) if dollars and value is not None else value for value, dollars in values])


def marks_sent(marks: Bounds) -> list[int]:
    """Begins and ends of day, week and month as the database takes them."""
    return [marks.day, marks.week, marks.month, marks.day_end, marks.week_end, marks.month_end]


class Amount(NamedTuple):
    """Tokens and nano-dollars."""

    tokens: int = 0
    cost: int = 0

    def over(self, other: Amount) -> Amount:
        """What this is beyond the other."""
        return Amount(max(0, self.tokens - other.tokens), max(0, self.cost - other.cost))

    def most(self, other: Amount) -> Amount:
        return Amount(max(self.tokens, other.tokens), max(self.cost, other.cost))

    def plus(self, other: Amount) -> Amount:
        return Amount(self.tokens + other.tokens, self.cost + other.cost)


class NodeReservation(msgspec.Struct, eq=False):
    """One request. `hold` and `told` are what the database has for it: held, and reported as used; `seen` is what was
    reported here, `buried` the part of it that was counted when this node was taken for dead."""

    owners: list[Owner]
    base: int
    taken: bool = True
    hold: Amount = Amount()
    told: Amount = Amount()
    seen: Amount = Amount()
    buried: Amount = Amount()
    used: Amount = Amount()

    @property
    def reported(self) -> Amount:
        """What the database should know as used so far."""
        return self.seen.over(self.buried)

    def growth(self, reported: Amount) -> Iterator[HoldGrowth]:
        more, seen = reported.over(self.hold), reported.over(self.told)
        for owner in self.owners:
            yield HoldGrowth(*owner, *more, *seen)

    def grew(self, reported: Amount) -> None:
        """The database knows this of what was reported."""
        self.hold, self.told = self.hold.most(reported), self.told.most(reported)

    def rows(self) -> Iterator[Ended]:
        used = self.used.over(self.buried)
        for owner in self.owners:
            yield Ended(*owner, self.taken, *self.hold, *self.told, *used, self.base)


Span = tuple[int, int]


class NodeReservations:
    """`settled` is the number of the last end that the database has counted for this node."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.settled = 0
        self.ended: deque[NodeReservation] = deque()
        self._clock = clock
        self._running: dict[Reservation, NodeReservation] = {}
        self._counts: Counter[str] = Counter()  # owner, as a text → requests that run
        self._grown: set[NodeReservation] = set()
        self._sending: list[NodeReservation] = []
        self._told: deque[tuple[float, Span, list[NodeReservation]]] = deque()
        self._users: Counter[str] = Counter()  # whose requests have ended and were not told
        self._made: deque[tuple[int, list[Owner]]] = deque()  # the newest that were let in, by the database's number

    def take(self, made: Reservation, tokens: int, cost: int, number: int) -> None:
        """The database holds this much for a request, and gave it this number."""
        owners = [owner_of(one) for one in made.owners]
        self._keep(made, NodeReservation(owners, made.base, True, Amount(tokens, cost)))
        self._made.append((number, owners))
        while self._made[0][0] < number - _KEPT_US:  # by the newest, however long the database has been away since
            self._made.popleft()

    def begin(self, made: Reservation) -> None:
        """A request of which the database knows nothing."""
        self._keep(made, NodeReservation([owner_of(one) for one in made.owners], made.base, False))

    def _keep(self, made: Reservation, one: NodeReservation) -> None:
        self._running[made] = one
        self._counts.update(made.owners)

    def running(self, owner: str) -> int:
        return self._counts[owner]

    def ending(self, user: str) -> bool:
        """Whether a request of this user has ended and was not told yet."""
        return self._users[user] > 0

    def report(self, made: Reservation, tokens: int, cost: int) -> None:
        one = self._running[made]
        one.seen = one.seen.most(Amount(tokens, cost))
        self._grown.add(one)

    def seen(self, made: Reservation) -> Amount:
        """What a request has reported."""
        return self._running[made].seen

    def end(self, made: Reservation, tokens: int, cost: int) -> None:
        one = self._running.pop(made)
        one.used = Amount(tokens, cost)
        self._counts.subtract(made.owners)
        for owner in made.owners:
            if not self._counts[owner]:
                del self._counts[owner]
        self._grown.discard(one)
        self.ended.append(one)
        self._users[one.owners[0][0]] += 1

    @property
    def has_grown(self) -> bool:
        return bool(self._grown)

    def take_grown(self) -> list[tuple[NodeReservation, Amount]]:
        """What is told with the next beat: requests and what they have reported."""
        grown, self._grown = [(one, one.reported) for one in self._grown if one.taken], set()
        return grown

    def batch(self) -> list[NodeReservation]:
        """What is told next; the same again until it was."""
        if not self._sending:
            self._sending = [self.ended.popleft() for _ in range(min(MOST, len(self.ended)))]
        return self._sending

    def told(self, span: Span) -> None:
        """The batch was counted."""
        now, self.settled = self._clock(), span[1]
        for one in self._sending:
            self._forget_user(one)
        self._told.append((now, span, self._sending))
        self._sending = []
        while self._told and self._told[0][0] < now - KEPT_S:
            self._told.popleft()

    def _forget_user(self, one: NodeReservation) -> None:
        user = one.owners[0][0]
        self._users[user] -= 1
        if self._users[user] <= 0:
            del self._users[user]

    def go_back_to(self, settled: int) -> None:
        """The database has counted so many: what it forgot is told again, what it did count of a batch whose answer was
        lost is not."""
        if self._sending:
            span = self.settled, self.settled + len(self._sending)
            if settled >= span[1]:
                self.told(span)
            else:
                self.ended.extendleft(reversed(self._sending))
                self._sending = []
        while self._told and self._told[-1][1][1] > settled:
            _, _, batch = self._told.pop()
            self.ended.extendleft(reversed(batch))
            self._users.update(one.owners[0][0] for one in batch)
        self.settled = settled

    def begin_anew(self, settled: int) -> None:
        """This node was taken for dead, and is another one from now on: what each request had reported was counted
        there."""
        self.go_back_to(settled)
        self._told.clear()
        self._made.clear()
        self.settled = 0
        for one in (*self._running.values(), *self.ended):
            one.buried = one.buried.plus(one.told)
            one.hold, one.told = one.hold.over(one.told), Amount()

    def made(self) -> list[tuple[str, str, int]]:
        """The newest requests that were let in: user, key, number."""
        return [(*owner, number) for number, owners in self._made for owner in owners]

    def totals(self) -> list[HeldTotals]:
        """What the database must hold for this node; that is what it has been told then."""
        totals: dict[Owner, list[int]] = {}
        for one in (*self._running.values(), *self.ended, *self._sending):
            if not one.taken:
                continue
            one.grew(one.reported)
            for owner in one.owners:
                total = totals.setdefault(owner, [0, 0, 0, 0, 0])
                for i, amount in enumerate((1, *one.hold, *one.told)):
                    total[i] += amount
        self._grown.clear()
        return [HeldTotals(*owner, *amounts) for owner, amounts in totals.items()]


def rows_of(batch: Sequence[NodeReservation]) -> list[Ended]:
    return [row for one in batch for row in one.rows()]
