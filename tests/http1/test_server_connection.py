"""The server's side of a connection: what is one request, what is none, and how answers are framed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.http1 import ClientDisconnectedError, Response
from pool_server.http1.request import HEAD_CAP, TARGET_CAP
from pool_server.http1.server_connection import BODY_S, CLOSING_S, HEAD_S, IDLE_S, STALLED_S
from tests.http1.wire import GET, Echo, Mute, Wire, run

POST = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-Two: 2\r\nx-two: 3 \r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-Two: 2\r\nx-two: 3 \r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\nX-Two: trailer\r\n\r\n"
)


@pytest.mark.parametrize("wire", [POST, CHUNKED])
@given(cuts=st.lists(st.integers(1, 200), max_size=10))
@settings(max_examples=60, deadline=None)
def test_a_request_is_the_same_however_it_is_cut(wire: bytes, cuts: list[int]) -> None:
    async def test() -> None:
        talk = Wire()
        data = b"\r\n" + wire + wire
        places = sorted({cut for cut in cuts if cut < len(wire)})
        talk.feed(*(data[start : start + 1] for start in range(2)))
        data = data[2:]
        for start, end in zip([0, *places], [*places, len(wire)], strict=True):
            talk.feed(data[start:end])
        for byte in wire:
            talk.feed(bytes([byte]))
            await asyncio.sleep(0)
        assert talk.statuses == [200, 200]
        for one in talk.seen:
            request = one.request
            assert (request.method, request.target, request.path, request.query) == ("POST", "/a?b=c", "/a", "b=c")
            assert (one.body, request.headers.get("X-TWO"), request.remote_ip) == (b"hello", "2,3", "127.0.0.1")
            assert request.headers.pairs[1:3] == [("X-Two", "2"), ("x-two", "3")]

    run(test)


def test_pipelined_requests_are_answered_in_their_order() -> None:
    async def test() -> None:
        talk = Wire()
        talk.feed(GET + POST + GET.replace(b"/get", b"/last"))
        for _ in range(6):
            await asyncio.sleep(0)
        bodies = [part.partition(b"\r\n\r\n")[2] for part in talk.transport.sent.split(b"HTTP/1.1 ")[1:]]
        assert bodies == [b"GET /get ", b"POST /a?b=c hello", b"GET /last "]

    run(test)


def test_what_stands_behind_a_chunked_request_is_not_served_but_the_request_is() -> None:
    async def test() -> None:
        talk = Wire()
        talk.feed(CHUNKED + GET)
        await asyncio.sleep(0)
        assert (talk.statuses, len(talk.seen), talk.transport.closed) == ([200], 1, True)

    run(test)


@pytest.mark.parametrize("cut", range(1, len(GET), 3))
def test_a_request_cut_behind_a_chunked_one_is_not_served_in_part(cut: int) -> None:
    """Where the chunked one ends only the parser knows, and it has then read on."""

    async def test() -> None:
        talk = Wire(Mute)
        talk.feed(CHUNKED + GET[:cut], GET[cut:])
        talk.seen[0].response.start(200, [], length=0)
        talk.seen[0].response.finish()
        talk.feed(GET)
        await asyncio.sleep(0)
        assert (talk.statuses, len(talk.seen)) == ([200], 1)
        assert b"Connection: close" in talk.transport.sent

    run(test)


@pytest.mark.parametrize("junk", [b"\x00", b"GET / HTTP/1.1\r\nA b: c\r\n\r\n", b"\r\n\r\n\xff"])
@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
def test_a_whole_request_is_none_the_worse_for_junk_behind_it(junk: bytes, close: bytes) -> None:
    async def test() -> None:
        talk = Wire()
        talk.feed(CHUNKED.replace(b"X-Two: 2", close + b"X-Two: 2") + junk)
        await asyncio.sleep(0)
        assert (talk.statuses, len(talk.seen), talk.seen[0].left) == ([200], 1, False)
        assert b"Connection: close" in talk.transport.sent
        assert talk.transport.closed

    run(test)


class Hasty(Echo):
    """Answers before it has heard all."""

    def data_received(self, chunk: bytes) -> None:
        self.response.start(413, [], length=0)
        self.response.finish()


@pytest.mark.parametrize("behind", [b"zz\r\n", b"0\r\n\r\n" + GET, b"0\r\n\r\n\x00"])
def test_nothing_is_served_behind_an_answer_that_did_not_wait(behind: bytes) -> None:
    async def test() -> None:
        talk = Wire(Hasty)
        talk.feed(CHUNKED.partition(b"2;ext")[0] + behind, GET)
        await asyncio.sleep(0)
        assert (talk.statuses, len(talk.seen), talk.transport.ended) == ([413], 1, True)
        assert b"Connection: close" in talk.transport.sent

    run(test)


def test_requests_that_come_while_one_is_answered_wait_and_the_client_with_them() -> None:
    async def test() -> None:
        talk = Wire(Mute)
        talk.feed(GET)
        long = GET.replace(b"\r\n\r\n", b"\r\nX: " + b"y" * 2000 + b"\r\n\r\n")
        for number in range(1, 101):
            if not talk.transport.paused:
                talk.feed(long)
                waiting = number
        assert len(talk.seen) == 1
        assert HEAD_CAP <= waiting * len(long) < HEAD_CAP + len(long) * 2
        for number in range(1, waiting + 1):
            talk.seen[-1].response.start(204, [])
            talk.seen[-1].response.finish()
            await asyncio.sleep(0)
            assert (len(talk.seen), talk.transport.paused) == (number + 1, False)

    run(test)


def test_a_client_that_never_stops_asking_is_not_let_ahead() -> None:
    async def test() -> None:
        talk = Wire()
        fed = 0
        for _ in range(200):  # each turn of the loop answers one request
            if not talk.transport.paused:
                talk.feed(GET * 1000)
                fed += 1
            await asyncio.sleep(0)
        assert fed < 10, "thousands of requests lie here already"

    run(test)


def test_a_client_that_does_not_read_is_not_answered_on_and_not_kept_forever() -> None:
    async def test() -> None:
        now = asyncio.get_running_loop().time()
        talk = Wire()
        talk.feed(GET[:-1])
        talk.connection.pause_writing()
        talk.feed(GET[-1:] + GET * 9)
        for _ in range(20):
            await asyncio.sleep(0)
        assert talk.statuses == []
        talk.connection.resume_writing()
        await asyncio.sleep(0)
        assert talk.statuses == [200]
        talk.connection.pause_writing()
        await asyncio.sleep(0)
        assert talk.statuses == [200]
        talk.connection.tidy(now + STALLED_S - 1)
        assert not talk.transport.aborted
        talk.connection.tidy(now + STALLED_S + 5)
        assert talk.transport.aborted

        talk = Wire(Mute)
        talk.feed(GET)
        talk.connection.pause_writing()
        talk.connection.tidy(now + STALLED_S + 5)
        assert talk.transport.aborted, "also while it is answered"

    run(test)


def test_whoever_gives_up_waiting_for_a_slow_client_leaves_the_others_waiting() -> None:
    async def test() -> None:
        talk = Wire(Mute)
        talk.feed(GET)
        talk.connection.pause_writing()
        response = talk.seen[0].response
        first = response.start(200, [])
        assert first is not None
        first.cancel()
        second = response.write(b"x")
        assert second is not None
        await asyncio.sleep(0)
        assert not second.done()
        talk.connection.resume_writing()
        await second

    run(test)


NO_HOSTS = (b"a, b", b"a@b", b"http://a", b"a/b", b"a\\b", b"a?b", b"a#b", b"a b", b"a\tb", b"a\xe9", b"<a>", b'"a"')


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"POST /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        *((b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host, 400) for host in NO_HOSTS),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\n\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;a=\nb\r\na\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: br\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /" + b"x" * HEAD_CAP + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * HEAD_CAP, 431),
        (b"GET /" + b"x" * TARGET_CAP + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"POST /?" + b"x" * TARGET_CAP + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", 414),
    ],
)
def test_what_is_no_request_is_refused_and_ends_the_connection(wire: bytes, status: int) -> None:
    async def test() -> None:
        talk = Wire(Mute)
        talk.feed(wire)
        assert talk.statuses == [status]
        assert talk.transport.ended, "nothing more comes from here"
        assert all(one.left for one in talk.seen)
        talk.feed(GET)
        assert talk.statuses == [status]

    run(test)


def test_a_switch_to_http2_is_not_taken_and_the_request_served_with_its_body() -> None:
    """Java's client asks for it with every first request."""

    async def test() -> None:
        talk = Wire()
        asked = b"HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAE\r\n"
        talk.feed(POST.replace(b"HTTP/1.1\r\n", asked), GET)
        assert talk.statuses == [200, 200]
        assert talk.seen[0].body == b"hello"
        assert "upgrade" not in talk.seen[0].request.headers

    run(test)


