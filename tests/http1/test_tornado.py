"""Tornado's handlers and sockets behind this front behave as behind Tornado's own server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tornado.web import Application, RequestHandler, stream_request_body
from tornado.websocket import WebSocketHandler, websocket_connect

from pool_server.http1 import HttpServer, TornadoConnection, TornadoRequestHandler
from tests.http1.wire import LOOPS, run

left: list[str] = []
looked: list[RequestHandler] = []  # handlers that have said how much they take


async def seen_by_the_handler() -> None:
    while not looked:
        await asyncio.sleep(0.001)


opened: list[str] = []


class Plain(RequestHandler):
    def get(self) -> None:
        self.set_header("X-Peer", self.request.remote_ip or "")
        self.write("page")

    head = get

    def post(self) -> None:
        self.write(self.request.body)


class Pieces(RequestHandler):
    async def get(self) -> None:
        for number in range(3):
            self.write(f"{number};")
            await self.flush()

    def on_connection_close(self) -> None:
        left.append("pieces")


class Endless(Pieces):
    async def get(self) -> None:
        while True:
            self.write("x" * 65536)
            await self.flush()


class TooLittle(RequestHandler):
    def get(self) -> None:
        self.set_header("Content-Length", "10")
        self.write("five!")


class TooMuch(RequestHandler):
    async def get(self) -> None:
        self.set_header("Content-Length", "2")
        self.write("1")
        await self.flush()
        self.write("23")


class Farewell(RequestHandler):
    def get(self) -> None:
        self.set_header("Connection", "close")
        self.write("bye")


@stream_request_body
class Careful(RequestHandler):
    """Looks before it reads, and takes ten bytes."""

    async def prepare(self) -> None:
        assert isinstance(self.request.connection, TornadoConnection)
        self.request.connection.set_max_body_size(10)
        looked.append(self)
        self.got = b""
        await asyncio.sleep(0.01)
        if self.request.headers.get("X-No"):
            self.set_status(403)
            self.finish("no")

    async def data_received(self, chunk: bytes) -> None:
        await asyncio.sleep(0)
        self.got += chunk

    def post(self) -> None:
        self.write(self.got)

    def on_connection_close(self) -> None:
        left.append("careful")


@stream_request_body
class Early(RequestHandler):
    """Has seen enough with the first piece; `?fail` fails there, with an answer begun where `?fail=late`."""

    def data_received(self, chunk: bytes) -> None:
        if self.request.query == "fail=late":
            self.write("begun")
            self.flush()
        if self.request.query:
            raise RuntimeError("a handler's own")
        self.finish(chunk)


class Broken(RequestHandler):
    def get(self) -> None:
        raise RuntimeError("a handler's own")

    def log_exception(self, *args: Any) -> None:
        pass


class Talk(WebSocketHandler):
    def check_origin(self, origin: str) -> bool:
        return True

    async def prepare(self) -> None:
        if self.request.query == "slow":
            await asyncio.sleep(0.05)

    def open(self, *args: str, **kwargs: str) -> None:
        opened.append(self.request.uri or "")

    def on_message(self, message: str | bytes) -> None:
        self.write_message(f"heard {message!r}")

    def on_close(self) -> None:
        left.append(f"talk {self.close_code}")


class Flood(Talk):
    def open(self, *args: str, **kwargs: str) -> None:
        for number in range(60):
            self.write_message(f"{number}:" + "x" * (1 + number * 5000))


PAGES = {
    "/": Plain, "/pieces": Pieces, "/endless": Endless, "/little": TooLittle, "/much": TooMuch, "/bye": Farewell,
    "/careful": Careful, "/broken": Broken, "/early": Early, "/talk": Talk, "/flood": Flood,
}  # fmt: skip


@contextlib.asynccontextmanager
async def site() -> AsyncIterator[tuple[HttpServer, int]]:
    left.clear()
    looked.clear()
    opened.clear()
    pages = Application(list(PAGES.items()), log_function=lambda handler: None)
    front = HttpServer(lambda request, response: TornadoRequestHandler(pages, request, response))
    bound = socket.create_server(("127.0.0.1", 0))
    bound.setblocking(False)
    await front.listen([bound])
    try:
        yield front, bound.getsockname()[1]
    finally:
        await front.close()
        bound.close()


SWITCH = (
    b"GET /talk HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def hosted(requests: str) -> bytes:
    return requests.replace(" HTTP/1.1\r\n", " HTTP/1.1\r\nHost: x\r\n").encode()


async def ask(port: int, request: str, *, then: str = "GET /bye HTTP/1.1\r\n\r\n") -> bytes:
    """All that comes back, with a last request behind that ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(hosted(request + then))
    answer = await reader.read()
    writer.close()
    return answer


