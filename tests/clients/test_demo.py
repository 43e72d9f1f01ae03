"""A newcomer's first minute: the demo runs, and each real CLI gets its answer from it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pool_server.demo.stage import Demo, play
from tests.clients.cases import EACH_CLIENT, Case, missing
from tests.clients.jail import Jail, why_not

pytestmark = pytest.mark.clis


@contextmanager
def demo_thread(listening: socket.socket) -> Iterator[Demo]:
    """The demo without pauses, on a loop in a thread of its own."""
    begun: list[Demo] = []
    ready, leave = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with play([listening], pace=0.0) as demo:
            begun.append(demo)
            ready.set()
            await leave.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), name="demo", daemon=True)
    thread.start()
    try:
        assert ready.wait(60)
        yield begun[0]
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join(20)
        loop.close()


@pytest.mark.parametrize("case", EACH_CLIENT, ids=lambda case: case.name)
def test_a_real_cli_gets_an_answer_from_the_demo(case: Case, tmp_path: Path) -> None:
    reason = missing(case.client) or why_not()
    if reason:
        pytest.skip(reason)
    home, logs = tmp_path / "home", tmp_path / "logs"
    logs.mkdir()
    jail = Jail(logs)
    try:
        with demo_thread(jail.listening) as demo:
            case.furnish(demo.key, home)
            ran = jail.run(case.first, env=case.environment(demo.key, home), cwd=home / "project")
        assert ran.code == 0 and "This is the demo" in ran.out, f"{ran.out[-800:]}\n{ran.err[-2000:]}"
    finally:
        jail.close()
