"""Connections: direct, within TLS, through proxies; which are kept, for how long, and what is said when none comes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import ssl
from pathlib import Path
from types import SimpleNamespace

import pytest

from pool_server.http1 import connection_pool as lines_module
from pool_server.http1.client_connection import ClientConnection, UpstreamDisconnectedError, request_head
from pool_server.http1.connection_pool import ConnectError, ConnectionPool, Origin
from tests.http1.tls import contexts
from tests.http1.wire import LOOPS, passing, raw_server, read_request, run

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
HEAD = request_head("GET", "/", "here", [], 0)


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(ANSWER)


async def ask(connection: ClientConnection) -> bytes:
    answer = await connection.exchange(HEAD, b"", within_s=9)
    return b"".join([piece async for piece in answer.pieces()])


def trusting(client: ssl.SSLContext) -> ConnectionPool:
    lines = ConnectionPool()
    lines._tls = client
    return lines


class Proxy:
    """An HTTP proxy: passes bytes on once it was asked properly."""

    def __init__(self, *, refuse: bytes = b"") -> None:
        self.asked: list[bytes] = []
        self._refuse = refuse

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        if self._refuse:
            writer.write(self._refuse)
            return
        port = int(head.split()[1].rpartition(b":")[2])
        there, out = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 ClientConnection established\r\nVia: test\r\n\r\n")
        await asyncio.gather(passing(reader, out), passing(there, writer))


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_is_kept_and_used_again_until_it_is_old(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with raw_server(answer_all) as port:
            lines, line = ConnectionPool(), Origin(False, "127.0.0.1", port)
            assert lines.kept(line) is None
            first, second = await lines.dial(line), await lines.dial(line)
            assert await ask(first) == await ask(second) == b"hello"
            assert lines.kept(line) is second, "the one used last"
            assert lines.kept(line) is first
            assert lines.kept(line) is None
            assert await ask(first) == b"hello"
            monkeypatch.setattr(lines_module, "KEPT_S", -1.0)
            assert lines.kept(line) is None
            assert first.closed
            monkeypatch.setattr(lines_module, "KEPT_S", 60.0)
            assert await ask(second) == b"hello"
            lines.close()
            assert second.closed
            assert lines.kept(line) is None

    run(test, loop)


def test_idle_connections_are_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "KEPT_S", 0.02)

    async def test() -> None:
        async with raw_server(answer_all) as port:
            lines, line = ConnectionPool(), Origin(False, "127.0.0.1", port)
            connection = await lines.dial(line)
            await ask(connection)
            while not connection.closed:
                await asyncio.sleep(0.005)
            lines.close()

    run(test)


@pytest.mark.slow
def test_a_sweep_leaves_those_that_are_young() -> None:
    async def test() -> None:
        async with raw_server(answer_all) as port:
            lines, line = ConnectionPool(), Origin(False, "127.0.0.1", port)
            old, young = await lines.dial(line), await lines.dial(line)
            await ask(old)
            await ask(young)
            old.idle_since = -1e9
            lines._close_old()
            assert old.closed and not young.closed
            assert lines.kept(line) is young and lines.kept(line) is None
            lines.close()

    run(test)


@pytest.mark.parametrize("loop", LOOPS)
def test_within_tls(loop: str, tmp_path: Path) -> None:
    server, client = contexts(tmp_path)

    async def test() -> None:
        async with raw_server(answer_all, ssl=server) as port:
            lines, before = trusting(client), len(os.listdir("/proc/self/fd"))
            connection = await lines.dial(Origin(True, "localhost", port))
            assert await ask(connection) == b"hello"
            assert await ask(connection) == b"hello"
            lines.close()
            while len(os.listdir("/proc/self/fd")) > before:  # the server's side of it
                await asyncio.sleep(0.001)
            with pytest.raises(ConnectError, match="TLS handshake failed"):
                await ConnectionPool().dial(Origin(True, "localhost", port))
            while len(os.listdir("/proc/self/fd")) > before:
                await asyncio.sleep(0.001)

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("secure_proxy", [False, True])
def test_through_a_proxy_to_tls(loop: str, secure_proxy: bool, tmp_path: Path) -> None:
    server, client = contexts(tmp_path)
    proxy = Proxy()

    async def test() -> None:
        async with (
            raw_server(answer_all, ssl=server) as port,
            raw_server(proxy, ssl=server if secure_proxy else None) as proxy_port,
        ):
            scheme = "https" if secure_proxy else "http"
            lines = trusting(client)
            line = Origin(True, "localhost", port, f"{scheme}://us%65r:p%40ss@localhost:{proxy_port}")
            connection = await lines.dial(line)
            assert await ask(connection) == b"hello"
            assert await ask(connection) == b"hello"
            assert lines.kept(line) is connection
            connection.fail("")
            asked = proxy.asked[0]
            assert asked.startswith(f"CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n".encode())
            assert b"Proxy-Authorization: Basic " + base64.b64encode(b"user:p@ss") in asked

    run(test, loop)


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", r"refused the connection \(407\)"),
        (b"HTTP/1.0 502 Bad Gateway\r\nX: y\r\n\r\n", r"refused the connection \(502\)"),
        (b"220 mail ready\r\n\r\n", "no HTTP"),
        (b"\x00" * 70_000, "no HTTP"),
        (b" ", "no HTTP"),
    ],
)
def test_a_proxy_that_will_not(refusal: bytes, why: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with raw_server(Proxy(refuse=refusal)) as port:
            lines = trusting(contexts(tmp_path)[1])
            with pytest.raises(ConnectError, match=why):
                await lines.dial(Origin(True, "localhost", 1, f"http://127.0.0.1:{port}"))

    run(test)


@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_said_when_nobody_is_reached(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def test() -> None:
        lines = ConnectionPool()
        for line, why in (
            (Origin(False, "127.0.0.1", port), "connection refused or host not reachable"),
            (Origin(True, "127.0.0.1", port, f"http://127.0.0.1:{port}"), "proxy not reachable"),
            (Origin(False, "no-such-host.invalid", 80), "host name not found"),
        ):
            with pytest.raises(ConnectError, match=why):
                await lines.dial(line)
        async with raw_server(silent) as quiet:
            monkeypatch.setattr(lines_module, "CONNECT_S", 0.2)
            with pytest.raises(ConnectError, match="in time"):
                await lines.dial(Origin(True, "localhost", 1, f"http://127.0.0.1:{quiet}"))

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_what_was_in_use_when_all_was_closed_is_not_kept(loop: str) -> None:
    async def test() -> None:
        async with raw_server(answer_all) as port:
            lines, line = ConnectionPool(), Origin(False, "127.0.0.1", port)
            connection = await lines.dial(line)
            lines.close()
            assert await ask(connection) == b"hello"
            assert connection.closed
            assert lines.kept(line) is None

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("behind", [b"", b"no TLS at all", b"\x16\x03\x03\x00\x05"])
def test_a_tunnel_that_leads_nowhere(loop: str, behind: bytes, tmp_path: Path) -> None:
    async def test() -> None:
        async with raw_server(Proxy(refuse=b"HTTP/1.1 200 OK\r\n\r\n" + behind)) as port:
            lines = trusting(contexts(tmp_path)[1])
            for _ in range(20):
                with pytest.raises(ConnectError):
                    await lines.dial(Origin(True, "localhost", 1, f"http://127.0.0.1:{port}"))

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("secure_proxy", [False, True])
def test_whoever_gives_up_dialling_leaves_nothing_open(loop: str, secure_proxy: bool, tmp_path: Path) -> None:
    """Cancelled at every turn of the event loop that the whole way takes."""
    server, client = contexts(tmp_path)

    async def test() -> None:
        async with (
            raw_server(answer_all, ssl=server) as port,
            raw_server(Proxy(), ssl=server if secure_proxy else None) as proxy_port,
        ):
            scheme = "https" if secure_proxy else "http"
            line = Origin(True, "localhost", port, f"{scheme}://localhost:{proxy_port}")
            lines, turns, whole = trusting(client), 0, False
            before = _open_files()
            while not whole:
                task = asyncio.get_running_loop().create_task(lines.dial(line))
                for _ in range(turns):
                    await asyncio.sleep(0.0005)
                whole = task.done()
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    (await task).fail("")
                turns += 1
            for _ in range(200):
                if _open_files() <= before:
                    break
                await asyncio.sleep(0.01)
            assert _open_files() <= before

    run(test, loop)


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("loop", LOOPS)
def test_an_ipv6_literal(loop: str) -> None:
    async def test() -> None:
        async with raw_server(answer_all, host="::1") as port:
            connection = await ConnectionPool().dial(Origin(False, "::1", port))
            assert await ask(connection) == b"hello"
            connection.fail("")

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_through_a_proxy_that_is_asked_for_each_address(loop: str, tmp_path: Path) -> None:
    server, client = contexts(tmp_path)

    async def test() -> None:
        async with raw_server(answer_all) as plain, raw_server(answer_all, ssl=server) as secure:
            lines = trusting(client)
            for proxy in (f"http://127.0.0.1:{plain}", f"https://localhost:{secure}"):
                connection = await lines.dial(Origin(False, "unknown.example", 80, proxy))
                assert await ask(connection) == b"hello"
            lines.close()

    run(test, loop)


def test_a_kept_connection_that_has_ended_is_passed_over() -> None:
    async def test() -> None:
        async with raw_server(answer_all) as port:
            lines, line = ConnectionPool(), Origin(False, "127.0.0.1", port)
            first, second = await lines.dial(line), await lines.dial(line)
            assert await ask(first) == await ask(second) == b"hello"
            second.fail("")
            assert lines.kept(line) is first
            first.fail("")
            with pytest.raises(UpstreamDisconnectedError):
                await ask(first)
            lines.close()

    run(test)


def test_a_tunnel_lost_as_its_tls_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async def lost(*args: object, **options: object) -> None:
            """uvloop returns no transport where the connection is lost within the handshake's last turn."""

        monkeypatch.setattr(asyncio.get_running_loop(), "start_tls", lost)
        async with raw_server(Proxy(refuse=b"HTTP/1.1 200 OK\r\n\r\n")) as port:
            with pytest.raises(ConnectError, match="proxy not reachable"):
                await trusting(contexts(tmp_path)[1]).dial(Origin(True, "here", 1, f"http://127.0.0.1:{port}"))

    run(test)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_nobody_waits_for_any_more_may_fail(loop: str, tmp_path: Path) -> None:
    async def test() -> None:
        asked, go, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            asked.set()
            await go.wait()
            writer.transport.abort()
            over.set()

        async with raw_server(hang_up) as port:
            before = _open_files()
            dialling = asyncio.ensure_future(trusting(contexts(tmp_path)[1]).dial(Origin(True, "localhost", port)))
            await asked.wait()
            dialling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dialling
            go.set()
            await over.wait()
            while _open_files() > before or any("create_connection" in repr(task) for task in asyncio.all_tasks()):
                await asyncio.sleep(0.001)

    run(test, loop)


@pytest.mark.parametrize(("late_s", "ways"), [(0.1, 1), (1.0, 2)])
def test_a_time_that_ran_out_while_the_process_stood_still_is_given_once_more(
    late_s: float, ways: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = [100.0], []

    async def way(*_: object, **__: object) -> None:
        asked.append(now[0])
        now[0] += lines_module.CONNECT_S + late_s
        raise TimeoutError

    lines = ConnectionPool()
    monkeypatch.setattr(lines, "_way", way)
    monkeypatch.setattr(lines_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with pytest.raises(ConnectError, match="no connection in time"):
        asyncio.run(lines.dial(Origin(False, "127.0.0.1", 9)))
    assert len(asked) == ways, "a host that does not answer is waited for once"
