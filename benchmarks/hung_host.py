"""How long new conversations wait when the host of one of two vendors hangs, and how much of them it still gets.

`python benchmarks/hung_host.py [--conversations 1000]`. Two accounts on different hosts serve the same model; the one
that is preferred (lower `priority`) hangs: it accepts and says nothing, accepts no connection at all, answers with
headers alone, or stops amid a run that began well. Each conversation is new (a session of its own), half of them
stream; first one after the other, then 40 at once. The pool runs on one core, load and providers on the other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from rich.console import Console
from rich.table import Table

from benchmarks import rig
from benchmarks.proxy import PASSWORD, body, make_key

GOAL_S = 2.0  # p99
AT_ONCE = 40
WAYS = {
    "silent": "says nothing",
    "closed": "takes no connection",
    "headers": "sends headers alone",
    "stops": "stops amid a run",
}
WELL = 200  # conversations before a host stops amid a run
_HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_ANSWER = b'{"choices":[{"index":0,"message":{"content":"Hello."},"finish_reason":"stop"}]}'


class Host:
    """A host that hangs: `silent`, `closed` (a full backlog: no connection comes about), `headers` of an answer and no
    more, or `stops` when told to."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.hangs = way != "stops"
        self.asked = 0  # conversations it was asked to serve while it hung

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        if self.way == "closed":
            with socket.socket() as listener, contextlib.ExitStack() as held:
                listener.bind(("127.0.0.1", 0))
                listener.listen(0)
                for _ in range(4):
                    filler = held.enter_context(socket.socket())
                    filler.setblocking(False)
                    filler.connect_ex(listener.getsockname())
                yield int(listener.getsockname()[1])
            return
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield int(server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                _, _, cooldown = head.lower().partition(b"content-length:")
                await reader.readexactly(int(cooldown.split(b"\r\n", 1)[0]) if cooldown else 0)
                if self.hangs:
                    self.asked += head.startswith(b"POST")
                    if self.way == "headers" and head.startswith(b"POST"):
                        writer.write(_HEADERS)
                    await reader.read()
                    break
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                             % (len(_ANSWER), _ANSWER))  # fmt: skip
        writer.close()


def conversation(number: int, token: str) -> bytes:
    stream = number % 2 > 0
    call = rig.request("/v1/chat/completions", body("events:3:5" if stream else "small", stream=stream), token)
    return call.replace(b"\r\n", f"\r\nX-Pool-Session: talk-{number}\r\n".encode(), 1)


async def talk(port: int, token: str, numbers: range) -> list[float]:
    times = []
    for number in numbers:
        async with rig.Client(port) as client:
            started = time.perf_counter()
            await client.call(conversation(number, token))
            times.append(time.perf_counter() - started)
    return times


async def measure(host: Host, port: int, token: str, count: int) -> dict[str, list[float]]:
    if host.way == "stops":
        await talk(port, token, range(WELL))
        host.hangs = True
    alone = await talk(port, token, range(WELL, WELL + count))
    share = count // AT_ONCE
    starts = range(WELL + count, WELL + count + share * AT_ONCE, share)
    together = await asyncio.gather(*(talk(port, token, range(start, start + share)) for start in starts))
    return {"one after the other": alone, f"{AT_ONCE} at once": [took for times in together for took in times]}


def config(folder: Path, port: int, hosts: list[int]) -> Path:
    """`hosts`: the port of the preferred account's host, then that of the other."""
    (folder / "pool").mkdir()
    for priority, host in enumerate(hosts, 1):
        fields = {"api_key": f"sk-{priority}", "base_url": f"http://127.0.0.1:{host}/v1", "priority": priority}
        (folder / "pool" / f"openai_{priority}.json").write_text(json.dumps(fields))
        (folder / "pool" / f"openai_{priority}.json").chmod(0o600)
    path = folder / "config.toml"
    path.write_text(
        f'listen_addr = "127.0.0.1:{port}"\npool_dir = "{folder}/pool"\ndata_dir = "{folder}/data"\n'
        f'friend_code = "benchmark-code"\n[pool_users]\nadmin_password = "{PASSWORD}"\n'
        '[usage_polling]\ninterval_s = 0\n[choosing]\nstrategy = "priority"\n'
    )
    return path


async def run(way: str, well: int, count: int) -> tuple[dict[str, list[float]], int]:
    host, port = Host(way), rig.free_port()
    with tempfile.TemporaryDirectory(prefix="pool-benchmark-") as name:
        folder = Path(name)
        async with host.open() as hung:
            command = [
                sys.executable,
                "-m",
                "pool_server",
                "serve",
                "--config",
                str(config(folder, port, [hung, well])),
            ]
            with rig.process(command, core=0, port=port, log=folder / "pool.log"):
                token = await asyncio.to_thread(make_key, port)
                return await measure(host, port, token, count), host.asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=1000, help="of each round")
    args = parser.parse_args()
    table = Table(title="New conversations, seconds")
    for title in ("the preferred host", "conversations", "p50", "p99", "longest", "asked it"):
        table.add_column(title)
    missed, well = False, rig.free_port()
    script = str(Path(__file__).with_name("upstream.py"))
    with (
        tempfile.TemporaryDirectory(prefix="pool-benchmark-") as name,
        rig.process([sys.executable, script, str(well)], core=1, port=well, log=Path(name) / "upstream.log"),
    ):
        for way, words in WAYS.items():
            rounds, asked = asyncio.run(run(way, well, args.conversations))
            for title, times in rounds.items():
                p99 = rig.percentile(times, 0.99)
                missed |= p99 >= GOAL_S
                figures = (f"{rig.percentile(times, 0.5):.3f}", f"{p99:.3f}", f"{max(times):.2f}")
                table.add_row(words, f"{len(times)} {title}", *figures, "–" if way == "closed" else str(asked))
    Console().print(table)
    sys.exit(f"p99 of {GOAL_S:.0f} s is missed" if missed else 0)


if __name__ == "__main__":
    main()
