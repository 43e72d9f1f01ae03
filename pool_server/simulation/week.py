"""A week of demand through the real choice: what each strategy refuses, moves and loses.

Uses the same `SelectionIndex`, `select` and learning as the server, without its store and its network. Time is
simulated, so a week passes in seconds.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.candidates import Need
from pool_server.accounts.selection.select import Decision, SelectionRequest
from pool_server.accounts.selection.warmth import Warmth
from pool_server.core.enums import ChoiceReason, Dialect, FaultKind, Operation, Provider, Refusal, Source
from pool_server.core.models import Fault
from pool_server.simulation.bound import Bound, reachable
from pool_server.simulation.outcome import Goals, Tally, WeekOutcome, outcome
from pool_server.simulation.scenario import Event, EventKind, Scenario, Talk, scope_of
from pool_server.simulation.seats import accounts_of, family
from pool_server.simulation.simulated_worker import Worker
from pool_server.simulation.strategies import strategies
from pool_server.simulation.strategies.base import SimulatedStrategy
from pool_server.simulation.world import World

ATTEMPTS = 3
WAIT_S = 10.0
SILENCE_S = 10.0  # a host that says nothing is given up after so long
ROOM_THAT_COUNTS = 2.0  # percent; a refusal while some account had more was wrong
SHARED_ROOM = 5.0  # the same of an owner's account: requests in flight keep others from the last of what is given
OWN_ROOM = 5.0  # percent an own account must have for the owner's request to belong there


def goals_of(scenario: Scenario, *, bound: bool = False) -> Goals:
    """What could be reached. Raises ModuleNotFoundError for a bound without scipy."""
    return Goals(reachable(scenario), Bound(scenario).units() if bound else None)


def simulate(
    scenario: Scenario, names: Iterable[str], *, bound: bool = False, begins: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """The named strategies through one scenario, each told to `begins`; rows as in docs/choosing.md. Raises KeyError
    for a name."""
    goals = goals_of(scenario, bound=bound)
    known = strategies()
    rows = []
    for name in names:
        begins(name)
        rows.append(msgspec.to_builtins(run(scenario, known[name](scenario.seed), goals)))
    return rows


def run(scenario: Scenario, strategy: SimulatedStrategy, goals: Goals) -> WeekOutcome:
    """One strategy through one scenario."""
    began = time.process_time()
    week = Week(scenario, strategy)
    week.run()
    return outcome(strategy.id, scenario, week.world, week.tally, goals, time.process_time() - began)


class _Conversation:
    """`account` holds its pin; `warm_at` its cache, since `warm_since`. `tried`, `tries` belong to the present turn."""

    __slots__ = ("account", "at", "number", "talk", "tried", "tries", "warm_at", "warm_since")

    def __init__(self, number: int, talk: Talk) -> None:
        self.number = number
        self.talk = talk
        self.at = 0  # the turn that comes next
        self.account: str | None = None
        self.warm_at = ""
        self.warm_since = 0.0
        self.tried: frozenset[str] = frozenset()
        self.tries = 0


class Week:
    """The running simulation: a heap of (time, order, step, its arguments)."""

    def __init__(self, scenario: Scenario, strategy: SimulatedStrategy) -> None:
        self.scenario = scenario
        self.world = World(scenario)
        self.tally = Tally()
        self.now = scenario.start
        self._offset = 0.0  # of the pool's clock
        self._steps: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._owned = {seat.owner for seat in scenario.seats if seat.owner}
        workers = range(scenario.servers.workers)
        self.workers = [
            Worker(accounts_of(scenario), strategy, self._clock, self._fit, family, scenario.before) for _ in workers
        ]
        if scenario.sight.at_start:
            for name in self.world.seats:
                self._see(0, name, scope_of(""))

    def _fit(self, account: Account, need: Need) -> Refusal | None:
        return None if self.world.fits(account.id, scope_of(need.model)) else Refusal.PLAN_UNFIT

    def _clock(self) -> float:
        return self.now + self._offset

    def _after(self, seconds: float, step: Callable[..., None], *args: Any) -> None:
        self._count += 1
        heapq.heappush(self._steps, (self.now + seconds, self._count, step, args))

    def run(self) -> None:
        """Until the scenario's end; requests under way then are not counted as served."""
        for event in self.scenario.events:
            self._after(event.at, self._happen, event)
        for number, talk in enumerate(self.scenario.talks):
            self._after(talk.at + talk.turns[0][0] - self.now, self._request, _Conversation(number, talk))
        end = self.scenario.end
        while self._steps and self._steps[0][0] < end:
            self.now, _, step, args = heapq.heappop(self._steps)
            step(*args)
        self.world.finish()

    def _happen(self, event: Event) -> None:
        if event.kind is EventKind.CLOCK_STEP:
            self._offset += event.amount
            return
        self.world.happen(event, self.now)
        if event.kind is EventKind.WITHDRAW:
            for worker in self.workers:
                worker.remove(event.target)

    def _tell(self, doer: int, news: Callable[[Worker], None]) -> None:
        """What one worker did and learnt reaches the others in time."""
        for number, worker in enumerate(self.workers):
            if number != doer:
                self._after(self.scenario.servers.news_s, news, worker)

    def _request(self, conversation: _Conversation) -> None:
        talk = conversation.talk
        number = self._count % len(self.workers)
        request = SelectionRequest((Provider.CLAUDE,), Operation.MESSAGES, Dialect.MESSAGES, talk.model, talk.user)
        while True:
            request.exclude = conversation.tried
            decision = self.workers[number].choose(request, conversation.account, self._warmth(conversation))
            account = decision.account
            if account is None:
                self._refuse(conversation, decision)
                return
            fault = self.world.ask(account, scope_of(talk.model), self.now)
            if fault is None:
                self._begin(number, conversation, account, decision)
                return
            self.tally.failed_attempts += 1
            conversation.tried |= {account}
            if fault.kind is FaultKind.NETWORK:
                self._silence(number, conversation, account, fault)
                return
            self._fail(number, account, fault, talk.model, decision.probe)
            if len(conversation.tried) >= ATTEMPTS:
                self._refuse(conversation, decision)
                return

    def _warmth(self, conversation: _Conversation) -> Warmth | None:
        """What the pool knows of the conversation's cache; nothing where a scenario gives caches no worth."""
        caching, at = self.scenario.caching, conversation.at
        if caching.cold <= 1.0 or not at or not conversation.warm_at:
            return None
        units, since = conversation.talk.turns[at - 1][2], conversation.warm_since + self._offset
        return Warmth(conversation.warm_at, since, units, units, caching.cold - 1.0, caching.life_s)

    def _silence(self, number: int, conversation: _Conversation, account: str, fault: Fault) -> None:
        """The host says nothing: the attempt is given up after a while, and the request goes on elsewhere."""
        model = conversation.talk.model
        self.workers[number].chosen(account, model, probe=False)

        def given_up() -> None:
            self.workers[number].ended(account)
            self._fail(number, account, fault, model, False)
            if len(conversation.tried) < ATTEMPTS:
                self._request(conversation)
            else:
                self._refuse(conversation, None)

        self._after(SILENCE_S, given_up)

    def _fail(self, number: int, account: str, fault: Fault, model: str, probe: bool) -> None:
        self.workers[number].fail(account, fault, model, probe=probe)
        if len(self.workers) > 1:
            self._tell(number, lambda other: other.fail(account, fault, model))

    def _refuse(self, conversation: _Conversation, decision: Decision | None) -> None:
        retry_at = decision.retry_at if decision is not None and decision.account is None else None
        if retry_at is not None and retry_at - self._clock() <= WAIT_S:
            conversation.tried = frozenset()
            self._after(max(retry_at - self._clock(), 0.001), self._request, conversation)
            return
        clients = self.scenario.clients
        if conversation.tries < clients.retries:
            conversation.tries += 1
            conversation.tried = frozenset()
            self._after(clients.retry_s, self._request, conversation)
            return
        talk, scope = conversation.talk, scope_of(conversation.talk.model)
        self.tally.requests += 1
        self.tally.refused += 1
        left = (self.world.left_for(talk.user, name, scope, self.now) for name in self.world.seats)
        self.tally.refused_with_room += any(percent > ROOM_THAT_COUNTS for percent in left)
        self._next(conversation)

    def _begin(self, number: int, conversation: _Conversation, account: str, decision: Decision) -> None:
        talk = conversation.talk
        self.tally.requests += 1
        if self._owned:
            self._count_owners(talk, account, decision)
        self.workers[number].chosen(account, talk.model, probe=decision.probe)
        if len(self.workers) > 1:
            self._tell(number, lambda other: other.elsewhere(account, 1))
        self._bind(number, conversation, account)
        self._after(talk.turns[conversation.at][1], self._answered, number, conversation, account)

    def _count_owners(self, talk: Talk, account: str, decision: Decision) -> None:
        seat, scope = self.world.seats[account], scope_of(talk.model)
        if seat.reserve and seat.owner != talk.user:
            left = self.world.left_for(talk.user, account, scope, self.now)
            self.tally.reserve_touched += left < -ROOM_THAT_COUNTS
        if talk.user in self._owned and seat.owner != talk.user and decision.reason is not ChoiceReason.PINNED:
            own = (s.name for s in self.world.seats.values() if s.owner == talk.user)
            left_own = (self.world.left_for(talk.user, name, scope, self.now) for name in own)
            self.tally.own_missed += any(percent > OWN_ROOM for percent in left_own)

    def _bind(self, number: int, conversation: _Conversation, account: str) -> None:
        before, model = conversation.account, conversation.talk.model
        if before is None or before == account:
            conversation.account = account
            return
        user, owner = conversation.talk.user, self.world.seats[before].owner
        least = SHARED_ROOM if owner and owner != user else ROOM_THAT_COUNTS
        if self.world.left_for(user, before, scope_of(model), self.now) > least:
            self.tally.moved.add(conversation.number)
        if not self.workers[number].returns(before, model):
            conversation.account = account

    def _answered(self, number: int, conversation: _Conversation, account: str) -> None:
        talk = conversation.talk
        scope = scope_of(talk.model)
        self.workers[number].ended(account)
        if len(self.workers) > 1:
            self._tell(number, lambda other: other.elsewhere(account, -1))
        if self.world.alive(account, self.now):
            self._spend(conversation, account, scope)
            self._see(number, account, scope)
            self.workers[number].succeed(account, talk.model)
        self._next(conversation)

    def _spend(self, conversation: _Conversation, account: str, scope: str) -> None:
        units = conversation.talk.turns[conversation.at][2]
        self.tally.units += units
        for worker in self.workers:
            worker.used(units)
        caching = self.scenario.caching
        if conversation.at and self.now - conversation.warm_since <= caching.life_s:
            self.tally.could_be_warm += 1
            self.tally.warm += conversation.warm_at == account
        warm = conversation.warm_at == account and self.now - conversation.warm_since <= caching.life_s
        self.world.serve(account, scope, units if warm or not conversation.at else units * caching.cold, self.now)
        conversation.warm_at, conversation.warm_since = account, self.now

    def _see(self, number: int, account: str, scope: str) -> None:
        """The figures of an answer, which the worker reads when they come, and the others later."""
        seen = self.world.observations(account, scope, self.now, Source.HEADERS)
        if self._offset:
            seen = [msgspec.structs.replace(w, observed_at=self._clock()) for w in seen]
        if not seen:
            return
        if self.scenario.sight.delay_s:
            self._after(self.scenario.sight.delay_s, self.workers[number].absorb, account, seen)
        else:
            self.workers[number].absorb(account, seen)
        if len(self.workers) > 1:
            self._tell(number, lambda other: other.absorb(account, seen))

    def _next(self, conversation: _Conversation) -> None:
        conversation.at += 1
        conversation.tries = 0
        conversation.tried = frozenset()
        if conversation.at < len(conversation.talk.turns):
            self._after(conversation.talk.turns[conversation.at][0], self._request, conversation)
