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


def fail(live: AccountHealth, what: Fault, now: float = NOW, *, token: str = "t1", current: str = "t1") -> bool:
    return learning.fail(live, what, now, model=SONNET, operation=Operation.MESSAGES, token=token, current=current)


def state(live: AccountHealth) -> S:
    return live.state


def until(live: AccountHealth, scope: str = "") -> float:
    return live.rests[scope].until - NOW


def test_used_up_cools_as_long_as_told_for_the_whole_account() -> None:
    live = AccountHealth()
    fail(live, quota(9876.0))
    assert (live.state, until(live)) == (S.EXHAUSTED, 9876.0)
    settle(live, NOW + 9875)
    assert state(live) is S.EXHAUSTED
    settle(live, NOW + 9876)
    assert state(live) is S.READY


def test_after_a_long_rest_accounts_ease_back_apart() -> None:
    first, second = AccountHealth(jitter=0.1), AccountHealth(jitter=0.9)
    for live in (first, second):
        fail(live, quota(9876.0))
        settle(live, NOW + 9876)
    assert NOW + 9877 < first.easing_until < second.easing_until < NOW + 9876 + 31


def test_concurrent_refusals_escalate_once_and_later_ones_again() -> None:
    live, now, spans = AccountHealth(), NOW, []
    for _ in range(4):
        for _ in range(10):
            fail(live, fault(K.RATE), now)
        spans.append(live.rests[""].until - now)
        now = live.rests[""].until + 0.5
        settle(live, now)
    assert spans == [1.0, 2.0, 4.0, 8.0]


def test_an_answer_ends_the_escalation() -> None:
    live = AccountHealth()
    fail(live, fault(K.TRANSIENT))
    fail(live, fault(K.TRANSIENT), NOW + 3)
    assert live.rests[""].level == 1
    learning.succeed(live, (SONNET,), 1.0, NOW + 8)
    assert state(live) is S.READY and not live.rests


@given(st.integers(0, 60))
def test_the_ladder_has_a_top(times: int) -> None:
    live, now = AccountHealth(), NOW
    for _ in range(times):
        fail(live, fault(K.RATE), now)
        assert live.rests[""].until - now <= 1800
        now = live.rests[""].until
        settle(live, now)


@pytest.mark.parametrize("kind", [K.REQUEST, K.ENCRYPTED_CONTENT, K.CONTINUATION, K.CLIENT_GONE])
def test_nobody_is_blamed_for_the_clients_own(kind: K) -> None:
    live = AccountHealth()
    assert not fail(live, fault(kind))
    assert live == AccountHealth()


def test_overload_rests_nobody() -> None:
    live = AccountHealth()
    fail(live, fault(K.OVERLOAD))
    assert state(live) is S.READY and not live.rests and live.last_fault is not None


def test_the_pools_own_dead_line_rests_nobody() -> None:
    live = AccountHealth()
    fail(live, fault(K.NETWORK, OF_PROVIDER))
    assert state(live) is S.READY and live.trouble == 0.0 and live.last_fault is not None


def test_a_challenge_rests_ten_seconds_then_twice_as_long() -> None:
    live = AccountHealth()
    fail(live, fault(K.CHALLENGE))
    assert (live.state, until(live)) == (S.COOLING, 10.0)
    settle(live, NOW + 10)
    fail(live, fault(K.CHALLENGE), NOW + 11)
    assert live.rests[""].until == NOW + 31


def test_a_refused_login_rests_half_an_hour_then_needs_a_sign_in() -> None:
    live = AccountHealth()
    fail(live, fault(K.AUTH))
    assert (live.state, until(live)) == (S.COOLING, 1800.0)
    settle(live, NOW + 1801)
    fail(live, fault(K.AUTH), NOW + 1802)
    assert (live.state, live.token, live.actor) == (S.NEEDS_LOGIN, "t1", StateActor.PROVIDER)


def test_a_late_failure_of_an_old_token_cannot_kill_a_new_one() -> None:
    live = AccountHealth()
    assert not fail(live, fault(K.AUTH), token="old", current="new")
    assert state(live) is S.READY


def test_a_suspension_stops_the_account_at_once_and_for_good() -> None:
    live = AccountHealth()
    fail(live, fault(K.SUSPENDED, message="This organization has been disabled."))
    settle(live, NOW + 90 * DAY)
    assert state(live) is S.SUSPENDED and "disabled" in live.reason


