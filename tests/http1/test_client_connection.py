"""A connection to an upstream: every way an answer may come, end, break off or be none."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.http1.client_connection import (
    PIECE,
    Answer,
    ClientConnection,
    ResponseTimeoutError,
    UpstreamDisconnectedError,
    request_head,
)
from pool_server.http1.request import HEAD_CAP
from tests.http1.wire import LOOPS, raw_server, read_request, run

ASK = request_head("POST", "/v1/x", "here", [("A", "b")], 2)


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.paused = False
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.aborted = True


def connected() -> tuple[ClientConnection, Transport, list[ClientConnection]]:
    """A connection, what stands in for its socket, and those that became idle."""
    idle: list[ClientConnection] = []
    connection, transport = ClientConnection(idle.append), Transport()
    connection.connection_made(transport)
    return connection, transport, idle


async def begun(connection: ClientConnection, **options: bool) -> asyncio.Task[Answer]:
    task = asyncio.get_running_loop().create_task(connection.exchange(ASK, b"{}", within_s=9, **options))
    await asyncio.sleep(0)
    return task


async def whole(answer: Answer) -> bytes:
    return b"".join([piece async for piece in answer.pieces()])


BODY = b"data: one\n\ndata: two\n\n" * 3
FRAMED = b"".join(b"%x\r\n%b\r\n" % (len(BODY[i : i + 7]), BODY[i : i + 7]) for i in range(0, len(BODY), 7))
LENGTH = b"HTTP/1.1 200 OK\r\nX-One: 1\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = b"HTTP/1.1 200 OK\r\nX-One: 1\r\nTransfer-Encoding: chunked\r\n\r\n" + FRAMED + b"0\r\nT: railer\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("wire", [LENGTH, CHUNKED, INTERIM + LENGTH, INTERIM + CHUNKED])
@given(cuts=st.lists(st.integers(1, 400), max_size=12))
@settings(max_examples=60, deadline=None)
def test_an_answer_is_the_same_however_it_is_cut(wire: bytes, cuts: list[int]) -> None:
    async def test() -> None:
        connection, transport, idle = connected()
        task = await begun(connection)
        assert transport.sent == ASK + b"{}"
        places = sorted({cut for cut in cuts if cut < len(wire)})
        for start, end in zip([0, *places], [*places, len(wire)], strict=True):
            connection.data_received(wire[start:end])
        answer = await task
        assert (answer.status, answer.headers[0], answer.fields["x-one"]) == (200, ("X-One", "1"), "1")
        assert "x-early" not in answer.fields
        assert "t" not in answer.fields
        assert await whole(answer) == BODY
        assert idle == [connection]
        assert not transport.aborted

    run(test)


def test_every_single_byte_apart() -> None:
    async def test() -> None:
        for wire in (LENGTH, CHUNKED, INTERIM + CHUNKED):
            connection, _, idle = connected()
            task = await begun(connection)
            for byte in wire:
                connection.data_received(bytes([byte]))
            assert await whole(await task) == BODY
            assert idle == [connection]

    run(test)


def test_an_answer_that_ends_with_its_connection() -> None:
    async def test() -> None:
        connection, _, idle = connected()
        task = await begun(connection)
        connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nall ")
        connection.data_received(b"of it")
        connection.connection_lost(None)
        assert await whole(await task) == b"all of it"
        assert (idle, connection.closed) == ([], True)

    run(test)


@pytest.mark.parametrize(
    "cut", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]
)
def test_a_connection_that_ends_too_early_is_broken(cut: bytes) -> None:
    async def test() -> None:
        connection, _, _ = connected()
        task = await begun(connection)
        if cut:
            connection.data_received(cut)
        connection.connection_lost(ConnectionResetError())
        with pytest.raises(UpstreamDisconnectedError, match="closed the connection"):
            await whole(await task)
        assert connection.untouched is not bool(cut)

    run(test)


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    ],
)
def test_what_is_no_http_is_broken(wire: bytes) -> None:
    async def test() -> None:
        connection, transport, idle = connected()
        task = await begun(connection)
        connection.data_received(wire)
        with pytest.raises(UpstreamDisconnectedError, match="no HTTP"):
            await whole(await task)
        assert transport.aborted
        assert idle == []

    run(test)


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: deflate\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: GZIP\r\n\r\nhi",
    ],
)
def test_headers_that_no_client_can_be_handed_are_no_answer(wire: bytes) -> None:
    async def test() -> None:
        connection, _, _ = connected()
        task = await begun(connection)
        connection.data_received(wire)
        with pytest.raises(UpstreamDisconnectedError, match="no HTTP"):
            await task

    run(test)


@pytest.mark.parametrize(
    ("head", "end"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", b"x" * 999),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX: ", b"x" * 999),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", b"X: y\r\n" * 200),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1;", b"x" * 999),
    ],
)
def test_what_goes_on_without_end_and_is_no_body_is_given_up(head: bytes, end: bytes) -> None:
    async def test() -> None:
        connection, transport, _ = connected()
        task = await begun(connection)
        connection.data_received(b"HTTP/1.1 200 OK\r\n" + head)
        answer = await task
        assert await answer.read() == b"hi"
        for _ in range(HEAD_CAP // len(end) + 2):
            connection.data_received(end)
        with pytest.raises(UpstreamDisconnectedError):
            await answer.read()
        assert transport.aborted

    run(test)


@pytest.mark.parametrize("coding", [b"Transfer-Encoding: identity\r\n", b""])
def test_whatever_has_no_length_ends_with_its_connection(coding: bytes) -> None:
    async def test() -> None:
        connection, _, _ = connected()
        task = await begun(connection)
        connection.data_received(b"HTTP/1.1 200 OK\r\n" + coding + b"\r\nall of it")
        connection.connection_lost(None)
        assert await whole(await task) == b"all of it"

    run(test)


@pytest.mark.parametrize("endless", [b"X: " + b"y" * 4096, b"X: y\r\n" * 1000, INTERIM * 100])
def test_a_head_without_end_is_given_up(endless: bytes) -> None:
    async def test() -> None:
        connection, _, _ = connected()
        task = await begun(connection)
        connection.data_received(b"" if endless.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\n")
        for _ in range(HEAD_CAP // len(endless) + 2):
            if not connection.closed:
                connection.data_received(endless)
        with pytest.raises(UpstreamDisconnectedError, match="too large"):
            await task

    run(test)


@pytest.mark.parametrize(
    ("wire", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\nmore", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\x00", False),
    ],
)
def test_only_a_clean_connection_is_kept(wire: bytes, kept: bool) -> None:
    async def test() -> None:
        connection, _, idle = connected()
        task = await begun(connection)
        connection.data_received(wire)
        assert await whole(await task) == b"", "the answer is none the worse for what stands behind it"
        assert (idle == [connection], connection.closed) == (kept, not kept)

    run(test)


def test_bytes_that_nobody_asked_for_end_an_idle_connection() -> None:
    async def test() -> None:
        connection, transport, _ = connected()
        task = await begun(connection)
        connection.data_received(LENGTH)
        await task
        connection.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        assert connection.closed
        assert transport.aborted

    run(test)


def test_the_answer_to_a_head_has_no_body() -> None:
    async def test() -> None:
        connection, _, _ = connected()
        task = await begun(connection, without_body=True)
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        answer = await task
        assert answer.fields["content-length"] == "1000"
        assert await whole(answer) == b""

    run(test)


def test_a_reader_that_lags_behind_makes_the_upstream_wait() -> None:
    async def test() -> None:
        connection, transport, _ = connected()
        task = await begun(connection)
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n")
        answer = await task
        for _ in range(5):
            connection.data_received(b"x" * 100_000)
        assert transport.paused
        assert len(await answer.read()) == 500_000
        assert not transport.paused

    run(test)


def test_a_connection_kept_while_its_reader_lagged_reads_again() -> None:
    async def test() -> None:
        connection, transport, idle = connected()
        task = await begun(connection)
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n" + b"x" * 600_000)
        assert idle == [connection]
        assert not transport.paused
        assert len(await whole(await task)) == 600_000

    run(test)


def test_two_exchanges_that_meet_on_one_connection_each_get_their_answer() -> None:
    """The first's answer is whole, and the second one's request out, before the first one's task runs again."""

    async def test() -> None:
        connection, _, idle = connected()
        first = await begun(connection)
        connection.data_received(LENGTH)
        second = asyncio.get_running_loop().create_task(idle.pop().exchange(ASK, b"{}", within_s=9))
        for _ in range(3):
            await asyncio.sleep(0)
        connection.data_received(CHUNKED)
        assert await whole(await first) == await whole(await second) == BODY

    run(test)


