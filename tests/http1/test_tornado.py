"""Tornado's handlers and sockets behind this front behave as behind Tornado's own server."""

from __future__ import annotations

import asyncio
import os
from http.client import responses

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import websocket_connect

from pool_server.http1 import HttpServer
from tests.http1.pages import SWITCH, ask, descriptors, hosted, left, looked, opened, parts, seen_by_the_handler


@pytest.mark.gen_test
async def test_pages(port: int) -> None:
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


@pytest.mark.gen_test
async def test_pages_for_a_client_that_keeps_its_connection(http_client: AsyncHTTPClient, base_url: str) -> None:
    plain = await http_client.fetch(f"{base_url}/")
    assert (plain.code, plain.body, plain.headers["X-Peer"]) == (200, b"page", "127.0.0.1")
    assert (await http_client.fetch(f"{base_url}/", method="POST", body="hi")).body == b"hi"
    assert (await http_client.fetch(f"{base_url}/pieces")).body == b"0;1;2;"
    for path, headers, status in (("/", {"If-None-Match": plain.headers["Etag"]}, 304), ("/none", {}, 404)):
        answer = await http_client.fetch(base_url + path, headers=headers, raise_error=False)
        assert (answer.code, answer.reason) == (status, responses[status])


@pytest.mark.gen_test
async def test_a_handler_that_miscounts_is_not_passed_off_as_whole(port: int) -> None:
    for path, sent in (("/little", b"five!"), ("/much", b"1")):
        assert parts(await ask(port, f"GET {path} HTTP/1.1\r\n\r\n")) == [(200, sent)], "then it ends"


@pytest.mark.gen_test
async def test_a_body_is_taken_at_the_handlers_pace_and_up_to_its_limit(port: int) -> None:
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


@pytest.mark.parametrize(
    ("request_", "who"),
    [
        ("GET /endless HTTP/1.1\r\n\r\n", "pieces"),
        ("POST /careful HTTP/1.1\r\nContent-Length: 9\r\n\r\n1", "careful"),
    ],
)
@pytest.mark.gen_test
async def test_a_handler_hears_that_its_client_left(port: int, request_: str, who: str) -> None:
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


@pytest.mark.gen_test
async def test_a_websocket_takes_its_connection_along(http_server: HttpServer, port: int) -> None:
    before = await descriptors(port)
    socket_ = await websocket_connect(f"ws://127.0.0.1:{port}/talk")
    for text in ("a", "b" * 100_000):
        await socket_.write_message(text)
        assert await socket_.read_message() == f"heard {text!r}"
    assert http_server.connections == set()
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


@pytest.mark.gen_test
async def test_what_a_client_sends_ahead_of_the_switch_is_not_lost(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    masked = bytes([0x81, 0x82, 0, 0, 0, 0]) + b"hi"
    writer.write(SWITCH + masked)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert await reader.readexactly(2 + 10) == b"\x81\x0aheard 'hi'"
    writer.close()
    while not left:
        await asyncio.sleep(0.001)


@pytest.mark.gen_test
async def test_a_client_that_leaves_before_the_switch_leaves_nothing_behind(
    http_server: HttpServer, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = await descriptors(port)
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(SWITCH.replace(b"/talk", b"/talk?slow"))
        while not http_server.connections or http_server.table.new:
            await asyncio.sleep(0.001)
        writer.transport.abort()
    while len(opened) < 3:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)
    assert http_server.connections == set()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert left == ["talk None"] * 3
    assert caplog.records == []


@pytest.mark.gen_test
async def test_a_switch_refused_ends_the_connection_and_says_so(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(SWITCH.replace(b"Version: 13", b"Version: 99"))
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 426 ")
    assert b"Connection: close" in answer
    writer.close()


@pytest.mark.gen_test
async def test_no_descriptor_is_left_for_a_socket(
    http_server: HttpServer, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(number: int) -> int:
        raise OSError(24, "Too many open files")

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with monkeypatch.context() as patched:
        patched.setattr(os, "dup", none_left)
        writer.write(SWITCH)
        assert await reader.read() == b""
    assert http_server.connections == set()
    writer.close()


@pytest.mark.parametrize("path", ["/careful", "/", "/none", "/talk"])
@pytest.mark.gen_test
async def test_a_request_that_turns_out_to_be_none_is_refused_quietly(
    port: int, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(hosted(f"POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nzz\r\n"))
    assert parts(await reader.read()) == [(400, b"")]
    writer.close()
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
@pytest.mark.gen_test
async def test_odd_requests_are_answered_quietly(
    port: int, request_: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert parts(await ask(port, request_))[0][0] == status
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.gen_test
async def test_a_socket_whose_client_is_slow_gets_every_frame_whole_and_in_order(port: int) -> None:
    talk = await websocket_connect(f"ws://127.0.0.1:{port}/flood", max_message_size=1 << 24)
    for number in range(60):
        text = await talk.read_message()
        assert text == f"{number}:" + "x" * (1 + number * 5000)
    talk.close()
