"""What a decision tells of the accounts it did not choose, and why those it chose from come in their order."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import msgspec

from pool_server.accounts.selection.candidates import Placement
from pool_server.accounts.selection.index import Shortlist, Suitability
from pool_server.accounts.selection.score import DRAINING, Candidate
from pool_server.core.enums import Refusal

SHORTLIST = 8  # eligible accounts looked at in each queue, beside those already tried
LISTED = 20  # candidates a decision names; the others are counted
# What the way to an account takes from its score: more than all other terms together, as accounts that are asked as the
# client asks come first whatever else is said of them.
WAY_COST = {Suitability.OWN: 0.0, Suitability.TRANSLATED: 50.0, Suitability.DOUBTED: 100.0}
_WAY_TERM = {Suitability.TRANSLATED: "translated", Suitability.DOUBTED: "doubted"}


def otherwise(candidate: Candidate, way: Suitability | None) -> Candidate:
    """The candidate with the term of the way to it; None: it is asked as the client asks."""
    if way is None or candidate.score is None or way not in _WAY_TERM:
        return candidate
    cost = WAY_COST[way]
    terms = {**candidate.terms, _WAY_TERM[way]: -cost}
    return msgspec.structs.replace(candidate, score=candidate.score - cost, terms=terms, told=None)


def open_to(placement: Placement, user: str) -> bool:
    """May this placement's account serve this user now?"""
    if placement.candidate.score is None:
        return False
    refusal = placement.candidate.refusal
    return refusal is None or (refusal is Refusal.RESERVED and placement.account.owner == user)


def listing(
    shortlist: Shortlist,
    way: Suitability | None,
    winner: str | None,
    drains: bool,
    exclude: frozenset[str],
    listed: list[Candidate],
    others: list[Candidate],
) -> None:
    """Adds those of one kind who could have won to `listed`, and some of the refused to `others`. `drains`: the winner
    is one of those that are about to run out."""
    if way is not None:
        mine: list[Candidate] = []
        out: list[Candidate] = []
        listing(shortlist, None, winner, drains, exclude, mine, out)
        listed += [otherwise(candidate, way) for candidate in mine]
        others += [otherwise(candidate, way) for candidate in out]
        return
    queue, apart = shortlist.queue, shortlist.apart
    placements = queue.placements
    for key in queue.ready[: SHORTLIST + len(exclude)]:
        account_id = key[-1]
        if account_id == winner or account_id in apart:
            continue
        candidate = placements[account_id].candidate
        if account_id in exclude:
            others.append(Candidate(account_id, Refusal.TRIED))
        elif key[0] == DRAINING and not drains:
            others.append(Candidate(account_id, Refusal.DRAINING, None, candidate.score, candidate.terms))
        else:
            listed.append(candidate)
    if apart:
        others += [c.candidate for i, c in apart.items() if i != winner]
    if queue.cooling:
        others += [placements[key[-1]].candidate for key in queue.cooling[:SHORTLIST] if key[-1] != winner]
    for reserved in queue.reserved.values():
        others += [placements[key[-1]].candidate for key in reserved[:2] if key[-1] != winner]
    if queue.stopped:
        others += [placements[account_id].candidate for account_id in islice(queue.stopped, SHORTLIST)]


def count(shortlist: Shortlist, user: str, exclude: frozenset[str], refused: dict[Refusal, int]) -> int:
    """Adds the queue's refusals; returns how many of its accounts are eligible."""
    queue = shortlist.queue
    for refusal, n in queue.refused.items():
        add(refused, refusal, n)
    eligible = len(queue.ready)
    if user in queue.reserved:
        eligible += len(queue.reserved[user])
        add(refused, Refusal.RESERVED, -len(queue.reserved[user]))
    for account_id, placement in shortlist.apart.items():
        base = queue.placements[account_id].candidate.refusal
        if placement.candidate.refusal is not None and base is None:
            add(refused, placement.candidate.refusal, 1)
            eligible -= 1
    for account_id in exclude:
        tried = shortlist.placement(account_id)
        if tried is not None and open_to(tried, user):
            add(refused, Refusal.TRIED, 1)
            eligible -= 1
    return eligible


def add(refused: dict[Refusal, int], refusal: Refusal, n: int) -> None:
    refused[refusal] = refused.get(refusal, 0) + n


def some(refused: Mapping[Refusal, int]) -> dict[Refusal, int]:
    """The refusals that concern anybody."""
    return {refusal: n for refusal, n in refused.items() if n > 0}
