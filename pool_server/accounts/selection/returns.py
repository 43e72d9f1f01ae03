"""Accounts that come back: who waits for them, and how gently they are taken up again. Reads a `SelectionIndex`."""

from __future__ import annotations

import msgspec

from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.candidates import RETURNING, judge
from pool_server.accounts.selection.index import SelectionIndex
from pool_server.accounts.selection.score import Candidate
from pool_server.accounts.selection.select import SelectionRequest, temporary
from pool_server.core.enums import Refusal


def standing(index: SelectionIndex, account: Account, scopes: tuple[str, ...], now: float) -> Candidate:
    """How an account stands for a model of these scopes."""
    return judge(account, scopes, now, index.cohort_of(account.id).latency, clock=index.clock).candidate


def comes_back(index: SelectionIndex, account_id: str, request: SelectionRequest, now: float) -> bool:
    """Will a conversation's own account be back before its cache is cold, so that the pin stays?"""
    account = index.accounts.get(account_id)
    if account is None:
        return False
    scopes = index.scopes(account.provider, request.model, request.operation)
    if temporary(account.health, scopes, now):
        return True
    refusal = standing(index, account, scopes, now).refusal
    return refusal is Refusal.RETURNING or (account_id in request.exclude and refusal is None)


def fresh(index: SelectionIndex, request: SelectionRequest, now: float) -> SelectionRequest:
    """The request as it waits: accounts it was tried on that come back by themselves are open to it again."""
    back = set()
    for account_id in request.exclude:
        account = index.accounts.get(account_id)
        if account is not None:
            scopes = index.scopes(account.provider, request.model, request.operation)
            if standing(index, account, scopes, now).refusal in RETURNING:
                back.add(account_id)
    return msgspec.structs.replace(request, exclude=request.exclude - back) if back else request
