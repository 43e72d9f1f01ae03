"""How many connections stay open, and who gives way: the table by itself, then a server on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.http1 import HttpServer
from pool_server.http1.admission import ConnectionLimits, ConnectionTable, TooMany
from pool_server.http1.server_connection import ServerConnection
from tests.http1.wire import GET, LOOPS, Echo, Mute, run

POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"


def table(**limits: int) -> ConnectionTable[str]:
    """Addresses with a dot count as what stands before it; "proxy" is many people."""
    return ConnectionTable(
        ConnectionLimits(**limits), group=lambda address: address.partition(".")[0], exempt=lambda a: a == "proxy"
    )


def test_the_longest_wait_ends_first_and_those_that_never_asked_before_others() -> None:
    seats = table(total=4)
    for name in "abcd":
        seats.opened(name, name)
    for name in "ab":
        seats.works(name)
        seats.waits(name)
    assert seats.judge("e", 9)[1:] == ("c", TooMany.TOTAL)
    seats.works("c")
    assert seats.judge("e", 9).ended == "d"
    seats.closed("d")
    assert seats.judge("e", 9) == (None, None, None)
    seats.opened("e", "e")
    seats.works("e")
    assert seats.judge("f", 9).ended == "a"
    seats.works("a")
    assert seats.judge("f", 9).ended == "b"
    seats.works("b")
    assert seats.judge("f", 9) == (TooMany.TOTAL, None, None)


def test_an_address_displaces_only_its_own() -> None:
    seats = table(total=10, per_address=2)
    seats.opened("other", "y.1")
    for name in ("one", "two"):
        seats.opened(name, f"x.{name}")
    assert seats.judge("x.3", 9)[1:] == ("one", TooMany.ADDRESS)
    seats.works("one")
    assert seats.judge("x.3", 9).ended == "two"
    seats.works("two")
    assert seats.judge("x.3", 9).refused is TooMany.ADDRESS
    assert seats.judge("y.2", 9) == (None, None, None)
    for number in range(7):
        assert seats.judge("proxy", 9) == (None, None, None)
        seats.opened(f"p{number}", "proxy")
    assert seats.judge("proxy", 9)[1:] == ("other", TooMany.TOTAL)
    assert seats.judge("x.4", 9).refused is TooMany.ADDRESS, "one's own cap comes first"


def test_a_high_descriptor_is_one_too_many() -> None:
    seats = table(descriptor=100)
    assert seats.judge("x", 99) == (None, None, None)
    assert seats.judge("x", 100).refused is TooMany.DESCRIPTORS
    for name in "abc":
        seats.opened(name, "y")
    seats.works("a")
    seats.waits("a")
    assert seats.judge("x", 100).refused is TooMany.DESCRIPTORS
    assert seats.longest_waits(2) == ["b", "c"]
    assert seats.longest_waits(9) == ["b", "c", "a"]


@given(st.lists(st.tuples(st.sampled_from("owcx"), st.integers(0, 5), st.sampled_from(["a", "b.1", "b.2", "proxy"]))))
def test_whatever_happens_the_caps_hold_and_nothing_is_left_behind(steps: list[tuple[str, int, str]]) -> None:
    seats = table(total=4, per_address=2)
    where: dict[int, str] = {}
    for step, one, address in steps:
        match step:
            case "o" if one not in where:
                verdict = seats.judge(address, 5)
                if verdict.ended is not None:
                    seats.closed(verdict.ended)
                    where.pop(int(verdict.ended))
                if verdict.refused is None:
                    seats.opened(str(one), address)
                    where[one] = address
            case "w":
                seats.works(str(one))
            case "x":
                seats.waits(str(one))
            case "c":
                seats.closed(str(one))
                where.pop(one, None)
        assert set(seats.open) == {str(one) for one in where}
        assert len(seats) <= 4
        assert sum(address[0] == "b" for address in where.values()) <= 2
        assert set(seats.new) <= set(seats.open)
    for one in list(where):
        seats.closed(str(one))
    assert vars(seats)["_groups"] == vars(seats)["_of"] == vars(seats)["_idle"] == {}


# -- on sockets


class Stranger(Echo):
    """Nobody known sent it."""

    def __init__(self, *made: object) -> None:
        super().__init__(*made)  # type: ignore[arg-type]
        self.response.shorten()


@contextlib.asynccontextmanager
async def listening(kind: type[Echo] = Echo, **limits: float) -> AsyncIterator[tuple[HttpServer, list[str], int]]:
    told: list[str] = []
    seats: ConnectionTable[ServerConnection] = ConnectionTable(ConnectionLimits(**limits))  # type: ignore[arg-type]
    front = HttpServer(
        lambda request, response: kind(request, response, []),
        table=seats,
        told=lambda what, why: told.append(f"{what} {why}".strip()),
    )
    bound = socket.create_server(("127.0.0.1", 0))
    await front.listen([bound])
    try:
        yield front, told, bound.getsockname()[1]
    finally:
        await front.close()


async def connect(front: HttpServer, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that the server knows of."""
    before = len(front.connections)
    pair = await asyncio.open_connection("127.0.0.1", port)
    while len(front.connections) == before:
        await asyncio.sleep(0.001)
    return pair


