"""A past for the demo: what six friends did over some months, made up from a seed. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple

from pool_server.accounts import Candidate, Decision
from pool_server.core.enums import ChoiceReason, FaultKind, Outcome, Provider, Refusal, Source, Strategy, Transport
from pool_server.core.models import Attempt, Usage, UsageRecord, WindowObservation
from pool_server.demo.cast import Friend, FriendHabit
from pool_server.demo.fake_account import DAY, FIVE_HOURS, WEEK

WINDOW_NAMES = {FIVE_HOURS: "5h", WEEK: "7d", DAY: "1d"}

_CACHE_WRITES = frozenset({Provider.CLAUDE})
_SPARE = {
    Outcome.CLIENT_GONE: 0.02,
    Outcome.REQUEST_FAULT: 0.008,
    Outcome.EXHAUSTED: 0.006,
    Outcome.UPSTREAM: 0.004,
}
_STATUS = {Outcome.REQUEST_FAULT: 400, Outcome.EXHAUSTED: 429, Outcome.UPSTREAM: 502}
_SAID = {
    Outcome.REQUEST_FAULT: "prompt is too long",
    Outcome.EXHAUSTED: "Every account of the pool is out of room.",
    Outcome.UPSTREAM: "The provider could not be reached.",
}
_RETRIED = 0.2  # of first requests
_BUSY = 3  # friends who were here within the last hours


class DemoAccounts(NamedTuple):
    """The accounts of each provider, and from when on some of them served nobody."""

    of: Mapping[Provider, Sequence[str]]
    ended: Mapping[str, float]

    def at(self, provider: Provider, at: float) -> Sequence[str]:
        """Those that served then; all, where none did."""
        return [one for one in self.of[provider] if at < self.ended.get(one, math.inf)] or self.of[provider]


class SeededPerson:
    """A friend with the ids the pool gave them."""

    def __init__(self, friend: Friend, user: str, key: str) -> None:
        self.friend, self.user, self.key = friend, user, key


def history(
    people: Sequence[SeededPerson],
    accounts: Mapping[Provider, Sequence[str]],
    *,
    now: float,
    seed: int = 7,
    ended: Mapping[str, float] = MappingProxyType({}),
) -> Iterator[UsageRecord]:
    """The records of all sessions up to `now` (unix seconds), person by person. The same seed, the same past. `ended`:
    from when on an account served nobody."""
    at_work = DemoAccounts(accounts, ended)
    for number, person in enumerate(people):
        rng = random.Random(f"{seed}-{number}")
        for day in range(person.friend.since, -1, -1):
            for start in _sessions(person.friend, now - day * DAY, rng):
                yield from (record for record in _session(person, start, at_work, rng) if record.at < now)
        if number < _BUSY:  # whatever the hour, somebody has just been at work
            start = now - rng.uniform(900, 9000)
            yield from (record for record in _session(person, start, at_work, rng) if record.at < now)


def _sessions(friend: Friend, at: float, rng: random.Random) -> list[float]:
    """When this day's sessions begin; work comes in waves of about three weeks."""
    midnight = at - at % DAY
    day = datetime.fromtimestamp(at, UTC)
    wave = 1.0 + 0.45 * math.sin(day.timetuple().tm_yday / 3.3 + len(friend.name))
    mean = friend.pace * wave * (friend.weekends if day.weekday() >= 5 else 1.0)
    count = sum(rng.random() < mean / 8 for _ in range(8))
    first, last = friend.hours
    return sorted(midnight + rng.uniform(first, last) * 3600 for _ in range(count))


def _session(person: SeededPerson, start: float, accounts: DemoAccounts, rng: random.Random) -> Iterator[UsageRecord]:
    """One conversation: the same account throughout, a context that grows and is read from the cache."""
    habits = person.friend.habits
    habit = rng.choices(habits, [one.weight for one in habits])[0]
    pool = accounts.at(habit.provider, start)
    account = rng.choices(pool, range(len(pool), 0, -1))[0]
    session = f"{rng.getrandbits(48):012x}"
    at, context = start, int(rng.uniform(9_000, 22_000))
    for turn in range(rng.choice((1, 2, 3, 4, 6, 8, 12, 18))):
        usage = _usage(habit, context, turn == 0, rng)
        record = _record(person, habit, account, at, usage, rng)
        record.session = session
        record.decision = _decision(record, pool, turn > 0, rng).record()
        if turn == 0 and rng.random() < _RETRIED and len(pool) > 1:  # later ones go where their cache is
            _retried(record, next(one for one in pool if one != account), rng)
        yield record
        context += usage.output + usage.input + usage.cache_write
        at += record.total_ms / 1000 + rng.expovariate(1 / 55)