@pytest.mark.parametrize("loop", LOOPS)
def test_no_answer_in_time(loop: str) -> None:
    async def test() -> None:
        connection, transport, _ = connected()
        with pytest.raises(ResponseTimeoutError):
            await connection.exchange(ASK, b"{}", within_s=0.01)
        assert transport.aborted

    run(test, loop)


def test_whoever_gives_up_takes_the_connection_along() -> None:
    async def test() -> None:
        connection, transport, idle = connected()
        task = await begun(connection)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert transport.aborted

        connection, transport, idle = connected()
        task = await begun(connection)
        connection.data_received(LENGTH[:-3])
        answer = await task
        answer.close()
        assert transport.aborted
        await answer.read()  # what was there
        with pytest.raises(UpstreamDisconnectedError):
            await answer.read()
        answer.close()
        assert idle == []

    run(test)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_large_body_goes_out_at_the_upstreams_pace(loop: str) -> None:
    body = bytes(range(256)) * (5 * PIECE // 256) + b"end"
    got: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            got.append((await read_request(reader))[1])
            writer.write(LENGTH)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    async def test() -> None:
        async with raw_server(talk, limit=1 << 16) as port:
            idle: list[ClientConnection] = []
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: ClientConnection(idle.append), "127.0.0.1", port
            )
            head = request_head("POST", "/", "here", [], len(body))
            assert await whole(await connection.exchange(head, body, within_s=20)) == BODY
            assert await whole(await connection.exchange(head, pieces(), within_s=20)) == BODY
            assert got == [body, body]
            connection.fail("")

    run(test, loop)