async def descriptors(port: int) -> int:
    """How many are open, after a first connection: uvloop opens one for itself then."""
    assert await ask(port, "GET / HTTP/1.1\r\n\r\n")
    await asyncio.sleep(0.01)
    return len(os.listdir("/proc/self/fd"))


def parts(answer: bytes) -> list[tuple[int, bytes]]:
    """(status, body) of the answers of a connection, bodies as they were framed."""
    found = []
    for part in answer.split(b"HTTP/1.1 ")[1:]:
        head, _, body = part.partition(b"\r\n\r\n")
        found.append((int(head[:3]), body))
    return found


@pytest.mark.parametrize("loop", LOOPS)
def test_pages(loop: str) -> None:
    async def test() -> None:
        async with site() as (_, port):
            bye = (200, b"bye")
            plain = await ask(port, "GET / HTTP/1.1\r\n\r\n")
            assert parts(plain) == [(200, b"page"), bye]
            assert b"X-Peer: 127.0.0.1\r\n" in plain
            assert b"Content-Length: 4\r\n" in plain
            assert parts(await ask(port, "HEAD / HTTP/1.1\r\n\r\n")) == [(200, b""), bye]
            assert parts(await ask(port, "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")) == [(200, b"hi"), bye]
            etag = plain.partition(b"Etag: ")[2].partition(b"\r\n")[0].decode()
            again = await ask(port, f"GET / HTTP/1.1\r\nIf-None-Match: {etag}\r\n\r\n")
            assert parts(again) == [(304, b""), bye]
            chunks = b"2\r\n0;\r\n2\r\n1;\r\n2\r\n2;\r\n0\r\n\r\n"
            assert parts(await ask(port, "GET /pieces HTTP/1.1\r\n\r\n")) == [(200, chunks), bye]
            assert parts(await ask(port, "GET /pieces HTTP/1.0\r\n\r\n", then="")) == [(200, b"0;1;2;")]
            assert [status for status, _ in parts(await ask(port, "GET /none HTTP/1.1\r\n\r\n"))] == [404, 200]
            assert [status for status, _ in parts(await ask(port, "GET /broken HTTP/1.1\r\n\r\n"))] == [500, 200]
            assert parts(await ask(port, "GET / HTTP/1.1\r\nA b: c\r\n\r\n"))[0][0] == 400

    run(test, loop)


