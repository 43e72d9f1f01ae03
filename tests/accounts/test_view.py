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


def change(view: SelectionIndex, name: int, step: tuple[str, float, float], now: float) -> None:
    what, first, second = step
    account = view.accounts.get(f"claude:a{name}")
    if what == "put" or account is None:
        view.put(account or entry(f"a{name}", priority=name % 2))
        return
    if what == "seen":
        learning.absorb(account.live, [week(first, second, at=now)], now)
    elif what == "opus":
        learning.absorb(account.live, [week(first, second, at=now, scope="opus")], now)
    elif what == "quota":
        scope = FamilyScope("opus") if second else OF_ACCOUNT
        what_ = Fault(FaultKind.QUOTA, scope, now + first)
        learning.fail(account.live, what_, now, model=OPUS, operation=Operation.MESSAGES, token="", current="")
    elif what == "begin":
        account.local += 1
        view.chosen(account)
        return
    elif what == "end":
        account.local = max(0, account.local - 1)
        view.moved(account)
        return
    else:
        view.remove(account.id)
        return
    view.touch(account)


@given(STEPS)
@settings(max_examples=150)
def test_the_lanes_agree_with_a_look_at_everybody(steps: list[tuple[int, tuple[str, float, float], float]]) -> None:
    view, now = view_of(), NOW
    for name, step, wait in steps:
        now += wait
        change(view, name, step, now)
        view.advance(now)
        for model in (SONNET, OPUS):
            decision = select(ask(model=model), view, now)
            scopes = view.scopes(ask().providers[0], model, ask().operation)
            cards = [judge(a, scopes, now, None) for a in view.accounts.values()]
            eligible = [c for c in cards if c.candidate.score is not None]
            assert decision.eligible == len(eligible)
            refused = [c.candidate.refusal for c in cards if c.candidate.refusal is not None]
            assert decision.refused == {r: refused.count(r) for r in set(refused)}
            if eligible and not decision.probe:
                assert decision.account in {c.account.id for c in eligible}
            elif not decision.probe:
                assert decision.account is None


@given(STEPS)
def test_an_order_that_was_kept_is_the_order_made_anew(
    steps: list[tuple[int, tuple[str, float, float], float]],
) -> None:
    view, now = view_of(), NOW
    for name, step, wait in steps:
        now += wait
        change(view, name, step, now)
        view.advance(now)
    view.set_strategy(Strategy.BALANCED)
    view.advance(now)
    fresh = SelectionIndex(
        strategy=Strategy.BALANCED, fit=lambda a, n: None, family=lambda p, m: "opus" if "opus" in m else "s"
    )
    for account in view.accounts.values():
        copy = Account(account.credential, account.options, account.live)
        copy.local, copy.turn = account.local, account.turn
        fresh.put(copy)
        copy.turn = account.turn
    fresh.advance(now)
    mine, theirs = select(ask(model=OPUS), view, now), select(ask(model=OPUS), fresh, now)
    assert (mine.account, mine.refused, mine.eligible) == (theirs.account, theirs.refused, theirs.eligible)


def test_few_of_many_with_a_family_of_their_own_are_judged_apart() -> None:
    view = view_of(*(entry(f"a{n}", week(50.0)) for n in range(5 * SPARSE)))
    for n in range(3):
        account = view.accounts[f"claude:a{n}"]
        what = Fault(FaultKind.QUOTA, FamilyScope("opus"), NOW + HOUR)
        learning.fail(account.live, what, NOW, model=OPUS, operation=Operation.MESSAGES, token="", current="")
        view.touch(account)
    view.advance(NOW)
    decision = select(ask(model=OPUS), view, NOW)
    assert decision.refused == {Refusal.MODEL_EXHAUSTED: 3} and decision.eligible == 5 * SPARSE - 3
    assert decision.account not in {"claude:a0", "claude:a1", "claude:a2"}
    assert len(view.cohort_of("claude:a0").lanes) == 1


def test_names_of_models_that_clients_invent_make_no_lanes() -> None:
    view = view_of(*(entry(f"a{n}") for n in range(3)))
    for n in range(100):
        model = f"invented-{n}"
        account = view.accounts["claude:a0"]
        fault = Fault(FaultKind.NOT_FOUND, ModelScope(model))
        learning.fail(account.live, fault, NOW, model=model, operation=Operation.MESSAGES, token="", current="")
        view.touch(account)
        view.advance(NOW)
        assert select(ask(model=model), view, NOW).account != "claude:a0"
    assert len(view.cohort_of("claude:a0").lanes) <= 16


def test_time_alone_brings_accounts_back() -> None:
    view = view_of(entry("a", window(100.0, HOUR)), entry("b", week(99.9, 2 * HOUR)))
    assert select(ask(), view, NOW).account == "claude:b"
    view.advance(NOW + HOUR)
    assert select(ask(), view, NOW + HOUR).account == "claude:a"
    view.advance(NOW + 3 * HOUR)
    assert select(ask(), view, NOW + 3 * HOUR).eligible == 2


def cost(view: SelectionIndex, rounds: int = 300) -> float:
    """Seconds for one choice with everything around it: the least of several runs."""
    best = 1.0
    now = NOW
    for _ in range(5):
        began = time.thread_time()
        for _ in range(rounds):
            now += 0.01
            view.advance(now)
            account = view.accounts[select(ask(), view, now).account or ""]
            account.local += 1
            view.chosen(account)
        best = min(best, (time.thread_time() - began) / rounds)
    return best


@pytest.mark.parametrize("resting", [0, 1])
def test_ten_thousand_cost_hardly_more_than_ten(resting: int) -> None:
    def made(n: int) -> SelectionIndex:
        view = view_of(*(entry(f"a{i}", window(i % 60), week(i % 97, (i % 7 + 1) * 80_000)) for i in range(n)))
        for account in list(view.accounts.values())[: n // 2 * resting]:
            blame(account.live, Fault(FaultKind.QUOTA, OF_ACCOUNT, NOW + DAY))
            view.touch(account)
        return view

    few, many = made(10), made(10_000)
    many.advance(NOW)
    assert cost(many) < 6 * cost(few) + 50e-6


def test_the_cohorts_of_the_same_providers_follow_every_change() -> None:
    asked = (Provider.CLAUDE, Provider.CODEX)
    view = view_of(entry("a"))
    assert [cohort.provider for cohort in view.cohorts(asked)] == [Provider.CLAUDE]
    view.put(entry("b", provider=Provider.CODEX))
    assert [cohort.provider for cohort in view.cohorts(asked)] == [Provider.CLAUDE, Provider.CODEX]
    view.remove("claude:a")
    assert [cohort.provider for cohort in view.cohorts(asked)] == [Provider.CODEX]
    for number in range(40):  # others' tuples push it out, which changes nothing
        view.cohorts(tuple([Provider.CODEX] * (number + 2)))
    assert [cohort.provider for cohort in view.cohorts(asked)] == [Provider.CODEX]
