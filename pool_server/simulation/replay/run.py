"""One replay: recorded arrivals through the real choice, on accounts as their history has them.

Requests arrive when they arrived. What the records tell of a request that no choice explains is repeated: a fault that
an account answered it with, an ending that had nothing to do with accounts, and a refusal although headroom was left.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence

import msgspec

from pool_server.accounts.health.state import AccountHealth
from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.candidates import Need
from pool_server.accounts.selection.select import SelectionRequest
from pool_server.accounts.selection.warmth import of_vendor
from pool_server.core.enums import FaultKind, Provider, Refusal
from pool_server.core.models import OF_ACCOUNT, Fault
from pool_server.providers import provider_module
from pool_server.simulation.replay.allowance import Allowance
from pool_server.simulation.replay.holdings import Holding
from pool_server.simulation.replay.past import Past, RecordedEnd
from pool_server.simulation.replay.vendors import Vendors
from pool_server.simulation.simulated_worker import Worker
from pool_server.simulation.strategies.base import SimulatedStrategy

ATTEMPTS = 3
WAIT_S = 10.0
SHIFT_S = 900.0  # by how much at most a conversation is moved in time under another seed
TOLD_EVERY = 2000  # requests between two words of progress
PIN_S = 86_400.0
_BLAMED = frozenset({FaultKind.QUOTA, FaultKind.RATE, FaultKind.OVERLOAD, FaultKind.TRANSIENT, FaultKind.NETWORK,
                     FaultKind.AUTH, FaultKind.PAYMENT, FaultKind.CAPACITY, FaultKind.CHALLENGE})  # fmt: skip

Progress = Callable[[int], None]  # requests done


class ReplaySums(msgspec.Struct):
    """What came of a month: requests, and of them those served, refused for want of an account, and ended for reasons
    of their own (`apart`); those that waited for an account; conversations that changed it; tokens; US dollars at list
    prices (`cost`), of them on accounts paid by use (`bill`), and what subscriptions had left at resets (`unused`)."""

    requests: int = 0
    served: int = 0
    refused: int = 0
    apart: int = 0
    waited: int = 0
    moved: int = 0
    tokens: int = 0
    cost: float = 0.0
    bill: float = 0.0
    unused: float = 0.0


class Findings(msgspec.Struct):
    """What a first replay finds out for those after it: refusals that headroom does not explain."""

    unexplained: set[int] = msgspec.field(default_factory=set)


class Replay:
    """`told` is filled in by a replay of what happened (`first`), and read by the others. `without` are numbers of
    users who are left out, `added` accounts that were not there."""

    def __init__(
        self,
        past: Past,
        holdings: Sequence[Holding],
        strategy: SimulatedStrategy,
        *,
        seed: int = 0,
        told: Findings,
        first: bool = False,
        without: frozenset[int] = frozenset(),
        allowance: Allowance | None = None,
        added: frozenset[str] = frozenset(),
    ) -> None:
        self.past = past
        self.now = 0.0
        self.sums = ReplaySums()
        self.vendors = Vendors(holdings, seed)
        self._told, self._first, self._without, self._allowance = told, first, without, allowance
        self._paid = frozenset(one.id for one in holdings if one.paid)
        self._there = sorted(((at, one.id) for one in holdings for at in (one.since, one.until)), reverse=True)
        self._old = frozenset(one.id for one in holdings) - added
        self._accounts = {one.id: _account(one, n) for n, one in enumerate(holdings)}
        present = [a for i, a in self._accounts.items() if self.vendors.since[i] <= past.at[0] < self.vendors.until[i]]
        served = {(past.account[n], past.model[n]) for n in range(len(past)) if past.ending[n] == RecordedEnd.SERVED}
        self._served = {(past.names[account], past.names[model]) for account, model in served}
        self.worker = Worker(present, strategy, lambda: self.now, self._fit, _family)
        self._order = _order(past, seed)
        self._providers = [(provider,) for provider, _, _ in past.sorts]
        self._pins: dict[int, tuple[str, float, int]] = {}  # account, the last answer's end and record
        self._moved: set[int] = set()
        self._steps: list[tuple[float, int, int, str]] = []  # (time, order, record, account; "" = asks again)
        self._count = 0

    def run(self, progress: Progress) -> ReplaySums:
        """All of it; `progress` hears how many requests are done."""
        for done, (at, n) in enumerate(self._order):
            if done % TOLD_EVERY == 0:
                progress(done)
            self._until(at)
            self.now = at
            self._arrive(n)
        self._until(self.now + PIN_S)
        progress(len(self._order))
        self.sums.moved = len(self._moved)
        self.sums.unused = self.vendors.unused(self._order[-1][0] if self._order else 0.0)
        return self.sums

    def _until(self, at: float) -> None:
        """What ends, waits and comes about before `at`."""
        steps = self._steps
        while steps and steps[0][0] <= at:
            self.now, _, n, account = heapq.heappop(steps)
            if account:
                self._end(n, account)
            else:
                self._ask(n, frozenset(), waited=True)
        there = self._there
        while there and there[-1][0] <= at:
            _, account = there.pop()
            if self.vendors.since[account] <= at < self.vendors.until[account]:
                if account not in self.worker.index.accounts:
                    self.worker.index.put(self._accounts[account])
            elif account in self.worker.index.accounts:
                self.worker.index.remove(account)
        self.now = at
        if self.vendors.outside:
            self.vendors.advance(at, self._look)

    def _look(self, account: str) -> None:
        seen = self.vendors.news(account, self.now)
        if seen:
            self.worker.absorb(account, seen)

    def _after(self, seconds: float, n: int, account: str) -> None:
        self._count += 1
        heapq.heappush(self._steps, (self.now + seconds, self._count, n, account))

    def _arrive(self, n: int) -> None:
        past, sums = self.past, self.sums
        if past.user[n] in self._without:
            return
        sums.requests += 1
        if past.ending[n] == RecordedEnd.APART:
            sums.apart += 1
            return
        if self._allowance is not None and not self._allowance.admits(past.user[n], past.at[n]):
            sums.apart += 1
            return
        exclude: frozenset[str] = frozenset()
        if n in self._told.unexplained and not self._first:
            exclude = self._old  # what kept it off then is not known; what is added now was not concerned
        self._ask(n, exclude, waited=False)

    def _ask(self, n: int, exclude: frozenset[str], *, waited: bool) -> None:
        past = self.past
        user, model = past.names[past.user[n]], past.names[past.model[n]]
        sort = past.sorts[past.sort[n]]
        request = SelectionRequest(self._providers[past.sort[n]], sort[2], sort[1], model, user)
        talk = past.talk[n]
        pin = self._pins.get(talk) if talk else None
        pinned = pin[0] if pin is not None and self.now - pin[1] < PIN_S else None
        warmth = None
        if pin is not None and pinned is not None:
            warmth = of_vendor(pinned, pin[1], past.prompt[pin[2]], past.spent[pin[2]])
        tried = 0
        while True:
            request.exclude = exclude
            decision = self.worker.choose(request, pinned, warmth)
            account = decision.account
            if account is None:
                self._refuse(n, decision.retry_at, waited=waited or bool(exclude & self._old))
                return
            if self._first and past.ending[n] == RecordedEnd.REFUSED:
                self._told.unexplained.add(n)
                self.sums.refused += 1
                return
            fault = self._fault(n, account) if not waited else None
            fault = fault or self.vendors.refuse(account, model, self.now)
            if fault is None:
                self._begin(n, account, pinned, model, probe=decision.probe)
                return
            tried += 1
            self.worker.fail(account, fault, model, probe=decision.probe)
            exclude |= {account}
            if tried >= ATTEMPTS:
                self._refuse(n, None, waited=True)
                return

    def _fault(self, n: int, account: str) -> Fault | None:
        """The fault that this account met this very request with."""
        for met in self.past.met.get(n, ()):
            if met.account == account and met.kind in _BLAMED:
                kind = FaultKind.TRANSIENT if met.kind is FaultKind.AUTH else met.kind  # it was renewed: it served on
                return Fault(kind, OF_ACCOUNT, status=met.status)
        return None

    def _refuse(self, n: int, retry_at: float | None, *, waited: bool) -> None:
        if not waited and retry_at is not None and retry_at - self.now <= WAIT_S:
            self.sums.waited += 1
            self._after(max(0.001, retry_at - self.now), n, "")
            return
        self.sums.refused += 1

    def _begin(self, n: int, account: str, pinned: str | None, model: str, *, probe: bool) -> None:
        past = self.past
        self.worker.chosen(account, model, probe=probe)
        talk = past.talk[n]
        if talk:
            keeps = account
            if pinned is not None and pinned != account:
                self._moved.add(talk)
                keeps = pinned if self.worker.returns(pinned, model) else account
            self._pins[talk] = keeps, self.now + past.seconds[n], n
        self._after(past.seconds[n], n, account)

    def _end(self, n: int, account: str) -> None:
        past, sums = self.past, self.sums
        model, units = past.names[past.model[n]], past.units[n]
        self.worker.ended(account)
        self.vendors.serve(account, model, units, self.now)
        self._look(account)
        entry = self.worker.index.accounts.get(account)
        if entry is not None and (entry.health.cooldowns or entry.health.doubts):
            self.worker.succeed(account, model)
        self.worker.used(units)
        sums.served += 1
        sums.tokens += past.tokens[n]
        sums.cost += units
        if account in self._paid:
            sums.bill += units
        if self._allowance is not None:
            self._allowance.used(past.user[n], past.tokens[n], units, past.at[n])

    def _fit(self, account: Account, need: Need) -> Refusal | None:
        """What an account has served it can serve; of anything else its plan and its list of models say."""
        if (account.id, need.model) in self._served:
            return None
        module = provider_module(account.provider)
        if not account.credential.secret or module.plan_fits(account.credential, need.model):
            return None
        return Refusal.PLAN_UNFIT


def _order(past: Past, seed: int) -> list[tuple[float, int]]:
    """When each request arrives; under a seed other than 0 each conversation is some minutes off."""
    if not seed:
        return list(zip(past.at, range(len(past)), strict=True))
    rng = random.Random(f"shift {seed}")
    shifts: dict[int, float] = {}
    found = []
    for n, at in enumerate(past.at):
        talk = past.talk[n] or -n - 1
        shift = shifts.get(talk)
        if shift is None:
            shift = shifts[talk] = rng.uniform(-SHIFT_S, SHIFT_S)
        found.append((at + shift, n))
    found.sort()
    return found


def _account(one: Holding, n: int) -> Account:
    credential = msgspec.structs.replace(one.credential, expires_at=None)  # it was renewed in time
    options = msgspec.structs.replace(one.options, disabled=False)
    account = Account(credential, options, AccountHealth(jitter=n % 10 / 10))
    account.people = None if options.people is None else frozenset((*options.people, options.owner))
    return account


def _family(provider: Provider, model: str) -> str:
    return provider_module(provider).model_family(model)


def recorded(past: Past, paid: frozenset[str], without: frozenset[int] = frozenset()) -> ReplaySums:
    """What really came of it; `unused` is told by the accounts' own history."""
    sums, last, moved = ReplaySums(), dict[int, int](), set[int]()
    for n, ending in enumerate(past.ending):
        if past.user[n] in without:
            continue
        sums.requests += 1
        sums.waited += past.waited[n] > 0
        if ending == RecordedEnd.REFUSED:
            sums.refused += 1
        elif ending == RecordedEnd.APART:
            sums.apart += 1
        else:
            sums.served += 1
            sums.tokens += past.tokens[n]
            sums.cost += past.units[n]
            talk, account = past.talk[n], past.account[n]
            if talk and last.setdefault(talk, account) != account:
                moved.add(talk)
                last[talk] = account
            if past.names[account] in paid:
                sums.bill += past.units[n]
    sums.moved = len(moved)
    return sums
