"""What somebody without a key costs: time of the event loop a request, memory a connection.

`python benchmarks/strangers.py [--requests 300] [--connections 1000]`. The server under test, in friends mode, runs on
one core. Loop time is its main thread's own, from the scheduler; what hashing and decoding cost in other threads is
shown beside it. Memory is the growth of the resident set over connections that are all in one state. Ends with 1 when
a request costs 1 ms of loop time or more, or a connection 64 KiB or more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from rich.console import Console
from rich.table import Table

from benchmarks import proxy, rig

LOOP_US, CONNECTION_KIB = 1000.0, 64.0
KIB16 = 16 << 10


def call(method: str, target: str, body: bytes = b"", *lines: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    ends = () if any(line.startswith("Connection: ") for line in lines) else ("Connection: close",)
    fields = ["Host: 127.0.0.1", "Content-Type: application/json", *lines, *ends, f"Content-Length: {size}"]
    return "\r\n".join((f"{method} {target} HTTP/1.1", *fields, "", "")).encode() + body


def requests(asset: str) -> dict[str, bytes]:
    """Name → the bytes of one connection. `asset`: the path of a large static file."""
    small = proxy.body("small")
    mcp = json.dumps([{"jsonrpc": "2.0", "id": n, "method": "initialize"} for n in range(32)]).encode()
    login = json.dumps({"name": "somebody", "code": "a wrong code", "passphrase": "a passphrase"}).encode()
    fields = [f"X-{number}: y" for number in range(240)]
    return {
        "a connection that only comes and goes": b"",
        "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "no HTTP": b"SSH-2.0-x\r\n\r\n",
        "model call without a key": call("POST", "/v1/messages", small),
        "model call with a wrong key": call("POST", "/v1/messages", small, "x-api-key: sk-pool-" + "x" * 40),
        "model call with a long key": call("POST", "/v1/messages", small, "Authorization: Bearer " + "e." * 5000),
        "model call, 8 MiB announced": call("POST", "/v1/messages", small, length=8 << 20),
        "model call, zstd": call("POST", "/v1/responses", small, "Content-Encoding: zstd"),
        "16 kB form at /oauth/token": call("POST", "/oauth/token", b"a=1&" * (KIB16 // 4)),
        "16 kB JSON at /oauth/token": call("POST", "/oauth/token", b"[" + b"1," * (KIB16 // 2 - 2) + b"1]"),
        "32 calls at /ps/mcp": call("POST", "/ps/mcp", mcp),
        "240 header fields": call("GET", "/v1/models", b"", *fields),
        "120 header fields at a page": call("GET", "/", b"", *fields[:120]),
        "head of 100 kB": call("GET", "/v1/models", b"", "X: " + "y" * 100_000),
        "target of 100 kB": call("GET", "/" + "a/" * 50_000),
        "target of 8 kB": call("GET", "/" + "a/" * 4_000),
        "path of 2 kB, escaped": call("GET", "/v1/files/" + "%2e" * 670),
        "WebSocket without a key": call(
            "GET", "/v1/responses", b"", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        "the front page": call("GET", "/"),
        "/healthz": call("GET", "/healthz"),
        "/readyz": call("GET", "/readyz"),
        "/metrics": call("GET", "/metrics"),
        "a static file": call("GET", asset),
        "a page that is not there": call("GET", "/nothing"),
        "an admin page": call("GET", "/admin/people"),
        "admin API, wrong password": call("GET", "/admin/accounts", b"", "Authorization: Bearer wrong"),
        "sign-in with a wrong code": call("POST", "/api/friend/login", login),
        "sign-in from another site": call("POST", "/api/friend/login", login, "Origin: https://elsewhere.example"),
    }  # fmt: skip


async def one(port: int, data: bytes) -> bytes:
    """Sends all and reads to the end: one connection; how the answer begins."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if b"Connection: " not in data:
            writer.write_eof()
        return (await reader.read())[:12]
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def repeat(port: int, data: bytes, count: int, at_once: int = 8) -> bytes:
    first = b""

    async def worker() -> None:
        nonlocal first
        for _ in range(count // at_once):
            first = await one(port, data)

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return first


def main_thread(pid: int) -> float:
    """CPU seconds of the thread with the event loop."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


async def hold(port: int, data: bytes, count: int, read: bool) -> list[asyncio.StreamWriter]:
    """Connections that have sent `data`; with `read` their answer is awaited, else nothing is ever read."""
    writers = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(data)
        await writer.drain()
        if read:
            await reader.read(1)
        elif data:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        writers.append(writer)
    await asyncio.sleep(0.5)
    return writers


def connections(asset: str) -> dict[str, tuple[bytes, bool]]:
    """Name → (what each sends, whether it reads an answer)."""
    page = call("GET", "/healthz", b"", "Connection: keep-alive")
    return {
        "silent": (b"", False),
        "head of 1 kB unfinished": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 1000, False),
        "head of 15 kB unfinished": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 15_000, False),
        "head of 100 kB unfinished": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000, False),
        "idle after an answer": (page, True),
        "body of 15 kB unfinished": (call("POST", "/oauth/token", b"a" * 15_000, length=KIB16), False),
        "body at a page unfinished": (call("POST", "/api/friend/login", b"a" * 15_000, length=KIB16), False),
        "body of a call without a key": (call("POST", "/v1/messages", b"a" * 15_000, length=KIB16), False),
        "32 requests, nothing read": (page * 32, False),
        "a static file, nothing read": (call("GET", asset, b"", "Connection: keep-alive") * 8, False),
    }


async def memory(port: int, pid: int, data: bytes, read: bool, count: int) -> float:
    """KiB a connection, beyond what the first tenth of them costs."""
    few = await hold(port, data, count // 10, read)
    low = rig.resident_kib(pid)
    many = await hold(port, data, count, read)
    high = rig.resident_kib(pid)
    for writer in few + many:
        writer.transport.abort()
    await asyncio.sleep(0.5)
    return (high - low) / count


Cost = tuple[str, float, float, str]  # name, µs of the loop's thread, of others, the answer's status


def serve_and_measure(folder: Path, args: argparse.Namespace) -> tuple[list[Cost], dict[str, float]]:
    port = rig.free_port()
    config = proxy.pool_config(folder, port, rig.free_port(), 3)
    command = [sys.executable, "-m", "pool_server", "serve", "--config", str(config)]
    costs: list[Cost] = []
    with rig.process(command, core=0, port=port, log=folder / "pool.log") as pid:
        asset = largest_asset(port)
        for name, data in requests(asset).items():
            asyncio.run(repeat(port, data, 16))
            loop, total = main_thread(pid), rig.exact_cpu(pid)
            said = asyncio.run(repeat(port, data, args.requests))
            count = args.requests // 8 * 8
            loop, total = main_thread(pid) - loop, rig.exact_cpu(pid) - total
            print(f"measured {name}", file=sys.stderr)
            costs.append((name, loop / count * 1e6, (total - loop) / count * 1e6, said[9:12].decode() or "closed"))
    held: dict[str, float] = {}
    if not args.connections:
        return costs, held
    for name, (data, read) in connections(asset).items():  # each in a process of its own: memory comes back late
        with rig.process(command, core=0, port=port, log=folder / "pool.log") as pid:
            asyncio.run(repeat(port, call("GET", "/"), 64))
            print(f"measures {name}", file=sys.stderr)
            held[name] = asyncio.run(memory(port, pid, data, read, args.connections))
    return costs, held


def largest_asset(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
        page = answer.read().decode()
    sizes: dict[str, int] = {}
    for path in sorted(set(re.findall(r'(?:src|href)="(/static/[^"?]+)', page))):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            sizes[path] = len(answer.read())
    return max(sizes, key=lambda path: sizes[path])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300, help="of each kind")
    parser.add_argument("--connections", type=int, default=1000, help="in each state")
    args = parser.parse_args()
    rig.raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="pool-benchmark-") as name:
        costs, held = serve_and_measure(Path(name), args)
    table = Table("A stranger's connection with one request", title="µs of CPU, main thread and others")
    for column in ("loop", "others", "answer"):
        table.add_column(column, justify="right")
    for name, loop, others, said in costs:
        table.add_row(name, f"{loop:.0f}", f"{others:.0f}", said)
    Console().print(table)
    table = Table("A connection in this state", title="Resident memory")
    table.add_column("KiB", justify="right")
    for name, kib in held.items():
        table.add_row(name, f"{kib:.1f}")
    Console().print(table)
    dear = [name for name, loop, _, _ in costs if loop >= LOOP_US]
    dear += [name for name, kib in held.items() if kib >= CONNECTION_KIB]
    print("too dear: " + (", ".join(dear) or "none"))
    return 1 if dear else 0


if __name__ == "__main__":
    sys.exit(main())
