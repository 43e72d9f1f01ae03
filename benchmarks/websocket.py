"""What a Codex WebSocket costs beside the same answers as server-sent events, in one run.

`python benchmarks/websocket.py [--sockets 2000] [--quick]`. The server under test runs on one core, load and provider
on the other; full dress as in `proxy.py`. The client offers and uses permessage-deflate as Codex does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from rich.console import Console
from rich.table import Table

from benchmarks import rig
from benchmarks.proxy import PASSWORD, make_key
from pool_server.core.enums import Provider
from pool_server.demo.fake_account import FakeAccount

EVENTS, PAUSE_MS, STREAMS = 100, 10, 64
PATH = "/backend-api/codex/responses"
Run = Callable[[int, str, int, int], Coroutine[Any, Any, None]]  # port, key, rounds, events
GOALS = {"ratio": 1.3, "kib": 60.0, "added_ms": 1.0}


def body(model: str, session: str) -> dict[str, object]:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "word " * 400}]}
    return {"model": model, "stream": True, "store": False, "input": [item], "prompt_cache_key": session}


class Socket:
    """One client socket."""

    def __init__(self, port: int, token: str, session: str, path: str = PATH) -> None:
        self._port, self._session = port, session
        self._head = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
            f"Authorization: Bearer {token}\r\nsession-id: {session}\r\n\r\n"
        )

    async def open(self) -> Socket:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(self._head.encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            raise RuntimeError(f"no socket: {head[:200]!r}")
        self._deflate = b"permessage-deflate" in head
        self._inflater = zlib.decompressobj(-15)
        return self

    def close(self) -> None:
        self._writer.close()

    async def turn(self, model: str) -> tuple[float, float]:
        """One request and its answer: milliseconds to the first words, and to the end."""
        started, first_words = time.perf_counter(), 0.0
        text = json.dumps({"type": "response.create"} | body(model, self._session)).encode()
        first = 0x81
        if self._deflate:
            deflater = zlib.compressobj(1, zlib.DEFLATED, -15)
            text, first = (deflater.compress(text) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4], 0xC1
        size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
        self._writer.write(bytes([first]) + size + b"\0\0\0\0" + text)
        while True:
            first, length = await self._reader.readexactly(2)
            if length >= 126:
                length = int.from_bytes(await self._reader.readexactly(2 if length == 126 else 8), "big")
            payload = await self._reader.readexactly(length)
            if first & 0x0F != 1:
                continue
            if first & 0x40:
                payload = self._inflater.decompress(payload + b"\0\0\xff\xff")
            if payload.startswith(b'{"type":"response.output_text'):
                first_words = first_words or (time.perf_counter() - started) * 1000
            elif payload.startswith(b'{"type":"response.completed"'):
                return first_words, (time.perf_counter() - started) * 1000
            elif payload.startswith(b'{"type":"error"'):
                raise RuntimeError(payload[:300])


async def by_socket(port: int, token: str, rounds: int, events: int) -> None:
    async def worker(number: int) -> None:
        socket = await Socket(port, token, f"socket-{number}").open()
        for _ in range(rounds):
            await socket.turn(f"events:{events}:{PAUSE_MS}")
        socket.close()

    await asyncio.gather(*map(worker, range(STREAMS)))


async def by_events(port: int, token: str, rounds: int, events: int) -> None:
    async def worker(number: int) -> None:
        content = json.dumps(body(f"events:{events}:{PAUSE_MS}", f"events-{number}")).encode()
        async with rig.Client(port) as client:
            for _ in range(rounds):
                await client.call(rig.request(PATH, content, token))

    await asyncio.gather(*map(worker, range(STREAMS)))


async def round_trips(port: int, token: str, count: int, path: str = PATH) -> tuple[float, float]:
    """p50 in milliseconds of turns of one event on one socket: to the first words, to the end."""
    socket = await Socket(port, token, "round-trips", path).open()
    times = [await socket.turn("events:1:0") for _ in range(count)]
    socket.close()
    first, whole = (list(column) for column in zip(*times[count // 10 :], strict=True))
    return rig.percentile(first, 0.5), rig.percentile(whole, 0.5)


async def idle(port: int, token: str, count: int, pid: int) -> float:
    """Resident KiB a socket that has had a turn and waits for the next."""
    before = rig.resident_kib(pid)
    sockets = []
    for start in range(0, count, 50):
        batch = [Socket(port, token, f"idle-{number}") for number in range(start, min(start + 50, count))]
        await asyncio.gather(*(socket.open() for socket in batch))
        await asyncio.gather(*(socket.turn("events:1:0") for socket in batch))
        sockets += batch
    used = rig.resident_kib(pid) - before
    for socket in sockets:
        socket.close()
    return used / count


def cpu_an_event(pid: int, port: int, token: str, rounds: int, run: Run) -> float:
    """CPU µs of one more event in a stream."""
    asyncio.run(run(port, token, 1, 1))
    spent = []
    for events in (1, EVENTS + 1):
        before = rig.exact_cpu(pid)
        asyncio.run(run(port, token, rounds, events))
        spent.append(rig.exact_cpu(pid) - before)
    return (spent[1] - spent[0]) / (STREAMS * rounds * EVENTS) * 1e6


def prepare(folder: Path, port: int, upstream: int) -> Path:
    pool = folder / "pool"
    pool.mkdir()
    for name in ("one", "two", "three"):
        FakeAccount(Provider.CODEX, name, now=time.time(), plan="pro").write(pool)
    path = folder / "config.toml"
    path.write_text(
        f'listen_addr = "127.0.0.1:{port}"\npool_dir = "{pool}"\ndata_dir = "{folder}/data"\n'
        f'friend_code = "benchmark-code"\n[upstreams]\ncodex = "http://127.0.0.1:{upstream}"\n'
        f'[pool_users]\nadmin_password = "{PASSWORD}"\n[usage_polling]\ninterval_s = 0\n'
        "[budgets]\nsockets_per_user = 10000\n"
    )
    return path


def show(figures: dict[str, float]) -> None:
    table = Table(title="Codex by WebSocket: one core, CPU of the server process alone")
    for heading in ("", "measured", "goal"):
        table.add_column(heading, justify="left" if not heading else "right")
    ratio = figures["frame_us"] / figures["event_us"]
    rows = (
        ("CPU µs a server-sent event", figures["event_us"], None),
        ("CPU µs a frame", figures["frame_us"], None),
        ("a frame ÷ an event", ratio, GOALS["ratio"]),
        ("KiB an idle socket", figures["kib"], GOALS["kib"]),
        ("added to the first words, p50 ms", figures["first_ms"], GOALS["added_ms"]),
        ("added to a turn and its durable record, p50 ms", figures["whole_ms"], None),
    )
    for title, value, goal in rows:
        table.add_row(title, f"{value:.2f}", f"≤ {goal:g}" if goal is not None else "")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sockets", type=int, default=2000, help="idle sockets for the memory figure")
    parser.add_argument("--quick", action="store_true", help="fewer turns")
    args = parser.parse_args()
    count = min(args.sockets, (rig.raise_file_limit() - 200) // 4)
    rounds, trips = (1, 200) if args.quick else (4, 1500)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="pool-benchmark-") as name:
        folder = Path(name)
        upstream, port = rig.free_port(), rig.free_port()
        provider = [sys.executable, str(Path(__file__).with_name("upstream_codex.py")), str(upstream)]
        server = [sys.executable, "-m", "pool_server", "serve", "--config", str(prepare(folder, port, upstream))]
        with (
            rig.process(provider, core=1, port=upstream, log=folder / "upstream.log"),
            rig.process(server, core=0, port=port, log=folder / "pool.log") as pid,
        ):
            token = make_key(port)
            direct = asyncio.run(round_trips(upstream, "x", trips, "/responses"))
            pooled = asyncio.run(round_trips(port, token, trips))
            figures["first_ms"], figures["whole_ms"] = (pooled[0] - direct[0], pooled[1] - direct[1])
            figures["event_us"] = cpu_an_event(pid, port, token, rounds, by_events)
            figures["frame_us"] = cpu_an_event(pid, port, token, rounds, by_socket)
            figures["kib"] = asyncio.run(idle(port, token, count, pid))
    show(figures)


if __name__ == "__main__":
    main()
