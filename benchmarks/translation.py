"""What translation costs: an event and a request of every pair, and a translated event beside an untranslated one.

`python benchmarks/translation.py [--quick]`. The pairs are measured by themselves (CPU of one call); the comparison is
of the whole server on one core: a provider that speaks Chat, asked by clients of three dialects. "Stretch" is how long
the event loop did not come to its turn while requests of a megabyte were translated in a thread, as the server does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks import proxy, rig
from benchmarks.dialects import DELTA, microseconds
from pool_server.core.enums import Dialect
from pool_server.dialects.translation import DIALECT, Target, TranslationContext, UpstreamKind, translate_request

CLIENTS = (Dialect.CHAT, Dialect.RESPONSES, Dialect.MESSAGES, Dialect.GEMINI)
WORDS = 'a line of a file with "quotes" and an ü\n' * 50
MODELS = {
    UpstreamKind.MESSAGES: "claude-sonnet-4-5",
    UpstreamKind.GEMINI: "gemini-2.5-flash",
    UpstreamKind.CODE_ASSIST: "gemini-2.5-flash",
    UpstreamKind.CHAT: "kimi-k2",
}
SWITCH_S = 0.0005  # as the server sets it
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}


def pairs() -> list[tuple[Dialect, UpstreamKind]]:
    return [(client, kind) for client in CLIENTS for kind in UpstreamKind if not _same(client, DIALECT[kind])]


def _same(client: Dialect, upstream: Dialect) -> bool:
    return client is upstream or (client is Dialect.GEMINI and upstream is Dialect.CODE_ASSIST)


def request(client: Dialect, size: int, *, stream: bool = True) -> bytes:
    """A conversation of about `size` bytes, half of it tool results."""
    count = max(1, size // (len(WORDS) + 100))
    if client is Dialect.GEMINI:
        turns: Any = [{"role": ("user", "model")[n % 2], "parts": [{"text": WORDS}]} for n in range(count | 1)]
        return json.dumps({"contents": turns}).encode()
    turns = [{"role": ("user", "assistant")[n % 2], "content": WORDS} for n in range(count | 1)]
    name = "input" if client is Dialect.RESPONSES else "messages"
    more = {"max_tokens": 4000} if client is Dialect.MESSAGES else {}
    return json.dumps({"model": "m", name: turns, "stream": stream, **more}).encode()


def translated(client: Dialect, kind: UpstreamKind, body: bytes) -> Any:
    context = TranslationContext("x7Kq", 1_795_000_000.5, session="s-1", stream=True, model="m")
    return translate_request(client, Target(kind, MODELS.get(kind, "gpt-5.4")), body, context)


def event(kind: UpstreamKind) -> bytes:
    dialect = DIALECT[kind]
    _, _, data, name = DELTA["gemini" if dialect is Dialect.CODE_ASSIST else dialect.value]
    shown = {"response": data} if dialect is Dialect.CODE_ASSIST else data
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(shown, separators=(',', ':'))}\n\n".encode()


def pure() -> None:
    print(f"{'pair':26} {'µs an event':>12} {'ms for 1 MB':>12}")
    for client, kind in pairs():
        response = translated(client, kind, request(client, 1)).response
        cost = microseconds(partial(response.feed, event(kind)), 4000)
        megabyte = request(client, 1_000_000)
        whole = microseconds(partial(translated, client, kind, megabyte), 5) / 1000
        print(f"{client.value + ' > ' + kind.value:26} {cost:12.1f} {whole:12.1f}")


async def longest_stretch(client: Dialect, kind: UpstreamKind, rounds: int) -> float:
    """Milliseconds the loop waited beyond its sleep, at most, in one of the better rounds: the machine's other work
    shows in the rest."""
    body, worst = request(client, 1_000_000), [0.0]

    async def watch() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.0005)
            worst[-1] = max(worst[-1], time.perf_counter() - began - 0.0005)

    watching = asyncio.create_task(watch())
    for _ in range(rounds):
        await asyncio.to_thread(translated, client, kind, body)
        await asyncio.sleep(0.001)
        worst.append(0.0)
    watching.cancel()
    return rig.percentile(worst[:-1], 0.1) * 1000


def stretches() -> None:
    sys.setswitchinterval(SWITCH_S)
    for client, kind in ((Dialect.MESSAGES, UpstreamKind.CODEX), (Dialect.RESPONSES, UpstreamKind.MESSAGES)):
        worst = asyncio.run(longest_stretch(client, kind, 20))
        print(f"longest stretch of the loop, {client.value} > {kind.value}, 1 MB: {worst:.1f} ms")


async def streams(port: int, token: str, client: str, rounds: int, events: int) -> None:
    body = json.loads(request(Dialect(client), 1))
    body["model"] = f"events:{events}:{proxy.PAUSE_MS}"
    call = rig.request(PATHS[client], json.dumps(body).encode(), token)

    async def worker() -> None:
        async with rig.Client(port) as connection:
            for _ in range(rounds):
                await connection.call(call)

    await asyncio.gather(*(worker() for _ in range(proxy.STREAMS)))


async def first_byte(port: int, token: str, client: str, count: int) -> float:
    """The median time to the first event, in ms."""
    body = json.loads(request(Dialect(client), 1)) | {"model": "events:1:0"}
    call, times = rig.request(PATHS[client], json.dumps(body).encode(), token), []
    async with rig.Client(port) as connection:
        for _ in range(count):
            began = time.perf_counter()
            connection.send(call)
            _, chunked, length = await connection.headers()
            times.append((time.perf_counter() - began) * 1000)
            await connection.body(chunked, length)
    return rig.percentile(times, 0.5)


def server(quick: bool) -> None:
    upstream, port, rounds = rig.free_port(), rig.free_port(), 1 if quick else 3
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = proxy.pool_config(folder, port, upstream, 1)
        (account,) = (folder / "pool").iterdir()
        account.write_text(json.dumps(json.loads(account.read_text()) | {"dialects": ["chat"]}))
        provider = [sys.executable, str(Path(__file__).with_name("upstream.py")), str(upstream)]
        pool = [sys.executable, "-m", "pool_server", "serve", "--config", str(config)]
        with (
            rig.process(provider, core=1, port=upstream, log=folder / "upstream.log"),
            rig.process(pool, core=0, port=port, log=folder / "pool.log") as pid,
        ):
            token, plain = proxy.make_key(port), 0.0
            for client in PATHS:
                cost = per_event(port, token, client, rounds, pid)
                plain = plain or cost
                soon = asyncio.run(first_byte(port, token, client, 200))
                print(f"{client:10} > chat {cost:6.1f} µs an event = {cost / plain:.2f} ×, first event {soon:.2f} ms")


def per_event(port: int, token: str, client: str, rounds: int, pid: int) -> float:
    asyncio.run(streams(port, token, client, 1, 1))
    before = rig.exact_cpu(pid)
    asyncio.run(streams(port, token, client, rounds, 1))
    short = rig.exact_cpu(pid) - before
    before = rig.exact_cpu(pid)
    asyncio.run(streams(port, token, client, rounds, proxy.EVENTS + 1))
    return (rig.exact_cpu(pid) - before - short) / (proxy.STREAMS * rounds * proxy.EVENTS) * 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round")
    asked = parser.parse_args()
    pure()
    stretches()
    server(asked.quick)
