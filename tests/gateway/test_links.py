"""The bridge's side of a link: what was begun upstream ends with whoever waited for it."""

from __future__ import annotations

import asyncio

import pytest

from pool_server.core.models import UpstreamRequest
from pool_server.core.origins import origins
from pool_server.gateway.upstream import Upstream
from pool_server.gateway.websocket.links import HttpLink, LinkClosedError
from tests.http1.wire import raw_server, read_request, run

FRAME = '{"type": "response.create", "model": "m", "input": []}'
EVENT = b'data: {"type": "response.output_text.delta", "delta": "a"}\n\n'


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"HTTP/1.1 500 No\r\n\r\nbecause",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + EVENT,
    ],
)
def test_whoever_gives_up_takes_the_connection_along(begin: bytes) -> None:
    async def test() -> None:
        asked, hung_up = asyncio.Event(), asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(begin)
            asked.set()
            await reader.read()
            hung_up.set()

        async with raw_server(talk) as port:
            upstream = Upstream()
            prepared = UpstreamRequest("POST", url := f"http://127.0.0.1:{port}/", [], egress=origins(url))
            link = HttpLink("a", upstream, prepared, proxy_url=None, first_byte_s=9)
            task = asyncio.get_running_loop().create_task(link.send(FRAME))
            await asked.wait()
            if begin.startswith(b"HTTP/1.1 200"):
                await task
                assert "delta" in await link.receive()
                await link.close()
            else:
                task.cancel()
            async with asyncio.timeout(2):
                await hung_up.wait()
            await upstream.close()

    run(test)


def test_a_turn_begun_anew_lets_go_of_the_one_before() -> None:
    async def test() -> None:
        hung_up = 0

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal hung_up
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + EVENT)
            await reader.read()
            hung_up += 1

        async with raw_server(talk) as port:
            upstream = Upstream()
            prepared = UpstreamRequest("POST", url := f"http://127.0.0.1:{port}/", [], egress=origins(url))
            link = HttpLink("a", upstream, prepared, proxy_url=None, first_byte_s=9)
            for _ in range(2):
                await link.send(FRAME)
                await link.receive()
            await link.close()
            while hung_up < 2:
                await asyncio.sleep(0.01)
            await upstream.close()

    run(test)


def test_a_stream_that_breaks_off_closes_the_link() -> None:
    async def test() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + EVENT)

        async with raw_server(talk) as port:
            upstream = Upstream()
            prepared = UpstreamRequest("POST", url := f"http://127.0.0.1:{port}/", [], egress=origins(url))
            link = HttpLink("a", upstream, prepared, proxy_url=None, first_byte_s=9)
            await link.send(FRAME)
            await link.receive()
            with pytest.raises(LinkClosedError, match="before its last event"):
                await link.receive()
            await upstream.close()

    run(test)
