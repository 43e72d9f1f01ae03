"""Both ends of a wire for tests: raw servers and raw clients on loopback, on either event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import uvloop

from pool_server.http1 import HttpServer, Request, Response
from pool_server.http1.server_connection import ServerConnection

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


GET = b"GET /get HTTP/1.1\r\nHost: x\r\n\r\n"


def run(test: Callable[[], Coroutine[Any, Any, None]], loop: str = "asyncio", *, within_s: float = 30.0) -> None:
    """Runs an async test body with a deadline that only a hang reaches."""

    async def bounded() -> None:
        async with asyncio.timeout(within_s):
            await test()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(bounded())


@contextlib.asynccontextmanager
async def raw_server(talk: Talk, *, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[int]:
    """A server that does with each connection what `talk` says; yields its port."""

    talks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        task.add_done_callback(talks.discard)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, TimeoutError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, host, 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if talks:
            await asyncio.wait(talks, timeout=1)  # those whose clients have left; their sockets are closed then
        for talk_left in talks:
            talk_left.cancel()  # since Python 3.12 a server waits for its connections
        await server.wait_closed()


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """(head, body) of a request with a Content-Length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return head, await reader.readexactly(length)


class Echo:
    """Answers with what it was asked, as soon as it is whole; `script` may answer otherwise."""

    def __init__(self, request: Request, response: Response, seen: list[Echo]) -> None:
        self.request, self.response = request, response
        self.body = b""
        self.left = False
        seen.append(self)

    def data_received(self, chunk: bytes) -> None:
        self.body += chunk

    def finish(self) -> None:
        told = f"{self.request.method} {self.request.target} {self.body.decode('latin-1')}".encode("latin-1")
        self.response.start(200, [("X-A", "b")], told, length=len(told))
        self.response.finish()

    def on_connection_close(self) -> None:
        self.left = True


class Mute(Echo):
    """Answers nothing by itself."""

    def finish(self) -> None:
        pass


class Transport(asyncio.Transport):
    """Keeps what is written and what was asked of it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 5)})
        self.sent = b""
        self.closed = self.aborted = self.paused = self.ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def write_eof(self) -> None:
        self.ended = True


class Wire:
    """A connection of a front without sockets."""

    def __init__(self, kind: type[Echo] = Echo, *, front: HttpServer | None = None) -> None:
        self.seen: list[Echo] = []
        self.told: list[tuple[str, str]] = []
        self.front = front or HttpServer(
            lambda request, response: kind(request, response, self.seen),
            told=lambda what, why: self.told.append((what, why)),
        )
        self.connection = ServerConnection(self.front, "127.0.0.1")
        self.transport = Transport()
        self.connection.connection_made(self.transport)

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.connection.data_received(piece)

    @property
    def statuses(self) -> list[int]:
        return [int(part[:3]) for part in self.transport.sent.split(b"HTTP/1.1 ")[1:]]


async def passing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What a proxy does: all that comes goes on, and the end too."""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    writer.close()
