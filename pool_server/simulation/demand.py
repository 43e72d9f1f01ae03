"""A specification made into one week of demand: deterministic for a seed."""

from __future__ import annotations

import random

import msgspec

from pool_server.simulation.scenario import DAY, HOUR, START, WEEK, Event, Plan, Scenario, Seat, Talk
from pool_server.simulation.specification import AccountsOf, PeopleOf, WeekSpec

MODELS = ("claude-sonnet-4-5", "claude-opus-4-1")
WEEKS_BEFORE = range(1, 5)
OPUS_COSTS = 2.0  # times a request of the other model


class _Habit(msgspec.Struct, frozen=True):
    """One person: the hour the day begins, conversations a working day, the share that asks for the large model."""

    name: str
    begins: float
    conversations: float
    opus_share: float
    rhythm: PeopleOf


def generate(spec: WeekSpec, seed: int) -> Scenario:
    """One week of a specification; another seed, another week of the same kind."""
    rng = random.Random(seed)
    length = spec.days * DAY
    seats = _seats(rng, spec)
    habits = _habits(rng, spec, seats)
    talks = [talk for habit in habits for talk in _week_of(rng, habit, spec.days)]
    for burst in spec.bursts:
        begun = (START + burst.at_h * HOUR + rng.uniform(0, burst.over_s) for _ in range(burst.each * len(habits)))
        talks += [_talk(rng, habits[n % len(habits)], at) for n, at in enumerate(begun)]
    talks.sort(key=lambda talk: talk.at)
    events = tuple(
        Event(e.at_h * HOUR, e.kind, e.host if e.account is None else seats[e.account].name, e.amount)
        for e in sorted(spec.events, key=lambda e: e.at_h)
    )
    return Scenario(
        spec.name,
        seats,
        tuple(talks),
        length=length,
        events=events,
        sight=spec.sight,
        clients=spec.clients,
        caching=spec.caching,
        servers=spec.servers,
        before=_before(habits, seed) if spec.sight.at_start else (),
        seed=seed,
    )


def _before(habits: list[_Habit], seed: int) -> tuple[tuple[float, float], ...]:
    """What the same people asked in the weeks before."""
    rng = random.Random(f"{seed} the weeks before")
    weeks = ((back * WEEK, talk) for back in WEEKS_BEFORE for habit in habits for talk in _week_of(rng, habit, 7))
    return tuple((talk.at - back, sum(cost for _, _, cost in talk.turns)) for back, talk in weeks)


def _seats(rng: random.Random, spec: WeekSpec) -> tuple[Seat, ...]:
    total = sum(row.count for row in spec.accounts)
    seats: list[Seat] = []
    owner = 0
    for row in spec.accounts:
        plan = spec.plan(row.plan)
        for n in range(row.count):
            seat = _seat(rng, row, plan, len(seats), total)
            if row.lost_h is not None and n == 0:
                seat = msgspec.structs.replace(seat, lost_after=row.lost_h * HOUR)
            if row.owners:
                seat = msgspec.structs.replace(seat, owner=f"user{owner}", reserve=row.reserve)
                owner += 1
            seats.append(seat)
    return tuple(seats)


def _seat(rng: random.Random, row: AccountsOf, plan: Plan, at: int, total: int) -> Seat:
    drawn = (at + rng.uniform(0.2, 0.8)) * WEEK / total
    resets_after = drawn if row.resets_h is None else row.resets_h * HOUR
    passed = min(0.95, (1 - resets_after / WEEK) * rng.uniform(0.5, 1.0))
    used = passed if row.used is None else row.used
    return Seat(f"claude:{plan.name}-{at}", plan, resets_after, used, host=row.host)


def _habits(rng: random.Random, spec: WeekSpec, seats: tuple[Seat, ...]) -> list[_Habit]:
    """The people, some of whom talk a lot; together `load` of what the accounts hold, so that weeks compare."""
    drawn: list[_Habit] = []
    for rhythm in spec.people:
        for _ in range(rhythm.count):
            begins = rng.gauss(rhythm.begins, rhythm.begins_spread)
            much = rhythm.weight * rng.lognormvariate(0.0, rhythm.spread)
            drawn.append(_Habit(f"user{len(drawn)}", begins, much, rng.uniform(*rhythm.opus), rhythm))
    weekly = sum(seat.plan.week for seat in seats) * spec.days / 7
    asked = sum(habit.conversations * _days(habit.rhythm, spec.days) * _cost(habit) for habit in drawn)
    factor = spec.load * weekly / asked
    return [msgspec.structs.replace(habit, conversations=habit.conversations * factor) for habit in drawn]


def _days(rhythm: PeopleOf, days: int) -> float:
    """Working days that many days count as."""
    return sum(1.0 if day % 7 < 5 else rhythm.weekend for day in range(days))


def _cost(habit: _Habit) -> float:
    """The mean cost of one conversation: a log-normal of sigma 0.7 has 1.278 times its median."""
    rhythm = habit.rhythm
    return rhythm.requests * rhythm.cost * 1.278 * (1 + habit.opus_share * (OPUS_COSTS - 1))


def _week_of(rng: random.Random, habit: _Habit, days: int) -> list[Talk]:
    talks = []
    for day in range(days):
        share = 1.0 if day % 7 < 5 else habit.rhythm.weekend
        mean = habit.conversations * share
        for _ in range(int(max(0.0, rng.gauss(mean, mean / 4)) + rng.random())):
            at = START + day * DAY + (habit.begins + rng.betavariate(2, 2) * habit.rhythm.hours) * HOUR
            talks.append(_talk(rng, habit, max(START, at)))
    return talks


def _talk(rng: random.Random, habit: _Habit, at: float) -> Talk:
    rhythm = habit.rhythm
    opus = rng.random() < habit.opus_share
    more = int(rng.expovariate(1 / max(0.01, rhythm.requests - 0.5)))
    cost = rhythm.cost * (OPUS_COSTS if opus else 1.0)
    return Talk(at, habit.name, MODELS[opus], tuple(_turn(rng, rhythm, cost) for _ in range(1 + min(400, more))))


def _turn(rng: random.Random, rhythm: PeopleOf, cost: float) -> tuple[float, float, float]:
    pause = rng.expovariate(1 / rhythm.pause_s) if rhythm.pause_s else 0.0
    return pause, 2 + rng.expovariate(1 / 14), cost * rng.lognormvariate(0.0, 0.7)
