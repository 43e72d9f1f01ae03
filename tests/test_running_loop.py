"""The remembered running loop is the one asyncio would name, or none where asyncio names none."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable

import pytest
import uvloop

from pool_server.core import tasks
from pool_server.core.tasks import running_loop

Ask = Callable[[], asyncio.AbstractEventLoop]
ASKED: list[Ask] = [running_loop, tasks._remembered_loop]


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("ask", ASKED)
def test_it_is_what_asyncio_says(make: Ask, ask: Ask) -> None:
    async def same() -> None:
        for _ in range(2):
            assert ask() is asyncio.get_running_loop()
            await asyncio.sleep(0)

    with pytest.raises(RuntimeError):
        ask()
    loops = [make(), make()]
    for loop in [*loops, *loops]:  # one after another, in one thread
        loop.run_until_complete(same())
        with pytest.raises(RuntimeError):
            ask()
    for loop in loops:
        loop.close()


@pytest.mark.parametrize("ask", ASKED)
def test_each_thread_has_its_own(ask: Ask) -> None:
    async def outer() -> None:
        mine, found = ask(), []

        async def inner() -> None:
            found.append((ask(), asyncio.get_running_loop()))

        def other() -> None:
            with pytest.raises(RuntimeError):
                ask()
            asyncio.run(inner())
            with pytest.raises(RuntimeError):
                ask()

        thread = threading.Thread(target=other)
        thread.start()
        await asyncio.to_thread(thread.join)
        [(theirs, right)] = found
        assert theirs is right and theirs is not mine and ask() is mine

    asyncio.run(outer())


def _in_child() -> int:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        return 2
    try:
        running_loop()
    except RuntimeError:
        pass
    else:
        return 3

    async def same() -> bool:
        return running_loop() is asyncio.get_running_loop()

    return 0 if asyncio.run(same()) else 4


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_forked_process_has_none(make: Ask) -> None:
    async def fork() -> int:
        running_loop()
        child = os.fork()
        if child == 0:
            os._exit(_in_child())
        return child

    loop = make()
    child = loop.run_until_complete(fork())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    loop.close()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="asks the kernel no more")
def test_where_asyncio_is_slow_it_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def test() -> None:
        loop = running_loop()
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: asked.append(1))
        assert [running_loop() for _ in range(3)] == [loop] * 3
        monkeypatch.undo()

    asyncio.run(test())
    assert asked == []
