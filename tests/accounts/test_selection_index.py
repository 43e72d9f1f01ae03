"""The order of all accounts: right after any change, and cheap however many there are."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.accounts.health import learning
from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.candidates import judge
from pool_server.accounts.selection.index import SPARSE, SelectionIndex
from pool_server.accounts.selection.select import select
from pool_server.core.enums import FaultKind, Operation, Provider, Refusal, Strategy
from pool_server.core.models import OF_ACCOUNT, FamilyScope, Fault, ModelScope
from tests.accounts.kit import DAY, HOUR, NOW, OPUS, SONNET, ask, blame, entry, view_of, week, window

NAMES = st.integers(0, 7)
STEPS = st.lists(
    st.tuples(
        NAMES,
        st.one_of(
            st.tuples(st.just("seen"), st.floats(0, 110), st.floats(60, 6 * DAY)),
            st.tuples(st.just("opus"), st.floats(0, 110), st.floats(60, 6 * DAY)),
            st.tuples(st.just("quota"), st.floats(1, 2 * DAY), st.booleans()),
            st.tuples(st.just("begin"), st.just(0.0), st.just(0.0)),
            st.tuples(st.just("end"), st.just(0.0), st.just(0.0)),
            st.tuples(st.just("remove"), st.just(0.0), st.just(0.0)),
            st.tuples(st.just("put"), st.just(0.0), st.just(0.0)),
        ),
        st.floats(0, 5 * HOUR),
    ),
    max_size=40,
)


def change(index: SelectionIndex, name: int, step: tuple[str, float, float], now: float) -> None:
    what, first, second = step
    account = index.accounts.get(f"claude:a{name}")
    if what == "put" or account is None:
        index.put(account or entry(f"a{name}", priority=name % 2))
        return
    if what == "seen":
        learning.absorb(account.health, [week(first, second, at=now)], now)
    elif what == "opus":
        learning.absorb(account.health, [week(first, second, at=now, scope="opus")], now)
    elif what == "quota":
        scope = FamilyScope("opus") if second else OF_ACCOUNT
        what_ = Fault(FaultKind.QUOTA, scope, now + first)
        learning.fail(account.health, what_, now, model=OPUS, operation=Operation.MESSAGES, token="", current="")
    elif what == "begin":
        account.local += 1
        index.chosen(account)
        return
    elif what == "end":
        account.local = max(0, account.local - 1)
        index.moved(account)
        return
    else:
        index.remove(account.id)
        return
    index.touch(account)


@pytest.mark.slow
@given(STEPS)
@settings(max_examples=150)
def test_the_queues_agree_with_a_look_at_everybody(steps: list[tuple[int, tuple[str, float, float], float]]) -> None:
    index, now = view_of(), NOW
    for name, step, wait in steps:
        now += wait
        change(index, name, step, now)
        index.advance(now)
        for model in (SONNET, OPUS):
            decision = select(ask(model=model), index, now)
            scopes = index.scopes(ask().providers[0], model, ask().operation)
            placements = [judge(a, scopes, now, None) for a in index.accounts.values()]
            eligible = [c for c in placements if c.candidate.score is not None]
            assert decision.eligible == len(eligible)
            refused = [c.candidate.refusal for c in placements if c.candidate.refusal is not None]
            assert decision.refused == {r: refused.count(r) for r in set(refused)}
            if eligible and not decision.probe:
                assert decision.account in {c.account.id for c in eligible}
            elif not decision.probe:
                assert decision.account is None


@given(STEPS, st.permutations(list(Strategy)))
def test_an_order_that_was_kept_is_the_order_made_anew(
    steps: list[tuple[int, tuple[str, float, float], float]], strategies: list[Strategy]
) -> None:
    index, now = view_of(), NOW
    for name, step, wait in steps:
        now += wait
        change(index, name, step, now)
        index.advance(now)
    for strategy in strategies:  # an operator may change it while the pool runs
        index.set_strategy(strategy)
        index.advance(now)
    fresh = SelectionIndex(
        strategy=strategies[-1], fit=lambda a, n: None, family=lambda p, m: "opus" if "opus" in m else "s"
    )
    for account in index.accounts.values():
        copy = Account(account.credential, account.options, account.health)
        copy.local, copy.turn = account.local, account.turn
        fresh.put(copy)
        copy.turn = account.turn
    fresh.advance(now)
    mine, theirs = select(ask(model=OPUS), index, now), select(ask(model=OPUS), fresh, now)
    assert (mine.account, mine.refused, mine.eligible) == (theirs.account, theirs.refused, theirs.eligible)


@pytest.mark.parametrize("before", Strategy)
@pytest.mark.parametrize("after", Strategy)
def test_the_order_can_be_changed_while_nothing_is_known(before: Strategy, after: Strategy) -> None:
    index = view_of(*(entry(f"a{n}") for n in range(3)))
    index.set_strategy(before)
    index.advance(NOW)
    index.set_strategy(after)
    index.advance(NOW)
    decision = select(ask(), index, NOW)
    assert decision.account is not None and decision.eligible == 3 and not decision.refused


def test_few_of_many_with_a_family_of_their_own_are_judged_apart() -> None:
    index = view_of(*(entry(f"a{n}", week(50.0)) for n in range(5 * SPARSE)))
    for n in range(3):
        account = index.accounts[f"claude:a{n}"]
        what = Fault(FaultKind.QUOTA, FamilyScope("opus"), NOW + HOUR)
        learning.fail(account.health, what, NOW, model=OPUS, operation=Operation.MESSAGES, token="", current="")
        index.touch(account)
    index.advance(NOW)
    decision = select(ask(model=OPUS), index, NOW)
    assert decision.refused == {Refusal.MODEL_EXHAUSTED: 3} and decision.eligible == 5 * SPARSE - 3
    assert decision.account not in {"claude:a0", "claude:a1", "claude:a2"}
    assert len(index.cohort_of("claude:a0").queues) == 1


def test_names_of_models_that_clients_invent_make_no_queues() -> None:
    index = view_of(*(entry(f"a{n}") for n in range(3)))
    for n in range(100):
        model = f"invented-{n}"
        account = index.accounts["claude:a0"]
        fault = Fault(FaultKind.NOT_FOUND, ModelScope(model))
        learning.fail(account.health, fault, NOW, model=model, operation=Operation.MESSAGES, token="", current="")
        index.touch(account)
        index.advance(NOW)
        assert select(ask(model=model), index, NOW).account != "claude:a0"
    assert len(index.cohort_of("claude:a0").queues) <= 16


def test_time_alone_brings_accounts_back() -> None:
    index = view_of(entry("a", window(100.0, HOUR)), entry("b", week(99.9, 2 * HOUR)))
    assert select(ask(), index, NOW).account == "claude:b"
    index.advance(NOW + HOUR)
    assert select(ask(), index, NOW + HOUR).account == "claude:a"
    index.advance(NOW + 3 * HOUR)
    assert select(ask(), index, NOW + 3 * HOUR).eligible == 2


def cost(index: SelectionIndex, rounds: int = 300) -> float:
    """Seconds for one choice with everything around it: the least of several runs."""
    best = 1.0
    now = NOW
    for _ in range(5):
        began = time.thread_time()
        for _ in range(rounds):
            now += 0.01
            index.advance(now)
            account = index.accounts[select(ask(), index, now).account or ""]
            account.local += 1
            index.chosen(account)
        best = min(best, (time.thread_time() - began) / rounds)
    return best


@pytest.mark.slow
@pytest.mark.parametrize("cooling", [0, 1])
def test_ten_thousand_cost_hardly_more_than_ten(cooling: int) -> None:
    def made(n: int) -> SelectionIndex:
        index = view_of(*(entry(f"a{i}", window(i % 60), week(i % 97, (i % 7 + 1) * 80_000)) for i in range(n)))
        for account in list(index.accounts.values())[: n // 2 * cooling]:
            blame(account.health, Fault(FaultKind.QUOTA, OF_ACCOUNT, NOW + DAY))
            index.touch(account)
        return index

    few, many = made(10), made(10_000)
    many.advance(NOW)
    assert cost(many) < 6 * cost(few) + 50e-6


def test_the_cohorts_of_the_same_providers_follow_every_change() -> None:
    asked = (Provider.CLAUDE, Provider.CODEX)
    index = view_of(entry("a"))
    assert [cohort.provider for cohort in index.cohorts(asked)] == [Provider.CLAUDE]
    index.put(entry("b", provider=Provider.CODEX))
    assert [cohort.provider for cohort in index.cohorts(asked)] == [Provider.CLAUDE, Provider.CODEX]
    index.remove("claude:a")
    assert [cohort.provider for cohort in index.cohorts(asked)] == [Provider.CODEX]
    for number in range(40):  # others' tuples push it out, which changes nothing
        index.cohorts(tuple([Provider.CODEX] * (number + 2)))
    assert [cohort.provider for cohort in index.cohorts(asked)] == [Provider.CODEX]
