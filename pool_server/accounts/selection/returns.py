"""Accounts that come back: who waits for them, and how gently they are taken up again. Reads a `SelectionIndex`."""

from __future__ import annotations

import msgspec

from pool_server.accounts.health.state import returning
from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.candidates import RETURNING, judge
from pool_server.accounts.selection.index import SelectionIndex
from pool_server.accounts.selection.score import Candidate
from pool_server.accounts.selection.select import SelectionRequest, temporary
from pool_server.core.enums import Refusal


def standing(view: SelectionIndex, account: Account, scopes: tuple[str, ...], now: float) -> Candidate:
    """How an account stands for a model of these scopes."""
    return judge(account, scopes, now, view.cohort_of(account.id).latency).candidate


def comes_back(view: SelectionIndex, account_id: str, ask: SelectionRequest, now: float) -> bool:
    """Will a conversation's own account be back before its cache is cold, so that the pin stays?"""
    account = view.accounts.get(account_id)
    if account is None:
        return False
    scopes = view.scopes(account.provider, ask.model, ask.operation)
    if temporary(account.live, scopes, now):
        return True
    refusal = standing(view, account, scopes, now).refusal
    return refusal is Refusal.RETURNING or (account_id in ask.exclude and refusal is None)


def fresh(view: SelectionIndex, ask: SelectionRequest, now: float) -> SelectionRequest:
    """The request as it waits: accounts it was tried on that come back by themselves are open to it again."""
    back = set()
    for account_id in ask.exclude:
        account = view.accounts.get(account_id)
        if account is not None:
            scopes = view.scopes(account.provider, ask.model, ask.operation)
            if standing(view, account, scopes, now).refusal in RETURNING:
                back.add(account_id)
    return msgspec.structs.replace(ask, exclude=ask.exclude - back) if back else ask


def just_back(account: Account, now: float) -> bool:
    """Is the account, or a model of it, back from a limit only now?"""
    return any(returning(rest, now) is not None for rest in account.live.rests.values())
