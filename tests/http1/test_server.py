"""A front on real sockets: slow clients, clients that hang up, the way out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from pool_server.http1 import ConnectionLimits, ConnectionTable, HttpServer, ServerConnection
from pool_server.http1 import server as http1_front
from pool_server.http1 import server_connection as http1_server
from tests.http1.wire import GET, LOOPS, Echo, Mute, run


async def _until(reader: asyncio.StreamReader, end: bytes) -> bytes:
    read = b""
    while not read.endswith(end):
        read += await reader.read(1 << 16)
    return read


@contextlib.asynccontextmanager
async def listening(
    kind: type[Echo], *, first_byte_s: float = 10.0
) -> AsyncIterator[tuple[HttpServer, list[Echo], int]]:
    seen: list[Echo] = []
    table: ConnectionTable[ServerConnection] = ConnectionTable(ConnectionLimits(first_byte_s=first_byte_s))
    front = HttpServer(lambda request, response: kind(request, response, seen), table=table)
    bound = socket.create_server(("127.0.0.1", 0))
    bound.setblocking(False)
    await front.listen([bound])
    try:
        yield front, seen, bound.getsockname()[1]
    finally:
        await front.close()
        bound.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_slow_client_is_waited_for(loop: str) -> None:
    async def test() -> None:
        async with listening(Mute) as (_, seen, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
            writer.write(GET)
            while not seen:
                await asyncio.sleep(0.001)
            response = seen[0].response
            behind = response.start(200, [])
            written = 0
            while behind is None:
                behind = response.write(b"x" * 65_536)
                written += 65_536
            reading = asyncio.ensure_future(_until(reader, b"0\r\n\r\n"))
            await behind
            response.finish()
            assert (await reading).count(b"x") == written
            writer.close()

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_that_hangs_up_while_it_waits_ends_the_wait(loop: str) -> None:
    async def test() -> None:
        async with listening(Mute) as (_, seen, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            while not seen:
                await asyncio.sleep(0.001)
            response = seen[0].response
            behind = response.start(200, [])
            while behind is None:
                behind = response.write(b"x" * 65_536)
            writer.transport.abort()
            await behind
            while not seen[0].left:
                await asyncio.sleep(0.001)
            assert response.closed

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_whoever_sends_on_after_a_refusal_still_reads_it(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1_server, "LINGER_S", 60.0)  # 3 MB take a loaded machine a while

    async def test() -> None:
        async with listening(Mute) as (front, _, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"BREW / HTTP/1.1\r\n\r\n" + b"x" * 3_000_000)
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            writer.close()
            while front.connections:
                await asyncio.sleep(0.01)

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_front_that_stops_takes_nobody_new_and_gives_one_answer_more(loop: str) -> None:
    async def test() -> None:
        async with listening(Echo) as (front, _, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            await reader.readuntil(b"GET /get ")
            front.stop()
            with pytest.raises(OSError, match=r"."):
                while True:
                    await asyncio.open_connection("127.0.0.1", port)
                    await asyncio.sleep(0.01)
            writer.write(GET)
            assert b"Connection: close" in await reader.read()
            writer.close()

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("waiting", [1, 70])
def test_whoever_waits_to_be_taken_when_a_front_stops_gets_an_answer(loop: str, waiting: int) -> None:
    async def test() -> None:
        async with listening(Echo) as (front, _, port):
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(waiting)]
            for client in clients:
                client.sendall(GET)
            front.stop()  # in the turn they came in: the loop has seen none of them
            for client in clients:
                reader, writer = await asyncio.open_connection(sock=client)
                assert b"Connection: close" in await reader.read()
                writer.close()

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_front_is_quiet_once_nothing_has_been_under_way_for_a_while(loop: str) -> None:
    async def test() -> None:
        async with listening(Mute) as (front, seen, port):
            assert front.quiet(60), "nobody is here"
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            while not seen:
                await asyncio.sleep(0.001)
            response = seen[0].response
            response.start(200, [])
            front.stop()
            assert not front.quiet(0.001), "a response is under way, whose head promised to keep the connection"
            response.finish()
            assert not front.quiet(60), "its client may ask again at any moment"
            while not front.quiet(0.001):
                await asyncio.sleep(0.001)
            await reader.readuntil(b"0\r\n\r\n")
            writer.write(GET[:9])
            while front.quiet(0.001):
                await asyncio.sleep(0.001)
            writer.close()

    run(test, loop)


async def stand_still(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """The loop's clock goes on and nothing else does; then what is due has run."""
    loop = asyncio.get_running_loop()
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + seconds)
    await asyncio.sleep(0.001)


def test_clients_of_a_process_that_stood_still_are_heard_before_they_are_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http1_front, "_CATCH_UP_S", 3600.0)

    async def test() -> None:
        async with listening(Echo, first_byte_s=1.0) as (front, _, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while not front.connections:
                await asyncio.sleep(0.001)
            await stand_still(monkeypatch, 100.0)
            writer.write(GET)
            assert await reader.readuntil(b"GET /get ")
            writer.close()

    run(test, within_s=3600.0)


@pytest.mark.parametrize(("first_byte_s", "turns"), [(0.5, 1), (1.0, 1), (3.0, 3), (60.0, 8)])
def test_whoever_says_nothing_has_so_many_turns_of_a_loop_that_is_slow(
    monkeypatch: pytest.MonkeyPatch, first_byte_s: float, turns: int
) -> None:
    """The clock is a hundred seconds ahead at each turn: what a client needs several turns for takes as many."""
    monkeypatch.setattr(http1_front, "_STOOD_S", 1e9)
    had = 0

    async def test() -> None:
        nonlocal had
        async with listening(Echo, first_byte_s=first_byte_s) as (front, _, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while not front.connections:
                await asyncio.sleep(0.001)
            while front.connections:
                await stand_still(monkeypatch, 100.0)
                had += 1
            assert await reader.read() == b""
            writer.close()

    run(test, within_s=1e6)
    assert turns <= had <= turns + 2


def test_whoever_came_later_is_judged_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1_front, "_STOOD_S", 1e9)

    async def test() -> None:
        async with listening(Echo, first_byte_s=3.0) as (front, _, port):
            silent, writer = await asyncio.open_connection("127.0.0.1", port)
            while not front.connections:
                await asyncio.sleep(0.001)
            await stand_still(monkeypatch, 100.0)
            late, asking = await asyncio.open_connection("127.0.0.1", port)
            while len(front.connections) == 1:
                await asyncio.sleep(0.001)
            while len(front.connections) == 2:
                await stand_still(monkeypatch, 100.0)
            assert await silent.read() == b""
            asking.write(GET)
            assert await late.read(12) == b"HTTP/1.1 200"
            writer.close()
            asking.close()

    run(test, within_s=1e6)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_front_that_closes_lets_what_was_written_reach_its_client(loop: str) -> None:
    async def test() -> None:
        async with listening(Mute) as (front, seen, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
            idle, idle_writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            while not seen:
                await asyncio.sleep(0.001)
            response, written = seen[0].response, 0
            behind = response.start(200, [])
            while behind is None:
                behind = response.write(b"x" * 65_536)
                written += 65_536
            response.finish()
            closing = asyncio.ensure_future(front.close())
            assert await idle.read() == b""
            assert (await _until(reader, b"0\r\n\r\n")).count(b"x") == written
            await closing
            assert front.connections == set()
            writer.close()
            idle_writer.close()

    run(test, loop)
