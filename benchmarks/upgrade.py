"""Upgrades under load: `python -m benchmarks.upgrade [--repeat 20] [--workers 1] [--rate 200]`.

One pool serves 64 streams that are held open and 200 requests a second, half of them on connections that are kept, half
on new ones, while it is upgraded again and again by SIGUSR2. Told at the end: what was refused, cut, or answered with
an error, and how long an upgrade took until the new process served.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from pool_server.app import run_file
from pool_server.core.settings import Budgets
from tests.fakes import FakeProviders, Gate, fake_settings, key_account, plays
from tests.process import PoolProcess, until

STREAMS = 64
RATE = 200  # requests a second
BEFORE_S, AFTER_S = 1.0, 1.0
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
MESSAGE = {"model": "claude-sonnet-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}


class Load:
    """Requests and streams against one address; `seen` counts how each ended."""

    def __init__(self, url: str, rate: float) -> None:
        self.url, self.rate = url, rate
        self.seen: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Load:
        patience = aiohttp.ClientTimeout(total=120)
        self.kept = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=patience)
        self.fresh = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True), timeout=patience)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.gather(*self._tasks)
        await self.kept.close()
        await self.fresh.close()

    async def requests(self, over: asyncio.Event) -> None:
        """`rate` a second, by the clock, whatever becomes of those before."""
        began, sent = time.monotonic(), 0
        while not over.is_set():
            while sent < (time.monotonic() - began) * self.rate:
                self._keep(self._ask(self.kept if sent % 2 else self.fresh))
                sent += 1
            await asyncio.sleep(0.005)

    def _keep(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        try:
            async with session.post(f"{self.url}/v1/chat/completions", json=CHAT) as answer:
                text = await answer.text()
                self.seen["requests answered" if answer.status == 200 else f"{answer.status} {text[:90]}"] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            self.seen[f"request: {error!r:.120}"] += 1

    async def stream(self, begun: asyncio.Semaphore) -> None:
        try:
            async with self.fresh.post(f"{self.url}/v1/messages", json={**MESSAGE, "stream": True}) as answer:
                text = await answer.content.readany()
                begun.release()
                text += await answer.content.read()
                self.seen["streams whole" if b"message_stop" in text else f"stream {answer.status} cut"] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            begun.release()
            self.seen[f"stream: {type(error).__name__}"] += 1


async def serving(folder: Path, old: int, within_s: float = 120.0) -> int:
    """The pid of the server that has taken over from `old`."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        note = run_file.read(folder)
        if note.get("pid", old) != old:
            return int(note["pid"])
        if str(note.get("upgrade", "")).startswith("failed"):
            raise SystemExit(f"the upgrade failed: {note['upgrade']}")
        await asyncio.sleep(0.005)
    raise SystemExit("no new server came")


async def repetition(load: Load, fakes: FakeProviders, data: Path) -> float:
    """One upgrade under load; seconds from the signal until the new process served."""
    gate = Gate()
    fakes.always("claude:s", plays.stall(gate, at=3))
    begun, over = asyncio.Semaphore(0), asyncio.Event()
    streams = [asyncio.create_task(load.stream(begun)) for _ in range(STREAMS)]
    for _ in streams:
        await begun.acquire()
    asking = asyncio.create_task(load.requests(over))
    await asyncio.sleep(BEFORE_S)
    old = int(run_file.read(data)["pid"])
    began = time.monotonic()
    os.kill(old, signal.SIGUSR2)
    await serving(data, old)
    took = time.monotonic() - began
    await asyncio.sleep(AFTER_S)
    gate.open()
    await asyncio.gather(*streams)
    over.set()
    await asking
    return took


async def measure(repeat: int, workers: int, rate: float, folder: Path) -> None:
    with FakeProviders([key_account("claude:s"), key_account("openai:k")]) as fakes:
        settings = fake_settings(folder, fakes, budgets=Budgets(connections_per_address=65536))
        with PoolProcess(folder, settings, "--workers", str(workers)) as pool:
            data = Path(settings.data_dir)
            took: list[float] = []
            async with Load(pool.url, rate) as load:
                for number in range(repeat):
                    took.append(await repetition(load, fakes, data))
                    print(f"upgrade {number + 1}: {took[-1]:.2f} s", flush=True)
            last = int(run_file.read(data)["pid"])
            os.kill(last, signal.SIGTERM)
            await asyncio.to_thread(until, lambda: not Path(f"/proc/{last}").exists(), "the last server has ended")
            print(
                f"{repeat} upgrades, {workers} workers: {min(took):.2f} to {max(took):.2f} s until the new one served"
            )
            for what, count in sorted(load.seen.items()):
                print(f"  {count:6d}  {what}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(asked.repeat, asked.workers, asked.rate, Path(folder)))


if __name__ == "__main__":
    main()