async def ask(pair: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
    pair[1].write(GET)
    return await pair[0].readuntil(b"GET /get ")


@pytest.mark.parametrize("loop", LOOPS)
def test_whoever_says_nothing_gives_way_to_those_who_ask(loop: str) -> None:
    async def test() -> None:
        async with listening(total=3) as (front, told, port):
            silent = [await connect(front, port) for _ in range(3)]
            friend = await asyncio.open_connection("127.0.0.1", port)
            assert b"200 OK" in await ask(friend)
            assert await silent[0][0].read() == b"", "the longest wait"
            assert told == ["ended total"]
            for _ in range(5):
                again = await asyncio.open_connection("127.0.0.1", port)
                assert b"200 OK" in await ask(again)
                again[1].close()
            assert b"200 OK" in await ask(friend), "whoever has asked outlasts the silent"
            for _, writer in (*silent, friend):
                writer.close()

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("limits", "status"), [({"total": 2}, b"503"), ({"per_address": 2}, b"429")])
def test_where_everybody_is_served_one_more_is_told_so(loop: str, limits: dict[str, int], status: bytes) -> None:
    async def test() -> None:
        async with listening(Mute, **limits) as (front, told, port):
            busy = [await connect(front, port) for _ in range(2)]
            for _, writer in busy:
                writer.write(GET)
            while front.table.judge("127.0.0.1", 9).refused is None:
                await asyncio.sleep(0.001)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 " + status)
            assert b"Retry-After: 1" in answer
            assert told == ["refused total" if status == b"503" else "refused address"]
            for _, other in (*busy, (reader, writer)):
                other.close()

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_stranger_who_does_not_finish_a_body_gives_way(loop: str) -> None:
    async def test() -> None:
        async with listening(Stranger, total=2) as (front, told, port):
            slow = [await connect(front, port) for _ in range(2)]
            for _, writer in slow:
                writer.write(POST + b"abc")
            await asyncio.sleep(0.05)
            other = await asyncio.open_connection("127.0.0.1", port)
            assert b"200 OK" in await ask(other)
            assert told == ["ended total"]
            slow[1][1].write(b"de")
            assert b"200 OK" in await slow[1][0].readuntil(b"POST / abcde")
            for _, writer in (*slow, other):
                writer.close()

    run(test, loop)


_FEW = """
import asyncio, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from tests.http1.test_admission import serve_files
asyncio.run(serve_files())
"""


class FromFile(Echo):
    """Answers with what a file holds."""

    def finish(self) -> None:
        assert Path(__file__).read_bytes()
        super().finish()


async def serve_files() -> None:
    """A process with 64 descriptors, of which 16 are kept for files. Ends with its standard input."""
    async with listening(FromFile, descriptor=48) as (_, told, port):
        print(port, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(sorted(set(told)), flush=True)


@pytest.mark.slow
def test_silent_connections_leave_descriptors_for_files() -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", _FEW]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        port = int(server.stdout.readline())
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(300)]
        with socket.create_connection(("127.0.0.1", port)) as friend:
            friend.sendall(GET)
            first = friend.recv(1000)
        assert first[:12] in (b"HTTP/1.1 200", b"HTTP/1.1 503")
        with socket.create_connection(("127.0.0.1", port)) as friend:  # there is room after a refusal
            for _ in range(3):
                friend.sendall(GET)
                assert friend.recv(1000).startswith(b"HTTP/1.1 200 OK")
        for one in silent:
            one.close()
        said, _ = server.communicate("")
        assert said == "['ended descriptors', 'refused descriptors']\n"
        assert server.returncode == 0
