"""The choice: who is chosen, who never, and the reasons."""

from __future__ import annotations

import pytest

from pool_server.accounts.health import learning
from pool_server.accounts.health.state import AccountHealth, Cooldown
from pool_server.accounts.health.transitions import StateActor
from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.index import SelectionIndex
from pool_server.accounts.selection.score import IN_FLIGHT_WEIGHT, LATENCY_LIMIT, rate
from pool_server.accounts.selection.select import NO_AFFINITY, Affinity, Decision, SelectionRequest, select
from pool_server.core.enums import ChoiceReason, CredentialKind, FaultKind, Provider, Refusal, Strategy
from pool_server.core.models import OF_ACCOUNT, FamilyScope, Fault, ModelScope, WindowObservation
from tests.accounts.kit import (
    DAY,
    HOUR,
    NOW,
    OPUS,
    SONNET,
    ask,
    blame,
    entry,
    fault,
    quota,
    view_of,
    week,
    window,
)


def pick(
    index: SelectionIndex, asked: SelectionRequest | None = None, held: Affinity = NO_AFFINITY, now: float = NOW
) -> Decision:
    index.advance(now)
    return select(asked or ask(), index, now, held)


def rested(name: str, seconds: float, kind: FaultKind = FaultKind.QUOTA, **facts: object) -> Account:
    account = entry(name, **facts)
    blame(account.health, Fault(kind, OF_ACCOUNT, NOW + seconds))
    return account


def refusals(decision: Decision) -> dict[str, Refusal | None]:
    return {c.account.partition(":")[2]: c.refusal for c in decision.candidates}


def test_more_headroom_wins() -> None:
    index = view_of(entry("full", week(80.0)), entry("roomy", week(20.0)), entry("half", week(50.0)))
    decision = pick(index)
    assert (decision.account, decision.reason) == ("claude:roomy", ChoiceReason.BEST)


def test_room_that_would_be_lost_goes_first() -> None:
    index = view_of(entry("lasting", week(30.0, 6 * DAY)), entry("ending", week(60.0, 6 * HOUR)))
    assert pick(index).account == "claude:ending"


def test_a_short_window_near_its_end_is_spared() -> None:
    index = view_of(entry("near", window(96.0), week(10.0)), entry("far", window(20.0), week(40.0)))
    assert pick(index).account == "claude:far"


def test_each_refused_account_says_why() -> None:
    dead, stopped = entry("dead"), entry("stopped")
    learning.login_lost(dead.health, NOW, "invalid_grant", "t", StateActor.REFRESH)
    blame(stopped.health, fault(FaultKind.SUSPENDED))
    index = view_of(
        entry("off", disabled=True),
        dead,
        stopped,
        rested("cooling", 60, FaultKind.TRANSIENT),
        rested("exhausted", HOUR),
        entry("ended", expires_at=NOW - 1),
        entry("other", provider=Provider.CODEX),
        entry("good", week(50.0)),
    )
    decision = pick(index)
    assert decision.account == "claude:good"
    assert refusals(decision) == {
        "good": None,
        "off": Refusal.DISABLED,
        "dead": Refusal.NEEDS_LOGIN,
        "stopped": Refusal.SUSPENDED,
        "cooling": Refusal.COOLING,
        "exhausted": Refusal.EXHAUSTED,
        "ended": Refusal.EXPIRED,
    }
    assert decision.eligible == 1 and sum(decision.refused.values()) == 6


def test_a_plan_that_lacks_the_model_is_unfit() -> None:
    index = view_of(entry("pro", plan="pro"), entry("max", week(90.0)))
    decision = pick(index, ask(model=OPUS))
    assert decision.account == "claude:max" and decision.refused == {Refusal.PLAN_UNFIT: 1}
    assert pick(index).account == "claude:pro"


def test_nobody_left_names_the_nearest_return() -> None:
    decision = pick(view_of(rested("long", 4 * DAY), rested("short", HOUR), entry("off", disabled=True)))
    assert decision.account is None and decision.retry_at == NOW + HOUR
    assert decision.refused == {Refusal.EXHAUSTED: 2, Refusal.DISABLED: 1}


def test_without_a_return_there_is_none() -> None:
    assert pick(view_of(entry("off", disabled=True))).retry_at is None
    assert (
        pick(SelectionIndex(strategy=Strategy.BALANCED, fit=lambda a, n: None, family=lambda p, m: "")).account is None
    )


