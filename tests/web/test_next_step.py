"""Whatever an account is in, one sentence says whose move it is, on the operator's page and its owner's."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from pool_server.accounts.describe import AccountRow, CooldownRow
from pool_server.core.enums import AccountState, CredentialKind, FaultKind, Refusal
from pool_server.texts import labels
from pool_server.web.admin.account_words import SIGN_IN_WARNED_S, next_step
from tests.rows import account_row

NOW = 1_760_000_000.0


def row(state: AccountState, kind: CredentialKind = CredentialKind.OAUTH, **more: Any) -> AccountRow:
    return account_row(state=state, kind=kind, **more)


def rest(kind: FaultKind, scope: str = "") -> CooldownRow:
    return CooldownRow(scope, kind, NOW + 60, NOW, 0, "", "", True, None)


def whole(said: str) -> bool:
    return said[:1].isupper() and said.endswith(".") and ".." not in said and len(said) < 130


@pytest.mark.parametrize("state", [one for one in AccountState if one is not AccountState.READY])
def test_each_state_has_one(state: AccountState) -> None:
    for kind, back in itertools.product(CredentialKind, ("", "16:20")):
        assert whole(next_step(row(state, kind), NOW, back)), (kind, back)


def test_each_cooldown_has_one_that_names_its_end() -> None:
    for kind in FaultKind:
        told = next_step(row(AccountState.COOLING, rests=[rest(FaultKind.RATE, "opus"), rest(kind)]), NOW, "16:20")
        assert whole(told) and "16:20" in told, kind
    assert "credit" in next_step(row(AccountState.COOLING, rests=[rest(FaultKind.PAYMENT)]), NOW)


def test_one_that_is_ready_and_does_not_serve_has_one() -> None:
    for refusal in Refusal:
        assert whole(next_step(row(AccountState.READY, refusal=refusal), NOW, "16:20")), refusal
    for refusal in Refusal:
        told = next_step(row(AccountState.READY, refusal=refusal), NOW, "16:20", owner=True)
        assert whole(told) and "owner" not in told, refusal
    expired = row(AccountState.READY, refusal=Refusal.EXPIRED, can_refresh=False)
    assert next_step(expired, NOW) == "Sign in again."


def test_one_that_is_well_needs_nothing_until_its_sign_in_ends() -> None:
    assert next_step(row(AccountState.READY), NOW) == ""
    assert next_step(row(AccountState.READY, sign_in_ends=NOW + SIGN_IN_WARNED_S + 1), NOW) == ""
    assert "Sign in again" in next_step(row(AccountState.READY, sign_in_ends=NOW + SIGN_IN_WARNED_S - 1), NOW)
    assert "network" in next_step(row(AccountState.READY, unreachable_until=NOW + 5), NOW)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (CredentialKind.OAUTH, "Sign in again"),
        (CredentialKind.SETUP_TOKEN, "setup token"),
        (CredentialKind.API_KEY, "working key"),
        (CredentialKind.SERVICE_ACCOUNT, "key file"),
    ],
)
def test_who_is_signed_out_is_told_what_brings_it_back(kind: CredentialKind, words: str) -> None:
    assert words in next_step(row(AccountState.NEEDS_LOGIN, kind), NOW)


def test_an_owners_terms_are_told_as_a_sentence() -> None:
    assert labels.sharing({}, [], None, own_first=True) == ""
    some = labels.sharing({"5h": 60.0, "": 30.0}, ["22:00-07:00"], None, own_first=True)
    assert some == "gives 60 % of 5 hours, 30 % of each window, at 22:00-07:00"
    assert labels.sharing({}, [], NOW, own_first=False).startswith("until 2025-10-09")
