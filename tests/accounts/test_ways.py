"""Accounts that speak the client's dialect come first, then translated ones, then those that may not have the model: a
term of the score that outweighs all others."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.accounts.health import learning
from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.candidates import Need
from pool_server.accounts.selection.explain import WAY_COST
from pool_server.accounts.selection.index import SelectionIndex, Suitability
from pool_server.accounts.selection.select import Affinity, select
from pool_server.core.enums import CredentialKind, FaultKind, Operation, Provider, Refusal, Strategy
from pool_server.core.models import OF_ACCOUNT, Fault
from pool_server.dialects.translation import UpstreamKind
from pool_server.texts.labels import TERMS
from tests.accounts.kit import DAY, NOW, SONNET, ask, entry, family, fits, week

OWN, TRANSLATED, DOUBTED = Suitability.OWN, Suitability.TRANSLATED, Suitability.DOUBTED
WAYS = {Provider.CLAUDE: OWN, Provider.CODEX: TRANSLATED, Provider.GEMINI: TRANSLATED, Provider.QWEN: DOUBTED}
TARGETS = {Provider.CODEX: UpstreamKind.CODEX, Provider.GEMINI: UpstreamKind.CODE_ASSIST}
ALL = tuple(WAYS)


def index_of(*accounts: Account, strategy: Strategy = Strategy.BALANCED) -> SelectionIndex:
    made = SelectionIndex(
        strategy=strategy,
        fit=fits,
        family=family,
        way=lambda account, need: WAYS[account.provider],
        target=lambda account, need: TARGETS.get(account.provider),
    )
    for account in accounts:
        made.put(account)
    made.advance(NOW)
    return made


def way_of(account_id: str) -> Suitability:
    return WAYS[Provider(account_id.partition(":")[0])]


SOME = st.lists(
    st.tuples(
        st.sampled_from(ALL),
        st.sampled_from([1, 100, 300]),  # priority
        st.floats(0, 99),  # percent used of the week
        st.integers(0, 300),  # in flight
        st.sampled_from([CredentialKind.OAUTH, CredentialKind.API_KEY]),
        st.booleans(),  # cooling
        st.booleans(),  # tried
    ),
    min_size=1,
    max_size=12,
)


@given(SOME, st.sampled_from(Strategy), st.integers(0, 11), st.booleans())
@settings(max_examples=80)
def test_no_account_of_a_later_way_is_chosen_while_an_earlier_one_can_serve(
    some: list[tuple[Provider, int, float, int, CredentialKind, bool, bool]],
    strategy: Strategy,
    pinned: int,
    with_pin: bool,
) -> None:
    made, tried = [], set()
    for number, (provider, priority, used, busy, kind, cooling, was_tried) in enumerate(some):
        one = entry(str(number), week(used, 3 * DAY), provider=provider, priority=priority, kind=kind)
        one.local = busy
        if cooling:
            fault = Fault(FaultKind.QUOTA, OF_ACCOUNT, NOW + 9 * DAY)
            learning.fail(one.health, fault, NOW, model=SONNET, operation=Operation.MESSAGES, token="", current="")
        if was_tried:
            tried.add(one.id)
        made.append((one, not cooling and not was_tried))
    index = index_of(*(one for one, _ in made), strategy=strategy)
    pin = made[pinned][0].id if with_pin and pinned < len(made) else None
    decision = select(ask(providers=ALL, exclude=frozenset(tried)), index, NOW, Affinity(pin))
    free = [way_of(one.id).value for one, is_free in made if is_free]
    if decision.account is None:
        assert not free
    elif decision.account != pin and free:
        assert way_of(decision.account).value == min(free), decision.record()
    assert decision.translated is (decision.account is not None and way_of(decision.account) is TRANSLATED)
    for candidate in decision.candidates:
        if candidate.score is not None and candidate.refusal is None:
            assert candidate.score == pytest.approx(sum(candidate.terms.values()))
            cost = WAY_COST[way_of(candidate.account)]
            said = -candidate.terms.get("translated", 0.0) - candidate.terms.get("doubted", 0.0)
            assert said == cost


def test_the_term_stands_in_the_record_with_words_for_it() -> None:
    index = index_of(entry("far", provider=Provider.CODEX), entry("vague", provider=Provider.QWEN))
    decision = select(ask(providers=ALL), index, NOW)
    (row,) = decision.record()["candidates"]
    assert row["account"] == "codex:far" and row["terms"]["translated"] == -50.0 and row["score"] == -50.0
    index = index_of(entry("near"), entry("far", provider=Provider.CODEX))
    rows = select(ask(providers=ALL), index, NOW).record()["candidates"]
    assert [row["account"] for row in rows] == ["claude:near"], "those that nobody needs are not looked at"
    vague = select(ask(providers=(Provider.QWEN,)), index_of(entry("vague", provider=Provider.QWEN)), NOW)
    assert vague.record()["candidates"][0]["terms"]["doubted"] == -100.0
    assert TERMS.get("translated") and TERMS.get("doubted")


def test_a_rating_that_others_share_keeps_its_own_terms() -> None:
    """One rating serves clients of every dialect: the way of one of them must not show in another's record."""
    one = entry("far", provider=Provider.CODEX)
    index = index_of(one)
    assert "translated" in select(ask(providers=ALL), index, NOW).candidates[0].terms
    WAYS[Provider.CODEX] = OWN
    try:
        index.refit()
        assert "translated" not in select(ask(providers=ALL), index, NOW).candidates[0].terms
    finally:
        WAYS[Provider.CODEX] = TRANSLATED


@pytest.mark.parametrize("pin", [None, "codex:a", "gemini:b", "claude:c"])
def test_what_cannot_be_told_to_one_dialect_is_told_to_another(pin: str | None) -> None:
    a, b = entry("a", provider=Provider.CODEX), entry("b", provider=Provider.GEMINI)
    native = entry("c")
    unable = frozenset({UpstreamKind.CODEX})
    asked = ask(providers=ALL, unable=unable)
    decision = select(asked, index_of(a, b), NOW, Affinity(pin))
    assert (decision.account, decision.refused) == ("gemini:b", {Refusal.NOT_CARRIED: 1})
    decision = select(asked, index_of(a), NOW, Affinity(pin))
    assert (decision.account, decision.retry_at, decision.refused) == (None, None, {Refusal.NOT_CARRIED: 1})
    assert select(asked, index_of(a, native), NOW, Affinity(pin)).account == "claude:c"
    forced = select(ask(providers=ALL, unable=unable, forced="codex:a"), index_of(a, b), NOW)
    assert (forced.account, forced.candidates[0].refusal) == (None, Refusal.NOT_CARRIED)
    blame = Fault(FaultKind.QUOTA, OF_ACCOUNT, NOW + 60)
    learning.fail(native.health, blame, NOW, model=SONNET, operation=Operation.MESSAGES, token="", current="")
    learning.fail(a.health, Fault(FaultKind.QUOTA, OF_ACCOUNT, NOW + 5), NOW, model=SONNET,
                  operation=Operation.MESSAGES, token="", current="")  # fmt: skip
    decision = select(asked, index_of(a, native), NOW, Affinity(pin))
    assert (decision.account, decision.retry_at) == (None, NOW + 60), "who cannot serve it does not return for it"


def test_needs_differ_by_what_they_ask() -> None:
    need = Need(Operation.MESSAGES, ask().dialect, SONNET)
    index = index_of(entry("a", provider=Provider.CODEX))
    (cohort,) = index.cohorts(ALL)
    assert index.target(cohort, need) is UpstreamKind.CODEX
