"""What one user has used and holds, and whether the limits allow one more request. Pure: time and data come in.

The rule for an amount (tokens, cost) is: a request may start while `used + held < limit`. What is held is the
larger of the reservation and what the stream has reported, so once a request is in, the rest of the pool sees
it; at the moment of any admission the limit was not reached, and therefore the total passes a limit by one request at
most.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import NamedTuple

import msgspec

from pool_server.core.enums import Denial
from pool_server.core.settings import COUNTED_LIMITS, Limits
from pool_server.users.limits.periods import Bounds

MINUTE = 60
ROLLING = 5 * 3600
BUCKET = 300  # seconds of the rolling window counted together
SOON = 5.0  # seconds until a caller stopped only by what others hold should ask again

FLOOR_TOKENS = 4_000  # a reservation is never smaller: estimates of tiny bodies say nothing of the answer
FLOOR_COST = 0.02  # US dollars, likewise
MAX_RATIO = 50.0
RATIO_DECAY = 0.9

COUNTED = tuple(limit.name for limit in COUNTED_LIMITS)

_counted_of = attrgetter(*COUNTED)
_UNCOUNTED = (None,) * len(COUNTED)


class Hold(msgspec.Struct, array_like=True):
    """What one worker's running requests of one user hold together, and what they have reported as used so far."""

    requests: int = 0
    tokens: int = 0
    cost: float = 0.0
    seen_tokens: int = 0
    seen_cost: float = 0.0


class Use(msgspec.Struct, array_like=True):
    """Counters of one owner, a user or a key. Buckets are (start, amount) in order of time, starts are unix seconds.

    `epoch` names the life of the machine the counters were written in: after a restart of it what was not
    synced may be gone, so counters of another epoch are made again from the ledger. `ratio` is how far actual
    use has recently exceeded the reservations (1 = never), `by` what is held, by worker.
    """

    epoch: str = ""
    minute: list[tuple[int, int]] = []
    rolling: list[tuple[int, int]] = []
    day: int = 0
    day_tokens: int = 0
    day_cost: float = 0.0
    week: int = 0
    week_tokens: int = 0
    week_cost: float = 0.0
    month: int = 0
    month_tokens: int = 0
    month_cost: float = 0.0
    ratio: float = 1.0
    by: dict[str, Hold] = {}

    @property
    def held(self) -> Hold:
        """What all workers hold together."""
        if len(self.by) == 1:
            return next(iter(self.by.values()))
        total = Hold()
        for one in self.by.values():
            _join(total, one, 1)
        return total


class Stop(NamedTuple):
    """A limit that is in the way. `retry_at` None = it will not free by itself."""

    denial: Denial
    limit: float
    retry_at: float | None


