"""What the server costs, beside a direct connection and nginx, in one run.

`python benchmarks/proxy.py [--streams 5000] [--quick]`. The server under test runs on one core, load and provider
on the other. "Full dress": friends mode, a key checked, limits reserved, an account chosen and pinned, usage
metered and recorded on disk. CPU is the server process's own, from the scheduler; memory is its resident set.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from rich.console import Console
from rich.table import Table

from benchmarks import rig
from benchmarks import users as people
from pool_server.accounts.selection.affinity import Pins
from pool_server.app.server import open_stores
from pool_server.core.enums import Provider
from pool_server.storage.write_behind import WriteBehind

PASSWORD = "benchmark-admin-password"
EVENTS, PAUSE_MS, STREAMS = 100, 10, 64


def body(model: str, *, stream: bool = False, size: int = 2048) -> bytes:
    shell = {"model": model, "stream": stream, "messages": [{"role": "user", "content": ""}]}
    padding = size - len(json.dumps(shell))
    shell["messages"] = [{"role": "user", "content": "word " * (max(0, padding) // 5)}]
    return json.dumps(shell).encode()


async def small_requests(port: int, token: str, count: int, connections: int, *, size: int = 2048) -> None:
    """So many requests whose bodies have `size` bytes and whose answers are small."""
    call = rig.request("/v1/chat/completions", body("small", size=size), token)

    async def worker(share: int) -> None:
        async with rig.Client(port) as client:
            for _ in range(share):
                await client.call(call)

    await asyncio.gather(*(worker(count // connections) for _ in range(connections)))


async def latencies(port: int, token: str, count: int) -> list[float]:
    call = rig.request("/v1/chat/completions", body("small"), token)
    times = []
    async with rig.Client(port) as client:
        for _ in range(count):
            started = time.perf_counter()
            await client.call(call)
            times.append((time.perf_counter() - started) * 1000)
    return times


async def streams(port: int, token: str, rounds: int, events: int) -> None:
    call = rig.request("/v1/chat/completions", body(f"events:{events}:{PAUSE_MS}", stream=True), token)

    async def worker() -> None:
        async with rig.Client(port) as client:
            for _ in range(rounds):
                await client.call(call)

    await asyncio.gather(*(worker() for _ in range(STREAMS)))


async def hold(port: int, token: str, count: int, measure: Callable[[], int]) -> tuple[int, int]:
    """(resident KiB before, after) with `count` streams open."""
    call = rig.request("/v1/chat/completions", body("hold", stream=True), token)
    before = measure()
    clients = []
    for start in range(0, count, 50):
        batch = [rig.Client(port) for _ in range(min(50, count - start))]
        for client in batch:
            await client.__aenter__()
            client.send(call)
        for client in batch:
            status, _, _ = await asyncio.wait_for(client.headers(), 60)
            if status != 200:
                raise RuntimeError(f"a held stream got a {status}")
        clients.extend(batch)
    after = measure()
    for client in clients:
        await client.__aexit__()
    await asyncio.sleep(1)
    return before, after


def measure(name: str, port: int, token: str, pid: int | None, args: argparse.Namespace) -> dict[str, float]:
    """All figures of one target; CPU and memory only where it has a process of its own."""
    count = 400 if args.quick else 4000
    rounds = 1 if args.quick else 3
    figures: dict[str, float] = {}
    if pid is not None:
        figures["idle_mib"] = rig.resident_kib(pid) / 1024
    asyncio.run(small_requests(port, token, 200, 8))
    if pid is not None:
        before = rig.exact_cpu(pid)
    asyncio.run(small_requests(port, token, count, 16))
    if pid is not None:
        figures["request_us"] = (rig.exact_cpu(pid) - before) / count * 1e6
    times = asyncio.run(latencies(port, token, count // 4))
    figures["p50_ms"], figures["p99_ms"] = rig.percentile(times, 0.5), rig.percentile(times, 0.99)
    if pid is not None:
        asyncio.run(streams(port, token, 1, 1))
        before = rig.exact_cpu(pid)
        asyncio.run(streams(port, token, rounds, 1))
        short = rig.exact_cpu(pid) - before
        before = rig.exact_cpu(pid)
        asyncio.run(streams(port, token, rounds, EVENTS + 1))
        figures["event_us"] = (rig.exact_cpu(pid) - before - short) / (STREAMS * rounds * EVENTS) * 1e6
        if args.streams:
            resident = lambda: rig.resident_kib(pid)  # noqa: E731
            low, high = asyncio.run(hold(port, token, args.streams, resident))
            figures["stream_kib"] = (high - low) / args.streams
    print(f"measured {name}", file=sys.stderr)
    return figures


def nginx_config(folder: Path, port: int, upstream: int) -> Path:
    path = folder / "nginx.conf"
    path.write_text(
        f"""daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
