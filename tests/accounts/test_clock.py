"""A clock that is set: no wait gets longer than it was, nothing that was learnt under a wrong clock stays for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.accounts.health import learning
from pool_server.accounts.health.state import EASE_LONGEST_S, AccountHealth, next_change, settle
from pool_server.accounts.selection.affinity_lookup import affinity_of
from pool_server.core.enums import FaultKind, Operation
from pool_server.core.models import AccountScope, Fault
from pool_server.providers.evidence.table import EVIDENCE
from tests.accounts.kit import DAY, HOUR, NOW, Pool, ask, key, quota, window

steps = st.lists(
    st.one_of(st.floats(-500 * DAY, 500 * DAY), st.floats(-100, 100), st.sampled_from([0.0, 400 * DAY, -400 * DAY])),
    max_size=8,
)
kinds = st.sampled_from(sorted(kind for kind, row in EVIDENCE.items() if row.longest_s))


def fail(health: AccountHealth, kind: FaultKind, now: float, hint: float | None = None) -> None:
    retry_at = None if hint is None else now + hint
    fault = Fault(kind, AccountScope(), retry_at)
    learning.fail(health, fault, now, model="m", operation=Operation.MESSAGES, token="", current="")


def waits(health: AccountHealth, now: float) -> float:
    return max((cooldown.until - now for cooldown in health.cooldowns.values()), default=0.0)


@given(path=steps, kind=kinds, hint=st.one_of(st.none(), st.floats(1, 3 * DAY)), ahead=st.floats(-500 * DAY, 500 * DAY))
def test_no_path_of_the_clock_makes_a_cooldown_longer(
    path: list[float], kind: FaultKind, hint: float | None, ahead: float
) -> None:
    health, now = AccountHealth(), NOW + ahead
    fail(health, kind, now, hint)
    agreed = waits(health, now)
    for step in path:
        now += step
        settle(health, now)
        assert waits(health, now) <= agreed + 1e-3
        assert next_change(health, now) > now
        assert health.easing_until - now <= EASE_LONGEST_S + 1


@given(path=steps, kind=kinds)
def test_faults_on_the_way_wait_no_longer_than_their_kind_may(path: list[float], kind: FaultKind) -> None:
    health, now = AccountHealth(), NOW
    for step in path:
        now += step
        fail(health, kind, now)
        assert waits(health, now) <= EVIDENCE[kind].longest_s + 1e-3
        assert 0.0 <= learning.trouble(health, now) <= len(path)


def test_a_short_cooldown_of_a_clock_a_year_ahead_stays_short(tmp_path: Path) -> None:
    p = Pool(tmp_path, {"claude_a.json": key()})
    p.clock.now += 400 * DAY
    p.accounts.fail("claude:a", Fault(FaultKind.CAPACITY, AccountScope(), p.clock.now + 30), "m", Operation.MESSAGES)
    p.clock.now -= 400 * DAY
    decision = p.accounts.select(ask())
    assert decision.account is None
    assert decision.retry_at is not None and decision.retry_at - p.clock.now <= 30
    row = p.accounts.describe("claude:a")
    assert row.state == "cooling" and (row.cooldown_until or 0) - p.clock.now <= 30
    p.clock.now += 31
    assert p.accounts.select(ask()).account == "claude:a"


@pytest.mark.parametrize("back", [2 * DAY, 3 * HOUR, 90.0])
def test_a_clock_set_back_makes_nobody_wait_longer(tmp_path: Path, back: float) -> None:
    p = Pool(tmp_path, {"claude_a.json": key()})
    p.accounts.fail("claude:a", quota(HOUR), "m", Operation.MESSAGES)
    p.clock.now -= back
    decision = p.accounts.select(ask())
    assert decision.retry_at is not None and decision.retry_at - p.clock.now <= HOUR
    p.again()
    assert p.accounts.select(ask()).retry_at == decision.retry_at, "after a restart neither"


def test_windows_seen_in_the_future_do_not_hide_what_is_seen_now(tmp_path: Path) -> None:
    p = Pool(tmp_path, {"claude_a.json": key()})
    p.clock.now += 400 * DAY
    p.accounts.observe("claude:a", [window(100.0, 2 * HOUR, at=p.clock.now)])
    assert p.state("claude:a") == "exhausted"
    p.clock.now -= 400 * DAY
    (seen,) = p.accounts.describe("claude:a").windows
    assert seen.observed_at <= p.clock.now + 1 and (seen.resets_at or 0) - p.clock.now <= 2 * HOUR + 1
    p.accounts.observe("claude:a", [window(10.0, HOUR, at=p.clock.now)])
    (seen,) = p.accounts.describe("claude:a").windows
    assert seen.used_percent == 10.0 and p.state("claude:a") == "ready"


def test_a_half_open_request_of_the_future_is_over_in_time(tmp_path: Path) -> None:
    health = AccountHealth()
    fail(health, FaultKind.QUOTA, NOW + 400 * DAY, HOUR)
    health.cooldowns[""].probing = NOW + 400 * DAY
    settle(health, NOW)
    assert health.cooldowns[""].probing == NOW
    settle(health, NOW + 601)
    assert not health.cooldowns[""].probing


def test_what_a_living_worker_has_under_way_counts_by_any_clock(tmp_path: Path) -> None:
    p = Pool(tmp_path, {"claude_a.json": key()}, workers=2)
    other = p.worker(leader=False)
    p.clock.now += 400 * DAY
    p.accounts.begin("claude:a", "m", Operation.MESSAGES)
    p.accounts._registry.share_flight()
    p.clock.now -= 400 * DAY
    other._registry.share_flight()
    assert other._registry.account("claude:a").elsewhere == 1


def test_a_pin_of_the_future_ends_like_any_other(tmp_path: Path) -> None:
    p = Pool(tmp_path, {"claude_a.json": key(), "claude_b.json": key()})
    p.clock.now += 400 * DAY
    first = p.serve(ask(session="s"))
    p.clock.now -= 400 * DAY
    assert p.serve(ask(session="s")) == first
    p.clock.now += 3 * DAY
    held = affinity_of(p.accounts._pins, p.accounts.warmth, ask(session="s"), p.clock.now)
    assert held.pinned is None
