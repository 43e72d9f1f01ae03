"""Connections that end while a response is under way, and handlers that fail or have seen enough."""

from __future__ import annotations

import asyncio

import pytest

from pool_server.http1 import ClientDisconnectedError, HttpServer, ServerConnection
from pool_server.http1.states import ServerState
from tests.http1.test_server_connection import CHUNKED, POST
from tests.http1.wire import GET, Echo, Mute, Transport, Wire, run


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("wire", [GET, POST[:-1]])
def test_a_handler_that_responds_on_a_connection_that_ends_harms_nobody(wire: bytes, started: bool, end: str) -> None:
    async def test() -> None:
        talk = Wire(Mute)
        talk.feed(wire)
        (asked,) = talk.seen
        if started:
            asked.response.start(200, [], b"x", length=2)
        getattr(talk.connection, end)()
        with pytest.raises(ClientDisconnectedError):
            asked.response.release()
        if not started:
            asked.response.start(200, [], b"x", length=2)
        asked.response.write(b"y")
        asked.response.finish()
        talk.feed(b"more")
        talk.connection.tidy(asyncio.get_running_loop().time())
        assert (talk.connection.state, len(talk.seen)) == (ServerState.CLOSING, 1)
        talk.connection.connection_lost(None)
        with pytest.raises(ClientDisconnectedError):
            asked.response.release()
        assert talk.connection.state is ServerState.CLOSED

    run(test)


def test_a_response_that_waits_for_the_rest_of_its_request_takes_nothing_over() -> None:
    async def test() -> None:
        talk = Wire(Mute)
        talk.feed(POST[:-1])
        with pytest.raises(ClientDisconnectedError):
            talk.seen[0].response.release()
        assert talk.connection.state is ServerState.BODY

    run(test)


def test_a_fault_of_a_handler_is_told_where_it_can_be_seen_and_ends_the_connection() -> None:
    class Faulty(Mute):
        def data_received(self, chunk: bytes) -> None:
            raise RuntimeError("the handler's own")

    async def test() -> None:
        talk = Wire(Faulty)
        with pytest.raises(RuntimeError, match="the handler's own"):
            talk.feed(POST)
        assert (talk.statuses, talk.seen[0].left) == ([400], True)
        assert talk.connection.state is ServerState.LINGER

    run(test)


def test_a_body_that_breaks_off_its_frame_ends_a_response_that_has_begun() -> None:
    async def test() -> None:
        talk = Wire(Mute)
        talk.feed(CHUNKED[: CHUNKED.index(b"2;ext")])
        talk.seen[0].response.start(200, [])
        talk.feed(b"no size\r\n")
        assert (talk.statuses, talk.seen[0].left) == ([200], True)
        with pytest.raises(ClientDisconnectedError):
            talk.seen[0].response.write(b"more")

    run(test)


def test_nothing_more_of_a_body_is_handed_on_behind_the_response() -> None:
    class Early(Echo):
        def data_received(self, chunk: bytes) -> None:
            super().data_received(chunk)
            self.finish()

    async def test() -> None:
        talk = Wire(Early)
        talk.feed(CHUNKED)
        assert ([one.body for one in talk.seen], talk.statuses) == ([b"hel"], [200])
        assert talk.connection.state is ServerState.LINGER
        talk.connection.close()

    run(test)


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_connection_may_end_before_it_has_its_transport(end: str) -> None:
    async def test() -> None:
        seen: list[Echo] = []
        connection = ServerConnection(HttpServer(lambda request, response: Mute(request, response, seen)))
        getattr(connection, end)()
        transport = Transport()
        connection.connection_made(transport)
        assert transport.aborted
        connection.connection_lost(None)
        getattr(connection, end)()
        assert connection.state is ServerState.CLOSED

    run(test)
