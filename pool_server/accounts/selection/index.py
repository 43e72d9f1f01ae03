"""All accounts of a pool, kept in order, so that a choice looks at a few of them only.

Accounts alike in what they serve form a cohort. Each cohort keeps one queue a model family that has cooldowns or
windows of its own, and one for everything else; a queue holds its accounts sorted by worth, the cooling ones by
their return, and counts the refusals. A change of an account moves it within its cohort's queues; nothing else
is touched.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from math import inf

from pool_server.accounts.health.demand_clock import EVEN, DemandClock
from pool_server.accounts.health.learning import scope_key
from pool_server.accounts.health.state import next_change, settle
from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.candidates import CandidateQueue, Need, Placement, judge
from pool_server.accounts.selection.score import Candidate, Key, rank
from pool_server.core.enums import Dialect, Operation, Provider, Refusal, Strategy
from pool_server.dialects.translation import UpstreamKind

SPARSE = 24  # a family that concerns fewer accounts of a large cohort gets no queue; they are judged one by one
RERATE_S = 60.0  # a rating drifts with time and is made anew after so long …
LARGE = 64  # … all at once in a pool of so many, else a few accounts with each choice
QUEUES_KEPT = 16
FITS_KEPT = 512
ASKED_KEPT = 16


class Suitability(Enum):
    """How accounts of a kind, which serve a need, do so."""

    OWN = auto()  # as it came
    TRANSLATED = auto()  # in another dialect
    DOUBTED = auto()  # as it came, if the vendor has the model at all: its name says nothing of whose it is


Fit = Callable[[Account, Need], Refusal | None]
Family = Callable[[Provider, str], str]


class Cohort:
    """Accounts alike in what they serve. `latency`: seconds they usually take to the first byte; `guessed`: see
    `Credential`; `people`: who may use them, see `Account`; after `until` (unix seconds) and outside `hours`
    (minutes of a day: from, to) they serve their `owner` alone."""

    __slots__ = (
        "bounded",
        "fits",
        "groups",
        "guessed",
        "hours",
        "latency",
        "members",
        "owner",
        "people",
        "provider",
        "queues",
        "scoped",
        "until",
        "ways",
    )  # fmt: skip

    def __init__(
        self,
        provider: Provider,
        guessed: tuple[Dialect, ...] = (),
        people: frozenset[str] | None = None,
        groups: frozenset[str] = frozenset(),
        clock: DemandClock = EVEN,
        *,
        until: float | None = None,
        hours: tuple[tuple[int, int], ...] = (),
        owner: str = "",
    ) -> None:
        self.provider = provider
        self.guessed = guessed
        self.people = people
        self.groups = groups
        self.until = until
        self.hours = hours
        self.owner = owner
        self.bounded = people is not None or until is not None or bool(hours)  # is there anybody, or a time, unserved?
        self.members: dict[str, Account] = {}
        self.queues: dict[tuple[str, ...], CandidateQueue] = {(): CandidateQueue((), clock)}
        self.scoped: dict[str, set[str]] = {}  # scope → the members that know something of it
        self.fits: dict[Need, Refusal | None] = {}
        self.ways: dict[Need, Suitability] = {}
        self.latency: float | None = None

    def concerned(self, scopes: tuple[str, ...]) -> set[str]:
        """The members whose standing depends on one of these scopes."""
        found: set[str] = set()
        for scope in scopes:
            found |= self.scoped.get(scope, found)
        return found


class Shortlist:
    """A cohort's answer to one need: a queue, and the few accounts judged apart from it."""

    __slots__ = ("apart", "queue", "scopes")

    def __init__(self, queue: CandidateQueue, scopes: tuple[str, ...], apart: dict[str, Placement]) -> None:
        self.queue = queue
        self.scopes = scopes
        self.apart = apart

    def placement(self, account_id: str) -> Placement | None:
        return self.apart.get(account_id) or self.queue.placements.get(account_id)