def test_a_handler_that_miscounts_is_not_passed_off_as_whole() -> None:
    async def test() -> None:
        async with site() as (_, port):
            for path, sent in (("/little", b"five!"), ("/much", b"1")):
                assert parts(await ask(port, f"GET {path} HTTP/1.1\r\n\r\n")) == [(200, sent)], "then it ends"

    run(test)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_body_is_taken_at_the_handlers_pace_and_up_to_its_limit(loop: str) -> None:
    async def test() -> None:
        async with site() as (_, port):
            bye = (200, b"bye")
            post = "POST /careful HTTP/1.1\r\nContent-Length: {}\r\n\r\n"
            assert parts(await ask(port, post.format(10) + "0123456789")) == [(200, b"0123456789"), bye]
            chunked = "POST /careful HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            body = "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            assert parts(await ask(port, chunked + body)) == [(200, b"abcde")], "nothing is served behind chunks"
            refused = parts(await ask(port, "POST /careful HTTP/1.1\r\nX-No: 1\r\nContent-Length: 5\r\n\r\n12345"))
            assert refused == [(403, b"no"), bye]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            looked.clear()
            writer.write(hosted(post.format(100)))
            await seen_by_the_handler()
            writer.write(b"x" * 50)
            assert parts(await reader.read())[0][0] == 413
            writer.close()
            assert left == ["careful"]

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("request_", "who"),
    [
        ("GET /endless HTTP/1.1\r\n\r\n", "pieces"),
        ("POST /careful HTTP/1.1\r\nContent-Length: 9\r\n\r\n1", "careful"),
    ],
)
def test_a_handler_hears_that_its_client_left(loop: str, request_: str, who: str) -> None:
    async def test() -> None:
        async with site() as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(hosted(request_))
            if who == "careful":
                await seen_by_the_handler()
            else:
                await reader.readexactly(65536)
            writer.transport.abort()
            while not left:
                await asyncio.sleep(0.001)
            assert left == [who]

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_websocket_takes_its_connection_along(loop: str) -> None:
    async def test() -> None:
        async with site() as (front, port):
            before = await descriptors(port)
            socket_ = await websocket_connect(f"ws://127.0.0.1:{port}/talk")
            for text in ("a", "b" * 100_000):
                await socket_.write_message(text)
                assert await socket_.read_message() == f"heard {text!r}"
            assert front.connections == set()
            socket_.close(4001, "enough")
            assert await socket_.read_message() is None
            while not left:
                await asyncio.sleep(0.001)
            assert left == ["talk 4001"]
            for _ in range(100):
                if len(os.listdir("/proc/self/fd")) <= before:
                    break
                await asyncio.sleep(0.01)
            assert len(os.listdir("/proc/self/fd")) <= before, "no descriptor is left behind"

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_what_a_client_sends_ahead_of_the_switch_is_not_lost(loop: str) -> None:
    async def test() -> None:
        async with site() as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            masked = bytes([0x81, 0x82, 0, 0, 0, 0]) + b"hi"
            writer.write(SWITCH + masked)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
            assert await reader.readexactly(2 + 10) == b"\x81\x0aheard 'hi'"
            writer.close()
            while not left:
                await asyncio.sleep(0.001)

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_that_leaves_before_the_switch_leaves_nothing_behind(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with site() as (front, port):
            before = await descriptors(port)
            for _ in range(3):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(SWITCH.replace(b"/talk", b"/talk?slow"))
                while not front.connections or front.table.new:
                    await asyncio.sleep(0.001)
                writer.transport.abort()
            while len(opened) < 3:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
            assert front.connections == set()
            assert len(os.listdir("/proc/self/fd")) <= before
            assert left == ["talk None"] * 3

    run(test, loop)
    assert caplog.records == []


@pytest.mark.parametrize("loop", LOOPS)
def test_a_switch_refused_ends_the_connection_and_says_so(loop: str) -> None:
    async def test() -> None:
        async with site() as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(SWITCH.replace(b"Version: 13", b"Version: 99"))
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 426 ")
            assert b"Connection: close" in answer
            writer.close()

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_no_descriptor_is_left_for_a_socket(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(number: int) -> int:
        raise OSError(24, "Too many open files")

    async def test() -> None:
        async with site() as (front, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with monkeypatch.context() as patched:
                patched.setattr(os, "dup", none_left)
                writer.write(SWITCH)
                assert await reader.read() == b""
            assert front.connections == set()
            writer.close()

    run(test, loop)


@pytest.mark.parametrize("path", ["/careful", "/", "/none", "/talk"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_request_that_turns_out_to_be_none_is_refused_quietly(
    loop: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with site() as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(hosted(f"POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nzz\r\n"))
            assert parts(await reader.read()) == [(400, b"")]
            writer.close()

    run(test, loop)
    assert [record.getMessage() for record in caplog.records if record.levelname != "INFO"] == []


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("OPTIONS * HTTP/1.1\r\n\r\n", 404),
        ("CONNECT here:1 HTTP/1.1\r\n\r\n", 405),
        ("GET http://elsewhere/ HTTP/1.1\r\n\r\n", 404),
        ("PURGE / HTTP/1.1\r\n\r\n", 405),
        ("GET /%00%ff HTTP/1.1\r\n\r\n", 404),
        ("GET /?%00=%ff&;== HTTP/1.1\r\n\r\n", 200),
    ],
)
def test_odd_requests_are_answered_quietly(request_: str, status: int, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with site() as (_, port):
            assert parts(await ask(port, request_))[0][0] == status

    run(test)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("loop", LOOPS)
def test_a_socket_whose_client_is_slow_gets_every_frame_whole_and_in_order(loop: str) -> None:
    async def test() -> None:
        async with site() as (_, port):
            talk = await websocket_connect(f"ws://127.0.0.1:{port}/flood", max_message_size=1 << 24)
            for number in range(60):
                text = await talk.read_message()
                assert text == f"{number}:" + "x" * (1 + number * 5000)
            talk.close()

    run(test, loop)
