"""What an account is worth for one more conversation: pure, term by term.

The score is the sum of its terms; higher is better. Pace is the heart of it: an account whose room would be
lost at the reset goes first, one whose room must last goes later.
"""

from __future__ import annotations

from math import exp2, floor, inf, log2
from typing import Any

import msgspec

from pool_server.accounts.health import windows as win
from pool_server.accounts.health.demand_clock import EVEN, DemandClock
from pool_server.accounts.health.learning import trouble
from pool_server.accounts.health.state import LOW_ROOM, AccountHealth
from pool_server.accounts.selection.account import Account
from pool_server.core.enums import AccountState, CredentialKind, Refusal, Strategy

PACE_LIMIT = 4.0  # doublings (or halvings) of an even pace that still count
SHORT_LOW = 20.0  # percent left in a window under a day below which new conversations go elsewhere
SHORT_WEIGHT = 4.0
LONG_LOW = 3.0  # the same for a window of a day or more
LONG_WEIGHT = 2.0
IN_FLIGHT = "in_flight"
IN_FLIGHT_WEIGHT = 0.12
TROUBLE_WEIGHT = 0.5
TROUBLE_LIMIT = 4.0  # faults; more of them make an account look no worse
LATENCY_WEIGHT = 0.06
LATENCY_LIMIT = 0.25  # of two requests in flight: slowness never outweighs what an account has left
LATENCY_NOTICED_S = 1.0  # nobody notices a smaller difference
LATENCY_HALF_LIFE_S = 600.0  # an account that is not asked any more is given another chance
IDLE_WINDOW = 1.0  # a short window that runs begins anew the sooner: more can be had in busy hours
API_KEY = "api_key"
API_KEY_COST = 3.0  # paid by use: after every subscription that is not far ahead of its pace or short of room
EXPIRED_COST = 0.5  # the first request has to wait for the refresh

Key = tuple[int, int, float, float, str]  # a place in the order of whoever can serve: tier, priority, worth, turn, id

_LEAST_SURPLUS = 2.0**-PACE_LIMIT

READY, EASING, DRAINING, UNREACHABLE = 0, 1, 2, 3  # tiers: a later one is chosen only when no earlier one can serve


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """One account as a choice finds it.

    Refused (why, and until when if that is known), or eligible with its score, the sum of `terms`; an account with
    both is eligible for its owner alone. `tier` goes before the score. `headroom` is the percent left in the tightest
    window (None: unknown), `resets_at` (unix seconds) when the tightest long one resets.
    """

    account: str
    refusal: Refusal | None = None
    until: float | None = None
    score: float | None = None
    terms: dict[str, float] = {}
    tier: int = READY
    headroom: float | None = None
    resets_at: float | None = None
    told: dict[str, Any] | None = None  # what `row` has returned

    def shown(self) -> tuple[float | None, dict[str, float]]:
        """The score and its terms in thousandths, for records and pages."""
        score = None if self.score is None else _thousandths(self.score)
        return score, {name: _thousandths(value) for name, value in self.terms.items()}

    def row(self) -> dict[str, Any]:
        """Plain data for records, not to be changed: many decisions name a candidate between two ratings."""
        row = self.told
        if row is None:
            row = {"account": self.account}
            if self.refusal is not None:
                row["refusal"] = str(self.refusal)
                if self.until is not None:
                    row["until"] = round(self.until, 3)
            if self.score is not None:
                row["score"], row["terms"] = self.shown()
            msgspec.structs.force_setattr(self, "told", row)
        return row


def _thousandths(value: float) -> float:
    """As `round(value, 3)`, in half its time: each decision shows several."""
    return floor(value * 1000 + 0.5) / 1000


