"""The choice of an account for one exchange: pure, and explained.

`select` reads a `SelectionIndex` that was brought up to `now`, changes nothing and returns a `Decision`: who, why,
who else,
and why not. Its cost does not grow with the number of accounts: it looks at the heads of a few ordered lanes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import msgspec
from sortedcontainers import SortedList

from pool_server.accounts.health.probing import last_resort, resting
from pool_server.accounts.health.state import AccountHealth
from pool_server.accounts.selection.candidates import Need, Placement
from pool_server.accounts.selection.index import Cohort, SelectionIndex, Shortlist
from pool_server.accounts.selection.score import DRAINING, UNREACHABLE, Candidate, Key
from pool_server.core.enums import ChoiceReason, Dialect, Operation, Provider, Refusal, Strategy

SHORTLIST = 8  # eligible accounts looked at in each lane, beside those already tried
LISTED = 20  # candidates a decision names; the others are counted
LAST_RESORTS = 32  # resting accounts looked at when nobody is ready
BORROW_S = 600.0  # a pin outlives a rest of its account up to so long; a longer one would outlive the cache
NEVER_RETURN = frozenset({Refusal.MODEL_NOT_SERVED, Refusal.PLAN_UNFIT, Refusal.NOT_SHARED})


class SelectionRequest(msgspec.Struct):
    """What an exchange asks for. `hard` are ids only one account can serve, `session` the conversation to pin by.

    `exclude` are the accounts that failed in this exchange; `forced` is an account id (X-Pool-Account); `holder` is the
    account that holds what the request names, "" when any may serve it.
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


class Affinity(msgspec.Struct, frozen=True):
    """Where this conversation lives: the accounts its soft and hard pins name, None without a pin."""

    pinned: str | None = None
    hard: str | None = None


NO_AFFINITY = Affinity()


class Decision(msgspec.Struct):
    """Who serves, and why.

    `retry_at`: the nearest return (unix seconds) when `account` is None and one is known. `probe`: the request
    tests a resting account. `translated`: the account speaks another dialect than the client. `hard_lost`: a hard
    pin exists, but its account cannot serve. `refused` counts all refusals, `eligible` all accounts that could have
    served; `candidates` names some of both, the winner first.
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
            "retry_at": self.retry_at,
            "eligible": self.eligible,
            "refused": {str(refusal): n for refusal, n in self.refused.items()},
            "candidates": [candidate.row() for candidate in self.candidates],
        }


def select(
    ask: SelectionRequest, view: SelectionIndex, now: float, held: Affinity = NO_AFFINITY, *, explain: bool = True
) -> Decision:
    """Choose an account for `ask`. Pure: reads `view` as of the last `advance(now)`; binds and counts nothing.

    Without `explain` a decision for an account does not list the others; why there is none is told always.
    """
    return _Choice(ask, view, now, held, explain).decide()


def temporary(live: AccountHealth, scopes: tuple[str, ...], now: float) -> bool:
    """Will this account be back before the conversation's cache is cold? Then a pin waits for it."""
    found = resting(live, scopes, now)
    return found is not None and found[1].until - now <= BORROW_S


