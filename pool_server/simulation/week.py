"""A week of demand through the real choice: what each strategy refuses, moves and loses.

Uses the same `SelectionIndex`, `select` and learning as the server, without its store and its network. Time is
simulated, so
a week passes in seconds.
"""

from __future__ import annotations

import heapq
import time
from typing import Any

import msgspec

from pool_server.accounts.health import learning
from pool_server.accounts.health.probing import resting
from pool_server.accounts.health.state import AccountHealth, probe_begun
from pool_server.accounts.health.transitions import StateActor
from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.candidates import Need
from pool_server.accounts.selection.index import SelectionIndex
from pool_server.accounts.selection.select import Affinity, Decision, SelectionRequest, select, temporary
from pool_server.core.enums import CredentialKind, Dialect, FaultKind, Operation, Provider, Refusal, Source, Strategy
from pool_server.providers import Credential
from pool_server.simulation.scenario import OPUS, SCENARIOS, Scenario, Talk
from pool_server.simulation.world import World, reachable, scope_of

ATTEMPTS = 3
WAIT_S = 10.0
ROOM_THAT_COUNTS = 2.0  # percent; a refusal while some account had more was wrong


class WeekOutcome(msgspec.Struct):
    """What one strategy made of a scenario.

    `moved_share`: conversations moved although their account could have gone on, of all conversations.
    `usable_room_used`: what was used of the weeks that ended, of what a knowing planner could have used of them.
    `room_lost`: what was left unused in them, of all they held. `spread`: the greatest share of its own capacity an
    account was used, over the mean. `requests_per_s`: simulated requests in a second of processor time.
    """

    strategy: Strategy
    requests: int = 0
    refused: int = 0
    refused_with_room: int = 0
    moved_share: float = 0.0
    usable_room_used: float = 0.0
    room_lost: float = 0.0
    requests_per_s: float = 0.0
    conversations: int = 0
    failed_attempts: int = 0
    spread: float = 0.0


def simulate(name: str = "standard-week", *, strategy: Strategy | None = None, seed: int = 1) -> list[dict[str, Any]]:
    """Simulate a scenario by its name for one strategy or all; rows as in INTERFACE. Raises KeyError for the name."""
    scenario = SCENARIOS[name](seed)
    goal = reachable(scenario)
    strategies = [strategy] if strategy is not None else list(Strategy)
    return [msgspec.to_builtins(run(scenario, each, goal)) for each in strategies]


def run(scenario: Scenario, strategy: Strategy, goal: float) -> WeekOutcome:
    """One strategy through one scenario. `goal`: units a knowing planner uses of the weeks that end."""
    began = time.process_time()
    week = _Week(scenario, strategy)
    week.run()
    return week.outcome(goal, time.process_time() - began)


class _Conversation:
    __slots__ = ("account", "at", "number", "talk", "tries")

    def __init__(self, number: int, talk: Talk) -> None:
        self.number = number
        self.talk = talk
        self.at = 0  # the turn that comes next
        self.account: str | None = None
        self.tries = 0


