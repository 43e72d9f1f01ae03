"""The choice of an account for one exchange: pure, and explained.

`select` reads a `SelectionIndex` that was brought up to `now`, changes nothing and returns a `Decision`: who, why,
who else,
and why not. Its cost does not grow with the number of accounts: it looks at the heads of a few ordered queues.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.accounts.health.probing import cooling, last_resort
from pool_server.accounts.health.state import AccountHealth
from pool_server.accounts.selection.candidates import Need, Placement
from pool_server.accounts.selection.explain import LISTED, WAY_COST, add, count, listing, open_to, otherwise, some
from pool_server.accounts.selection.index import Cohort, SelectionIndex, Shortlist, Suitability
from pool_server.accounts.selection.score import API_KEY, DRAINING, UNREACHABLE, Candidate, Key
from pool_server.accounts.selection.warmth import Warmth, WeighedMove
from pool_server.core.enums import ChoiceReason, Dialect, Operation, Provider, Refusal, Strategy
from pool_server.dialects.translation import UpstreamKind

LAST_RESORTS = 32  # cooling accounts looked at when nobody is ready
BORROW_S = 600.0  # a pin outlives a cooldown of its account up to so long; a longer one would outlive the cache
NEVER_RETURN = frozenset({Refusal.MODEL_NOT_SERVED, Refusal.PLAN_UNFIT, Refusal.NOT_SHARED, Refusal.NOT_CARRIED})


class SelectionRequest(msgspec.Struct):
    """What an exchange asks for. `hard` are ids only one account can serve, `session` the conversation to pin by.

    `exclude` are the accounts that failed in this exchange; `forced` is an account id (X-Pool-Account); `holder` is the
    account that holds what the request names, "" when any may serve it; it cannot be translated into what is `unable`.
    """

    providers: tuple[Provider, ...]
    operation: Operation
    dialect: Dialect
    model: str
    user: str
    session: str | None = None
    hard: tuple[tuple[str, str], ...] = ()
    exclude: frozenset[str] = frozenset()
    forced: str | None = None
    websocket: bool = False
    holder: str = ""
    own_dialect: bool = False
    unable: frozenset[UpstreamKind] = frozenset()


class Affinity(msgspec.Struct, frozen=True):
    """Where this conversation lives: the accounts its soft and hard pins name, None without a pin; and what is known
    of its cache."""

    pinned: str | None = None
    hard: str | None = None
    warmth: Warmth | None = None


NO_AFFINITY = Affinity()


class Decision(msgspec.Struct):
    """Who serves, and why.

    `retry_at`: the nearest return (unix seconds) when `account` is None and one is known. `probe`: the request
    tests a cooling account. `translated`: the account speaks another dialect than the client. `hard_lost`: a hard
    pin exists, but its account cannot serve. `refused` counts all refusals, `eligible` all accounts that could have
    served; `candidates` names some of both, the winner first. `move` is the change of account that was made, or
    weighed and not made.
    """

    account: str | None
    reason: ChoiceReason | None
    strategy: Strategy
    candidates: list[Candidate]
    retry_at: float | None = None
    probe: bool = False
    hard_lost: bool = False
    pinned: str | None = None
    translated: bool = False
    eligible: int = 0
    refused: dict[Refusal, int] = {}
    move: WeighedMove | None = None

    def record(self) -> dict[str, Any]:
        """Plain data for the ledger and the pages."""
        return {
            "account": self.account,
            "reason": str(self.reason) if self.reason else None,
            "strategy": str(self.strategy),
            "pinned": self.pinned,
            "probe": self.probe,
            "hard_lost": self.hard_lost,
            **({"translated": True} if self.translated else {}),
            **({"move": self.move.row()} if self.move is not None else {}),
            "retry_at": self.retry_at,
            "eligible": self.eligible,
            "refused": {str(refusal): n for refusal, n in self.refused.items()},
            "candidates": [candidate.row() for candidate in self.candidates],
        }


def select(
    request: SelectionRequest,
    index: SelectionIndex,
    now: float,
    affinity: Affinity = NO_AFFINITY,
    *,
    explain: bool = True,
) -> Decision:
    """Choose an account for `request`. Pure: reads `index` as of the last `advance(now)`; binds and counts nothing.

    Without `explain` a decision for an account does not list the others; why there is none is told always.
    """
    return _Choice(request, index, now, affinity, explain).decide()


def temporary(health: AccountHealth, scopes: tuple[str, ...], now: float) -> bool:
    """Will this account be back before the conversation's cache is cold? Then a pin waits for it."""
    found = cooling(health, scopes, now)
    return found is not None and found[1].until - now <= BORROW_S