def advance(use: Use, now: float, marks: Bounds) -> None:
    """Drops what has left its window. A clock that went back drops nothing; what it counted in the future counts as of
    now."""
    if use.minute and use.minute[-1][0] > now:
        use.minute = _not_later(use.minute, int(now))
    if use.rolling and use.rolling[-1][0] > now:
        use.rolling = _not_later(use.rolling, int(now) // BUCKET * BUCKET)
    if use.minute and use.minute[0][0] + MINUTE + 1 <= now:
        use.minute = [pair for pair in use.minute if pair[0] + MINUTE + 1 > now]
    if use.rolling and use.rolling[0][0] + BUCKET + ROLLING <= now:
        use.rolling = [pair for pair in use.rolling if pair[0] + BUCKET + ROLLING > now]
    if marks.day > use.day:
        use.day_tokens, use.day_cost = 0, 0.0
    use.day = marks.day
    if marks.week > use.week:
        use.week_tokens, use.week_cost = 0, 0.0
    use.week = marks.week
    if marks.month > use.month:
        use.month_tokens, use.month_cost = 0, 0.0
    use.month = marks.month


def _not_later(buckets: list[tuple[int, int]], start: int) -> list[tuple[int, int]]:
    early = [pair for pair in buckets if pair[0] < start]
    return [*early, (start, sum(n for at, n in buckets if at >= start))]


def hold(use: Use, worker: str, tokens: int, cost: float, now: float) -> None:
    """One more request of this worker is in flight and has reserved this much."""
    _add(use.minute, int(now), 1)
    more, mine = Hold(1, tokens, cost), use.by.get(worker)
    if mine is None:
        use.by[worker] = more
    else:
        _join(mine, more, 1)


def grow(use: Use, worker: str, more: Hold) -> bool:
    """A request in flight needs more, or has reported more; False when the worker was taken for dead."""
    mine = use.by.get(worker)
    if mine is not None:
        _join(mine, more, 1)
    return mine is not None


def unhold(use: Use, worker: str, held: Hold) -> bool:
    """A request has ended that held this much; False when the worker was taken for dead. With nothing under way
    nothing is held, whatever rounding left."""
    mine = use.by.get(worker)
    if mine is None:
        return False
    _join(mine, held, -1)
    if mine.requests <= 0:
        del use.by[worker]
    return True


def abandon(use: Use, worker: str, now: float) -> None:
    """The worker is dead: what its requests had reported is what they used. `use` must have been advanced."""
    left = use.by.pop(worker, None)
    if left is not None:
        count(use, left.seen_tokens, left.seen_cost, now)


def _join(total: Hold, part: Hold, sign: int) -> None:
    total.requests += sign * part.requests
    total.tokens += sign * part.tokens
    total.cost += sign * part.cost
    total.seen_tokens += sign * part.seen_tokens
    total.seen_cost += sign * part.seen_cost


def count(use: Use, tokens: int, cost: float, now: float) -> None:
    """Adds what a request has used. `use` must have been advanced to `now`."""
    if tokens:
        _add(use.rolling, int(now) // BUCKET * BUCKET, tokens)
    use.day_tokens += tokens
    use.week_tokens += tokens
    use.month_tokens += tokens
    use.day_cost += cost
    use.week_cost += cost
    use.month_cost += cost


def raise_to(use: Use, other: Use, now: float) -> None:
    """Counts what `other`, of the same moment, knows beyond this. Both must have been advanced to `now`."""
    missing = sum(n for _, n in other.rolling) - sum(n for _, n in use.rolling)
    if missing > 0:
        _add(use.rolling, int(now) // BUCKET * BUCKET, missing)
    for name in ("day_tokens", "week_tokens", "month_tokens", "day_cost", "week_cost", "month_cost"):
        setattr(use, name, max(getattr(use, name), getattr(other, name)))


def learn(use: Use, reserved: int, actual: int) -> None:
    """Remembers by how much a request outgrew its unscaled reservation, so that the next ones reserve enough."""
    seen = actual / reserved if reserved else 1.0
    use.ratio = min(MAX_RATIO, max(1.0, seen, 1.0 + (use.ratio - 1.0) * RATIO_DECAY))


def _add(buckets: list[tuple[int, int]], start: int, amount: int) -> None:
    if buckets and buckets[-1][0] >= start:  # also when the clock went back: order is kept
        last, had = buckets[-1]
        buckets[-1] = (last, had + amount)
    else:
        buckets.append((start, amount))


def stopped(use: Use, limits: Limits, now: float, marks: Bounds) -> Stop | None:
    """The limit in the way of one more request, None when there is none. `use` must have been advanced.

    Of several the one that frees last is told: only then does trying again make sense.
    """
    worst: Stop | None = None
    for stop in _stops(use, limits, now, marks):
        if stop.retry_at is None:
            return stop
        if worst is None or worst.retry_at is None or stop.retry_at > worst.retry_at:
            worst = stop
    return worst


def _stops(use: Use, limits: Limits, now: float, marks: Bounds) -> Iterator[Stop]:
    held = use.held
    most = limits.requests_per_minute
    if most is not None and sum(n for _, n in use.minute) >= most:
        yield Stop(Denial.REQUESTS_PER_MINUTE, most, _frees(use.minute, most, MINUTE + 1))
    most = limits.concurrent
    if most is not None and held.requests >= most:
        yield Stop(Denial.CONCURRENT, most, now + SOON if most > 0 else None)
    most = limits.tokens_5h
    if most is not None:
        used = sum(n for _, n in use.rolling)
        if used >= most:
            yield Stop(Denial.TOKENS_5H, most, _frees(use.rolling, most, BUCKET + ROLLING))
        elif used + held.tokens >= most:
            yield Stop(Denial.TOKENS_5H, most, now + SOON)
    for denial, cap, spent, reserved, end in _periods(use, limits, held, marks):
        if spent + reserved >= cap:
            frees = float(end) if spent >= cap else now + SOON
            yield Stop(denial, cap, frees if cap > 0 else None)


def _periods(use: Use, limits: Limits, held: Hold, marks: Bounds) -> Iterator[tuple[Denial, float, float, float, int]]:
    """(denial, limit, used, held, end of the period) of each limit by the calendar that is set."""
    if limits.tokens_day is not None:
        yield Denial.TOKENS_DAY, limits.tokens_day, use.day_tokens, held.tokens, marks.day_end
    if limits.tokens_week is not None:
        yield Denial.TOKENS_WEEK, limits.tokens_week, use.week_tokens, held.tokens, marks.week_end
    if limits.tokens_month is not None:
        yield Denial.TOKENS_MONTH, limits.tokens_month, use.month_tokens, held.tokens, marks.month_end
    if limits.cost_day is not None:
        yield Denial.COST_DAY, limits.cost_day, use.day_cost, held.cost, marks.day_end
    if limits.cost_week is not None:
        yield Denial.COST_WEEK, limits.cost_week, use.week_cost, held.cost, marks.week_end
    if limits.cost_month is not None:
        yield Denial.COST_MONTH, limits.cost_month, use.month_cost, held.cost, marks.month_end


def _frees(buckets: list[tuple[int, int]], most: float, life: int) -> float | None:
    """When enough of the oldest buckets have left for the sum to be under `most`; None = never (a limit of 0)."""
    if most <= 0:
        return None
    left = sum(n for _, n in buckets)
    for start, amount in buckets:
        left -= amount
        if left < most:
            return float(start + life)
    return None


def used_now(use: Use) -> dict[str, float]:
    """What is used of each counted limit, by the limit's name. `use` must have been advanced."""
    return {
        "requests_per_minute": sum(n for _, n in use.minute),
        "concurrent": use.held.requests,
        "tokens_5h": sum(n for _, n in use.rolling),
        "tokens_day": use.day_tokens,
        "tokens_week": use.week_tokens,
        "tokens_month": use.month_tokens,
        "cost_day": use.day_cost,
        "cost_week": use.week_cost,
        "cost_month": use.month_cost,
    }


def frees_at(use: Use, limits: Limits, marks: Bounds) -> dict[str, float | None]:
    """When each counted limit frees: a used-up one, when it allows a request again; else when something leaves it.

    None where nothing is counted, or where it hangs on running requests (`concurrent`).
    """
    minute, rolling = limits.requests_per_minute, limits.tokens_5h
    return {
        "requests_per_minute": _next(use.minute, minute, MINUTE + 1),
        "concurrent": None,
        "tokens_5h": _next(use.rolling, rolling, BUCKET + ROLLING),
        "tokens_day": float(marks.day_end),
        "tokens_week": float(marks.week_end),
        "tokens_month": float(marks.month_end),
        "cost_day": float(marks.day_end),
        "cost_week": float(marks.week_end),
        "cost_month": float(marks.month_end),
    }


def _next(buckets: list[tuple[int, int]], most: float | None, life: int) -> float | None:
    if not buckets:
        return None
    if most is not None and sum(n for _, n in buckets) >= most:
        return _frees(buckets, most, life)
    return float(buckets[0][0] + life)


def limitless(limits: Limits) -> bool:
    """True when nothing that is counted is limited."""
    return _counted_of(limits) == _UNCOUNTED
