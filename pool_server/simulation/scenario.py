"""What is simulated: accounts with plans, users with habits, a week of demand. Deterministic for a seed."""

from __future__ import annotations

import random

import msgspec

HOUR = 3600.0
DAY = 86400.0
WEEK = 7 * DAY
START = 1_750_000_000.0 - 1_750_000_000.0 % WEEK  # some week's beginning; only differences matter
OPUS = "opus"
CONVERSATIONS_A_DAY = 1040.0  # of all users: some nine tenths of what the accounts hold


class Plan(msgspec.Struct, frozen=True):
    """A subscription: how much its windows hold, in units of an average request. `opus`: 0 = not offered."""

    name: str
    five_hours: float
    week: float
    opus: float = 0.0


PRO = Plan("pro", 100, 900)
MAX_5 = Plan("max_5x", 500, 4500, 2200)
MAX_20 = Plan("max_20x", 2000, 18000, 9000)


class Seat(msgspec.Struct, frozen=True):
    """One account: its plan, when its week resets first (seconds from the start), what was used of it before the
    start (share), and when the account is lost (None = never)."""

    name: str
    plan: Plan
    resets_after: float
    used_before: float
    lost_after: float | None = None


class UserHabit(msgspec.Struct, frozen=True):
    """One user: the hour (UTC) the day begins, conversations a
    working day, the share that asks for the large model."""

    name: str
    begins: float
    conversations: float
    opus_share: float


class Talk(msgspec.Struct, frozen=True):
    """One conversation: when it begins, and for each request the pause before it, its length (seconds) and cost."""

    at: float
    user: str
    model: str
    turns: tuple[tuple[float, float, float], ...]


class Scenario(msgspec.Struct, frozen=True):
    name: str
    seats: tuple[Seat, ...]
    talks: tuple[Talk, ...]
    start: float = START
    length: float = WEEK


def standard_week(seed: int) -> Scenario:
    """Ten accounts of mixed plans, thirty users, bursts, one account lost mid-week."""
    rng = random.Random(seed)
    plans = [PRO] * 4 + [MAX_5] * 4 + [MAX_20] * 2
    seats = tuple(_seat(rng, at, plan, lost=at == 6) for at, plan in enumerate(plans))
    habits = _habits(rng)
    talks = [talk for habit in habits for talk in _week_of(rng, habit)]
    talks += [talk for at in _BURSTS for habit in habits for talk in _burst(rng, habit, START + at)]
    talks.sort(key=lambda talk: talk.at)
    return Scenario("standard-week", seats, tuple(talks))


SCENARIOS = {"standard-week": standard_week}
_BURSTS = (1 * DAY + 10 * HOUR, 2 * DAY + 14 * HOUR, 4 * DAY + 9 * HOUR)


def _seat(rng: random.Random, at: int, plan: Plan, *, lost: bool) -> Seat:
    resets_after = (at + rng.uniform(0.2, 0.8)) * WEEK / 10
    elapsed = 1 - resets_after / WEEK
    used = min(0.95, elapsed * rng.uniform(0.5, 1.0))
    return Seat(f"claude:{plan.name}-{at}", plan, resets_after, used, 3.5 * DAY if lost else None)


def _habits(rng: random.Random) -> list[UserHabit]:
    """Thirty users, some of whom talk a lot; together as much in every week, so that weeks compare."""
    drawn = [_habit(rng, at) for at in range(30)]
    factor = CONVERSATIONS_A_DAY / sum(habit.conversations for habit in drawn)
    return [msgspec.structs.replace(habit, conversations=habit.conversations * factor) for habit in drawn]


def _habit(rng: random.Random, at: int) -> UserHabit:
    return UserHabit(f"user{at}", rng.gauss(8.5, 2.5), rng.lognormvariate(0.0, 0.5), rng.uniform(0.0, 0.5))


def _week_of(rng: random.Random, habit: UserHabit) -> list[Talk]:
    talks = []
    for day in range(7):
        share = 1.0 if day < 5 else 0.3
        for _ in range(round(rng.gauss(habit.conversations, habit.conversations / 4) * share)):
            at = START + day * DAY + (habit.begins + rng.betavariate(2, 2) * 11) * HOUR
            talks.append(_talk(rng, habit, at))
    return talks


def _burst(rng: random.Random, habit: UserHabit, at: float) -> list[Talk]:
    return [_talk(rng, habit, at + rng.uniform(0, 600)) for _ in range(3)]


def _talk(rng: random.Random, habit: UserHabit, at: float) -> Talk:
    opus = rng.random() < habit.opus_share
    turns = 1 + min(200, int(rng.expovariate(1 / 14)))
    return Talk(
        at,
        habit.name,
        "claude-opus-4-1" if opus else "claude-sonnet-4-5",
        tuple(
            (rng.expovariate(1 / 40), 2 + rng.expovariate(1 / 14), rng.lognormvariate(-0.9, 0.7) * (2 if opus else 1))
            for _ in range(turns)
        ),
    )
