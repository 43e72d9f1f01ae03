"""A server within TLS for tests, and clients whose every byte the test sends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tornado.web import Application

from pool_server.http1 import HttpServer
from pool_server.http1.admission import ConnectionLimits, ConnectionTable
from pool_server.http1.server_connection import ServerConnection
from pool_server.http1.tornado import TornadoRequestHandler
from tests.http1.tls import contexts
from tests.http1.wire import Echo


class Tls:
    """A server within TLS, and what trusts it."""

    def __init__(self, server: HttpServer, port: int, context: ssl.SSLContext, told: list[str]) -> None:
        self.server, self.port, self.client, self.told = server, port, context, told

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.client, server_hostname="localhost")

    async def plain(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@contextlib.asynccontextmanager
async def serving(
    folder: Path, kind: type[Echo] = Echo, app: Application | None = None, **limits: Any
) -> AsyncIterator[Tls]:
    own, trusting = contexts(folder)
    own.set_alpn_protocols(["http/1.1"])
    own.options |= ssl.OP_NO_RENEGOTIATION
    told: list[str] = []
    table: ConnectionTable[ServerConnection] = ConnectionTable(ConnectionLimits(**limits))
    seen: list[Echo] = []

    def serve(request: Any, response: Any) -> Any:
        return kind(request, response, seen) if app is None else TornadoRequestHandler(app, request, response, "https")

    server = HttpServer(
        serve, table=table, told=lambda what, why: told.append(f"{what} {why}".strip()), tls=lambda: own
    )
    bound = socket.create_server(("127.0.0.1", 0))
    await server.listen([bound])
    try:
        yield Tls(server, bound.getsockname()[1], trusting, told)
    finally:
        await server.close()


async def gone(tls: Tls) -> None:
    while tls.server.connections:
        await asyncio.sleep(0.001)


class Raw:
    """A client whose every byte the test sends."""

    def __init__(self, tls: ssl.SSLObject, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tls, self.reader, self.writer = tls, reader, writer


async def shaken(tls: Tls, *, piece: int = 1 << 16) -> tuple[Raw, ssl.MemoryBIO, ssl.MemoryBIO]:
    """A client after its handshake, sent in pieces."""
    reader, writer = await tls.plain()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    own = tls.client.wrap_bio(incoming, outgoing, server_hostname="localhost")
    while True:
        try:
            own.do_handshake()
            break
        except ssl.SSLWantReadError:
            sent = outgoing.read()
            for start in range(0, len(sent), piece):
                writer.write(sent[start : start + piece])
                await writer.drain()
                await asyncio.sleep(0)
            incoming.write(await reader.read(9999))
    writer.write(outgoing.read())
    return Raw(own, reader, writer), incoming, outgoing