class _Choice:
    """One choice being made: the queues that can serve, and what was found in them."""

    __slots__ = (
        "affinity",
        "doubted",
        "explain",
        "far",
        "index",
        "later",
        "move",
        "need",
        "now",
        "refused",
        "request",
        "shortlists",
    )

    def __init__(
        self, request: SelectionRequest, index: SelectionIndex, now: float, affinity: Affinity, explain: bool
    ) -> None:
        self.request = request
        self.explain = explain
        self.index = index
        self.now = now
        self.affinity = affinity
        self.need = Need(request.operation, request.dialect, request.model, request.websocket, request.own_dialect)
        self.refused: dict[Refusal, int] = {}
        self.move: WeighedMove | None = None  # of a conversation away from an account that could go on
        self.shortlists: dict[Cohort, Shortlist] = {}
        self.later: list[Cohort] = []  # they serve it in another dialect: asked when the client's own gives nobody
        self.doubted: list[Cohort] = []  # nothing says that their vendor has the model: asked last
        self.far: dict[Cohort, Suitability] = {}  # what was taken in of these, behind all others
        guesses: dict[Cohort, Shortlist] = {}
        for cohort in index.cohorts(request.providers):
            if cohort.bounded and request.forced is None and not index.shared(cohort, request.user, now):
                add(self.refused, Refusal.NOT_SHARED, len(cohort.members))
                continue
            if (unfit := index.unfit(cohort, self.need)) is not None:
                add(self.refused, unfit, len(cohort.members))
            elif (way := index.way(cohort, self.need)) is not Suitability.OWN:
                (self.later if way is Suitability.TRANSLATED else self.doubted).append(cohort)
            else:
                kind = guesses if request.dialect in cohort.guessed else self.shortlists
                kind[cohort] = index.shortlist(cohort, self.need, now)
        if request.unable:
            self._leave_out(request.unable)
        told = request.forced is not None or affinity.hard is not None
        if not self.shortlists and not self.later:
            self._widen()
        if told or not self.shortlists:
            self.shortlists.update(guesses)
        if told or not self.shortlists or self._pinned_in(self.later):
            self._widen()
        while self.doubted and (told or not self.shortlists or self._pinned_in(self.doubted)):
            self._widen()

    def _leave_out(self, unable: frozenset[UpstreamKind]) -> None:
        """Whom the request cannot be translated for."""
        for cohort in [one for one in (*self.later, *self.doubted) if self.index.target(one, self.need) in unable]:
            (self.later if cohort in self.later else self.doubted).remove(cohort)
            add(self.refused, Refusal.NOT_CARRIED, len(cohort.members))

    def _pinned_in(self, cohorts: list[Cohort]) -> bool:
        """Does the conversation live on an account of these?"""
        return bool(cohorts) and self.index.home_of(self.affinity.pinned or self.index.locked) in cohorts

    def _widen(self) -> None:
        """Takes in the accounts that serve this in another dialect, then those that may not have the model."""
        more, self.later, self.doubted = self.later or self.doubted, [], self.doubted if self.later else []
        for cohort in more:
            self.shortlists[cohort] = self.index.shortlist(cohort, self.need, self.now)
            self.far[cohort] = self.index.way(cohort, self.need)

    def decide(self) -> Decision:
        request = self.request
        if request.forced is not None:
            return self._only(request.forced, ChoiceReason.FORCED, Refusal.NOT_FORCED)
        if self.affinity.hard is not None:
            found = self._only(self.affinity.hard, ChoiceReason.HARD_PIN, Refusal.NOT_OWNER)
            found.hard_lost = found.account is None
            return found
        locked = self.index.locked
        if locked and locked in self.index.accounts and self._asked(locked):
            return self._only(locked, ChoiceReason.LOCKED, Refusal.LOCKED)
        pinned = self.affinity.pinned
        if pinned is not None and self._stays(pinned):
            return self._won(pinned, ChoiceReason.PINNED)
        if request.user in self.index.owned and (own := self._own()) is not None:
            return self._won(own, ChoiceReason.BORROWED if self._borrows(pinned) else ChoiceReason.OWN)
        if not request.exclude and pinned is None and (probe := self._probe()) is not None:
            return self._won(probe, ChoiceReason.PROBE)
        best = self._best()
        while best is None and (self.later or self.doubted):
            self._widen()
            best = self._best()
        if best is not None:
            return self._won(best, ChoiceReason.BORROWED if self._borrows(pinned) else ChoiceReason.BEST)
        if not request.exclude and (resort := self._last_resort()) is not None:
            return self._won(resort, ChoiceReason.PROBE)
        return self._nobody()

    def _asked(self, account_id: str) -> bool:
        return self.index.accounts[account_id].provider in self.request.providers

    def _placement(self, account_id: str) -> Placement | None:
        """The account's standing, None when it is unknown or of a kind that does not serve this."""
        home = self.index.home_of(account_id)
        shortlist = self.shortlists.get(home) if home is not None else None
        return None if shortlist is None else shortlist.placement(account_id)

    def _open(self, placement: Placement) -> bool:
        return open_to(placement, self.request.user)

    def _unreachable(self, account_id: str) -> bool:
        """Is the way to the account's provider set aside?"""
        placement = self._placement(account_id)
        return placement is not None and placement.candidate.tier == UNREACHABLE

    def _stays(self, pinned: str) -> bool:
        """Does the conversation go on with its account? Yes while that can serve, unless it is paid by use, about to
        run out or has forgotten the conversation, and a move frees more than it costs."""
        found = self._placement(pinned)
        if found is None or pinned in self.request.exclude or not self._open(found):
            return False
        candidate, warmth = found.candidate, self.affinity.warmth
        if candidate.tier == UNREACHABLE:
            return False
        if warmth is None or warmth.account != pinned or self.index.strategy is not Strategy.BALANCED:
            return True
        weak = candidate.tier == DRAINING or API_KEY in candidate.terms
        if not (weak or warmth.forgotten(self.now)) or found.account.owner == self.request.user:
            return True
        best = self._best()
        other = self._placement(best) if best is not None and best != pinned else None
        if other is None or other.candidate.score is None or not _may_replace(other, found):
            return True
        assert candidate.score is not None
        gain = other.candidate.score - self._late(other.account.id) - candidate.score + self._late(pinned)
        price, tokens = warmth.price(self.now), warmth.again(self.now)
        self.move = WeighedMove(pinned, other.account.id, price, tokens, gain)
        return not self.move.pays

    def _moved(self, account_id: str) -> WeighedMove | None:
        """The change of account, made or weighed, that belongs in the record of this choice."""
        pinned, warmth = self.affinity.pinned, self.affinity.warmth
        if self.move is not None and account_id in (self.move.before, self.move.after):
            return self.move
        if pinned is None or pinned == account_id:
            return None
        if warmth is None or warmth.account != pinned:
            return WeighedMove(pinned, account_id)
        return WeighedMove(pinned, account_id, warmth.price(self.now), warmth.again(self.now))

    def _borrows(self, pinned: str | None) -> bool:
        """Does the pin stay although another account serves this time?"""
        if pinned is None or pinned not in self.index.accounts:
            return False
        account = self.index.accounts[pinned]
        placement = self._placement(pinned)
        if (placement is not None and placement.candidate.refusal is Refusal.RETURNING) or self._unreachable(pinned):
            return True
        if pinned in self.request.exclude and self._eligible_but_tried(pinned):
            return True
        return temporary(
            account.health, self.index.scopes(account.provider, self.request.model, self.request.operation), self.now
        )

    def _eligible_but_tried(self, account_id: str) -> bool:
        placement = self._placement(account_id)
        return placement is not None and self._open(placement)

    def _best(self) -> str | None:
        """The account whose key is the least of all that are open to this."""
        request = self.request
        least: Key | None = None
        before: Suitability | None = None
        for cohort, shortlist in self.shortlists.items():
            if self.far and (way := self.far.get(cohort)) is not before:
                if least is not None:
                    break
                before = way
            queue = shortlist.queue
            head = self._head(queue.ready, shortlist)
            if head is not None and (least is None or head < least):
                least = head
            if request.user in queue.reserved:
                head = self._head(queue.reserved[request.user], shortlist)
                if head is not None and (least is None or head < least):
                    least = head
            for account_id, placement in shortlist.apart.items():
                if account_id not in request.exclude and self._open(placement):
                    head = self.index.rank(placement.account, placement.candidate)
                    least = head if least is None or head < least else least
        return None if least is None else least[-1]

    def _own(self) -> str | None:
        """The best account of whoever asks, while one of theirs has headroom."""
        found: list[tuple[float, Key]] = []
        for account_id in self.index.owned[self.request.user]:
            placement = self._placement(account_id) if account_id not in self.request.exclude else None
            if placement is not None and placement.candidate.tier < DRAINING and self._open(placement):
                found.append((self._late(account_id), self.index.rank(placement.account, placement.candidate)))
        return min(found)[1][-1] if found else None

    def _late(self, account_id: str) -> float:
        """What the way to it takes from an account's score."""
        return WAY_COST[self.far.get(self.index.cohort_of(account_id), Suitability.OWN)]

    def _head(self, order: list[Key], shortlist: Shortlist) -> Key | None:
        """The least key of an account that was not tried yet and is not judged apart."""
        exclude, apart = self.request.exclude, shortlist.apart
        for key in order:
            if key[-1] not in exclude and key[-1] not in apart:
                return key
        return None

    def _probe(self) -> str | None:
        """A cooling account whose half-open request is due."""
        for shortlist in self.shortlists.values():
            probes = shortlist.queue.probes
            if probes and probes[0][0] <= self.now and probes[0][1] not in shortlist.apart:
                return probes[0][1]
        return None

    def _last_resort(self) -> str | None:
        for shortlist in self.shortlists.values():
            for key in shortlist.queue.cooling[:LAST_RESORTS]:
                account = shortlist.queue.placements[key[1]].account
                if key[1] not in shortlist.apart and last_resort(account.health, shortlist.scopes, self.now):
                    return account.id
            for account_id, placement in shortlist.apart.items():
                if placement.candidate.score is None and last_resort(
                    placement.account.health, shortlist.scopes, self.now
                ):
                    return account_id
        return None

    def _only(self, account_id: str, reason: ChoiceReason, others: Refusal) -> Decision:
        """One account or none: everybody else is refused for `others`."""
        total = sum(len(cohort.members) for cohort in self.shortlists)
        placement = self._placement(account_id)
        refused = dict(self.refused)
        add(refused, others, total - (placement is not None))
        decision = Decision(None, None, self.index.strategy, [], pinned=self.affinity.pinned)
        if placement is None:
            if account_id in self.index.accounts:
                decision.candidates.append(Candidate(account_id, self._unfit(account_id)))
            decision.refused = some(refused)
            return decision
        candidate = otherwise(placement.candidate, self.far.get(self.index.cohort_of(account_id)))
        if account_id in self.request.exclude:
            candidate = Candidate(account_id, Refusal.TRIED)
        elif placement.candidate.score is not None and (reason is ChoiceReason.FORCED or self._open(placement)):
            candidate = Candidate(account_id, None, None, candidate.score, candidate.terms)
            decision.account, decision.reason, decision.eligible = account_id, reason, 1
        elif candidate.refusal is Refusal.RETURNING:  # nobody else can serve it: it need not wait for its turn
            candidate = Candidate(account_id)
            decision.account, decision.reason, decision.eligible = account_id, reason, 1
        elif reason is ChoiceReason.FORCED and last_resort(placement.account.health, self._scopes(placement), self.now):
            decision.account, decision.reason, decision.probe = account_id, reason, True
        if candidate.refusal is not None:
            add(refused, candidate.refusal, 1)
            decision.retry_at = candidate.until if candidate.refusal not in NEVER_RETURN else None
        decision.candidates.append(candidate)
        decision.refused = some(refused)
        return decision

    def _scopes(self, placement: Placement) -> tuple[str, ...]:
        return self.index.scopes(placement.account.provider, self.request.model, self.request.operation)

    def _unfit(self, account_id: str) -> Refusal:
        cohort = self.index.cohort_of(account_id)
        if cohort.provider not in self.request.providers:
            return Refusal.PROVIDER
        if not self.index.shared(cohort, self.request.user, self.now):
            return Refusal.NOT_SHARED
        unfit = self.index.unfit(cohort, self.need)
        return unfit or (Refusal.NOT_CARRIED if self.request.unable else Refusal.PROVIDER)

    def _translated(self, account_id: str) -> bool:
        cohort = self.index.cohort_of(account_id)
        way = self.index.way(cohort, self.need)
        return way is not Suitability.OWN and self.index.target(cohort, self.need) is not None

    def _won(self, account_id: str, reason: ChoiceReason) -> Decision:
        if self.explain:
            decision = self._decision(account_id, reason)
        else:
            decision = Decision(account_id, reason, self.index.strategy, [], pinned=self.affinity.pinned)
        decision.probe = reason is ChoiceReason.PROBE
        if self.affinity.pinned is not None:
            decision.move = self._moved(account_id)
        decision.translated = self._translated(account_id)
        return decision

    def _nobody(self) -> Decision:
        decision = self._decision(None, None)
        returns = [key[0] for shortlist in self.shortlists.values() for key in shortlist.queue.cooling[:1]]
        returns += [
            c.until for c in decision.candidates
            if c.until is not None and c.refusal is not None and c.refusal not in NEVER_RETURN
        ]  # fmt: skip
        decision.retry_at = min(returns) if returns else None
        return decision

    def _decision(self, account_id: str | None, reason: ChoiceReason | None) -> Decision:
        """The decision with its explanation: the winner first, then the shortlist, then some of the refused."""
        refused, eligible = dict(self.refused), 0
        listed: list[Candidate] = []
        others: list[Candidate] = []
        winner = self._placement(account_id) if account_id is not None else None
        drains = winner is None or winner.candidate.score is None or winner.candidate.tier >= DRAINING
        if winner is not None:
            listed.append(otherwise(winner.candidate, self.far.get(self.index.cohort_of(winner.account.id))))
        request = self.request
        for cohort, shortlist in self.shortlists.items():
            listing(shortlist, self.far.get(cohort), account_id, drains, request.exclude, listed, others)
            eligible += count(shortlist, request.user, request.exclude, refused)
        return Decision(
            account_id, reason, self.index.strategy, (listed + others)[:LISTED],
            eligible=eligible, refused=some(refused), pinned=self.affinity.pinned,
        )  # fmt: skip


def _may_replace(other: Placement, pinned: Placement) -> bool:
    """May a conversation move to this account for a better score alone? Only within a vendor, in the operator's order,
    and where headroom is to spare: else it displaces work of others."""
    here, there, score = pinned.account, other.account, other.candidate.score
    in_order = there.options.priority <= here.options.priority and other.candidate.tier <= pinned.candidate.tier
    return score is not None and score >= 0.0 and in_order and there.provider is here.provider