class SelectionIndex:
    """The accounts of one process, as `choose` reads them.

    `fit` says whether an account's kind serves a need, `family` names the scope of a provider's model. Changes go
    through `put`, `remove` and `touch`; `advance` brings everything up to a moment and precedes each choice.
    """

    def __init__(
        self,
        *,
        strategy: Strategy,
        fit: Fit,
        family: Family,
        way: Callable[[Account, Need], Suitability] = lambda account, need: Suitability.OWN,
        target: Callable[[Account, Need], UpstreamKind | None] = lambda account, need: None,
    ) -> None:
        self.strategy = strategy
        self.clock = DemandClock()  # counts the time that windows must last
        self.locked = ""
        self.accounts: dict[str, Account] = {}
        self.by_provider: dict[Provider, list[Cohort]] = {}
        self._asked: list[tuple[tuple[Provider, ...], list[Cohort]]] = []
        self.on_settled: Callable[[Account], None] | None = None
        self.groups_of: Callable[[str], frozenset[str]] = lambda user: frozenset()
        self.minute_of: Callable[[float], int] = lambda now: int(now // 60 % 1440)  # of the day, by the pool's clock
        self._fit = fit
        self._way = way
        self._target = target
        self._family = family
        self._cohorts: dict[tuple[object, ...], Cohort] = {}
        self._home: dict[str, Cohort] = {}
        self.owned: dict[str, dict[str, Account]] = {}  # user → their accounts that serve them first
        self._owner: dict[str, str] = {}
        self._scopes: dict[str, set[str]] = {}
        self._dirty: dict[str, Account] = {}
        self._moved: dict[str, Account] = {}
        self._timers: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}
        self._ring: deque[str] = deque()
        self._rerated_at = 0.0
        self._turn = 0.0

    def put(self, account: Account) -> None:
        """Add an account, or take it in again after its file changed."""
        account_id = account.id
        if account_id in self.accounts:
            self._leave(account_id)
        else:
            self._ring.append(account_id)
        account.turn = max(account.turn, self._turn)
        self.accounts[account_id] = account
        terms = account.options.terms
        ends = (terms.until, terms.hours, account.owner) if terms.until is not None or terms.hours else ()
        groups = frozenset(account.options.groups or ())
        key = (account.provider, account.people, groups, ends, *account.credential.traits)
        cohort = self._cohorts.get(key)
        if cohort is None:
            cohort = self._cohorts[key] = Cohort(
                account.provider, account.credential.guessed, account.people, groups, self.clock,
                until=terms.until, hours=terms.spans(), owner=account.owner,
            )  # fmt: skip
            self.by_provider.setdefault(account.provider, []).append(cohort)
            self._asked.clear()
        cohort.members[account_id] = account
        if account.owner and terms.own_first:
            self.owned.setdefault(account.owner, {})[account_id] = account
            self._owner[account_id] = account.owner
        self._home[account_id] = cohort
        self._dirty[account_id] = account

    def remove(self, account_id: str) -> Account | None:
        """Take an account out of the pool."""
        account = self.accounts.pop(account_id, None)
        if account is None:
            return None
        self._leave(account_id)
        self._ring.remove(account_id)
        self._dirty.pop(account_id, None)
        self._moved.pop(account_id, None)
        self._due.pop(account_id, None)
        return account

    def touch(self, account: Account) -> None:
        """The account changed; it is placed anew by the next `advance`."""
        self._dirty[account.id] = account

    def moved(self, account: Account) -> None:
        """Only what is under way there, or its turn, changed: the next `advance` moves it in its order."""
        self._moved[account.id] = account

    def chosen(self, account: Account) -> None:
        """The account got an exchange: its turn in the weighted round is over."""
        self._turn = max(self._turn, account.turn)
        account.turn = self._turn + 1.0 / account.options.weight
        self._moved[account.id] = account

    def note_latency(self, account: Account, seconds: float) -> None:
        """One more first byte, for comparing an account with its like."""
        cohort = self._home[account.id]
        old = cohort.latency
        if old is None:
            cohort.latency = seconds
        else:
            cohort.latency = old + 0.05 * (min(seconds, 2 * old + 1.0) - old)  # one late answer is not the usual

    def set_strategy(self, strategy: Strategy) -> None:
        """Order by another strategy; all places are made anew, since a list in two orders is in none."""
        if strategy is not self.strategy:
            self.strategy = strategy
            for cohort in self._cohorts.values():
                for queue in cohort.queues.values():
                    queue.clear()
            self._dirty.update(self.accounts)

    def refit(self) -> None:
        """Forget what kinds of accounts serve (the settings may have changed it)."""
        for cohort in self._cohorts.values():
            cohort.fits.clear()
            cohort.ways.clear()

    def advance(self, now: float) -> None:
        """Bring the order up to `now` (unix seconds). Costs by what changed, not by how many accounts there
        are."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            at, account_id = heapq.heappop(timers)
            if self._due.get(account_id) == at:
                del self._due[account_id]
                self._dirty[account_id] = self.accounts[account_id]
        if now - self._rerated_at >= RERATE_S or now < self._rerated_at:
            if len(self.accounts) <= LARGE:
                self._rerated_at = now
                self._dirty.update(self.accounts)
            else:
                self.rerate(now, 2)
        if self._moved:
            for account_id, account in self._moved.items():
                if account_id not in self._dirty:
                    cohort = self._home[account_id]
                    for queue in cohort.queues.values():
                        queue.move(account, self.strategy, cohort.latency, now)
            self._moved.clear()
        if self._dirty:
            for account in list(self._dirty.values()):
                self._place(account, now)
            self._dirty.clear()

    def rerate(self, now: float, limit: int) -> None:
        """Mark up to `limit` accounts whose rating is a minute old; called in passing and by the maintenance."""
        ring = self._ring
        for _ in range(min(limit, len(ring))):
            account = self.accounts[ring[0]]
            if now - account.rated_at < RERATE_S and now >= account.rated_at:
                return
            ring.rotate(-1)
            self._dirty[account.id] = account

    def shortlist(self, cohort: Cohort, need: Need, now: float) -> Shortlist:
        """The cohort's queue for a need, made when it is needed first."""
        known = cohort.scoped
        scopes: tuple[str, ...] = ()
        if known:
            scopes = tuple(s for s in self.scopes(cohort.provider, need.model, need.operation) if s in known)
        queue = cohort.queues.get(scopes)
        if queue is not None:
            return Shortlist(queue, scopes, {})
        concerned = cohort.concerned(scopes)
        if len(concerned) <= SPARSE and len(cohort.members) > 4 * SPARSE:
            apart = {i: judge(cohort.members[i], scopes, now, cohort.latency, self.clock) for i in concerned}
            return Shortlist(cohort.queues[()], scopes, apart)
        if len(cohort.queues) >= QUEUES_KEPT:
            del cohort.queues[next(s for s in cohort.queues if s)]
        queue = cohort.queues[scopes] = CandidateQueue(scopes, self.clock)
        for account in cohort.members.values():
            queue.place(account, self.strategy, cohort.latency, now)
        return Shortlist(queue, scopes, {})

    def rank(self, account: Account, candidate: Candidate) -> Key:
        """An account's place in the order, for those judged apart from their queue."""
        return rank(account, candidate, self.strategy)

    def scopes(self, provider: Provider, model: str, operation: Operation) -> tuple[str, ...]:
        """The scopes of cooldowns and windows that concern a model in an operation, beside the account's own."""
        if not model:
            return ()
        family, own = self._family(provider, model), scope_key(operation, model)
        return (family, model, own) if family and family != model else (model, own)

    def unfit(self, cohort: Cohort, need: Need) -> Refusal | None:
        """Why no account of this kind serves the need, None when it does."""
        try:
            return cohort.fits[need]
        except KeyError:
            pass
        if len(cohort.fits) >= FITS_KEPT:
            cohort.fits.clear()
        found = cohort.fits[need] = self._fit(next(iter(cohort.members.values())), need)
        return found

    def way(self, cohort: Cohort, need: Need) -> Suitability:
        """How accounts of this kind, which serve the need, do so."""
        try:
            return cohort.ways[need]
        except KeyError:
            pass
        if len(cohort.ways) >= FITS_KEPT:
            cohort.ways.clear()
        found = cohort.ways[need] = self._way(next(iter(cohort.members.values())), need)
        return found

    def target(self, cohort: Cohort, need: Need) -> UpstreamKind | None:
        """The dialect in which accounts of this kind are asked where it is not the client's."""
        return self._target(next(iter(cohort.members.values())), need)

    def cohorts(self, providers: tuple[Provider, ...]) -> list[Cohort]:
        """The cohorts of these providers, in their order. Requests ask with the same few tuples: those are remembered
        by identity, since most of their members have no account here."""
        for known, found in self._asked:
            if known is providers:
                return found
        found = [cohort for provider in providers for cohort in self.by_provider.get(provider, ())]
        if len(providers) > 1:
            self._asked = [*self._asked[1 - ASKED_KEPT :], (providers, found)]
        return found

    def shared(self, cohort: Cohort, user: str, now: float) -> bool:
        """Whether this user may use these accounts now."""
        named = cohort.people is None or user in cohort.people
        if not named and not (cohort.groups and cohort.groups & self.groups_of(user)):
            return False
        if user and user == cohort.owner:
            return True
        if cohort.until is not None and now >= cohort.until:
            return False
        return not cohort.hours or _within(cohort.hours, self.minute_of(now))

    def cohort_of(self, account_id: str) -> Cohort:
        """Raises KeyError for an unknown account."""
        return self._home[account_id]

    def home_of(self, account_id: str) -> Cohort | None:
        """The account's cohort, None for an unknown one."""
        return self._home.get(account_id)

    def _leave(self, account_id: str) -> None:
        cohort = self._home.pop(account_id)
        owner = self._owner.pop(account_id, "")
        if owner:
            del self.owned[owner][account_id]
            if not self.owned[owner]:
                del self.owned[owner]
        del cohort.members[account_id]
        for queue in cohort.queues.values():
            queue.drop(account_id)
        for scope in self._scopes.pop(account_id, ()):
            _discard(cohort.scoped, scope, account_id)
        if not cohort.members:
            self._cohorts = {key: c for key, c in self._cohorts.items() if c is not cohort}
            self.by_provider[cohort.provider].remove(cohort)
            self._asked.clear()

    def _place(self, account: Account, now: float) -> None:
        account_id = account.id
        cohort = self._home[account_id]
        if settle(account.health, now) and self.on_settled is not None:
            self.on_settled(account)
        scopes, before = _scopes_known(account), self._scopes.get(account_id) or set()
        if scopes != before:
            for scope in before - scopes:
                _discard(cohort.scoped, scope, account_id)
            for scope in scopes - before:
                cohort.scoped.setdefault(scope, set()).add(account_id)
            self._scopes[account_id] = scopes
        for queue in cohort.queues.values():
            queue.place(account, self.strategy, cohort.latency, now)
        account.rated_at = now
        self._schedule(account, now)

    def _schedule(self, account: Account, now: float) -> None:
        at, account_id = next_change(account.health, now), account.id
        for other in (
            account.unreachable_until,
            account.credential.expires_at,
            account.refresh_retry_at,
            account.refused_until,
        ):
            if other is not None and now < other < at:
                at = other
        if at == inf:
            self._due.pop(account_id, None)
        elif self._due.get(account_id) != at:
            self._due[account_id] = at
            heapq.heappush(self._timers, (at, account_id))


def _scopes_known(account: Account) -> set[str]:
    known = {w.scope for w in account.health.windows.values()}
    known.update(account.health.cooldowns)
    known.discard("")
    return known


def _discard(scoped: dict[str, set[str]], scope: str, account_id: str) -> None:
    members = scoped[scope]
    members.discard(account_id)
    if not members:
        del scoped[scope]


def _within(hours: tuple[tuple[int, int], ...], minute: int) -> bool:
    """Is this minute of the day in one of the spans? One may go over midnight."""
    return any(start <= minute < end if start < end else minute >= start or minute < end for start, end in hours)