class _Week:
    """The running simulation: a heap of events, each a request that begins or ends."""

    def __init__(self, scenario: Scenario, strategy: Strategy) -> None:
        self.scenario = scenario
        self.world = World(scenario)
        self.result = WeekOutcome(strategy)
        self.view = SelectionIndex(strategy=strategy, fit=self._fit, family=_family)
        for at, seat in enumerate(scenario.seats):
            tier = "opus" if seat.plan.opus else ""
            credential = Credential(Provider.CLAUDE, seat.name, CredentialKind.OAUTH, tier=tier)
            self.view.put(Account(credential, live=AccountHealth(jitter=at / 10)))
        self.events: list[tuple[float, int, _Conversation, str | None]] = []
        self.count = 0
        self.moved: set[int] = set()

    def _fit(self, account: Account, need: Need) -> Refusal | None:
        return None if self.world.fits(account.id, scope_of(need.model)) else Refusal.PLAN_UNFIT

    def _push(self, at: float, conversation: _Conversation, account: str | None) -> None:
        self.count += 1
        heapq.heappush(self.events, (at, self.count, conversation, account))

    def run(self) -> None:
        for number, talk in enumerate(self.scenario.talks):
            self._push(talk.at + talk.turns[0][0], _Conversation(number, talk), None)
        end = self.scenario.start + self.scenario.length
        while self.events and self.events[0][0] < end:
            now, _, conversation, account = heapq.heappop(self.events)
            if account is None:
                self._request(conversation, now)
            else:
                self._answered(conversation, account, now)
        self.world.finish()

    def _request(self, conversation: _Conversation, now: float) -> None:
        talk = conversation.talk
        ask = SelectionRequest((Provider.CLAUDE,), Operation.MESSAGES, Dialect.MESSAGES, talk.model, talk.user)
        held = Affinity(conversation.account)
        scope = scope_of(talk.model)
        tried: frozenset[str] = frozenset()
        while True:
            self.view.advance(now)
            decision = select(ask, self.view, now, held, explain=False)
            if decision.account is None:
                self._refuse(conversation, decision, scope, now)
                return
            account = decision.account
            fault = self.world.ask(account, scope, now)
            if fault is None:
                self._begin(conversation, decision, now)
                return
            self.result.failed_attempts += 1
            self._fail(account, fault.kind, decision)
            live = self.view.accounts[account].live
            if fault.kind is FaultKind.AUTH:
                learning.login_lost(live, now, "", "", StateActor.REFRESH)
            else:
                learning.fail(live, fault, now, model=talk.model, operation=Operation.MESSAGES, token="", current="")
            self.view.touch(self.view.accounts[account])
            tried |= {account}
            ask.exclude = tried
            if len(tried) >= ATTEMPTS:
                self._refuse(conversation, decision, scope, now)
                return

    def _fail(self, account: str, kind: FaultKind, decision: Decision) -> None:
        if decision.probe and kind is FaultKind.QUOTA:
            for rest in self.view.accounts[account].live.rests.values():
                rest.probed_at = max(rest.probed_at, rest.probing)

    def _refuse(self, conversation: _Conversation, decision: Decision, scope: str, now: float) -> None:
        if decision.account is None and decision.retry_at is not None and decision.retry_at - now <= WAIT_S:
            self._push(max(decision.retry_at, now + 0.001), conversation, None)
            return
        self.result.requests += 1
        self.result.refused += 1
        if any(self.world.room(name, scope, now) > ROOM_THAT_COUNTS for name in self.world.seats):
            self.result.refused_with_room += 1
        self._next(conversation, now)

    def _begin(self, conversation: _Conversation, decision: Decision, now: float) -> None:
        account = decision.account
        assert account is not None
        self.result.requests += 1
        entry = self.view.accounts[account]
        entry.local += 1
        self.view.chosen(entry)
        if decision.probe:
            found = resting(entry.live, _scopes(self.view, conversation.talk.model), now)
            if found is not None:
                probe_begun(entry.live, found[0], now)
        self._bind(conversation, account, now)
        self._push(now + conversation.talk.turns[conversation.at][1], conversation, account)

    def _bind(self, conversation: _Conversation, account: str, now: float) -> None:
        before = conversation.account
        if before is None or before == account:
            conversation.account = account
            return
        scope = scope_of(conversation.talk.model)
        if self.world.room(before, scope, now) > ROOM_THAT_COUNTS:
            self.moved.add(conversation.number)
        live = self.view.accounts[before].live
        if not temporary(live, _scopes(self.view, conversation.talk.model), now):
            conversation.account = account

    def _answered(self, conversation: _Conversation, account: str, now: float) -> None:
        talk = conversation.talk
        scope = scope_of(talk.model)
        entry = self.view.accounts[account]
        entry.local -= 1
        if self.world.alive(account, now):
            self.world.serve(account, scope, talk.turns[conversation.at][2], now)
            learning.absorb(entry.live, self.world.observations(account, scope, now, Source.HEADERS), now)
            learning.succeed(entry.live, _scopes(self.view, talk.model), None, now)
        self.view.touch(entry)
        self._next(conversation, now)

    def _next(self, conversation: _Conversation, now: float) -> None:
        conversation.at += 1
        if conversation.at < len(conversation.talk.turns):
            self._push(now + conversation.talk.turns[conversation.at][0], conversation, None)

    def outcome(self, goal: float, seconds: float) -> WeekOutcome:
        result, closed = self.result, self.world.closed
        held = sum(c.used + c.lost - c.before for c in closed)
        shares = [self.world.served[seat.name] / seat.plan.week for seat in self.scenario.seats]
        result.conversations = len(self.scenario.talks)
        result.moved_share = round(len(self.moved) / max(1, result.conversations), 5)
        result.usable_room_used = round(sum(c.used - c.before for c in closed) / goal, 4) if goal else 1.0
        result.room_lost = round(sum(c.lost for c in closed) / held, 4) if held else 0.0
        result.spread = round(max(shares) / (sum(shares) / len(shares)), 3) if any(shares) else 1.0
        result.requests_per_s = round(result.requests / seconds)
        return result


def _scopes(view: SelectionIndex, model: str) -> tuple[str, ...]:
    return view.scopes(Provider.CLAUDE, model, Operation.MESSAGES)


def _family(provider: Provider, model: str) -> str:
    return OPUS if OPUS in model else "sonnet"
