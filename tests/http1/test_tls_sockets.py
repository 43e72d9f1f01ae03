"""WebSockets within TLS: the session goes on where the connection leaves HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from pathlib import Path

import pytest
from tornado.httpclient import HTTPRequest
from tornado.iostream import IOStream, StreamClosedError
from tornado.web import Application
from tornado.websocket import websocket_connect

from pool_server.http1.tls import TlsSession
from pool_server.http1.tornado import _Encrypted
from tests.http1 import pages
from tests.http1.secured import Tls, serving, shaken
from tests.http1.tls import contexts
from tests.http1.wire import LOOPS, run


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_a_websocket_goes_on_within_its_session(tmp_path: Path, loop: str) -> None:
    async def test() -> None:
        for events in (pages.left, pages.looked, pages.opened):
            events.clear()
        app = Application(list(pages.PAGES.items()), log_function=lambda handler: None)
        async with serving(tmp_path, app=app) as tls:
            before = len(os.listdir("/proc/self/fd"))
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                tls.client.maximum_version = version
                talk = await websocket_connect(secure(tls, "/talk"))
                for text in ("a", "b" * 3_000_000, "c" * 70_000):
                    await talk.write_message(text)
                    assert await talk.read_message() == f"heard {text!r}"
                assert len(tls.server.connections) == 0
                talk.close(4001, "enough")
                assert await talk.read_message() is None
                while not pages.left:
                    await asyncio.sleep(0.001)
                assert pages.left.pop() == "talk 4001"
                flood = await websocket_connect(secure(tls, "/flood"), max_message_size=1 << 24)
                for number in range(60):
                    assert await flood.read_message() == f"{number}:" + "x" * (1 + number * 5000)
                flood.close()
                while not pages.left:
                    await asyncio.sleep(0.001)
                pages.left.clear()
            for _ in range(100):
                if len(os.listdir("/proc/self/fd")) <= before + 1:
                    break
                await asyncio.sleep(0.01)
            assert len(os.listdir("/proc/self/fd")) <= before + 1, "no descriptor is left behind (uvloop makes one)"

    run(test, loop)


def secure(tls: Tls, path: str) -> HTTPRequest:
    return HTTPRequest(f"wss://localhost:{tls.port}{path}", ssl_options=tls.client)


@pytest.mark.parametrize("ending", ["goodbye", "cut", "garbage"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_websocket_whose_client_leaves_is_told(tmp_path: Path, loop: str, ending: str) -> None:
    async def test() -> None:
        pages.left.clear()
        app = Application(list(pages.PAGES.items()), log_function=lambda handler: None)
        async with serving(tmp_path, app=app) as tls:
            raw, incoming, outgoing = await shaken(tls)
            raw.tls.write(pages.SWITCH + bytes([0x81, 0x82, 0, 0, 0, 0]) + b"hi")
            raw.writer.write(outgoing.read())
            answer = b""
            while not answer.endswith(b"heard 'hi'"):
                incoming.write(await raw.reader.read(9999))
                with contextlib.suppress(ssl.SSLWantReadError):
                    while True:
                        answer += raw.tls.read()
            if ending == "goodbye":
                with contextlib.suppress(ssl.SSLWantReadError):
                    raw.tls.unwrap()
                raw.writer.write(outgoing.read())
            elif ending == "garbage":
                raw.writer.write(b"\x17\x03\x03\x00\x20" + b"x" * 32)
            else:
                raw.writer.close()
            while not pages.left:
                await asyncio.sleep(0.001)
            raw.writer.close()

    run(test, loop)


def test_what_a_slow_client_has_not_taken_of_a_websocket_is_sent_later_and_once(tmp_path: Path) -> None:
    async def test() -> None:
        own, trusting = contexts(tmp_path)
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        sides = [ssl.MemoryBIO() for _ in range(4)]
        server = own.wrap_bio(sides[0], sides[1], server_side=True)
        client = trusting.wrap_bio(sides[2], sides[3], server_hostname="localhost")
        for _ in range(4):
            for one, source, target in ((client, sides[3], sides[0]), (server, sides[1], sides[2])):
                with contextlib.suppress(ssl.SSLWantReadError):
                    one.do_handshake()
                target.write(source.read())
        stream = _Encrypted(ours, b"before", TlsSession(server, sides[0], sides[1]))
        assert await stream.read_bytes(6) == b"before"
        written = [stream.write(b"%d" % (number % 10) * 50_000) for number in range(40)]
        assert stream.writing()
        got = b""
        while len(got) < 40 * 50_000:
            with contextlib.suppress(BlockingIOError):
                sides[2].write(theirs.recv(70_000))
            with contextlib.suppress(ssl.SSLWantReadError):
                while True:
                    got += client.read()
            await asyncio.sleep(0)
        assert got == b"".join(b"%d" % (number % 10) * 50_000 for number in range(40))
        await asyncio.gather(*written)
        cut = stream.write(b"z" * 5_000_000)
        stream.close()
        with pytest.raises(StreamClosedError):
            await cut
        theirs.close()
        assert isinstance(stream, IOStream)

    run(test)