@pytest.mark.parametrize("reads_on", [True, False])
@pytest.mark.parametrize("loop", LOOPS)
def test_an_upstream_that_refuses_early_is_heard(loop: str, reads_on: bool) -> None:
    done = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(100_000)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno")
        await (reader.read() if reads_on else asyncio.sleep(0.1))  # until the client hangs up, or leaving it stuck
        writer.write(b"!")
        await done.wait()

    async def test() -> None:
        async with raw_server(talk, limit=1 << 16) as port:
            idle: list[ClientConnection] = []
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: ClientConnection(idle.append), "127.0.0.1", port
            )
            body = b"x" * (60 * PIECE)
            head = request_head("POST", "/", "here", [], len(body))
            answer = await connection.exchange(head, body, within_s=20)
            assert (answer.status, await answer.read()) == (413, b"no")
            if not reads_on:
                assert await whole(answer) == b"!"
            answer.close()
            assert (idle, connection.closed) == ([], True)
            done.set()

    run(test, loop)


def test_a_request_is_one_request() -> None:
    assert request_head("GET", "/a?b=c", "h:1", [], 0) == b"GET /a?b=c HTTP/1.1\r\nHost: h:1\r\n\r\n"
    assert request_head("POST", "/", "h", [], 0).endswith(b"\r\nContent-Length: 0\r\n\r\n")
    assert b"X: \xe4\xf6" in request_head("GET", "/", "h", [("X", "\xe4\xf6")], 0), "the bytes that came so"
    assert "X: \u20ac".encode() in request_head("GET", "/", "h", [("X", "\u20ac")], 0)
    for name, value in (("X", "a\r\nEvil: 1"), ("X\nEvil", "a"), ("X", "a\rb")):
        with pytest.raises(ValueError, match="line break"):
            request_head("GET", "/", "h", [(name, value)], 0)
    for target in ("/a b", "/a\tb", "", "/a\r\nX: y"):
        with pytest.raises(ValueError, match=r"target|line"):
            request_head("GET", target, "h", [], 0)


@pytest.mark.slow
def test_what_ends_leaves_nothing_to_the_collector() -> None:
    async def exchange(wire: bytes, *, lost: bool) -> None:
        connection = ClientConnection(lambda _: None)
        connection.connection_made(Transport())
        loop = asyncio.get_running_loop()
        loop.call_soon(connection.data_received, wire)
        if lost:
            loop.call_soon(connection.connection_lost, None)
        with contextlib.suppress(UpstreamDisconnectedError):
            await whole(await connection.exchange(ASK, b"{}", within_s=9))
        connection.fail("")

    async def test() -> None:
        for wire, lost in ((LENGTH, False), (CHUNKED[:-9], True), (b"junk", True)):
            await exchange(wire, lost=lost)
            gc.collect()
            gc.disable()
            try:
                await exchange(wire, lost=lost)
                left = [o for o in gc.get_objects() if isinstance(o, ClientConnection | Answer)]
            finally:
                gc.enable()
            assert left == []

    run(test)


def test_a_piece_is_taken_at_once_only_where_nothing_unread_stands_before_it() -> None:
    async def test() -> None:
        connection, _, _ = connected()
        task = await begun(connection)
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        answer = await task
        taken: list[bytes] = []

        def at_once(piece: bytes) -> bool:
            taken.append(piece)
            return piece != b"no"

        answer.at_once = at_once
        connection.data_received(b"a")
        connection.data_received(b"no")
        connection.data_received(b"b")
        assert taken == [b"a", b"no"]
        assert await answer.read() == b"nob", "what was refused comes before what followed it"
        connection.data_received(b"c")
        assert taken == [b"a", b"no", b"c"]
        answer.at_once = None
        connection.data_received(b"end")
        assert await whole(answer) == b"end"
        assert answer.at_once is None

    run(test)
