"""Shared by the benchmarks: processes pinned to a core, their CPU time and memory, and a light load generator."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path


def raise_file_limit() -> int:
    """Allows as many open sockets as the system gives; returns the number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def exact_cpu(pid: int) -> float:
    """CPU seconds of all threads from the scheduler's own nanosecond account."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


@contextlib.contextmanager
def process(command: list[str], *, core: int, port: int, log: Path) -> Iterator[int]:
    """Runs a server pinned to one core until the block ends; yields its pid once the port answers."""
    if shutil.which("taskset"):
        command = ["taskset", "-c", str(core % (os.cpu_count() or 1)), *command]
    with log.open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        wait_for(port, child, log)
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_for(port: int, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if child.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.05)
    sys.exit(f"a server of the benchmark did not start:\n{log.read_text()[-2000:]}")


class Client:
    """One keep-alive HTTP/1.1 connection that does no more than count what comes back."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._writer.close()

    def send(self, request: bytes) -> None:
        self._writer.write(request)

    async def headers(self) -> tuple[int, bool, int]:
        """(status, chunked, content length) of the answer that begins."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        lowered = head.lower()
        status = int(head[9:12])
        if b"transfer-encoding: chunked" in lowered:
            return status, True, 0
        _, _, cooldown = lowered.partition(b"content-length:")
        return status, False, int(cooldown.split(b"\r\n", 1)[0]) if cooldown else 0

    async def body(self, chunked: bool, length: int) -> int:
        """Reads the answer's body; its size in bytes."""
        if not chunked:
            await self._reader.readexactly(length)
            return length
        total = 0
        while True:
            size = int((await self._reader.readuntil(b"\r\n")).strip() or b"0", 16)
            await self._reader.readexactly(size + 2)
            if size == 0:
                return total
            total += size

    async def call(self, request: bytes) -> int:
        """One whole exchange; raises when the status is not 200."""
        self.send(request)
        status, chunked, length = await self.headers()
        size = await self.body(chunked, length)
        if status != 200:
            raise RuntimeError(f"the benchmark got a {status}")
        return size


def request(path: str, body: bytes, token: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