def test_a_family_that_rests_leaves_the_others_served() -> None:
    account = entry("one")
    blame(account.health, Fault(FaultKind.QUOTA, FamilyScope("opus"), NOW + HOUR), model=OPUS)
    index = view_of(account)
    assert pick(index).account == "claude:one"
    decision = pick(index, ask(model=OPUS))
    assert decision.refused == {Refusal.MODEL_EXHAUSTED: 1} and decision.retry_at == NOW + HOUR


@pytest.mark.parametrize(
    ("kind", "refusal"),
    [
        (FaultKind.NOT_FOUND, Refusal.MODEL_NOT_SERVED),
        (FaultKind.MODEL_UNSUPPORTED, Refusal.PLAN_UNFIT),
        (FaultKind.RATE, Refusal.RATE_LIMITED),
    ],
)
def test_model_faults_have_their_own_reasons(kind: FaultKind, refusal: Refusal) -> None:
    account = entry("one")
    blame(account.health, fault(kind, ModelScope(SONNET)), model=SONNET)
    decision = pick(view_of(account))
    assert decision.refused == {refusal: 1}
    assert (decision.retry_at is None) == (refusal is not Refusal.RATE_LIMITED)


def test_tried_accounts_are_left_alone() -> None:
    index = view_of(entry("a"), entry("b"))
    decision = pick(index, ask(exclude=frozenset({"claude:a"})))
    assert decision.account == "claude:b" and refusals(decision)["a"] is Refusal.TRIED
    decision = pick(index, ask(exclude=frozenset({"claude:a", "claude:b"})))
    assert decision.account is None and decision.refused == {Refusal.TRIED: 2} and decision.retry_at is None


def test_a_pin_wins_over_more_room() -> None:
    index = view_of(entry("pinned", week(90.0)), entry("roomy", week(1.0)))
    decision = pick(index, held=Affinity("claude:pinned"))
    assert (decision.account, decision.reason) == ("claude:pinned", ChoiceReason.PINNED)


def test_a_short_rest_borrows_another_account() -> None:
    index = view_of(rested("pinned", 60, FaultKind.TRANSIENT), entry("other"))
    assert pick(index, held=Affinity("claude:pinned")).reason is ChoiceReason.BORROWED


def test_a_long_rest_moves_the_conversation() -> None:
    index = view_of(rested("pinned", 3 * HOUR), entry("other"))
    assert pick(index, held=Affinity("claude:pinned")).reason is ChoiceReason.BEST


def test_a_failed_pin_within_the_exchange_borrows() -> None:
    index = view_of(entry("pinned"), entry("other"))
    decision = pick(index, ask(exclude=frozenset({"claude:pinned"})), Affinity("claude:pinned"))
    assert (decision.account, decision.reason) == ("claude:other", ChoiceReason.BORROWED)


def test_a_hard_pin_is_never_moved() -> None:
    index = view_of(entry("owner", week(99.0)), entry("other"))
    decision = pick(index, held=Affinity(None, "claude:owner"))
    assert (decision.account, decision.reason) == ("claude:owner", ChoiceReason.HARD_PIN)
    assert decision.refused == {Refusal.NOT_OWNER: 1}


def test_a_hard_pin_whose_account_is_gone_is_lost() -> None:
    for index in (view_of(rested("owner", HOUR), entry("other")), view_of(entry("other"))):
        decision = pick(index, held=Affinity(None, "claude:owner"))
        assert decision.account is None and decision.hard_lost


def test_a_forced_account_or_none() -> None:
    index = view_of(entry("a"), entry("b", week(99.0)), entry("off", disabled=True))
    decision = pick(index, ask(forced="claude:b"))
    assert (decision.account, decision.reason) == ("claude:b", ChoiceReason.FORCED)
    assert decision.refused == {Refusal.NOT_FORCED: 2}
    assert pick(index, ask(forced="claude:off")).account is None
    assert pick(index, ask(forced="claude:nobody")).account is None


def test_the_lock_sends_everything_of_a_provider_to_one() -> None:
    index = view_of(entry("a"), entry("b", week(90.0)), entry("c", provider=Provider.CODEX))
    index.locked = "claude:b"
    decision = pick(index, held=Affinity("claude:a"))
    assert (decision.account, decision.reason) == ("claude:b", ChoiceReason.LOCKED)
    assert decision.refused == {Refusal.LOCKED: 1}
    assert pick(index, ask(providers=(Provider.CODEX,))).account == "codex:c"