def rate(
    account: Account, scopes: tuple[str, ...], now: float, *, usual_latency: float | None, clock: DemandClock = EVEN
) -> Candidate:
    """Rate an eligible account for a model of these scopes. `usual_latency`: seconds its like take to the first
    byte; `clock` counts the time that windows must last."""
    health, credential = account.health, account.credential
    pace, low, room, resets_at, family_drained, idle = _read(health, scopes, now, clock)
    terms = {"pace": pace}
    if idle:
        terms["idle_window"] = IDLE_WINDOW
    if low:
        terms["room"] = low
    if health.trouble and (recent := trouble(health, now)) > 0.05:
        terms["faults"] = -TROUBLE_WEIGHT * min(TROUBLE_LIMIT, recent)
    if health.latency and usual_latency and health.latency > usual_latency + LATENCY_NOTICED_S:
        slow = min(LATENCY_LIMIT, LATENCY_WEIGHT * log2(health.latency / usual_latency))
        terms["latency"] = -slow * exp2(-max(0.0, now - health.latency_at) / LATENCY_HALF_LIFE_S)
    if credential.kind is CredentialKind.API_KEY:
        terms[API_KEY] = -API_KEY_COST
    if credential.expires_at is not None and now >= credential.expires_at:
        terms["expired"] = -EXPIRED_COST
    if account.local or account.elsewhere:
        terms[IN_FLIGHT] = _crowd(account)
    tier = READY
    if now < account.unreachable_until:
        tier = UNREACHABLE
    elif health.state is AccountState.DRAINING or family_drained:
        tier = DRAINING
    elif now < health.easing_until:
        tier = EASING
    return Candidate(account.id, None, None, sum(terms.values()), terms, tier, room, resets_at)


def rerate(account: Account, rated: Candidate) -> Candidate:
    """The rating of an account at which only what is under way has changed since it was `rated`."""
    terms = dict(rated.terms)
    terms.pop(IN_FLIGHT, None)
    if account.local or account.elsewhere:
        terms[IN_FLIGHT] = _crowd(account)
    return Candidate(account.id, None, None, sum(terms.values()), terms, rated.tier, rated.headroom, rated.resets_at)


def _crowd(account: Account) -> float:
    return -IN_FLIGHT_WEIGHT * account.in_flight / account.options.weight


def _read(
    health: AccountHealth, scopes: tuple[str, ...], now: float, clock: DemandClock
) -> tuple[float, float, float | None, float | None, bool, bool]:
    """What the windows say together to a model of these scopes: (pace, the malus for low room, room, reset, is the
    model's family used up, does a short window wait for a first request). The pace is that of the tightest long window,
    as is the reset; the room that of the tightest window of all."""
    pace: float | None = None
    low = 0.0
    room: float | None = None
    resets_at: float | None = None
    family_drained = idle = False
    for w in health.windows.values():
        scope, seconds = w.scope, w.seconds
        if (scope and scope not in scopes) or 0 < seconds < win.SHORTEST_PACED or w.window == win.CREDITS:
            continue
        left = max(0.0, win.FULL - win.used(w, now))
        if room is None or left < room:
            room = left
        if scope and left <= LOW_ROOM and scope not in health.overage:
            family_drained = True
        if seconds >= win.DAY:
            doublings = log2(max(win.surplus(w, left, now, clock), _LEAST_SURPLUS))
            if pace is None or doublings < pace:
                pace, resets_at = doublings, w.resets_at
            if left < LONG_LOW:
                low = min(low, -LONG_WEIGHT * (1 - left / LONG_LOW))
            continue
        if left < SHORT_LOW:
            low = min(low, -SHORT_WEIGHT * (1 - left / SHORT_LOW))
        idle = idle or (seconds > 0 and left == win.FULL and win.time_left(w, now) is None)
    return (min(PACE_LIMIT, pace) if pace is not None else 0.0), low, room, resets_at, family_drained, idle


def rank(account: Account, candidate: Candidate, strategy: Strategy) -> Key:
    """The sort key of an account that has a score: the least is chosen. Equal scores take turns."""
    assert candidate.score is not None
    tier, priority, turn, account_id = candidate.tier, account.options.priority, account.turn, account.id
    if strategy is Strategy.BALANCED:
        return (tier, priority, -floor(candidate.score * 10 + 0.5) / 10, turn, account_id)
    if strategy is Strategy.FILL_FIRST:
        return (tier, priority, 0.0 if candidate.headroom is None else candidate.headroom - 100.0, turn, account_id)
    if strategy is Strategy.RESET_FIRST:
        return (tier, priority, inf if candidate.resets_at is None else candidate.resets_at, turn, account_id)
    return (tier, priority if strategy is Strategy.PRIORITY else 0, 0.0, turn, account_id)
