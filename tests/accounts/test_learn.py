"""What an account learns from faults, answers and observations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.accounts.health import learning, windows
from pool_server.accounts.health.probing import last_resort, probe_due
from pool_server.accounts.health.state import AccountHealth, probe_begun, probe_lost, settle
from pool_server.accounts.health.transitions import StateActor
from pool_server.core.enums import AccountState as S
from pool_server.core.enums import FaultKind as K
from pool_server.core.enums import Operation, Source
from pool_server.core.models import (
    OF_ACCOUNT,
    OF_PROVIDER,
    OF_REQUEST,
    FamilyScope,
    Fault,
    ModelScope,
    WindowObservation,
)
from tests.accounts.kit import DAY, HOUR, NOW, SONNET, fault, quota, week, window

ROOMY = window(12.0, source=Source.USAGE_ENDPOINT)


def fail(health: AccountHealth, what: Fault, now: float = NOW, *, token: str = "t1", current: str = "t1") -> bool:
    return learning.fail(health, what, now, model=SONNET, operation=Operation.MESSAGES, token=token, current=current)


def state(health: AccountHealth) -> S:
    return health.state


def until(health: AccountHealth, scope: str = "") -> float:
    return health.cooldowns[scope].until - NOW


def test_used_up_cools_as_long_as_told_for_the_whole_account() -> None:
    health = AccountHealth()
    fail(health, quota(9876.0))
    assert (health.state, until(health)) == (S.EXHAUSTED, 9876.0)
    settle(health, NOW + 9875)
    assert state(health) is S.EXHAUSTED
    settle(health, NOW + 9876)
    assert state(health) is S.READY


def test_after_a_long_rest_accounts_ease_back_apart() -> None:
    first, second = AccountHealth(jitter=0.1), AccountHealth(jitter=0.9)
    for health in (first, second):
        fail(health, quota(9876.0))
        settle(health, NOW + 9876)
    assert NOW + 9877 < first.easing_until < second.easing_until < NOW + 9876 + 31


def test_concurrent_refusals_escalate_once_and_later_ones_again() -> None:
    health, now, spans = AccountHealth(), NOW, []
    for _ in range(4):
        for _ in range(10):
            fail(health, fault(K.RATE), now)
        spans.append(health.cooldowns[""].until - now)
        now = health.cooldowns[""].until + 0.5
        settle(health, now)
    assert spans == [1.0, 2.0, 4.0, 8.0]


def test_an_answer_ends_the_escalation() -> None:
    health = AccountHealth()
    fail(health, fault(K.TRANSIENT))
    fail(health, fault(K.TRANSIENT), NOW + 3)
    assert health.cooldowns[""].level == 1
    learning.succeed(health, (SONNET,), 1.0, NOW + 8)
    assert state(health) is S.READY and not health.cooldowns


@given(st.integers(0, 60))
def test_the_ladder_has_a_top(times: int) -> None:
    health, now = AccountHealth(), NOW
    for _ in range(times):
        fail(health, fault(K.RATE), now)
        assert health.cooldowns[""].until - now <= 1800
        now = health.cooldowns[""].until
        settle(health, now)


@pytest.mark.parametrize("kind", [K.REQUEST, K.ENCRYPTED_CONTENT, K.CONTINUATION, K.CLIENT_GONE])
def test_nobody_is_blamed_for_the_clients_own(kind: K) -> None:
    health = AccountHealth()
    assert not fail(health, fault(kind))
    assert health == AccountHealth()


def test_overload_rests_nobody() -> None:
    health = AccountHealth()
    fail(health, fault(K.OVERLOAD))
    assert state(health) is S.READY and not health.cooldowns and health.last_fault is not None


def test_the_pools_own_dead_line_rests_nobody() -> None:
    health = AccountHealth()
    fail(health, fault(K.NETWORK, OF_PROVIDER))
    assert state(health) is S.READY and health.trouble == 0.0 and health.last_fault is not None


def test_a_challenge_rests_ten_seconds_then_twice_as_long() -> None:
    health = AccountHealth()
    fail(health, fault(K.CHALLENGE))
    assert (health.state, until(health)) == (S.COOLING, 10.0)
    settle(health, NOW + 10)
    fail(health, fault(K.CHALLENGE), NOW + 11)
    assert health.cooldowns[""].until == NOW + 31


def test_a_refused_login_rests_half_an_hour_then_needs_a_sign_in() -> None:
    health = AccountHealth()
    fail(health, fault(K.AUTH))
    assert (health.state, until(health)) == (S.COOLING, 1800.0)
    settle(health, NOW + 1801)
    fail(health, fault(K.AUTH), NOW + 1802)
    assert (health.state, health.token, health.actor) == (S.NEEDS_LOGIN, "t1", StateActor.PROVIDER)


def test_a_late_failure_of_an_old_token_cannot_kill_a_new_one() -> None:
    health = AccountHealth()
    assert not fail(health, fault(K.AUTH), token="old", current="new")
    assert state(health) is S.READY


def test_a_suspension_stops_the_account_at_once_and_for_good() -> None:
    health = AccountHealth()
    fail(health, fault(K.SUSPENDED, message="This organization has been disabled."))
    settle(health, NOW + 90 * DAY)
    assert state(health) is S.SUSPENDED and "disabled" in health.reason


def test_what_the_owner_must_do_needs_a_login() -> None:
    health = AccountHealth()
    fail(health, fault(K.NEEDS_USER, message="Verify your account"))
    assert (health.state, health.reason) == (S.NEEDS_LOGIN, "Verify your account")


def test_a_model_fault_leaves_the_account_ready() -> None:
    health = AccountHealth()
    fail(health, Fault(K.QUOTA, FamilyScope("opus"), NOW + HOUR))
    assert state(health) is S.READY and until(health, "opus") == HOUR
    learning.succeed(health, ("sonnet", SONNET), 1.0, NOW + 1)
    assert "opus" in health.cooldowns


def test_an_unknown_model_rests_that_model_for_half_a_day() -> None:
    health = AccountHealth()
    fail(health, Fault(K.NOT_FOUND, ModelScope("gpt-9")))
    assert until(health, "messages:gpt-9") == 12 * HOUR


def test_a_lie_of_eighteen_days_is_cut_and_room_ends_the_rest() -> None:
    health = AccountHealth()
    learning.absorb(health, [window(40.0, 2 * HOUR), week(60.0, 4 * DAY)], NOW)
    fail(health, quota(18 * DAY))
    assert until(health) == 2 * HOUR
    seen = [
        window(41.0, 2 * HOUR, source=Source.USAGE_ENDPOINT, at=NOW + 90),
        week(60.0, 4 * DAY, source=Source.USAGE_ENDPOINT, at=NOW + 90),
    ]
    learning.absorb(health, seen, NOW + 90)
    assert (health.state, health.actor) == (S.READY, StateActor.USAGE)


def test_a_cooldown_clears_when_the_usage_endpoint_shows_room() -> None:
    health = AccountHealth()
    fail(health, quota(9876.0))
    learning.absorb(health, [ROOMY], NOW)
    assert state(health) is S.READY and not health.cooldowns


def test_a_lagging_usage_endpoint_does_not_clear_a_fresh_refusal() -> None:
    health = AccountHealth()
    fail(health, quota(9876.0))
    learning.absorb(health, [window(96.0, source=Source.USAGE_ENDPOINT, at=NOW + 5)], NOW + 5)
    assert state(health) is S.EXHAUSTED
    learning.absorb(health, [window(96.0, source=Source.USAGE_ENDPOINT, at=NOW + 65)], NOW + 65)
    assert state(health) is S.READY


def test_a_full_poll_stops_no_working_account() -> None:
    health = AccountHealth()
    learning.absorb(health, [window(100.0, source=Source.USAGE_ENDPOINT)], NOW)
    assert state(health) is S.DRAINING and not health.cooldowns


def test_a_full_window_in_real_traffic_does_and_its_reset_frees() -> None:
    health = AccountHealth()
    learning.absorb(health, [window(100.0), week(30.0)], NOW)
    assert (health.state, until(health)) == (S.EXHAUSTED, HOUR)
    settle(health, NOW + HOUR)
    assert state(health) is S.READY


def test_an_early_reset_seen_in_traffic_frees_too() -> None:
    health = AccountHealth()
    learning.absorb(health, [window(100.0)], NOW)
    learning.absorb(health, [window(2.0, 5 * HOUR, at=NOW + 60)], NOW + 60)
    assert state(health) is S.READY


def test_hardly_any_room_drains_and_a_reset_frees() -> None:
    health = AccountHealth()
    learning.absorb(health, [window(99.5)], NOW)
    assert state(health) is S.DRAINING
    settle(health, NOW + HOUR)
    assert state(health) is S.READY


def test_an_answer_of_an_older_stream_does_not_end_a_quota_rest() -> None:
    health = AccountHealth()
    fail(health, quota(9876.0))
    learning.succeed(health, (SONNET,), 1.0, NOW + 5)
    assert state(health) is S.EXHAUSTED


def test_a_long_rest_is_probed_after_an_hour_then_every_twenty_minutes() -> None:
    health = AccountHealth()
    fail(health, quota(6 * DAY))
    assert probe_due(health, (), NOW) == NOW + HOUR
    assert probe_begun(health, "", NOW + HOUR) and state(health) is S.PROBING
    fail(health, quota(6 * DAY), NOW + HOUR + 2)
    assert state(health) is S.EXHAUSTED
    assert probe_due(health, (), NOW + HOUR + 2) == NOW + HOUR + 2 + 1200


def test_a_probe_that_is_answered_ends_the_rest() -> None:
    health = AccountHealth()
    fail(health, quota(6 * DAY))
    probe_begun(health, "", NOW + HOUR)
    learning.succeed(health, (SONNET,), 1.0, NOW + HOUR + 1)
    assert state(health) is S.READY and not health.cooldowns


def test_a_probe_whose_client_left_goes_back_to_rest() -> None:
    health = AccountHealth()
    fail(health, quota(6 * DAY))
    probe_begun(health, "", NOW + HOUR)
    assert probe_lost(health, "", NOW + HOUR + 1)
    assert state(health) is S.EXHAUSTED and not probe_lost(health, "", NOW + HOUR + 1)


def test_a_probe_whose_worker_died_goes_back_to_rest() -> None:
    health = AccountHealth()
    fail(health, quota(6 * DAY))
    probe_begun(health, "", NOW + HOUR)
    settle(health, NOW + HOUR + 601)
    assert state(health) is S.EXHAUSTED


def test_a_short_rest_is_waited_out() -> None:
    health = AccountHealth()
    fail(health, quota(300.0))
    assert probe_due(health, (), NOW) is None and not last_resort(health, (), NOW + 200)


def test_the_usage_endpoint_counts_as_a_probe_when_it_confirms() -> None:
    health = AccountHealth()
    fail(health, quota(6 * DAY))
    learning.absorb(health, [week(100.0, 6 * DAY, source=Source.USAGE_ENDPOINT, at=NOW + 3500)], NOW + 3500)
    assert state(health) is S.EXHAUSTED and probe_due(health, (), NOW + HOUR) == NOW + 3500 + 1200


def test_paid_extra_use_goes_on_past_a_full_window() -> None:
    health = AccountHealth()
    learning.absorb(health, [window(102.0)], NOW)
    assert state(health) is S.EXHAUSTED and last_resort(health, (), NOW + 1)
    probe_begun(health, "", NOW + 1)
    learning.succeed(health, (SONNET,), 1.0, NOW + 2)
    learning.absorb(health, [window(103.0, HOUR - 3, at=NOW + 3)], NOW + 3)
    assert state(health) is S.READY
    fail(health, quota(HOUR - 10), NOW + 10)
    assert state(health) is S.EXHAUSTED


def test_the_operator_frees_everything() -> None:
    health = AccountHealth()
    learning.absorb(health, [window(100.0)], NOW)
    fail(health, Fault(K.QUOTA, FamilyScope("opus"), NOW + HOUR))
    learning.reset(health, NOW)
    assert state(health) is S.READY and not health.cooldowns and health.actor is StateActor.OPERATOR


def test_a_new_login_frees_a_dead_account() -> None:
    health = AccountHealth()
    learning.login_lost(health, NOW, "invalid_grant", "t1", StateActor.REFRESH)
    assert state(health) is S.NEEDS_LOGIN
    learning.new_login(health, NOW + 5)
    assert state(health) is S.READY and health.token == ""


def test_trouble_halves_every_ten_minutes() -> None:
    health = AccountHealth()
    for _ in range(4):
        fail(health, fault(K.TRANSIENT))
    assert learning.trouble(health, NOW) == pytest.approx(4.0)
    assert learning.trouble(health, NOW + 1200) == pytest.approx(1.0)


def test_latency_is_the_median_of_what_was_seen_lately() -> None:
    health = AccountHealth()
    for seconds in (0.1, 0.1):
        learning.succeed(health, (), seconds, NOW)
    assert health.latency is None, "two answers are no habit"
    learning.succeed(health, (), 60.0, NOW)
    assert health.latency == pytest.approx(0.1), "one late answer is none"
    for _ in range(3):
        learning.succeed(health, (), 6.0, NOW)
    assert health.latency == pytest.approx(6.0)


def test_an_unknown_first_byte_teaches_nothing() -> None:
    health = AccountHealth()
    for _ in range(9):
        assert not learning.succeed(health, (), None, NOW)
    assert health == AccountHealth()


FAULTS = st.builds(
    Fault,
    st.sampled_from(list(K)),
    st.sampled_from([OF_REQUEST, OF_ACCOUNT, OF_PROVIDER, ModelScope(SONNET), FamilyScope("opus")]),
    st.none() | st.floats(NOW - DAY, NOW + 40 * DAY),
)
STEPS = st.lists(
    st.tuples(
        st.one_of(
            FAULTS,
            st.floats(0, 130).map(lambda used: window(used, 5 * HOUR)),
            st.floats(0, 130).map(lambda used: week(used, source=Source.USAGE_ENDPOINT)),
            st.just("answered"),
            st.just("probe"),
        ),
        st.floats(0, 2 * HOUR),
    ),
    max_size=25,
)


@given(STEPS)
def test_no_rest_outlives_the_longest_window_whatever_happens(steps: list[tuple[object, float]]) -> None:
    health, now = AccountHealth(), NOW
    for what, wait in steps:
        now += wait
        if isinstance(what, Fault):
            fail(health, what, now)
        elif what == "answered":
            learning.succeed(health, ("sonnet", SONNET), 1.0, now)
        elif what == "probe":
            probe_begun(health, "", now)
        else:
            learning.absorb(health, [what], now)  # type: ignore[list-item]
        assert all(cooldown.until <= now + 7 * DAY + 1 for cooldown in health.cooldowns.values())
    settle(health, now + 8 * DAY)
    assert health.state in (S.READY, S.NEEDS_LOGIN, S.SUSPENDED)


WINDOWS = st.lists(
    st.builds(
        window,
        st.one_of(st.floats(0, 98.99), st.sampled_from([98.0, 99.0, 99.5])),
        st.sampled_from([None, HOUR, 3 * DAY]),
        name=st.sampled_from(["5h", "7d", "1m", "credits"]),
        seconds=st.sampled_from([0, 60, 5 * HOUR, 7 * DAY]),
        scope=st.sampled_from(["", "opus"]),
    ),
    max_size=4,
)


@given(WINDOWS, st.sampled_from([0.0, 2 * HOUR, 8 * DAY]), st.sampled_from([S.READY, S.DRAINING]))
def test_an_account_drains_while_its_own_lasting_windows_leave_a_percent(
    seen: list[WindowObservation], later: float, first: S
) -> None:
    health = AccountHealth(state=first, windows={f"{w.window}/{w.scope}": w for w in seen})
    own = [w for w in health.windows.values() if not w.scope and w.window != "credits" and w.seconds != 60]
    room = windows.room(own, NOW + later)
    wanted = S.DRAINING if room is not None and room <= 1.0 else S.READY
    assert settle(health, NOW + later) is (wanted is not first) and state(health) is wanted


def contrast(health: AccountHealth, what: Fault, now: float = NOW) -> bool:
    return learning.contrast(health, what, now, model=SONNET, operation=Operation.MESSAGES, token="t1", current="t1")


SCOPE = f"messages:{SONNET}"


def test_what_others_serve_is_held_against_a_model_after_three_times() -> None:
    health = AccountHealth()
    for _ in range(2):
        contrast(health, fault(K.PERMISSION))
    assert not health.cooldowns and state(health) is S.READY
    contrast(health, fault(K.PERMISSION))
    assert (health.state, until(health, SCOPE)) == (S.READY, 1800.0)
    assert not health.doubts


def test_an_answer_in_between_disproves_the_doubt() -> None:
    health = AccountHealth()
    for _ in range(5):
        contrast(health, fault(K.PERMISSION))
        contrast(health, fault(K.PERMISSION))
        learning.succeed(health, (SCOPE,), 1.0, NOW)
    assert not health.cooldowns and not health.doubts


def test_doubts_of_another_hour_do_not_add_up() -> None:
    health = AccountHealth()
    for n in range(8):
        contrast(health, fault(K.PERMISSION), NOW + n * 2000)
    assert not health.cooldowns


def test_a_server_error_counts_once_another_account_served_the_same() -> None:
    health = AccountHealth()
    contrast(health, fault(K.TRANSIENT, OF_REQUEST))
    assert until(health, SCOPE) == 2.0


def test_a_fault_without_a_name_cools_nothing() -> None:
    health = AccountHealth()
    for kind in (K.RATE, K.TRANSIENT, K.NOT_FOUND, K.MODEL_UNSUPPORTED, K.PLAN, K.CLIENT):
        fail(health, fault(kind, OF_REQUEST))
    assert (health.state, health.cooldowns, health.trouble) == (S.READY, {}, 0.0)
    for name in ("",):
        with pytest.raises(ValueError, match="names the model"):
            ModelScope(name)


def test_a_model_rests_in_the_operation_that_was_refused() -> None:
    health = AccountHealth()
    learning.fail(
        health,
        fault(K.RATE, ModelScope("claude-opus-4-1")),
        NOW,
        model="claude-opus-4-1",
        operation=Operation.COUNT_TOKENS,
        token="",
        current="",
    )
    assert list(health.cooldowns) == ["count_tokens:claude-opus-4-1"]


@given(st.lists(st.text(min_size=1, max_size=8), max_size=200))
def test_invented_models_fill_no_memory(names: list[str]) -> None:
    health = AccountHealth()
    for name in names:
        fail(health, fault(K.NOT_FOUND, ModelScope(name)))
        learning.contrast(health, fault(K.PERMISSION), NOW, model=name, operation=Operation.CHAT, token="", current="")
    assert len(health.cooldowns) <= learning.SCOPES_KEPT
    assert len(health.doubts) <= learning.DOUBTS_KEPT


def test_a_refusal_that_a_second_account_shares_is_taken_back() -> None:
    health = AccountHealth()
    fail(health, fault(K.AUTH, bare=True), NOW + 5)
    assert state(health) is S.COOLING
    assert not learning.acquit(health, K.AUTH, NOW + 6, NOW + 7), "an older one stays"
    assert learning.acquit(health, K.AUTH, NOW, NOW + 7)
    assert (health.state, health.cooldowns) == (S.READY, {})
    fail(health, fault(K.AUTH), NOW + 8)
    assert not learning.acquit(health, K.AUTH, NOW, NOW + 9), "the provider named the credential"


@pytest.mark.parametrize("told", [77.0, 61.0, 400.0])
def test_a_given_wait_beats_a_window_whose_length_is_assumed(told: float) -> None:
    health = AccountHealth()
    minute = window(100.0, 60.0, name="requests", seconds=60.0, scope=SONNET, source=Source.ERROR)
    fail(health, Fault(K.RATE, ModelScope(SONNET), NOW + told, status=429, windows=(minute,)))
    assert until(health, SCOPE) == told