def test_new_conversations_spread() -> None:
    index = view_of(*(entry(f"a{n}", week(50.0)) for n in range(5)))
    chosen = []
    for _ in range(10):
        account = index.accounts[pick(index).account or ""]
        account.local += 1
        index.chosen(account)
        chosen.append(account.id)
    assert all(chosen.count(name) == 2 for name in set(chosen)) and len(set(chosen)) == 5


def test_weight_draws_more() -> None:
    index = view_of(entry("small", week(50.0)), entry("big", week(50.0), weight=3.0))
    chosen = []
    for _ in range(40):
        account = index.accounts[pick(index).account or ""]
        account.local += 1
        index.chosen(account)
        chosen.append(account.id)
    assert 27 <= chosen.count("claude:big") <= 33


def test_lower_priority_numbers_go_first() -> None:
    index = view_of(entry("later", week(1.0)), entry("first", week(90.0), priority=10))
    assert pick(index).account == "claude:first"


def test_api_keys_come_after_subscriptions() -> None:
    index = view_of(entry("key", kind=CredentialKind.API_KEY), entry("sub", week(60.0)))
    assert pick(index).account == "claude:sub"
    index = view_of(entry("key", kind=CredentialKind.API_KEY), rested("sub", HOUR))
    assert pick(index).account == "claude:key"


def test_a_slow_account_loses_new_conversations() -> None:
    slow, quick = entry("slow", week(50.0)), entry("quick", week(55.0))
    slow.health.latency, quick.health.latency = 20.0, 1.0
    slow.health.latency_at = NOW
    index = view_of(slow, quick)
    for _ in range(20):
        index.note_latency(quick, 1.0)
    index.touch(slow)
    decision = pick(index)
    assert decision.account == "claude:quick"
    assert next(c for c in decision.candidates if c.account == "claude:slow").terms["latency"] < 0
    assert pick(index, held=Affinity("claude:slow")).account == "claude:slow"


@pytest.mark.parametrize(("one", "other"), [(0.0, 0.1), (0.102, 0.1), (0.9, 0.1), (1.0, 1.9)])
def test_a_difference_nobody_notices_counts_nothing(one: float, other: float) -> None:
    index = view_of(entry("one", week(50.0)), entry("other", week(50.0)))
    for name, seconds in (("one", one), ("other", other)):
        account = index.accounts[f"claude:{name}"]
        account.health.latency, account.health.latency_at = seconds, NOW
        for _ in range(20):
            index.note_latency(account, seconds)
    assert spread(index) == {"claude:one": 4, "claude:other": 4}


def test_one_late_answer_shuts_no_account_out() -> None:
    index = view_of(entry("one", week(50.0)), entry("other", week(50.0)))
    for name in ("one", "other"):
        account = index.accounts[f"claude:{name}"]
        for seconds in (0.1, 0.1, 30.0 if name == "one" else 0.1, 0.1):
            learning.succeed(account.health, (), seconds, NOW)
            index.note_latency(account, seconds)
        index.touch(account)
    assert spread(index) == {"claude:one": 4, "claude:other": 4}


def test_slowness_is_bounded_and_fades() -> None:
    account = entry("slow", week(50.0))
    account.health.latency, account.health.latency_at = 300.0, NOW
    malus = -rate(account, (), NOW, usual_latency=0.1).terms["latency"]
    assert malus == pytest.approx(LATENCY_LIMIT) and malus < 3 * IN_FLIGHT_WEIGHT
    assert -rate(account, (), NOW + 1200, usual_latency=0.1).terms["latency"] == pytest.approx(malus / 4)


def spread(index: SelectionIndex, n: int = 8) -> dict[str, int]:
    """Who gets the next conversations, one after the other."""
    got: dict[str, int] = {}
    for _ in range(n):
        index.advance(NOW)
        account = pick(index).account
        assert account is not None
        index.chosen(index.accounts[account])
        got[account] = got.get(account, 0) + 1
    return got


def test_recent_faults_cost() -> None:
    shaky = entry("shaky", week(50.0))
    shaky.health.trouble, shaky.health.trouble_at = 3.0, NOW
    index = view_of(shaky, entry("calm", week(52.0)))
    assert pick(index).account == "claude:calm"


