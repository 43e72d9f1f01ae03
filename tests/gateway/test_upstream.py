"""The client toward the providers: what goes out, when it is tried again, and what a failure is called."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import pytest

from pool_server.core.models import HttpRequest, UpstreamRequest
from pool_server.core.origins import origins
from pool_server.gateway.upstream import Upstream, UpstreamError, refusal_body
from pool_server.http1 import Body, UpstreamDisconnectedError
from tests.http1.wire import LOOPS, raw_server, read_request, run

ANSWER = b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello"


async def call(upstream: Upstream, url: str, body: Body = b"{}", *, proxy: str | None = None) -> bytes:
    prepared = UpstreamRequest("POST", url, [("X-One", "1")], egress=origins(url))
    size = len(body) if isinstance(body, bytes) else 2
    answer = await upstream.open(prepared, body, size=size, proxy_url=proxy, first_byte_s=5)
    return b"".join([piece async for piece in answer.pieces()])


class Server:
    """Answers `each` requests a connection, then closes it when the next one is here."""

    def __init__(self, each: int, answer: bytes = ANSWER) -> None:
        self.each, self.answer = each, answer
        self.heads: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        for _ in range(self.each):
            self.heads.append((await read_request(reader))[0])
            writer.write(self.answer)
        await read_request(reader)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_kept_connection_that_closed_just_now_is_no_fault(loop: str) -> None:
    async def test() -> None:
        server = Server(each=1)
        async with raw_server(server) as port:
            upstream = Upstream()
            for _ in range(3):
                assert await call(upstream, f"http://127.0.0.1:{port}/x?y=z") == b"hello"
            assert (server.connections, len(server.heads)) == (3, 3)
            host = f"Host: 127.0.0.1:{port}\r\n".encode()
            assert server.heads[0] == b"POST /x?y=z HTTP/1.1\r\n" + host + b"X-One: 1\r\nContent-Length: 2\r\n\r\n"
            await upstream.close()

    run(test, loop)


def test_a_new_connection_that_closes_is_a_fault_and_tried_once() -> None:
    async def test() -> None:
        server = Server(each=0)
        async with raw_server(server) as port:
            upstream = Upstream()
            with pytest.raises(UpstreamError, match="closed before the answer"):
                await call(upstream, f"http://127.0.0.1:{port}/")
            assert server.connections == 1
            await upstream.close()

    run(test)


def test_a_kept_connection_that_began_to_answer_is_not_tried_again() -> None:
    async def test() -> None:
        async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(ANSWER)
            asked.append(await read_request(reader))
            writer.write(b"HTTP/1.1 20")

        asked: list[object] = []
        async with raw_server(half) as port:
            upstream = Upstream()
            await call(upstream, f"http://127.0.0.1:{port}/")
            with pytest.raises(UpstreamError, match="closed before the answer"):
                await call(upstream, f"http://127.0.0.1:{port}/")
            assert len(asked) == 1
            await upstream.close()

    run(test)


def test_a_body_that_can_be_sent_once_goes_over_a_new_connection() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"{"
        yield b"}"

    async def test() -> None:
        server = Server(each=9)
        async with raw_server(server) as port:
            upstream = Upstream()
            await call(upstream, f"http://127.0.0.1:{port}/")
            assert await call(upstream, f"http://127.0.0.1:{port}/", pieces()) == b"hello"
            assert server.connections == 2
            await upstream.close()

    run(test)


def test_a_proxy_is_asked_for_plain_addresses_whole() -> None:
    async def test() -> None:
        server = Server(each=2)
        async with raw_server(server) as port:
            upstream = Upstream()
            url = "http://provider.invalid/v1/x?y=z#part"
            for _ in range(2):
                assert await call(upstream, url, proxy=f"http://u:p@127.0.0.1:{port}") == b"hello"
            assert server.connections == 1
            assert server.heads[0].startswith(b"POST http://provider.invalid/v1/x?y=z HTTP/1.1\r\nHost: provider.inv")
            assert b"Proxy-Authorization: Basic dTpw\r\n" in server.heads[0]
            assert await call(upstream, f"http://127.0.0.1:{port}/") == b"hello", "a line of its own"
            assert b"Proxy-Authorization" not in server.heads[2]
            await upstream.close()

    run(test)


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http://", "http://user@host/", "http://h/a b", "http://h/a\r\nX: y", "http://h:99999/"]
)
def test_what_is_no_address_is_not_asked(url: str) -> None:
    async def test() -> None:
        upstream = Upstream()
        with pytest.raises(UpstreamError, match="cannot be written"):
            await call(upstream, url)
        answer = await upstream.send(HttpRequest("GET", url, egress=origins(url)))
        assert (answer.status, answer.error) == (0, "the request cannot be written as HTTP")

    run(test)


def test_an_own_call_says_what_failed_and_never_raises() -> None:
    async def test() -> None:
        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head, body = await read_request(reader)
            if b"/silent" in head:
                await reader.read()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + body)
            if b"/stalls" in head:
                await reader.read()

        async with raw_server(slow) as port:
            upstream, base = Upstream(), f"http://127.0.0.1:{port}"
            whole = await upstream.send(HttpRequest("POST", base, (("A", "b"),), b"123456789", egress=origins(base)))
            assert (whole.status, whole.body, whole.error) == (200, b"123456789", "")
            cut = await upstream.send(HttpRequest("POST", base, (), b"123", egress=origins(base)))
            assert (cut.status, cut.error) == (0, "connection closed before the answer was complete")
            for path in ("/silent", "/stalls"):
                late = await upstream.send(
                    HttpRequest("POST", base + path, (), b"1", timeout_s=0.05, egress=origins(base))
                )
                assert (late.status, late.error) == (0, "no answer in time")
            await upstream.close()

    run(test)


def test_a_refusal_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_server.gateway.upstream._REFUSAL_S", 0.05)
    monkeypatch.setattr("pool_server.gateway.upstream._ANSWER_CAP", 100_000)

    async def test() -> None:
        async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head, _ = await read_request(reader)
            writer.write(b"HTTP/1.1 500 No\r\n\r\n")
            while b"/much" in head:
                writer.write(b"x" * 10_000)
                await writer.drain()
            await reader.read()

        async with raw_server(endless) as port:
            upstream = Upstream()
            for path, size in (("/much", 100_000), ("/never", 0)):
                prepared = UpstreamRequest("POST", url := f"http://127.0.0.1:{port}{path}", [], egress=origins(url))
                answer = await upstream.open(prepared, b"{}", size=2, proxy_url=None, first_byte_s=5)
                assert (answer.status, len(await refusal_body(answer))) == (500, size)
                answer.close()
            await upstream.close()

    run(test)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("size", [2, 3 << 20])
def test_whoever_gives_up_at_any_moment_leaves_no_connection_in_between(loop: str, size: int) -> None:
    """Cancelled ever later on the way of a call: each connection is closed or kept, and what is kept still serves."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            for piece in (ANSWER[:9], ANSWER[9:-3], ANSWER[-3:]):
                writer.write(piece)
                await asyncio.sleep(0)

    async def test() -> None:
        async with raw_server(talk, limit=1 << 22) as port:
            upstream, url, body = Upstream(), f"http://127.0.0.1:{port}/", b"x" * size
            before, turns, whole = len(os.listdir("/proc/self/fd")), 0, 0
            while whole < 3:
                task = asyncio.get_running_loop().create_task(call(upstream, url, body))
                for _ in range(turns):
                    await asyncio.sleep(0)
                whole += task.done()
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    assert await task == b"hello"
                turns += 1
            assert await call(upstream, url, body) == b"hello"
            await upstream.close()
            for _ in range(200):
                if len(os.listdir("/proc/self/fd")) <= before:
                    break
                await asyncio.sleep(0.01)
            assert len(os.listdir("/proc/self/fd")) <= before

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_answer_cut_at_any_byte_is_never_taken_for_whole(loop: str) -> None:
    async def test() -> None:
        for at in range(len(ANSWER)):

            async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, at: int = at) -> None:
                await read_request(reader)
                writer.write(ANSWER[:at])

            async with raw_server(cut) as port:
                upstream = Upstream()
                with pytest.raises((UpstreamError, UpstreamDisconnectedError)):
                    await call(upstream, f"http://127.0.0.1:{port}/")
                await upstream.close()

    run(test, loop)