def test_http_1_0_gets_no_chunks_and_its_end_by_the_connection() -> None:
    async def test() -> None:
        talk = Wire(Mute)
        talk.feed(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        response = talk.seen[0].response
        response.start(200, [])
        response.write(b"some")
        response.finish()
        assert talk.transport.sent == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nsome"
        assert talk.transport.closed

        talk = Wire()
        talk.feed(b"GET /get HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert b"Content-Length: 9\r\nConnection: keep-alive\r\n" in talk.transport.sent
        assert not talk.transport.closed

        talk = Wire()
        talk.feed(b"GET /get HTTP/1.0\r\n\r\n")
        assert talk.transport.closed

    run(test)


@pytest.mark.parametrize(
    ("answer", "wire"),
    [
        (
            lambda r: (r.start(200, [], b"a"), r.write(b"bc")),
            b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        ),
        (lambda r: r.start(200, [], b"abc", length=3), b"200 OK\r\nContent-Length: 3\r\n\r\nabc"),
        (lambda r: r.start(204, []), b"204 No Content\r\n\r\n"),
        (lambda r: r.start(304, [], b"", length=9), b"304 Not Modified\r\n\r\n"),
        (lambda r: (r.start(204, [], b"no"), r.write(b"body")), b"204 No Content\r\n\r\n"),
        (lambda r: r.start(299, [], b"", length=0), b"299 Unknown\r\nContent-Length: 0\r\n\r\n"),
        (lambda r: (r.start(298, [], b"no", length=9), r.write(b"body")), b"298 Unknown\r\nContent-Length: 9\r\n\r\n"),
        (lambda r: (r.start(298, [], b"no"), r.write(b"body")), b"298 Unknown\r\n\r\n"),
    ],
)
def test_how_answers_are_framed(answer: Callable[[Response], object], wire: bytes) -> None:
    """A HEAD is what is answered with 298."""

    async def test() -> None:
        talk = Wire(Mute)
        talk.feed(GET.replace(b"GET", b"HEAD") if wire.startswith(b"298") else GET)
        response = talk.seen[0].response
        answer(response)
        response.finish()
        assert talk.transport.sent == b"HTTP/1.1 " + wire
        with pytest.raises(ClientDisconnectedError):
            response.write(b"late")
        talk.feed(GET)
        assert len(talk.seen) == 2

    run(test)


def test_a_header_cannot_begin_another_line() -> None:
    async def test() -> None:
        talk = Wire(Mute)
        talk.feed(GET)
        with pytest.raises(ValueError, match="line break"):
            talk.seen[0].response.start(200, [("X", "a\r\nSet-Cookie: b")], length=0)
        assert talk.transport.sent == b""
        assert not talk.seen[0].response.started

    run(test)


def test_an_answer_that_begins_when_the_server_has_stopped_is_the_last() -> None:
    async def test() -> None:
        talk = Wire(Mute)
        talk.feed(GET)
        talk.front.stop()
        talk.seen[0].response.start(200, [], length=0)
        talk.seen[0].response.finish()
        assert b"Connection: close" in talk.transport.sent
        assert talk.transport.closed

    run(test)


def test_nothing_is_written_behind_an_abort() -> None:
    async def test() -> None:
        talk = Wire(Mute)
        talk.feed(GET)
        response = talk.seen[0].response
        response.start(200, [], b"half")
        response.abort()
        with pytest.raises(ClientDisconnectedError):
            response.write(b"more")
        response.finish()
        assert talk.transport.sent.endswith(b"4\r\nhalf\r\n")
        assert talk.transport.closed

    run(test)


def test_a_client_that_leaves_is_told_to_whoever_answers_and_to_nobody_after() -> None:
    async def test() -> None:
        talk = Wire(Mute)
        talk.feed(POST[:-2])
        talk.connection.connection_lost(None)
        assert talk.seen[0].left
        with pytest.raises(ClientDisconnectedError):
            talk.seen[0].response.start(200, [], length=0)
        talk.seen[0].response.finish()
        talk.seen[0].response.abort()

        talk = Wire()
        talk.feed(GET)
        talk.connection.connection_lost(ConnectionResetError())
        assert not talk.seen[0].left
        assert talk.front.connections == set()

    run(test)


def test_an_answer_before_the_request_is_whole_is_read_before_the_connection_ends() -> None:
    async def test() -> None:
        talk = Wire(Mute)
        talk.feed(POST[:-2])
        response = talk.seen[0].response
        response.start(413, [], length=0)
        assert b"Connection: close" in talk.transport.sent
        response.finish()
        assert (talk.transport.ended, talk.transport.closed) == (True, False)
        talk.feed(b"lo" + GET)
        assert len(talk.seen) == 1
        assert talk.connection.linger is not None
        talk.connection.connection_lost(None)
        assert talk.connection.linger is None
        assert not talk.seen[0].left

    run(test)


def test_whoever_expects_100_continue_is_told() -> None:
    async def test() -> None:
        talk = Wire()
        expects = POST.replace(b"Host", b"Expect: 100-continue\r\nHost")
        talk.feed(expects[:-5])
        await asyncio.sleep(0)
        assert talk.transport.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
        talk.feed(b"hello")
        assert talk.statuses == [100, 200]

        talk = Wire(Mute)
        talk.feed(expects[:-5])
        talk.seen[0].response.start(413, [], length=0)
        talk.seen[0].response.finish()
        await asyncio.sleep(0)
        assert talk.statuses == [413], "nobody is told to go on who is turned away"

        for answered in (expects, expects.replace(b"HTTP/1.1", b"HTTP/1.0")[:-5]):
            talk = Wire(Mute)
            talk.feed(answered)
            await asyncio.sleep(0)
            assert talk.statuses == []

    run(test)


def test_connections_that_wait_for_too_long_are_closed() -> None:
    async def test() -> None:
        now = asyncio.get_running_loop().time()
        talk = Wire(Mute)
        talk.connection.tidy(now + talk.front.table.limits.first_byte_s - 1)
        assert not talk.transport.closed
        talk.connection.tidy(now + talk.front.table.limits.first_byte_s + 1)
        assert talk.transport.closed, "it has said nothing"
        assert talk.told == [("silent", "")]

        talk = Wire()
        talk.feed(GET)
        talk.connection.tidy(now + IDLE_S - 1)
        assert not talk.transport.closed
        talk.connection.tidy(now + IDLE_S + 5)
        assert talk.transport.closed

        talk = Wire()
        talk.feed(GET, GET[:9])
        talk.connection.tidy(now + HEAD_S - 1)
        assert not talk.transport.closed
        talk.connection.tidy(now + HEAD_S + 5)
        assert talk.transport.closed
        talk.connection.tidy(now + HEAD_S + CLOSING_S + 10)
        assert talk.transport.aborted

        talk = Wire(Mute)
        talk.feed(GET)
        talk.connection.tidy(now + IDLE_S * 2)
        assert not talk.transport.closed, "an answer under way may take as long as it takes"

        talk = Wire(Mute)
        talk.feed(POST[:-1])
        talk.connection.tidy(now + BODY_S - 1)
        assert not talk.transport.closed
        talk.connection.tidy(now + BODY_S + 5)
        assert talk.transport.closed

    run(test)
