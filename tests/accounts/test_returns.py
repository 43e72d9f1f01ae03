"""Accounts that come back from a limit: taken up gently, and seen again by those who waited for them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.accounts.health import learning, state
from pool_server.accounts.health.state import AccountHealth, Cooldown, returning
from pool_server.core.enums import FaultKind, Operation, Refusal
from pool_server.core.models import OF_ACCOUNT, Fault, FaultScope, ModelScope
from tests.accounts.kit import HOUR, NOW, SONNET, Pool, ask, claude, quota

SCOPE = learning.scope_key(Operation.MESSAGES, SONNET)


def limited(pool: Pool, account: str, scope: FaultScope = OF_ACCOUNT, seconds: float = 6.0) -> None:
    fault = Fault(FaultKind.RATE, scope, pool.clock.now + seconds, status=429)
    pool.accounts.fail(account, fault, SONNET, Operation.MESSAGES)


def taken(pool: Pool, most: int = 100) -> int:
    """How many new conversations begin now."""
    for n in range(most):
        account = pool.accounts.select(ask(session=f"{pool.clock.now}-{n}")).account
        if account is None:
            return n
        pool.accounts.begin(account, SONNET, Operation.MESSAGES)
    return most


@pytest.mark.parametrize("scope", [OF_ACCOUNT, ModelScope(SONNET)])
def test_it_takes_one_then_two_then_four(tmp_path: Path, scope: FaultScope) -> None:
    pool = Pool(tmp_path, {"claude_a.json": claude()})
    limited(pool, "claude:a", scope)
    assert taken(pool) == 0
    pool.clock.now += 6.0
    counts = []
    for _ in range(5):
        counts.append(taken(pool))
        for n in range(counts[-1]):
            pool.accounts.bind(ask(session=f"done-{n}"), "claude:a")
            pool.accounts.succeed("claude:a", SONNET, Operation.MESSAGES, 1.0)
            pool.accounts.end("claude:a")
    assert counts == [1, 2, 4, 8, 16]


def test_time_opens_it_too_where_answers_take_long(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"claude_a.json": claude()})
    limited(pool, "claude:a")
    pool.clock.now += 6.0
    counts = []
    for _ in range(4):
        counts.append(taken(pool))
        pool.clock.now += 2.0
    assert counts == [1, 1, 2, 4]
    pool.clock.now += state.RETURN_STEPS * state.RETURN_STEP_S
    assert taken(pool) == 100


def test_who_is_turned_away_is_told_it_returns(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"claude_a.json": claude()})
    limited(pool, "claude:a")
    pool.clock.now += 6.0
    taken(pool)
    decision = pool.accounts.select(ask())
    assert (decision.refused, decision.retry_at) == ({Refusal.RETURNING: 1}, pool.clock.now + 2.0)


def test_another_fault_begins_anew(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"claude_a.json": claude()})
    limited(pool, "claude:a")
    pool.clock.now += 6.0
    assert taken(pool) == 1
    limited(pool, "claude:a")
    pool.clock.now += 6.0
    assert taken(pool) == 1


def test_a_conversation_keeps_its_account_that_is_just_back(tmp_path: Path) -> None:
    files = {f"claude_{n}.json": claude(f"sk-ant-oat01-{n * 5}") for n in "ab"}
    pool = Pool(tmp_path, files)
    assert pool.serve(ask(session="s")) == "claude:a"
    limited(pool, "claude:a")
    pool.clock.now += 6.0
    pool.accounts.begin("claude:a", SONNET, Operation.MESSAGES)
    assert pool.serve(ask(session="s")) == "claude:b", "another stands in"
    pool.accounts.bind(ask(), "claude:a")
    assert pool.accounts.select(ask(session="s")).account == "claude:a"


@pytest.mark.parametrize("asked", [{"forced": "claude:a"}, {"hard": (("response", "r-1"),)}])
def test_what_only_this_account_can_serve_does_not_wait_for_its_turn(tmp_path: Path, asked: dict[str, Any]) -> None:
    pool = Pool(tmp_path, {"claude_a.json": claude()})
    pool.accounts.own("ann", "response", "r-1", "claude:a")
    limited(pool, "claude:a")
    pool.clock.now += 6.0
    taken(pool)
    assert pool.accounts.select(ask(**asked)).account == "claude:a"


def test_a_wait_ends_in_a_fresh_look(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"claude_a.json": claude()})

    async def test() -> None:
        limited(pool, "claude:a", seconds=1.0)
        tried = ask(exclude=frozenset({"claude:a"}))
        assert pool.accounts.select(tried).account is None
        waiting = asyncio.create_task(pool.accounts.wait_turn(tried, deadline=pool.clock.now + 20))
        await asyncio.sleep(0)
        pool.clock.now += 1.0
        pool.accounts._waiting.wake()
        assert (await waiting).account == "claude:a"

    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_wait_does_not_ask_again_who_failed_and_rests_not(tmp_path: Path) -> None:
    files = {"claude_a.json": claude("sk-ant-oat01-aaaaa"), "claude_b.json": claude("sk-ant-oat01-bbbbb")}
    pool = Pool(tmp_path, files)

    async def test() -> None:
        pool.accounts.fail("claude:b", quota(HOUR), SONNET, Operation.MESSAGES)
        tried = ask(exclude=frozenset({"claude:a"}))
        decision = await pool.accounts.wait_turn(tried, deadline=pool.clock.now + 2 * HOUR - 7000)
        assert decision.account is None

    asyncio.run(asyncio.wait_for(test(), 60))


@given(st.lists(st.tuples(st.sampled_from(["begin", "answer", "wait"]), st.floats(0.0, 3.0)), max_size=60))
def test_never_more_than_twice_what_was_answered_and_waited_for(steps: list[tuple[str, float]]) -> None:
    health = AccountHealth(cooldowns={"": Cooldown(FaultKind.RATE, NOW - 6, NOW)})
    now, begun, answered = NOW, 0, 0
    for what, seconds in steps:
        room = returning(health.cooldowns[""], now)
        if room is None:
            return
        if what == "begin" and room:
            state.return_begun(health, (), now)
            begun += 1
        elif what == "answer" and answered < begun:
            state.return_answered(health, (), now)
            answered += 1
        elif what == "wait":
            now += seconds
        assert begun - answered <= (1 + answered) * 2 ** int((now - NOW) / state.RETURN_STEP_S)