def test_what_is_left_is_kept_for_the_owner() -> None:
    index = view_of(entry("anns", week(70.0), owner="ann", reserve=0.4))
    assert pick(index, ask(user="ann")).account == "claude:anns"
    decision = pick(index, ask(user="bob"))
    assert decision.account is None and decision.refused == {Refusal.RESERVED: 1}
    assert decision.retry_at == NOW + 3 * DAY
    roomy = view_of(entry("anns", week(50.0), owner="ann", reserve=0.4))
    assert pick(roomy, ask(user="bob")).account == "claude:anns"


@pytest.mark.parametrize(
    ("others", "returns"),
    [
        ((window(95.0, HOUR),), NOW + HOUR),  # the short window is down to the owner's part, the week is not
        ((window(95.0, HOUR), week(70.0, 2 * DAY)), NOW + 2 * DAY),  # both are: the later reset counts
        ((window(20.0, HOUR), week(10.0, -HOUR), week(90.0, DAY, scope="sonnet")), NOW + DAY),
        ((window(95.0, None),), None),  # nobody knows when
        ((window(95.0, None), week(90.0, DAY)), None),
    ],
)
def test_an_owners_part_ends_with_the_windows_that_are_down_to_it(
    others: tuple[WindowObservation, ...], returns: float | None
) -> None:
    index = view_of(entry("anns", *others, owner="ann", reserve=0.4))
    decision = pick(index, ask(user="bob"))
    assert decision.account is None and decision.refused == {Refusal.RESERVED: 1}
    assert decision.retry_at == returns
    if returns is not None:
        index.advance(returns)
        assert select(ask(user="bob"), index, returns).account == "claude:anns"


def test_a_locked_pool_still_keeps_the_owners_part() -> None:
    index = view_of(entry("anns", week(70.0), owner="ann", reserve=0.4), entry("other"))
    index.locked = "claude:anns"
    assert pick(index, ask(user="ann")).account == "claude:anns"
    decision = pick(index, ask(user="bob"))
    assert decision.account is None and decision.refused == {Refusal.RESERVED: 1, Refusal.LOCKED: 1}
    assert pick(index, ask(user="bob", forced="claude:anns")).account == "claude:anns"


def test_a_draining_account_takes_no_new_conversation_while_others_can() -> None:
    index = view_of(entry("low", week(99.0)), entry("other", week(97.0), priority=900))
    decision = pick(index)
    assert decision.account == "claude:other" and refusals(decision)["low"] is Refusal.DRAINING
    assert pick(index, held=Affinity("claude:low")).account == "claude:low"
    alone = view_of(entry("low", week(99.0)))
    assert pick(alone).account == "claude:low"


def test_a_long_rest_gets_one_half_open_request() -> None:
    index = view_of(rested("resting", 6 * DAY), entry("ready"))
    assert pick(index, now=NOW + HOUR - 1).account == "claude:ready"
    decision = pick(index, now=NOW + HOUR)
    assert (decision.account, decision.reason, decision.probe) == ("claude:resting", ChoiceReason.PROBE, True)
    index.accounts["claude:resting"].health.cooldowns[""].probing = NOW + HOUR
    index.touch(index.accounts["claude:resting"])
    assert pick(index, now=NOW + HOUR).account == "claude:ready"


def test_a_pinned_or_failed_request_is_no_probe() -> None:
    index = view_of(rested("resting", 6 * DAY), entry("ready"), entry("spare"))
    assert not pick(index, held=Affinity("claude:ready"), now=NOW + HOUR).probe
    assert not pick(index, ask(exclude=frozenset({"claude:ready"})), now=NOW + HOUR).probe


def test_when_nobody_else_can_a_rest_is_tested_sooner() -> None:
    index = view_of(rested("resting", 6 * DAY))
    assert pick(index, now=NOW + 299).account is None
    assert pick(index, now=NOW + 300).probe


def test_unknown_windows_are_neither_full_nor_empty() -> None:
    index = view_of(entry("unknown"), entry("ahead", week(90.0)), entry("behind", week(5.0)))
    order = [c.account for c in pick(index).candidates]
    assert order == ["claude:behind", "claude:unknown", "claude:ahead"]


