"""How connections are taken from a listening socket, and how a server's own clock ends them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pool_server.http1 import HttpServer, server, server_connection
from pool_server.http1.admission import ConnectionLimits, ConnectionTable
from pool_server.http1.server_connection import ServerConnection
from pool_server.http1.states import ServerState
from tests.http1.wire import GET, LOOPS, Echo, Mute, run


class Listening(socket.socket):
    """A listening socket; `instead` are called in turn in place of `accept`."""

    def __init__(self) -> None:
        super().__init__()
        self.bind(("127.0.0.1", 0))
        self.instead: list[Callable[[], tuple[socket.socket, Any]]] = []

    def accept(self) -> tuple[socket.socket, Any]:
        return self.instead.pop(0)() if self.instead else super().accept()


def fails(number: int) -> Callable[[], tuple[socket.socket, Any]]:
    def accept() -> tuple[socket.socket, Any]:
        raise OSError(number, os.strerror(number))

    return accept


@contextlib.asynccontextmanager
async def serving(kind: type[Echo] = Echo, **limits: Any) -> AsyncIterator[tuple[HttpServer, Listening, list[str]]]:
    """A server, its socket, and what it told of connections that ended."""
    told: list[str] = []
    table: ConnectionTable[ServerConnection] = ConnectionTable(ConnectionLimits(**limits))
    seen: list[Echo] = []
    front = HttpServer(
        lambda request, response: kind(request, response, seen),
        table=table,
        told=lambda what, why: told.append(f"{what} {why}".strip()),
    )
    bound = Listening()
    await front.listen([bound])
    try:
        yield front, bound, told
    finally:
        await front.close()
        bound.close()


async def connect(bound: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*bound.getsockname())


async def ask(bound: socket.socket) -> bytes:
    reader, writer = await connect(bound)
    writer.write(GET)
    answer = await reader.read(1000)
    writer.close()
    return answer


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
@pytest.mark.parametrize("loop", LOOPS)
def test_without_descriptors_those_that_wait_end_and_newcomers_are_taken_a_little_later(loop: str, number: int) -> None:
    async def test() -> None:
        async with serving() as (front, bound, told):
            silent = [await connect(bound) for _ in range(3)]
            while len(front.connections) < 3:
                await asyncio.sleep(0.001)
            bound.instead.append(fails(number))
            assert (await ask(bound)).startswith(b"HTTP/1.1 200 ")
            assert told == ["refused descriptors", *["ended descriptors"] * 3]
            for reader, writer in silent:
                assert await reader.read() == b""
                writer.close()

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_newcomer_that_left_or_was_interrupted_harms_nobody(loop: str) -> None:
    async def test() -> None:
        async with serving() as (_, bound, told):
            bound.instead += [fails(errno.ECONNABORTED), fails(errno.EINTR), fails(errno.EAGAIN)]
            assert (await ask(bound)).startswith(b"HTTP/1.1 200 ")
            assert (bound.instead, told) == ([], [])

    run(test, loop)


def test_an_error_of_the_listening_socket_is_not_swallowed() -> None:
    async def test() -> None:
        raised: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: raised.append(context))
        async with serving() as (_, bound, _):
            bound.instead.append(fails(errno.EBADF))
            assert (await ask(bound)).startswith(b"HTTP/1.1 200 ")
        assert [type(context["exception"]) for context in raised] == [OSError]

    run(test)


def test_a_crowd_is_taken_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_BURST", 2)

    async def test() -> None:
        async with serving() as (front, bound, _):
            crowd = [socket.create_connection(bound.getsockname()) for _ in range(5)]
            assert (await ask(bound)).startswith(b"HTTP/1.1 200 ")
            assert len(front.connections) >= 5
            for one in crowd:
                one.close()

    run(test)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_high_descriptor_is_refused_and_nobody_taken_until_there_are_lower_ones(loop: str) -> None:
    async def test() -> None:
        async with serving(descriptor=0) as (front, bound, told):
            assert (await ask(bound)).startswith(b"HTTP/1.1 503 ")
            assert (await ask(bound)).startswith(b"HTTP/1.1 503 ")
            assert told == ["refused descriptors"] * 2
            assert not front.connections
            front.stop()  # while nobody is taken
            await asyncio.sleep(server._PAUSE_S * 2)

    run(test, loop)


def test_a_newcomer_whose_socket_is_no_good_leaves_nothing_behind() -> None:
    async def test() -> None:
        async with serving() as (front, bound, _):
            gone = socket.socket()
            gone.close()
            bound.instead.append(lambda: (gone, ("192.0.2.1", 1)))
            assert (await ask(bound)).startswith(b"HTTP/1.1 200 ")
            while front.connections:
                await asyncio.sleep(0.001)

    run(test)


def test_those_turned_away_wait_for_their_answer_in_small_numbers_and_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "_LINGERING", 2)

    async def test() -> None:
        async with serving(Mute, total=0) as (front, bound, told):
            left, right = socket.socketpair()
            right.close()  # has left before it could be told
            bound.instead.append(lambda: (left, ("192.0.2.1", 1)))
            for _ in range(4):
                assert (await ask(bound)).startswith(b"HTTP/1.1 503 ")
            assert told == ["refused total"] * 5
            assert left.fileno() == -1
            assert len(front._refused) == 2

    run(test)


@pytest.mark.parametrize("loop", LOOPS)
def test_whoever_does_not_read_is_cut_off_when_the_server_closes(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_FLUSH_S", 0.01)

    class Long(Echo):
        def finish(self) -> None:
            self.response.start(200, [], b"x" * (32 << 20), length=32 << 20)

    async def test() -> None:
        async with serving(Long) as (front, bound, _):
            _, writer = await asyncio.open_connection(*bound.getsockname(), limit=1)
            writer.write(GET)
            while not any(one.state is ServerState.RESPONSE for one in front.connections):
                await asyncio.sleep(0.001)
            await front.close()
            assert not front.connections
            writer.close()

    run(test, loop)


@pytest.mark.parametrize("spoke", [False, True])
def test_connections_that_wait_for_too_long_are_looked_for(spoke: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_SWEEP_S" if spoke else "_NEW_SWEEP_S", 0.01)
    monkeypatch.setattr(server_connection, "IDLE_S", 0.0)

    async def test() -> None:
        async with serving(first_byte_s=0.0 if not spoke else 900.0) as (front, bound, told):
            reader, writer = await connect(bound)
            if spoke:
                writer.write(GET)
                assert (await reader.read(4)) == b"HTTP"
            await reader.read()
            assert told == ([] if spoke else ["silent"])
            while front.connections:
                await asyncio.sleep(0.001)
            writer.close()

    run(test)
