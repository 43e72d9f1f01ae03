"""The least a proxy in Python costs: uvloop and llhttp carry requests up and answers down, nothing else is done.

`python benchmarks/floor.py PORT UPSTREAM_PORT`. Each client connection has one upstream connection of its own; heads
are parsed and written anew, bodies pass as they come. It stands beside the server in `benchmarks/compare.py`: a floor
moves with the machine as the server does.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop
from httptools import HttpRequestParser, HttpResponseParser

_HOPS = frozenset((b"host", b"connection", b"content-length", b"transfer-encoding", b"authorization"))


class Side(asyncio.Protocol):
    """One connection; what it reads goes to the `other`."""

    other: Side | None = None
    transport: asyncio.Transport | None = None

    def __init__(self) -> None:
        self.waiting: list[bytes] = []  # for the other side to be connected
        self.headers: list[tuple[bytes, bytes]] = []
        self.chunked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        waiting, self.waiting = self.waiting, []
        for data in waiting:
            self.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()
        self.other = None

    def send(self, data: bytes) -> None:
        if self.transport is None:
            self.waiting.append(data)
        else:
            self.transport.write(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def head(self, line: bytes) -> bytes:
        """The head as it goes on, with the framing of the body as it came."""
        headers, self.headers = self.headers, []
        framing = [pair for pair in headers if pair[0].lower() in (b"content-length", b"transfer-encoding")]
        self.chunked = any(name.lower() == b"transfer-encoding" for name, _ in framing)
        kept = [pair for pair in headers if pair[0].lower() not in _HOPS]
        return line + b"".join(b"%b: %b\r\n" % pair for pair in (*kept, *framing)) + b"\r\n"

    def on_body(self, data: bytes) -> None:
        assert self.other is not None
        self.other.send(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def on_message_complete(self) -> None:
        if self.chunked and self.other is not None:
            self.other.send(b"0\r\n\r\n")


class Upstream(Side):
    def __init__(self, client: Client) -> None:
        super().__init__()
        self.other = client
        self.parser = HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_headers_complete(self) -> None:
        if self.other is not None:
            self.other.send(self.head(b"HTTP/1.1 %d OK\r\n" % self.parser.get_status_code()))


class Client(Side):
    def __init__(self, upstream_port: int) -> None:
        super().__init__()
        self.port = upstream_port
        self.parser = HttpRequestParser(self)
        self.target = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.other = Upstream(self)
        loop = asyncio.get_running_loop()
        upstream = self.other
        self.opening = loop.create_task(loop.create_connection(lambda: upstream, "127.0.0.1", self.port))

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.target = url

    def on_headers_complete(self) -> None:
        if self.other is not None:
            line = b"%b %b HTTP/1.1\r\nHost: 127.0.0.1\r\n" % (self.parser.get_method(), self.target)
            self.other.send(self.head(line))


async def main() -> None:
    port, upstream_port = int(sys.argv[1]), int(sys.argv[2])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Client(upstream_port), "127.0.0.1", port, backlog=8192)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
