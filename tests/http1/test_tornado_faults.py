"""Requests and handlers that end otherwise than Tornado expects."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tornado.web import Application, RequestHandler

from pool_server.http1 import HttpServer, Request, Response
from pool_server.http1.tornado import TornadoRequestHandler, _Straight
from tests.http1.pages import Plain, ask, parts
from tests.http1.wire import GET, Wire, run

EARLY = (
    "POST /early{} HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n2\r\nho\r\n0\r\n\r\n"
)


@pytest.mark.gen_test
async def test_a_handler_that_has_seen_enough_is_not_told_more(port: int) -> None:
    assert parts(await ask(port, EARLY.format(""), then=""))[0] == (200, b"hi")


@pytest.mark.parametrize(("query", "status", "body"), [("?fail", 500, b""), ("?fail=late", 200, b"5\r\nbegun\r\n")])
@pytest.mark.gen_test
async def test_a_fault_beside_the_answer_ends_the_connection_and_is_logged(
    port: int, query: str, status: int, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert parts(await ask(port, EARLY.format(query), then="")) == [(status, body)]
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "a page's request failed outside its handler"
    ]


@pytest.mark.parametrize("header", ["Cookie: " + "a=b; " * 300, "Cookie: a=" + "b" * 20_000])
@pytest.mark.gen_test
async def test_cookies_beyond_reason_are_not_taken_apart(port: int, header: str) -> None:
    assert parts(await ask(port, f"GET / HTTP/1.1\r\n{header}\r\n\r\n", then="")) == [(431, b"")]
    assert parts(await ask(port, "GET /?" + "a&" * 300 + " HTTP/1.1\r\n\r\n", then="")) == [(431, b"")]


@pytest.mark.parametrize("much", [b"", b"; ".join([b"a=b"] * 300)])
def test_a_client_that_leaves_at_once_is_not_served(much: bytes) -> None:
    async def test() -> None:
        pages = Application([("/", Plain)], log_function=lambda handler: served.append(handler))
        served: list[RequestHandler] = []
        made: list[TornadoRequestHandler] = []

        def serve(request: Request, response: Response) -> TornadoRequestHandler:
            made.append(TornadoRequestHandler(pages, request, response))
            return made[-1]

        talk = Wire(front=HttpServer(serve))
        talk.feed(GET.replace(b"/get", b"/").replace(b"\r\n\r\n", b"\r\nCookie: " + much + b"\r\n\r\n"))
        talk.connection.connection_lost(None)
        for _ in range(3):
            await asyncio.sleep(0)
        assert (len(made), served, talk.transport.sent) == (1, [], b"")
        made[0]._end(500)
        assert talk.transport.sent == b""

    run(test)


def test_what_a_full_socket_does_not_take_goes_out_later() -> None:
    async def test() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        filled = 0
        with pytest.raises(BlockingIOError):
            while True:
                filled += near.send(b"x" * 4096)
        stream = _Straight(near, b"")
        waiting = stream.write(b"last")
        assert not waiting.done()
        got = b""
        while len(got) < filled + 4:
            got += await asyncio.get_running_loop().sock_recv(far, 1 << 16)
        await waiting
        assert got.endswith(b"xlast")
        stream.close()
        far.close()

    run(test)


def test_a_page_waits_for_the_rest_of_its_body() -> None:
    async def test() -> None:
        class Said(RequestHandler):
            def post(self) -> None:
                self.write(self.request.body)

        pages = Application([("/", Said)])
        talk = Wire(front=HttpServer(lambda request, response: TornadoRequestHandler(pages, request, response)))
        talk.feed(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n")
        for piece in (b"ab", b"cd", b"ef"):
            for _ in range(5):
                await asyncio.sleep(0)
            assert talk.transport.sent == b""
            talk.feed(piece)
        while not talk.transport.sent.endswith(b"abcdef"):
            await asyncio.sleep(0)
        talk.connection.connection_lost(None)

    run(test)


@pytest.mark.parametrize("host", [b"a b", b"\xff", b"x/../y", b"<x>"])
@pytest.mark.gen_test
async def test_a_host_that_is_none_is_refused(port: int, host: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert parts(await reader.read()) == [(400, b"")]
    writer.close()
