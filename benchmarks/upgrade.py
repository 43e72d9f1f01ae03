"""Upgrades under load: `python -m benchmarks.upgrade [--repeat 20] [--workers 1] [--rate 200] [--tls]`.

One pool serves 64 streams that are held open and 200 requests a second, half of them on connections that are kept, half
on new ones, while it is upgraded again and again by SIGUSR2. The provider is a process of its own, so that a busy load
does not keep it waiting. Told at the end: what was refused, cut, or answered with an error and how late, how long an
upgrade took until the new process served, and how far behind the load itself was. Exit 1 when anything went wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import signal
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from benchmarks import rig
from pool_server.app import run_file
from pool_server.core.settings import Budgets, Settings
from tests.certificates import Authority
from tests.fakes import FakeProviders, Gate, fake_settings, key_account, plays
from tests.process import PoolProcess, until

STREAMS = 64
RATE = 200  # requests a second
BEFORE_S, AFTER_S = 1.0, 1.0
HOPELESS_S = 1.0  # a handshake takes several turns of the load's loop, and `first_byte_s` is ten seconds
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
MESSAGE = {"model": "claude-sonnet-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}


ANSWERED, WHOLE = "requests answered", "streams whole"


def play(folder: Path, orders: Connection) -> None:
    """The provider's process: sends its settings, then holds streams back ("hold") and lets them go ("open")."""
    rig.raise_file_limit()
    gate = Gate()
    with FakeProviders([key_account("claude:s"), key_account("openai:k")]) as fakes:
        orders.send(fake_settings(folder, fakes, budgets=Budgets(connections_per_address=65536)))
        while (order := orders.recv()) != "end":
            if order == "hold":
                gate = Gate()
                fakes.always("claude:s", plays.stall(gate, at=3))
            else:
                gate.open()
            orders.send(order)


class Provider:
    """The other end of `play`."""

    def __init__(self, orders: Connection) -> None:
        self._orders = orders
        self.settings: Settings = orders.recv()

    async def tell(self, order: str) -> None:
        self._orders.send(order)
        await asyncio.to_thread(self._orders.recv)


@contextlib.contextmanager
def provider(folder: Path) -> Iterator[Provider]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=play, args=(folder, theirs))
    child.start()
    theirs.close()
    try:
        yield Provider(ours)
        ours.send("end")
    finally:
        child.join(10)
        child.kill()


class Load:
    """Requests and streams against one address; `seen` counts how each ended."""

    def __init__(self, url: str, rate: float, tls: ssl.SSLContext | bool) -> None:
        self.url, self.rate, self._tls = url, rate, tls
        self.seen: Counter[str] = Counter()
        self.first: dict[str, float] = {}  # when each kind was seen first
        self.began = time.monotonic()
        self.behind = self.slowest = 0.0  # seconds: the longest turn of this loop, the longest answer
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Load:
        patience = aiohttp.ClientTimeout(total=120)
        kept = aiohttp.TCPConnector(limit=0, ssl=self._tls)
        fresh = aiohttp.TCPConnector(limit=0, force_close=True, ssl=self._tls)
        self.kept = aiohttp.ClientSession(connector=kept, timeout=patience)
        self.fresh = aiohttp.ClientSession(connector=fresh, timeout=patience)
        return self

    def saw(self, what: str) -> None:
        self.seen[what] += 1
        self.first.setdefault(what, time.monotonic() - self.began)

    @property
    def wrong(self) -> int:
        return sum(count for what, count in self.seen.items() if what not in (ANSWERED, WHOLE))

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.gather(*self._tasks)
        await self.kept.close()
        await self.fresh.close()

    async def requests(self, over: asyncio.Event) -> None:
        """`rate` a second, by the clock, whatever becomes of those before."""
        began, sent, before = time.monotonic(), 0, time.monotonic()
        while not over.is_set():
            self.behind = max(self.behind, time.monotonic() - before)
            before = time.monotonic()
            while sent < (time.monotonic() - began) * self.rate:
                self._keep(self._ask(self.kept if sent % 2 else self.fresh))
                sent += 1
            await asyncio.sleep(0.005)

    def _keep(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        kind, began = "kept" if session is self.kept else "new", time.monotonic()
        try:
            async with session.post(f"{self.url}/v1/chat/completions", json=CHAT) as answer:
                text = await answer.text()
                self.saw(ANSWERED if answer.status == 200 else f"{answer.status} {text[:160]}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.saw(f"request, {kind} connection: {error!r:.120}")
        self.slowest = max(self.slowest, time.monotonic() - began)

    async def stream(self, begun: asyncio.Semaphore) -> None:
        try:
            async with self.fresh.post(f"{self.url}/v1/messages", json={**MESSAGE, "stream": True}) as answer:
                text = await answer.content.readany()
                begun.release()
                text += await answer.content.read()
                self.saw(WHOLE if b"message_stop" in text else f"stream {answer.status} cut: {text[-160:]!r}")
        except (aiohttp.ClientError, TimeoutError) as error:
            begun.release()
            self.saw(f"stream: {error!r:.120}")


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


async def repetition(load: Load, upstream: Provider, data: Path) -> float:
    """One upgrade under load; seconds from the signal until the new process served."""
    await upstream.tell("hold")
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
    await upstream.tell("open")
    await asyncio.gather(*streams)
    over.set()
    await asking
    return took


async def measure(repeat: int, workers: int, rate: float, folder: Path, tls: bool) -> int:
    """How much went wrong."""
    with provider(folder) as upstream:
        settings, trusts, context = upstream.settings, None, None
        if tls:
            authority = Authority(folder)
            authority.issue(folder / "cert.pem", folder / "key.pem")
            trusts, context = authority.file, ssl.create_default_context(cafile=str(authority.file))
            cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
            settings = msgspec.structs.replace(settings, tls_cert=cert, tls_key=key)
        with PoolProcess(folder, settings, "--workers", str(workers), trusts=trusts) as pool:
            data = Path(settings.data_dir)
            took: list[float] = []
            async with Load(pool.url, rate, context or True) as load:
                for number in range(repeat):
                    took.append(await repetition(load, upstream, data))
                    print(f"upgrade {number + 1}: {took[-1]:.2f} s, {load.wrong} wrong so far", flush=True)
            last = int(run_file.read(data)["pid"])
            os.kill(last, signal.SIGTERM)
            await asyncio.to_thread(until, lambda: not Path(f"/proc/{last}").exists(), "the last server has ended")
            tell(load, took, workers, tls)
            if load.wrong:
                print(pool.log()[-4000:])
            return load.wrong


def tell(load: Load, took: list[float], workers: int, tls: bool) -> None:
    over = "TLS" if tls else "plain HTTP"
    print(f"{len(took)} upgrades, {workers} workers, {over}: served after {min(took):.2f} to {max(took):.2f} s")
    print(f"slowest answer {load.slowest:.2f} s, the load's own loop behind by up to {load.behind:.2f} s")
    if load.behind > HOPELESS_S:
        print("the load itself stood still for so long that clients seemed silent: of the pool this run tells nothing")
    for what, count in sorted(load.seen.items()):
        print(f"  {count:6d}  {what}" + ("" if what in (ANSWERED, WHOLE) else f" (first at {load.first[what]:.1f} s)"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second")
    parser.add_argument("--tls", action="store_true", help="the pool speaks TLS itself")
    asked = parser.parse_args()
    rig.raise_file_limit()
    with tempfile.TemporaryDirectory() as folder:
        wrong = asyncio.run(measure(asked.repeat, asked.workers, asked.rate, Path(folder), asked.tls))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
