"""A head that came before is not parsed again: the short way makes of the same bytes what the long way does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.http1 import HttpServer, Request, Response
from pool_server.http1.request import REMEMBERED, REMEMBERED_CAP, HeadMemory
from pool_server.http1.states import ServerState
from tests.http1.test_fuzz import CHANGES, REQUESTS, changed, pieces
from tests.http1.wire import Echo, Mute, Wire, run

POST = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-Two: 2\r\nContent-Length: %d\r\nx-two: 3 \r\n\r\n%b"


def post(body: bytes, head: bytes = POST) -> bytes:
    return head % (len(body), body)


class Hasty(Echo):
    """Answers before it has heard all."""

    def data_received(self, chunk: bytes) -> None:
        super().data_received(chunk)
        if not self.response.finished:
            self.response.start(413, [], length=0)
            self.response.finish()


class Stranger(Echo):
    """Sent by nobody known."""

    def __init__(self, request: Request, response: Response, seen: list[Echo]) -> None:
        super().__init__(request, response, seen)
        response.shorten()


def facts(one: Echo) -> tuple[object, ...]:
    request = one.request
    place = request.method, request.target, request.path, request.query, request.version, request.remote_ip
    return *place, request.headers.pairs, dict(request.headers.fields), one.body, one.left


async def outcome(kind: type[Echo], memory: HeadMemory, connections: list[list[bytes]]) -> list[Any]:
    """What several connections to one server, one after the other, make of the bytes that come."""
    found: list[Any] = []
    seen: list[Echo] = []
    front = HttpServer(lambda request, response: kind(request, response, seen))
    front.heads = memory
    for parts in connections:
        wire = Wire(front=front)
        for part in parts:
            wire.feed(part)
            await asyncio.sleep(0)
        for _ in range(4):
            await asyncio.sleep(0)
        ends = wire.transport.closed, wire.transport.aborted, wire.transport.ended, wire.transport.paused
        found += [wire.connection.state, wire.transport.sent, ends]
        wire.connection.connection_lost(None)
        assert wire.connection.state is ServerState.CLOSED
    return [*found, [facts(one) for one in seen]]


async def same_both_ways(kind: type[Echo], connections: list[list[bytes]]) -> None:
    short = await outcome(kind, HeadMemory(), connections)
    assert short == await outcome(kind, HeadMemory(0), connections)


def test_the_same_head_is_parsed_once() -> None:
    async def test() -> None:
        memory = HeadMemory()
        told = await outcome(Echo, memory, [[post(b"hello"), post(b""), post(b"x" * 1000)]])
        first, *_, last = told[-1]
        assert first[:6] == last[:6] and (len(first[8]), len(last[8])) == (5, 1000)
        assert last[6][2] == ("Content-Length", "1000") and last[7]["content-length"] == "1000"
        assert memory.find(post(b"")) is not None

    run(test)


def test_what_was_made_of_a_head_is_found_with_it() -> None:
    async def test() -> None:
        wire = Wire()
        wire.feed(post(b"hello"), post(b"again"), post(b"other", POST.replace(b"X-Two: 2", b"X-Two: 4")))
        one, two, other = (seen.request.made_of_head for seen in wire.seen)
        assert one is two and other is not one

    run(test)


def test_heads_of_nobody_known_are_not_remembered() -> None:
    async def test() -> None:
        memory = HeadMemory()
        await outcome(Stranger, memory, [[post(b""), post(b"")]])
        assert memory.find(post(b"")) is None

    run(test)


def test_no_more_is_remembered_than_there_is_room_for() -> None:
    async def test() -> None:
        memory = HeadMemory()
        heads = [post(b"", POST.replace(b"X-Two", b"X-%d" % number)) for number in range(REMEMBERED + 1)]
        long = post(b"", POST.replace(b"X-Two: 2", b"X-Two: " + b"2" * REMEMBERED_CAP))
        await outcome(Echo, memory, [[*heads, long]])
        assert sum(memory.find(head) is not None for head in heads) == REMEMBERED
        assert memory.find(long) is None and memory.find(heads[0]) is None

    run(test)


LENGTHS = [b"5", b"05", b"0", b"-1", b"+5", b"5 ", b" 5", b"5, 5", b"5\r\nContent-Length: 5", b"", b"9" * 15, b"9" * 16]


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.sampled_from(LENGTHS), st.binary(max_size=12)), min_size=1, max_size=4),
    st.sampled_from([b"", b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"A b: c\r\n"]),
    st.lists(st.integers(0, 900), max_size=5),
    st.sampled_from([Echo, Mute, Hasty, Stranger]),
)
@settings(deadline=None, max_examples=300)
def test_lengths_mean_the_same_both_ways(
    sent: list[tuple[bytes, bytes]], more: bytes, cuts: list[int], kind: type[Echo]
) -> None:
    """Whatever stands for a Content-Length behind a head that was parsed before."""

    async def test() -> None:
        head = b"POST /a HTTP/1.1\r\nHost: x\r\n" + more + b"Content-Length: %b\r\n\r\n%b"
        data = b"".join(head % one for one in [(b"5", b"hello"), *sent])
        await same_both_ways(kind, [pieces(data, cuts), pieces(data, cuts)])

    run(test)


@pytest.mark.slow
@given(
    st.lists(st.sampled_from([*REQUESTS, post(b"hello"), post(b"")]), min_size=1, max_size=4),
    CHANGES,
    st.lists(st.integers(0, 900), max_size=5),
    st.sampled_from([Echo, Mute, Hasty]),
)
@settings(deadline=None, max_examples=400)
def test_bytes_mean_the_same_both_ways(
    some: list[bytes], changes: list[tuple[str, int, bytes]], cuts: list[int], kind: type[Echo]
) -> None:
    """The bytes as they are, then changed, over connections of one server."""

    async def test() -> None:
        data, other = b"".join(some), changed(b"".join(some), changes)
        await same_both_ways(kind, [[data], pieces(other, cuts), pieces(data, cuts), [other]])

    run(test)


class Broken(Echo):
    """Fails at an empty body when it is made, and at any piece but a greeting."""

    def __init__(self, request: Request, response: Response, seen: list[Echo]) -> None:
        super().__init__(request, response, seen)
        if request.headers.fields["content-length"] == "0":
            raise RuntimeError("of the handler")

    def data_received(self, chunk: bytes) -> None:
        if chunk != b"hello":
            raise RuntimeError("of the handler")
        super().data_received(chunk)


@pytest.mark.parametrize("body", [b"", b"HELLO"], ids=["when it is made", "at a piece"])
def test_a_handler_that_fails_behind_a_known_head_ends_its_connection(body: bytes) -> None:
    async def test() -> None:
        front = HttpServer(lambda request, response: Broken(request, response, []))
        front.heads = HeadMemory()
        Wire(front=front).feed(post(b"hello"))
        wire = Wire(front=front)
        with pytest.raises(RuntimeError, match="of the handler"):
            wire.feed(post(body))
        assert wire.connection.state is not ServerState.BODY
        assert b" 400 " in wire.transport.sent

    run(test)


def test_a_head_is_not_remembered_for_a_request_of_another_length() -> None:
    async def test() -> None:
        wire, memory = Wire(), HeadMemory()
        wire.feed(post(b"hello"))
        memory.keep(POST % (4, b""), wire.seen[0].request, last=False)
        assert memory.find(POST % (4, b"")) is None
        memory.keep(POST % (5, b""), wire.seen[0].request, last=False)
        assert memory.find(POST % (4, b"")) is not None

    run(test)
