"""Handlers and sockets of every habit, and a raw client that reads what they answer byte by byte."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from tornado.web import RequestHandler, stream_request_body
from tornado.websocket import WebSocketHandler

from pool_server.http1.tornado import TornadoConnection

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