class _Choice:
    """One choice being made: the lanes that can serve, and what was found in them."""

    __slots__ = ("ask", "explain", "held", "later", "need", "now", "refused", "stands", "view")

    def __init__(self, ask: SelectionRequest, view: SelectionIndex, now: float, held: Affinity, explain: bool) -> None:
        self.ask = ask
        self.explain = explain
        self.view = view
        self.now = now
        self.held = held
        self.need = Need(ask.operation, ask.dialect, ask.model, ask.websocket, ask.own_dialect)
        self.refused: dict[Refusal, int] = {}
        self.stands: list[tuple[Cohort, Shortlist]] = []
        self.later: list[Cohort] = []  # they serve it in another dialect: asked when the client's own gives nobody
        guesses: list[tuple[Cohort, Shortlist]] = []
        for cohort in view.cohorts(ask.providers):
            if cohort.bounded and ask.forced is None and not view.shared(cohort, ask.user, now):
                _add(self.refused, Refusal.NOT_SHARED, len(cohort.members))
                continue
            unfit = view.unfit(cohort, self.need)
            if unfit is None and view.translated(cohort, self.need):
                self.later.append(cohort)
            elif unfit is None:
                kind = guesses if ask.dialect in cohort.guessed else self.stands
                kind.append((cohort, view.stand(cohort, self.need, now)))
            else:
                _add(self.refused, unfit, len(cohort.members))
        if not self.stands or ask.forced is not None or held.hard is not None:
            self.stands += guesses
        if ask.forced is not None or held.hard is not None or not self.stands or self._pinned_later():
            self._widen()

    def _pinned_later(self) -> bool:
        """Does the conversation live on an account that serves it in another dialect?"""
        pinned = self.held.pinned or self.view.locked
        return bool(self.later) and pinned in self.view.accounts and self.view.cohort_of(pinned) in self.later

    def _widen(self) -> None:
        """Takes in the accounts that serve this in another dialect."""
        self.stands += [(cohort, self.view.stand(cohort, self.need, self.now)) for cohort in self.later]
        self.later = []

    def decide(self) -> Decision:
        ask = self.ask
        if ask.forced is not None:
            return self._only(ask.forced, ChoiceReason.FORCED, Refusal.NOT_FORCED)
        if self.held.hard is not None:
            found = self._only(self.held.hard, ChoiceReason.HARD_PIN, Refusal.NOT_OWNER)
            found.hard_lost = found.account is None
            return found
        locked = self.view.locked
        if locked and locked in self.view.accounts and self._asked(locked):
            return self._only(locked, ChoiceReason.LOCKED, Refusal.LOCKED)
        pinned = self.held.pinned
        if pinned is not None and self._eligible(pinned) and not self._unreachable(pinned):
            return self._won(pinned, ChoiceReason.PINNED)
        if ask.user in self.view.owned and (own := self._own()) is not None:
            return self._won(own, ChoiceReason.BORROWED if self._borrows(pinned) else ChoiceReason.OWN)
        if not ask.exclude and pinned is None and (probe := self._probe()) is not None:
            return self._won(probe, ChoiceReason.PROBE)
        best = self._best()
        if best is None and self.later:
            self._widen()
            best = self._best()
        if best is not None:
            return self._won(best, ChoiceReason.BORROWED if self._borrows(pinned) else ChoiceReason.BEST)
        if not ask.exclude and (resort := self._last_resort()) is not None:
            return self._won(resort, ChoiceReason.PROBE)
        return self._nobody()

    def _asked(self, account_id: str) -> bool:
        return self.view.accounts[account_id].provider in self.ask.providers

    def _card(self, account_id: str) -> Placement | None:
        """The account's standing, None when it is unknown or of a kind that does not serve this."""
        if account_id not in self.view.accounts:
            return None
        home = self.view.cohort_of(account_id)
        for cohort, stand in self.stands:
            if cohort is home:
                return stand.card(account_id)
        return None

    def _open(self, card: Placement) -> bool:
        """May this card's account serve this user now?"""
        if card.candidate.score is None:
            return False
        refusal = card.candidate.refusal
        return refusal is None or (refusal is Refusal.RESERVED and card.account.owner == self.ask.user)

    def _eligible(self, account_id: str) -> bool:
        card = self._card(account_id)
        return card is not None and account_id not in self.ask.exclude and self._open(card)

    def _unreachable(self, account_id: str) -> bool:
        """Is the way to the account's provider set aside?"""
        card = self._card(account_id)
        return card is not None and card.candidate.tier == UNREACHABLE

    def _borrows(self, pinned: str | None) -> bool:
        """Does the pin stay although another account serves this time?"""
        if pinned is None or pinned not in self.view.accounts:
            return False
        account = self.view.accounts[pinned]
        card = self._card(pinned)
        if (card is not None and card.candidate.refusal is Refusal.RETURNING) or self._unreachable(pinned):
            return True
        if pinned in self.ask.exclude and self._eligible_but_tried(pinned):
            return True
        return temporary(account.live, self.view.scopes(account.provider, self.ask.model, self.ask.operation), self.now)

    def _eligible_but_tried(self, account_id: str) -> bool:
        card = self._card(account_id)
        return card is not None and self._open(card)

    def _best(self) -> str | None:
        """The account whose key is the least of all that are open to this."""
        ask = self.ask
        least: Key | None = None
        for _, stand in self.stands:
            lane = stand.lane
            head = self._head(lane.ready, stand)
            if head is not None and (least is None or head < least):
                least = head
            if ask.user in lane.reserved:
                head = self._head(lane.reserved[ask.user], stand)
                if head is not None and (least is None or head < least):
                    least = head
            for account_id, card in stand.apart.items():
                if account_id not in ask.exclude and self._open(card):
                    head = self.view.rank(card.account, card.candidate)
                    least = head if least is None or head < least else least
        return None if least is None else str(least[-1])

    def _own(self) -> str | None:
        """The best account of whoever asks, while one of theirs has headroom."""
        least: Key | None = None
        for account_id in self.view.owned[self.ask.user]:
            card = self._card(account_id) if account_id not in self.ask.exclude else None
            if card is not None and card.candidate.tier < DRAINING and self._open(card):
                key = self.view.rank(card.account, card.candidate)
                least = key if least is None or key < least else least
        return None if least is None else str(least[-1])

    def _head(self, order: SortedList[Key], stand: Shortlist) -> Key | None:
        """The least key of an account that was not tried yet and is not judged apart."""
        exclude, apart = self.ask.exclude, stand.apart
        key: Key
        for key in order:
            if key[-1] not in exclude and key[-1] not in apart:
                return key
        return None

    def _probe(self) -> str | None:
        """A resting account whose half-open request is due."""
        for _, stand in self.stands:
            due = next(iter(stand.lane.probes), None)
            if due is not None and due[0] <= self.now and due[1] not in stand.apart:
                return str(due[1])
        return None

    def _last_resort(self) -> str | None:
        for _, stand in self.stands:
            for key in islice(stand.lane.resting, LAST_RESORTS):
                account = stand.lane.cards[key[1]].account
                if key[1] not in stand.apart and last_resort(account.live, stand.scopes, self.now):
                    return account.id
            for account_id, card in stand.apart.items():
                if card.candidate.score is None and last_resort(card.account.live, stand.scopes, self.now):
                    return account_id
        return None

    def _only(self, account_id: str, reason: ChoiceReason, others: Refusal) -> Decision:
        """One account or none: everybody else is refused for `others`."""
        total = sum(len(cohort.members) for cohort, _ in self.stands)
        card = self._card(account_id)
        refused = dict(self.refused)
        _add(refused, others, total - (card is not None))
        decision = Decision(None, None, self.view.strategy, [], pinned=self.held.pinned)
        if card is None:
            if account_id in self.view.accounts:
                decision.candidates.append(Candidate(account_id, self._unfit(account_id)))
            decision.refused = _some(refused)
            return decision
        candidate = card.candidate
        if account_id in self.ask.exclude:
            candidate = Candidate(account_id, Refusal.TRIED)
        elif card.candidate.score is not None and (reason is ChoiceReason.FORCED or self._open(card)):
            candidate = Candidate(account_id, None, None, candidate.score, candidate.terms)
            decision.account, decision.reason, decision.eligible = account_id, reason, 1
        elif candidate.refusal is Refusal.RETURNING:  # nobody else can serve it: it need not wait for its turn
            candidate = Candidate(account_id)
            decision.account, decision.reason, decision.eligible = account_id, reason, 1
        elif reason is ChoiceReason.FORCED and last_resort(card.account.live, self._scopes(card), self.now):
            decision.account, decision.reason, decision.probe = account_id, reason, True
        if candidate.refusal is not None:
            _add(refused, candidate.refusal, 1)
            decision.retry_at = candidate.until if candidate.refusal not in NEVER_RETURN else None
        decision.candidates.append(candidate)
        decision.refused = _some(refused)
        return decision

    def _scopes(self, card: Placement) -> tuple[str, ...]:
        return self.view.scopes(card.account.provider, self.ask.model, self.ask.operation)

    def _unfit(self, account_id: str) -> Refusal:
        cohort = self.view.cohort_of(account_id)
        if cohort.provider not in self.ask.providers:
            return Refusal.PROVIDER
        if not self.view.shared(cohort, self.ask.user, self.now):
            return Refusal.NOT_SHARED
        return self.view.unfit(cohort, self.need) or Refusal.PROVIDER

    def _translated(self, account_id: str) -> bool:
        return self.view.translated(self.view.cohort_of(account_id), self.need)

    def _won(self, account_id: str, reason: ChoiceReason) -> Decision:
        if self.explain:
            decision = self._decision(account_id, reason)
        else:
            decision = Decision(account_id, reason, self.view.strategy, [], pinned=self.held.pinned)
        decision.probe = reason is ChoiceReason.PROBE
        decision.translated = self._translated(account_id)
        return decision

    def _nobody(self) -> Decision:
        decision = self._decision(None, None)
        returns = [key[0] for _, stand in self.stands for key in islice(stand.lane.resting, 1)]
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
        drains = self._winner_drains(account_id)
        for _, stand in self.stands:
            self._list(stand, account_id, drains, listed, others)
            eligible += self._count(stand, refused)
        return Decision(
            account_id, reason, self.view.strategy, (listed + others)[:LISTED],
            eligible=eligible, refused=_some(refused), pinned=self.held.pinned,
        )  # fmt: skip

    def _winner_drains(self, account_id: str | None) -> bool:
        card = self._card(account_id) if account_id is not None else None
        return card is None or card.candidate.score is None or card.candidate.tier >= DRAINING

    def _list(
        self, stand: Shortlist, winner: str | None, drains: bool, listed: list[Candidate], others: list[Candidate]
    ) -> None:
        lane, apart, exclude = stand.lane, stand.apart, self.ask.exclude
        cards = lane.cards
        if winner is not None and (card := stand.card(winner)) is not None:
            listed.insert(0, card.candidate)
        for key in islice(lane.ready, SHORTLIST + len(exclude)):
            account_id = key[-1]
            if account_id == winner or account_id in apart:
                continue
            candidate = cards[account_id].candidate
            if account_id in exclude:
                others.append(Candidate(account_id, Refusal.TRIED))
            elif key[0] == DRAINING and not drains:
                others.append(Candidate(account_id, Refusal.DRAINING, None, candidate.score, candidate.terms))
            else:
                listed.append(candidate)
        if apart:
            others += [c.candidate for i, c in apart.items() if i != winner]
        others += [cards[key[-1]].candidate for key in islice(lane.resting, SHORTLIST) if key[-1] != winner]
        for reserved in lane.reserved.values():
            others += [cards[key[-1]].candidate for key in islice(reserved, 2) if key[-1] != winner]
        if lane.stopped:
            others += [cards[account_id].candidate for account_id in islice(lane.stopped, SHORTLIST)]

    def _count(self, stand: Shortlist, refused: dict[Refusal, int]) -> int:
        """Add the lane's refusals; returns how many of its accounts are eligible."""
        lane, ask = stand.lane, self.ask
        for refusal, n in lane.refused.items():
            _add(refused, refusal, n)
        eligible = len(lane.ready)
        if ask.user in lane.reserved:
            eligible += len(lane.reserved[ask.user])
            _add(refused, Refusal.RESERVED, -len(lane.reserved[ask.user]))
        for account_id, card in stand.apart.items():
            base = lane.cards[account_id].candidate.refusal
            if card.candidate.refusal is not None and base is None:
                _add(refused, card.candidate.refusal, 1)
                eligible -= 1
        for account_id in ask.exclude:
            card_tried = stand.card(account_id)
            if card_tried is not None and self._open(card_tried):
                _add(refused, Refusal.TRIED, 1)
                eligible -= 1
        return eligible


def _add(refused: dict[Refusal, int], refusal: Refusal, n: int) -> None:
    refused[refusal] = refused.get(refusal, 0) + n


def _some(refused: Mapping[Refusal, int]) -> dict[Refusal, int]:
    """The refusals that concern anybody."""
    return {refusal: n for refusal, n in refused.items() if n > 0}