def _usage(habit: FriendHabit, context: int, first: bool, rng: random.Random) -> Usage:
    fresh = int(rng.lognormvariate(6.8, 0.9))
    output = int(min(24_000, rng.lognormvariate(6.2, 1.0))) + 20
    thought = int(output * rng.uniform(0.2, 0.7)) if habit.provider in (Provider.CODEX, Provider.GEMINI) else 0
    read = 0 if first else context
    if habit.provider in _CACHE_WRITES:
        return Usage(
            rng.randrange(3, 40), read, fresh + (context if first else 0), output=output, reasoning=0, known=True
        )
    return Usage(fresh + (context if first else 0), read, output=output, reasoning=thought, known=True)


def _record(
    person: SeededPerson, habit: FriendHabit, account: str, at: float, usage: Usage, rng: random.Random
) -> UsageRecord:
    first_byte = rng.lognormvariate(7.0, 0.45)
    record = UsageRecord(
        id=f"{int(at * 1000):011x}{rng.getrandbits(52):013x}",
        at=at,
        user=person.user,
        key=person.key,
        provider=habit.provider.value,
        account=account,
        model=habit.model,
        dialect=habit.dialect.value,
        operation=habit.operation.value,
        transport=Transport.SSE.value,
        status=200,
        usage=usage,
        first_byte_ms=first_byte,
        total_ms=first_byte + usage.output * rng.uniform(9, 21),
        request_bytes=(usage.input + usage.cache_read + usage.cache_write) * 4,
        response_bytes=usage.output * 110,
        agent=habit.agent,
        attempts=[Attempt(account, 200, ms=first_byte)],
    )
    outcome = rng.choices([Outcome.OK, *_SPARE], [1 - sum(_SPARE.values()), *_SPARE.values()])[0]
    if outcome is not Outcome.OK:
        _spoil(record, outcome, rng)
    return record


def _decision(record: UsageRecord, pool: Sequence[str], pinned: bool, rng: random.Random) -> Decision:
    """How the account came to be chosen: the one with the most room first, then the conversation's pin."""
    if record.outcome == Outcome.EXHAUSTED:
        back = record.at + rng.uniform(600, 7200)
        out = [Candidate(one, Refusal.EXHAUSTED, until=back) for one in pool]
        return Decision(None, None, Strategy.BALANCED, out, retry_at=back, refused={Refusal.EXHAUSTED: len(pool)})
    room = rng.uniform(0.3, 0.95)
    candidates = [Candidate(record.account, score=round(room, 3), terms={"room": round(room, 3)})]
    for one in pool:
        if one != record.account:
            less = room * rng.uniform(0.2, 0.95)
            candidates.append(Candidate(one, score=round(less, 3), terms={"room": round(less, 3)}))
    return Decision(
        record.account,
        ChoiceReason.PINNED if pinned else ChoiceReason.BEST,
        Strategy.BALANCED,
        candidates,
        pinned=record.account if pinned else None,
        eligible=len(candidates),
    )


def _spoil(record: UsageRecord, outcome: Outcome, rng: random.Random) -> None:
    """Turns a good record into one that ended as `outcome`."""
    record.outcome = outcome.value
    if outcome is Outcome.CLIENT_GONE:
        record.partial = True
        record.usage.output = max(1, int(record.usage.output * rng.random()))
        record.usage.reasoning = min(record.usage.reasoning, record.usage.output)
        return
    record.status, record.message = _STATUS[outcome], _SAID[outcome]
    record.usage, record.total_ms = Usage(), record.first_byte_ms or 0.0
    record.attempts[0].status = record.status
    record.attempts[0].fault = FaultKind.NETWORK.value if outcome is Outcome.UPSTREAM else FaultKind.QUOTA.value
    if outcome is Outcome.REQUEST_FAULT:
        record.attempts[0].fault = FaultKind.REQUEST.value


def _retried(record: UsageRecord, other: str, rng: random.Random) -> None:
    """Another account failed first; the client saw nothing of it."""
    kind, status = rng.choice(((FaultKind.OVERLOAD, 529), (FaultKind.RATE, 429), (FaultKind.TRANSIENT, 500)))
    failed = Attempt(other, status, fault=kind.value, message="tried first", ms=rng.uniform(180, 900))
    record.attempts.insert(0, failed)
    record.attempts[-1].started_ms = failed.ms


def fillings(
    account: str, windows: Mapping[int, tuple[float, float]], *, now: float, days: int = 14
) -> Iterator[WindowObservation]:
    """How an account's windows filled over the last days, one sighting half an hour.

    `windows`: seconds → (percent used now, unix seconds of the reset); the last sighting fits these.
    """
    for seconds, (used, resets_at) in windows.items():
        at = now - days * DAY
        while at <= now:
            reset = resets_at - seconds * math.ceil((resets_at - at) / seconds - 1)
            share = 1 - (reset - at) / seconds
            level = used if reset == resets_at else 35 + 60 * random.Random(f"{account}{reset:.0f}").random()
            share_now = 1 - (resets_at - now) / seconds if reset == resets_at else 1.0
            percent = min(100.0, level * share / share_now) if share_now else level
            yield WindowObservation(WINDOW_NAMES[seconds], seconds, round(percent, 1), reset, Source.USAGE_ENDPOINT, at)
            at += 1800