def test_what_the_owner_must_do_needs_a_login() -> None:
    live = AccountHealth()
    fail(live, fault(K.NEEDS_USER, message="Verify your account"))
    assert (live.state, live.reason) == (S.NEEDS_LOGIN, "Verify your account")


def test_a_model_fault_leaves_the_account_ready() -> None:
    live = AccountHealth()
    fail(live, Fault(K.QUOTA, FamilyScope("opus"), NOW + HOUR))
    assert state(live) is S.READY and until(live, "opus") == HOUR
    learning.succeed(live, ("sonnet", SONNET), 1.0, NOW + 1)
    assert "opus" in live.rests


def test_an_unknown_model_rests_that_model_for_half_a_day() -> None:
    live = AccountHealth()
    fail(live, Fault(K.NOT_FOUND, ModelScope("gpt-9")))
    assert until(live, "messages:gpt-9") == 12 * HOUR


def test_a_lie_of_eighteen_days_is_cut_and_room_ends_the_rest() -> None:
    live = AccountHealth()
    learning.absorb(live, [window(40.0, 2 * HOUR), week(60.0, 4 * DAY)], NOW)
    fail(live, quota(18 * DAY))
    assert until(live) == 2 * HOUR
    seen = [
        window(41.0, 2 * HOUR, source=Source.USAGE_ENDPOINT, at=NOW + 90),
        week(60.0, 4 * DAY, source=Source.USAGE_ENDPOINT, at=NOW + 90),
    ]
    learning.absorb(live, seen, NOW + 90)
    assert (live.state, live.actor) == (S.READY, StateActor.USAGE)


def test_a_cooldown_clears_when_the_usage_endpoint_shows_room() -> None:
    live = AccountHealth()
    fail(live, quota(9876.0))
    learning.absorb(live, [ROOMY], NOW)
    assert state(live) is S.READY and not live.rests


def test_a_lagging_usage_endpoint_does_not_clear_a_fresh_refusal() -> None:
    live = AccountHealth()
    fail(live, quota(9876.0))
    learning.absorb(live, [window(96.0, source=Source.USAGE_ENDPOINT, at=NOW + 5)], NOW + 5)
    assert state(live) is S.EXHAUSTED
    learning.absorb(live, [window(96.0, source=Source.USAGE_ENDPOINT, at=NOW + 65)], NOW + 65)
    assert state(live) is S.READY


def test_a_full_poll_stops_no_working_account() -> None:
    live = AccountHealth()
    learning.absorb(live, [window(100.0, source=Source.USAGE_ENDPOINT)], NOW)
    assert state(live) is S.DRAINING and not live.rests


def test_a_full_window_in_real_traffic_does_and_its_reset_frees() -> None:
    live = AccountHealth()
    learning.absorb(live, [window(100.0), week(30.0)], NOW)
    assert (live.state, until(live)) == (S.EXHAUSTED, HOUR)
    settle(live, NOW + HOUR)
    assert state(live) is S.READY


def test_an_early_reset_seen_in_traffic_frees_too() -> None:
    live = AccountHealth()
    learning.absorb(live, [window(100.0)], NOW)
    learning.absorb(live, [window(2.0, 5 * HOUR, at=NOW + 60)], NOW + 60)
    assert state(live) is S.READY


def test_hardly_any_room_drains_and_a_reset_frees() -> None:
    live = AccountHealth()
    learning.absorb(live, [window(99.5)], NOW)
    assert state(live) is S.DRAINING
    settle(live, NOW + HOUR)
    assert state(live) is S.READY


def test_an_answer_of_an_older_stream_does_not_end_a_quota_rest() -> None:
    live = AccountHealth()
    fail(live, quota(9876.0))
    learning.succeed(live, (SONNET,), 1.0, NOW + 5)
    assert state(live) is S.EXHAUSTED


def test_a_long_rest_is_probed_after_an_hour_then_every_twenty_minutes() -> None:
    live = AccountHealth()
    fail(live, quota(6 * DAY))
    assert probe_due(live, (), NOW) == NOW + HOUR
    assert probe_begun(live, "", NOW + HOUR) and state(live) is S.PROBING
    fail(live, quota(6 * DAY), NOW + HOUR + 2)
    assert state(live) is S.EXHAUSTED
    assert probe_due(live, (), NOW + HOUR + 2) == NOW + HOUR + 2 + 1200


