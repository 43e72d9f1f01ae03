"""The waiting room: first in, first out, fair, and honest when it is not worth it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pool_server.accounts.selection.select import Decision, SelectionRequest
from pool_server.accounts.selection.wait_queue import LIMIT, WaitQueue
from pool_server.core.enums import ChoiceReason, FaultKind, Operation, Strategy
from tests.accounts.kit import HOUR, SONNET, Pool, ask, fault, key, quota


class Gate:
    """A choice that admits when told to, and counts who began."""

    def __init__(self, returns_in: float | None = 1.0) -> None:
        self.open = 0
        self.returns_in = returns_in
        self.asked = 0

    def __call__(self, _: SelectionRequest) -> Decision:
        self.asked += 1
        if self.open > 0:
            return Decision("claude:a", ChoiceReason.BEST, Strategy.BALANCED, [])
        retry_at = None if self.returns_in is None else time.time() + self.returns_in
        return Decision(None, None, Strategy.BALANCED, [], retry_at=retry_at)


def run(test: Callable[[Gate, WaitQueue], object], gate: Gate | None = None) -> None:
    async def inside() -> None:
        used = gate or Gate()
        room = WaitQueue(used, time.time)
        await test(used, room)  # type: ignore[misc]
        room.close()

    asyncio.run(asyncio.wait_for(inside(), 60))


async def queue(room: WaitQueue, gate: Gate, users: str, done: list[str]) -> list[asyncio.Task[None]]:
    async def one(user: str, name: str) -> None:
        decision = await room.wait(ask(user), time.time() + 5)
        if decision.account is not None:
            gate.open -= 1
            done.append(name)

    tasks = []
    for n, user in enumerate(users):
        tasks.append(asyncio.create_task(one(user, f"{user}{n}")))
        await asyncio.sleep(0)
    return tasks


def test_first_in_first_out_and_users_take_turns() -> None:
    async def test(gate: Gate, room: WaitQueue) -> None:
        done: list[str] = []
        tasks = await queue(room, gate, "aaaabb", done)
        gate.open = 6
        room.wake()
        await asyncio.gather(*tasks)
        assert done == ["a0", "b4", "a1", "b5", "a2", "a3"]

    run(test)


def test_only_as_many_go_on_as_there_is_place() -> None:
    async def test(gate: Gate, room: WaitQueue) -> None:
        done: list[str] = []
        tasks = await queue(room, gate, "abc", done)
        gate.open = 2
        room.wake()
        while len(done) < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert done == ["a0", "b1"] and len(room) == 1
        gate.open = 1
        room.wake()
        await asyncio.gather(*tasks)

    run(test)


def test_nobody_overtakes_those_who_wait() -> None:
    async def test(gate: Gate, room: WaitQueue) -> None:
        done: list[str] = []
        tasks = await queue(room, gate, "a", done)
        gate.open = 2
        tasks += await queue(room, gate, "b", done)
        await asyncio.gather(*tasks)
        assert done == ["a0", "b0"]

    run(test)


def test_what_returns_too_late_is_told_at_once() -> None:
    async def test(gate: Gate, room: WaitQueue) -> None:
        began = time.time()
        decision = await room.wait(ask(), began + 2)
        assert decision.account is None and len(room) == 0

    run(test, Gate(returns_in=60))
    run(test, Gate(returns_in=None))


def test_a_wait_ends_at_its_deadline() -> None:
    async def test(gate: Gate, room: WaitQueue) -> None:
        began = time.time()
        assert (await room.wait(ask(), began + 0.15)).account is None
        assert 0.1 < time.time() - began < 2 and len(room) == 0

    run(test, Gate(returns_in=0.05))


def test_who_leaves_leaves_no_trace() -> None:
    async def test(gate: Gate, room: WaitQueue) -> None:
        tasks = await queue(room, gate, "ab", [])
        assert len(room) == 2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(room) == 0

    run(test)


def test_many_of_one_kind_cost_one_look() -> None:
    async def test(gate: Gate, room: WaitQueue) -> None:
        tasks = await queue(room, gate, "ab" * 100, [])
        await asyncio.sleep(0.01)
        gate.asked = 0
        room.wake()
        await asyncio.sleep(0.01)
        assert gate.asked == 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(test)


@pytest.mark.slow
def test_the_room_has_walls() -> None:
    async def test(gate: Gate, room: WaitQueue) -> None:
        tasks = await queue(room, gate, "a" * LIMIT, [])
        assert (await room.wait(ask("b"), time.time() + 5)).account is None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(test)


def test_a_short_rest_is_waited_for(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"claude_a.json": key()})

    async def run_() -> None:
        pool.accounts.fail("claude:a", fault(FaultKind.TRANSIENT), SONNET, Operation.MESSAGES, "")
        waiting = asyncio.create_task(pool.accounts.wait_turn(ask(), deadline=pool.clock() + 10))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        pool.clock.now += 2.0
        assert (await waiting).account == "claude:a"
        pool.accounts.fail("claude:a", quota(HOUR), SONNET, Operation.MESSAGES, "")
        assert (await pool.accounts.wait_turn(ask(), deadline=pool.clock() + 10)).account is None

    asyncio.run(asyncio.wait_for(run_(), 60))


def test_closing_sends_everybody_home() -> None:
    async def test(gate: Gate, room: WaitQueue) -> None:
        waiting = asyncio.create_task(room.wait(ask(), time.time() + 60))
        await asyncio.sleep(0)
        room.close()
        assert (await waiting).account is None

    run(test, Gate(returns_in=30))
