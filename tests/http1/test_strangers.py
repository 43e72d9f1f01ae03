"""Connections of those nobody knows: kept less long, and ended at once where they cannot be served."""

from __future__ import annotations

import asyncio

import pytest

from pool_server.http1 import HttpServer
from pool_server.http1.server_connection import (
    BRIEF_BODY_S,
    BRIEF_IDLE_S,
    FRAMING_CAP,
    IDLE_S,
    LONG_HEADS,
    USUAL_HEAD,
)
from tests.http1.wire import GET, Echo, Mute, Wire, run

POST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"


def test_connections_of_strangers_are_kept_less_long() -> None:
    async def test() -> None:
        now = asyncio.get_running_loop().time()
        talk = Wire(Mute)
        talk.feed(POST[:-1])
        talk.seen[0].response.shorten()
        talk.connection.tidy(now + BRIEF_BODY_S - 1)
        assert not talk.transport.closed
        talk.connection.tidy(now + BRIEF_BODY_S + 5)
        assert talk.transport.closed

        talk = Wire(Mute)
        talk.feed(GET)
        talk.seen[0].response.shorten()
        talk.connection.tidy(now + IDLE_S)
        assert not talk.transport.closed, "its answer is under way"
        talk.seen[0].response.start(200, [], length=0)
        talk.connection.pause_writing()
        talk.connection.tidy(now + BRIEF_BODY_S + 5)
        assert talk.transport.aborted, "it does not read what it asked for"

        talk = Wire(Mute)
        talk.feed(GET)
        talk.seen[0].response.shorten()
        talk.seen[0].response.start(200, [], length=0)
        talk.seen[0].response.finish()
        talk.connection.tidy(now + BRIEF_IDLE_S - 1)
        assert not talk.transport.closed
        talk.connection.tidy(now + BRIEF_IDLE_S + 5)
        assert talk.transport.closed

    run(test)


@pytest.mark.parametrize("hello", [b"\x16", b"\x16\x03\x01\x02\x00\x01", b"\r\n\x16\x03", b"\x16" + b"x" * 5000])
def test_a_tls_hello_ends_a_plain_connection_at_once(hello: bytes) -> None:
    async def test() -> None:
        for before in (b"", GET):
            talk = Wire()
            talk.feed(*([before] if before else []), hello)
            assert talk.transport.aborted
            assert talk.told == [("tls", "")]
            assert talk.statuses == ([200] if before else [])

    run(test)


def test_a_body_may_begin_like_a_tls_hello() -> None:
    async def test() -> None:
        talk = Wire()
        talk.feed(POST[:-5], b"\x16\x03\x01\x02\x00")
        assert talk.seen[0].body == b"\x16\x03\x01\x02\x00"
        assert talk.statuses == [200]

    run(test)


def unfinished(*, size: int, front: HttpServer) -> Wire:
    talk = Wire(Mute, front=front)
    talk.feed(b"GET / HTTP/1.1\r\nHost: x\r\nX: ", *(b"y" * 1000 for _ in range(size // 1000)))
    return talk


@pytest.mark.slow
def test_long_unfinished_heads_share_one_budget() -> None:
    async def test() -> None:
        front = HttpServer(lambda request, response: Mute(request, response, []))
        talks = [unfinished(size=100_000, front=front) for _ in range(200)]
        refused = [talk for talk in talks if talk.statuses == [431]]
        assert front.long_heads <= LONG_HEADS
        assert LONG_HEADS // 100_000 - 1 <= 200 - len(refused) <= LONG_HEADS // USUAL_HEAD
        short = unfinished(size=USUAL_HEAD - 1000, front=front)
        short.feed(b"\r\n\r\n")
        assert (short.statuses, len(short.front.connections)) == ([], 201), "an ordinary head is served all the same"
        kept = next(talk for talk in talks if talk.statuses == [])
        kept.feed(b"\r\n\r\n")
        assert kept.statuses == []
        for talk in talks:
            talk.connection.connection_lost(None)
        assert front.long_heads == 0

    run(test)


def test_what_comes_behind_a_request_counts_too_and_is_not_lost() -> None:
    async def test() -> None:
        front = HttpServer(lambda request, response: Mute(request, response, seen))
        seen: list[Echo] = []
        front.long_heads = LONG_HEADS - 5000
        talk = Wire(Mute, front=front)
        talk.feed(GET, GET.replace(b"\r\n\r\n", b"\r\nX: " + b"y" * USUAL_HEAD + b"\r\n\r\n"))
        assert talk.transport.paused
        seen[0].response.start(200, [], length=0)
        seen[0].response.finish()
        await asyncio.sleep(0)
        assert (len(seen), talk.transport.paused, front.long_heads) == (2, False, LONG_HEADS - 5000)

    run(test)


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"5;", b"x" * 1024),
        (b"5\r\nhello\r\n0\r\n", b"X-A: b\r\n" * 128),
        (b"5\r\nhello\r\n0\r\nX-A: ", b"b" * 1024),
        (b"", b"1;" + b"x" * 1019 + b"\r\na\r\n"),
    ],
)
def test_what_of_a_chunked_body_is_no_content_has_a_bound(begin: bytes, more: bytes) -> None:
    async def test() -> None:
        talk = Wire(Mute)
        talk.feed(POST.replace(b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n") + begin)
        for _ in range(2 * FRAMING_CAP // 1024):
            talk.feed(more)
        assert talk.statuses == [400]
        assert talk.seen[0].left

    run(test)


def test_a_body_in_pieces_of_one_byte_is_taken() -> None:
    async def test() -> None:
        talk = Wire()
        talk.feed(POST.replace(b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n"))
        for _ in range(FRAMING_CAP // 1024):
            talk.feed(b"1\r\na\r\n" * 1024)
        talk.feed(b"0\r\nX: " + b"t" * 9999 + b"\r\n\r\n" + GET)
        assert talk.statuses == [200]
        assert len(talk.seen[0].body) == FRAMING_CAP

    run(test)
