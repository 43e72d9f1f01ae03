"""Periodic work goes on whatever its calls do, and ends when it is told to, after the calls that are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from pool_server.core.tasks import PeriodicTasks, wait_at_most

SOON = 0.001
NEVER = 3600.0


def run(test: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))


class Calls:
    """Counts its calls; `enough` is set at the third."""

    def __init__(self, error: Exception | None = None) -> None:
        self.count = 0
        self.enough = asyncio.Event()
        self._error = error

    def __call__(self) -> None:
        self.count += 1
        if self.count == 3:
            self.enough.set()
        if self._error is not None:
            raise self._error


def test_what_fails_is_told_and_stops_neither_itself_nor_others(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        bad, good, tasks = Calls(ValueError("no")), Calls(), PeriodicTasks()
        tasks.every(SOON, bad, "the bad one")
        tasks.every(SOON, good, "the good one")
        tasks.start()
        await bad.enough.wait()
        await good.enough.wait()
        await tasks.close()

    run(test)
    assert "the bad one failed" in caplog.text and "the good one" not in caplog.text


@pytest.mark.parametrize(("at_once", "calls"), [(True, 1), (False, 0)])
def test_the_first_call_is_at_once_or_after_the_pause(at_once: bool, calls: int) -> None:
    async def test() -> None:
        counted, other, tasks = Calls(), Calls(), PeriodicTasks()
        tasks.every(NEVER, counted, "this", at_once=at_once)
        tasks.every(SOON, other, "that")
        tasks.start()
        await other.enough.wait()
        await tasks.close()
        assert counted.count == calls

    run(test)


def test_the_pause_is_asked_anew_each_time() -> None:
    pauses = [SOON, SOON, NEVER]

    async def test() -> None:
        calls, tasks = Calls(), PeriodicTasks()
        tasks.every(lambda: pauses.pop(0), calls, "this", at_once=True)
        tasks.start()
        await calls.enough.wait()
        await tasks.close()
        assert calls.count == 3 and pauses == []

    run(test)


def test_the_end_waits_for_a_call_under_way_and_begins_none() -> None:
    async def test() -> None:
        begun, may_end = asyncio.Event(), asyncio.Event()
        said: list[str] = []

        async def call() -> None:
            said.append("begun")
            begun.set()
            await may_end.wait()
            said.append("ended")

        tasks = PeriodicTasks()
        tasks.every(0.0, call, "this")
        tasks.start()
        await begun.wait()
        closing = asyncio.ensure_future(tasks.close())
        await asyncio.sleep(0)
        assert not closing.done()
        may_end.set()
        await closing
        assert said == ["begun", "ended"]

    run(test)


def test_what_never_began_ends_too() -> None:
    async def test() -> None:
        tasks = PeriodicTasks()
        tasks.every(SOON, Calls(), "this")
        await tasks.close()

    run(test)


def test_a_wait_ends_with_its_event_or_in_time() -> None:
    async def test() -> None:
        event = asyncio.Event()
        await wait_at_most(event, SOON)
        asyncio.get_running_loop().call_soon(event.set)
        await wait_at_most(event, NEVER)

    run(test)