master_process off; worker_rlimit_nofile 65536;
events {{ worker_connections 32768; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream provider {{ server 127.0.0.1:{upstream}; keepalive 64; }}
  server {{ listen 127.0.0.1:{port} backlog=8192;
    location / {{ proxy_pass http://provider; proxy_buffering off; proxy_request_buffering off;
      client_max_body_size 0; proxy_http_version 1.1;
      proxy_set_header Connection ""; }} }}
}}
"""
    )
    return path


def pool_config(folder: Path, port: int, upstream: int, accounts: int) -> Path:
    pool = folder / "pool"
    pool.mkdir()
    for number in range(accounts):
        fields = {"api_key": f"sk-benchmark-{number}", "base_url": f"http://127.0.0.1:{upstream}/v1"}
        (pool / f"openai_{number}.json").write_text(json.dumps(fields))
        (pool / f"openai_{number}.json").chmod(0o600)
    path = folder / "config.toml"
    path.write_text(
        f'listen_addr = "127.0.0.1:{port}"\npool_dir = "{pool}"\ndata_dir = "{folder}/data"\n'
        f'friend_code = "benchmark-code"\n[pool_users]\nadmin_password = "{PASSWORD}"\n'
        "[usage_polling]\ninterval_s = 0\n"
    )
    return path


def seed(folder: Path, users: int, pins: int) -> None:
    """Fills the data folder the server will find: people with three keys each, and pinned conversations."""
    state, durable = open_stores(folder / "data")
    if users:
        people.fill(durable, users, 3, "no passphrase")
    kept, now = Pins(WriteBehind(state, time.time), ttl_s=86_400.0), time.time()
    for number in range(pins):
        kept.pin(Provider.OPENAI, f"u_{number % 1000}", f"session {number}", f"openai:{number % 3}", now)
    state.close()
    durable.close()


def make_key(port: int) -> str:
    call = urllib.request.Request(
        f"http://127.0.0.1:{port}/admin/pool-users",
        json.dumps({"name": "benchmark"}).encode(),
        {"Authorization": f"Bearer {PASSWORD}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(call) as answer:
        return str(json.load(answer)["key"])


def show(results: dict[str, dict[str, float]]) -> None:
    table = Table(title="One core each; CPU of the server process alone")
    table.add_column("")
    rows = {
        "request_us": "CPU µs a request",
        "event_us": "CPU µs a streamed event",
        "p50_ms": "latency p50, ms",
        "p99_ms": "latency p99, ms",
        "stream_kib": "KiB a held stream",
        "idle_mib": "MiB idle",
    }
    for name in results:
        table.add_column(name, justify="right")
    for key, title in rows.items():
        table.add_row(title, *(f"{r[key]:.2f}" if key in r else "–" for r in results.values()))
    Console().print(table)
    pool, nginx, direct = results["pool server"], results.get("nginx"), results["direct"]
    if nginx:
        print(f"a request: {pool['request_us'] / nginx['request_us']:.1f} × nginx, ", end="")
        print(f"an event: {pool['event_us'] / nginx['event_us']:.2f} × nginx")
    print(f"added latency: p50 {pool['p50_ms'] - direct['p50_ms']:.2f} ms, ", end="")
    print(f"p99 {pool['p99_ms'] - direct['p99_ms']:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=5000, help="held streams for the memory figure (0 = skip)")
    parser.add_argument("--accounts", type=int, default=3, help="accounts in the pool")
    parser.add_argument("--users", type=int, default=0, help="people in the pool beside the one who asks")
    parser.add_argument("--pins", type=int, default=0, help="conversations that are pinned already")
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests")
    args = parser.parse_args()
    args.streams = min(args.streams, (rig.raise_file_limit() - 200) // 4)
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="pool-benchmark-") as name:
        folder = Path(name)
        upstream = rig.free_port()
        script = str(Path(__file__).with_name("upstream.py"))
        with rig.process([sys.executable, script, str(upstream)], core=1, port=upstream, log=folder / "upstream.log"):
            results["direct"] = measure("direct", upstream, "x", None, args)
            if shutil.which("nginx"):
                port = rig.free_port()
                command = ["nginx", "-p", str(folder), "-c", str(nginx_config(folder, port, upstream))]
                with rig.process(command, core=0, port=port, log=folder / "nginx.log") as pid:
                    results["nginx"] = measure("nginx", port, "x", pid, args)
            else:
                print("nginx is not installed: no comparison with it", file=sys.stderr)
            port = rig.free_port()
            config = pool_config(folder, port, upstream, args.accounts)
            seed(folder, args.users, args.pins)
            command = [sys.executable, "-m", "pool_server", "serve", "--config", str(config)]
            with rig.process(command, core=0, port=port, log=folder / "pool.log") as pid:
                results["pool server"] = measure("pool server", port, make_key(port), pid, args)
    show(results)


if __name__ == "__main__":
    main()