def test_a_probe_that_is_answered_ends_the_rest() -> None:
    live = AccountHealth()
    fail(live, quota(6 * DAY))
    probe_begun(live, "", NOW + HOUR)
    learning.succeed(live, (SONNET,), 1.0, NOW + HOUR + 1)
    assert state(live) is S.READY and not live.rests


def test_a_probe_whose_client_left_goes_back_to_rest() -> None:
    live = AccountHealth()
    fail(live, quota(6 * DAY))
    probe_begun(live, "", NOW + HOUR)
    assert probe_lost(live, "", NOW + HOUR + 1)
    assert state(live) is S.EXHAUSTED and not probe_lost(live, "", NOW + HOUR + 1)


def test_a_probe_whose_worker_died_goes_back_to_rest() -> None:
    live = AccountHealth()
    fail(live, quota(6 * DAY))
    probe_begun(live, "", NOW + HOUR)
    settle(live, NOW + HOUR + 601)
    assert state(live) is S.EXHAUSTED


def test_a_short_rest_is_waited_out() -> None:
    live = AccountHealth()
    fail(live, quota(300.0))
    assert probe_due(live, (), NOW) is None and not last_resort(live, (), NOW + 200)


def test_the_usage_endpoint_counts_as_a_probe_when_it_confirms() -> None:
    live = AccountHealth()
    fail(live, quota(6 * DAY))
    learning.absorb(live, [week(100.0, 6 * DAY, source=Source.USAGE_ENDPOINT, at=NOW + 3500)], NOW + 3500)
    assert state(live) is S.EXHAUSTED and probe_due(live, (), NOW + HOUR) == NOW + 3500 + 1200


def test_paid_extra_use_goes_on_past_a_full_window() -> None:
    live = AccountHealth()
    learning.absorb(live, [window(102.0)], NOW)
    assert state(live) is S.EXHAUSTED and last_resort(live, (), NOW + 1)
    probe_begun(live, "", NOW + 1)
    learning.succeed(live, (SONNET,), 1.0, NOW + 2)
    learning.absorb(live, [window(103.0, HOUR - 3, at=NOW + 3)], NOW + 3)
    assert state(live) is S.READY
    fail(live, quota(HOUR - 10), NOW + 10)
    assert state(live) is S.EXHAUSTED


def test_the_operator_frees_everything() -> None:
    live = AccountHealth()
    learning.absorb(live, [window(100.0)], NOW)
    fail(live, Fault(K.QUOTA, FamilyScope("opus"), NOW + HOUR))
    learning.reset(live, NOW)
    assert state(live) is S.READY and not live.rests and live.actor is StateActor.OPERATOR


def test_a_new_login_frees_a_dead_account() -> None:
    live = AccountHealth()
    learning.login_lost(live, NOW, "invalid_grant", "t1", StateActor.REFRESH)
    assert state(live) is S.NEEDS_LOGIN
    learning.new_login(live, NOW + 5)
    assert state(live) is S.READY and live.token == ""


def test_trouble_halves_every_ten_minutes() -> None:
    live = AccountHealth()
    for _ in range(4):
        fail(live, fault(K.TRANSIENT))
    assert learning.trouble(live, NOW) == pytest.approx(4.0)
    assert learning.trouble(live, NOW + 1200) == pytest.approx(1.0)


def test_latency_is_the_median_of_what_was_seen_lately() -> None:
    live = AccountHealth()
    for seconds in (0.1, 0.1):
        learning.succeed(live, (), seconds, NOW)
    assert live.latency is None, "two answers are no habit"
    learning.succeed(live, (), 60.0, NOW)
    assert live.latency == pytest.approx(0.1), "one late answer is none"
    for _ in range(3):
        learning.succeed(live, (), 6.0, NOW)
    assert live.latency == pytest.approx(6.0)


def test_an_unknown_first_byte_teaches_nothing() -> None:
    live = AccountHealth()
    for _ in range(9):
        assert not learning.succeed(live, (), None, NOW)
    assert live == AccountHealth()


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
    live, now = AccountHealth(), NOW
    for what, wait in steps:
        now += wait
        if isinstance(what, Fault):
            fail(live, what, now)
        elif what == "answered":
            learning.succeed(live, ("sonnet", SONNET), 1.0, now)
        elif what == "probe":
            probe_begun(live, "", now)
        else:
            learning.absorb(live, [what], now)  # type: ignore[list-item]
        assert all(rest.until <= now + 7 * DAY + 1 for rest in live.rests.values())
    settle(live, now + 8 * DAY)
    assert live.state in (S.READY, S.NEEDS_LOGIN, S.SUSPENDED)


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
    live = AccountHealth(state=first, windows={f"{w.window}/{w.scope}": w for w in seen})
    own = [w for w in live.windows.values() if not w.scope and w.window != "credits" and w.seconds != 60]
    room = windows.room(own, NOW + later)
    wanted = S.DRAINING if room is not None and room <= 1.0 else S.READY
    assert settle(live, NOW + later) is (wanted is not first) and state(live) is wanted