def test_equal_names_of_two_providers_share_nothing() -> None:
    index = view_of(rested("work", HOUR), entry("work", provider=Provider.CODEX))
    assert pick(index).account is None
    assert pick(index, ask(providers=(Provider.CODEX,))).account == "codex:work"


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Strategy.BALANCED, "claude:fresh"),
        (Strategy.FILL_FIRST, "claude:fullest"),
        (Strategy.RESET_FIRST, "claude:soonest"),
        (Strategy.PRIORITY, "claude:first"),
        (Strategy.ROUND_ROBIN, "claude:first"),
    ],
)
def test_strategies(strategy: Strategy, expected: str) -> None:
    same = 100 if strategy is not Strategy.PRIORITY else 5
    index = view_of(
        entry("first", week(50.0, 2 * DAY), priority=same),
        entry("fullest", week(90.0, 3 * DAY)),
        entry("soonest", week(80.0, 1 * DAY)),
        entry("fresh", week(1.0, 3 * DAY)),
        strategy=strategy,
    )
    assert pick(index).account == expected


def test_round_robin_takes_turns_and_weights_them() -> None:
    index = view_of(entry("a"), entry("b", weight=2.0), strategy=Strategy.ROUND_ROBIN)
    chosen = []
    for _ in range(9):
        account = index.accounts[pick(index).account or ""]
        index.chosen(account)
        chosen.append(account.id[-1])
    assert chosen.count("b") == 6


def test_the_record_explains_term_by_term() -> None:
    busy = entry("busy", week(50.0), window(90.0))
    busy.local = 2
    record = pick(view_of(busy, rested("out", HOUR))).record()
    winner, out = record["candidates"]
    assert winner["score"] == pytest.approx(sum(winner["terms"].values()), abs=0.01)
    assert set(winner["terms"]) == {"pace", "room", "in_flight"}
    assert all(value == round(value, 3) for value in winner["terms"].values()) and winner["terms"]["in_flight"] == -0.24
    assert out == {"account": "claude:out", "refusal": "exhausted", "until": NOW + HOUR}
    assert record["refused"] == {"exhausted": 1} and record["reason"] == "best"


def test_a_decision_lists_twenty_of_ten_thousand_and_counts_all() -> None:
    index = view_of(*(entry(f"a{n}", week(n % 90)) for n in range(300)), *(rested(f"r{n}", HOUR) for n in range(300)))
    decision = pick(index)
    assert len(decision.candidates) <= 20 and decision.eligible == 300
    assert decision.refused == {Refusal.EXHAUSTED: 300}


def test_choosing_changes_nothing() -> None:
    index = view_of(entry("a", week(10.0)), entry("b", week(20.0)))
    first = pick(index)
    assert [pick(index) for _ in range(5)] == [first] * 5
    assert index.accounts["claude:a"].health == AccountHealth(windows={"7d": week(10.0)})


def test_a_choice_without_its_explanation_is_the_same_choice() -> None:
    index = view_of(*(entry(name, week(10.0 * at)) for at, name in enumerate("abcd")), rested("r", 60))
    for held in (Affinity(), Affinity(pinned="claude:c"), Affinity(hard="claude:b"), Affinity(pinned="claude:r")):
        told, bare = select(ask(), index, NOW, held), select(ask(), index, NOW, held, explain=False)
        assert (bare.account, bare.reason, bare.pinned, bare.probe) == (
            told.account, told.reason, told.pinned, told.probe,
        )  # fmt: skip
    assert len(told.candidates) > 1 and not bare.candidates
    nobody = view_of(rested("r", 60))
    asked = ask(exclude=frozenset({"claude:x"}))
    assert select(asked, nobody, NOW, explain=False) == select(asked, nobody, NOW)


def test_an_unconfirmed_rest_is_no_secret() -> None:
    account = entry("full", window(100.0))
    decision = pick(view_of(account))
    assert decision.probe and decision.account == "claude:full"
    assert account.health.cooldowns[""] == Cooldown(
        FaultKind.QUOTA, NOW, NOW + HOUR, code="5h", confirmed=False, length_s=HOUR
    )


def test_quota_rest_is_over_at_its_reset() -> None:
    index = view_of(entry("a", week(10.0)))
    blame(index.accounts["claude:a"].health, quota(HOUR))
    index.touch(index.accounts["claude:a"])
    assert pick(index).account is None
    assert pick(index, now=NOW + HOUR).account == "claude:a"