def contrast(live: AccountHealth, what: Fault, now: float = NOW) -> bool:
    return learning.contrast(live, what, now, model=SONNET, operation=Operation.MESSAGES, token="t1", current="t1")


SCOPE = f"messages:{SONNET}"


def test_what_others_serve_is_held_against_a_model_after_three_times() -> None:
    live = AccountHealth()
    for _ in range(2):
        contrast(live, fault(K.PERMISSION))
    assert not live.rests and state(live) is S.READY
    contrast(live, fault(K.PERMISSION))
    assert (live.state, until(live, SCOPE)) == (S.READY, 1800.0)
    assert not live.doubts


def test_an_answer_in_between_disproves_the_doubt() -> None:
    live = AccountHealth()
    for _ in range(5):
        contrast(live, fault(K.PERMISSION))
        contrast(live, fault(K.PERMISSION))
        learning.succeed(live, (SCOPE,), 1.0, NOW)
    assert not live.rests and not live.doubts


def test_doubts_of_another_hour_do_not_add_up() -> None:
    live = AccountHealth()
    for n in range(8):
        contrast(live, fault(K.PERMISSION), NOW + n * 2000)
    assert not live.rests


def test_a_server_error_counts_once_another_account_served_the_same() -> None:
    live = AccountHealth()
    contrast(live, fault(K.TRANSIENT, OF_REQUEST))
    assert until(live, SCOPE) == 2.0


def test_a_fault_without_a_name_cools_nothing() -> None:
    live = AccountHealth()
    for kind in (K.RATE, K.TRANSIENT, K.NOT_FOUND, K.MODEL_UNSUPPORTED, K.PLAN, K.CLIENT):
        fail(live, fault(kind, OF_REQUEST))
    assert (live.state, live.rests, live.trouble) == (S.READY, {}, 0.0)
    for name in ("",):
        with pytest.raises(ValueError, match="names the model"):
            ModelScope(name)


def test_a_model_rests_in_the_operation_that_was_refused() -> None:
    live = AccountHealth()
    learning.fail(
        live,
        fault(K.RATE, ModelScope("claude-opus-4-1")),
        NOW,
        model="claude-opus-4-1",
        operation=Operation.COUNT_TOKENS,
        token="",
        current="",
    )
    assert list(live.rests) == ["count_tokens:claude-opus-4-1"]


@given(st.lists(st.text(min_size=1, max_size=8), max_size=200))
def test_invented_models_fill_no_memory(names: list[str]) -> None:
    live = AccountHealth()
    for name in names:
        fail(live, fault(K.NOT_FOUND, ModelScope(name)))
        learning.contrast(live, fault(K.PERMISSION), NOW, model=name, operation=Operation.CHAT, token="", current="")
    assert len(live.rests) <= learning.SCOPES_KEPT
    assert len(live.doubts) <= learning.DOUBTS_KEPT


def test_a_refusal_that_a_second_account_shares_is_taken_back() -> None:
    live = AccountHealth()
    fail(live, fault(K.AUTH, bare=True), NOW + 5)
    assert state(live) is S.COOLING
    assert not learning.acquit(live, K.AUTH, NOW + 6, NOW + 7), "an older one stays"
    assert learning.acquit(live, K.AUTH, NOW, NOW + 7)
    assert (live.state, live.rests) == (S.READY, {})
    fail(live, fault(K.AUTH), NOW + 8)
    assert not learning.acquit(live, K.AUTH, NOW, NOW + 9), "the provider named the credential"


@pytest.mark.parametrize("told", [77.0, 61.0, 400.0])
def test_a_given_wait_beats_a_window_whose_length_is_assumed(told: float) -> None:
    live = AccountHealth()
    minute = window(100.0, 60.0, name="requests", seconds=60.0, scope=SONNET, source=Source.ERROR)
    fail(live, Fault(K.RATE, ModelScope(SONNET), NOW + told, status=429, windows=(minute,)))
    assert until(live, SCOPE) == told
