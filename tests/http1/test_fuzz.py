"""A corpus of what comes on wires, and what becomes of it when it is cut, changed and mixed: no exception, no state
that no table has, nothing left behind, the same outcome however the bytes were cut."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.http1.client_connection import ClientConnection, UpstreamDisconnectedError
from pool_server.http1.states import (
    CLIENT_MOVES,
    CLIENT_NEXT,
    SERVER_MOVES,
    SERVER_NEXT,
    ClientEvent,
    ClientState,
    ServerEvent,
    ServerState,
)
from tests.http1.test_client_connection import Transport
from tests.http1.wire import Wire, run


def corpus(name: str) -> list[bytes]:
    lines = (Path(__file__).parent / "corpus" / name).read_text(encoding="ascii").splitlines()
    return [line.encode().decode("unicode_escape").encode("latin-1") for line in lines if line and line[0] != "#"]


REQUESTS, RESPONSES = corpus("requests.txt"), corpus("responses.txt")


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
    return [data[start:end] for start, end in pairwise(places) if end > start]


async def served(parts: list[bytes]) -> tuple[bytes, list[bytes]]:
    """What a server sent, and the bodies its handlers saw, of one connection that then ends."""
    wire = Wire()
    for part in parts:
        wire.feed(part)
        await asyncio.sleep(0)
    for _ in range(4):
        await asyncio.sleep(0)
    assert wire.connection.state in ServerState
    wire.connection.connection_lost(None)
    assert wire.connection.state is ServerState.CLOSED
    assert (len(wire.front.connections), wire.front.long_heads) == (0, 0)
    return wire.transport.sent, [one.body for one in wire.seen]


def first(sent: bytes) -> bytes:
    """The first response. Whether the client is invited to go on, and told that this is the last response, hangs on
    what has come by then."""
    told = sent.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"").replace(b"Connection: close\r\n", b"")
    return told.split(b"HTTP/1.1 ", 2)[1] if told else b""


@pytest.mark.parametrize("data", REQUESTS, ids=lambda data: repr(data[:50]))
def test_a_request_has_one_outcome_however_it_is_cut(data: bytes) -> None:
    async def test() -> None:
        whole, bodies = await served([data])
        apart, same = await served([data[at : at + 1] for at in range(len(data))])
        assert first(whole) == first(apart)
        assert bodies[:1] == same[:1]

    run(test)


@given(st.sampled_from(REQUESTS), st.lists(st.integers(0, 500), max_size=8))
@settings(deadline=None)
def test_cuts_change_no_outcome(data: bytes, cuts: list[int]) -> None:
    async def test() -> None:
        assert first((await served([data]))[0]) == first((await served(pieces(data, cuts)))[0])

    run(test)


CHANGES = st.lists(
    st.tuples(st.sampled_from("xdi"), st.integers(0, 600), st.binary(min_size=1, max_size=6)), max_size=5
)


def changed(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    """Bytes replaced, dropped or put in."""
    for kind, place, what in changes:
        at = place % (len(data) + 1)
        data = data[:at] + (b"" if kind == "d" else what) + data[at + (0 if kind == "i" else len(what)) :]
    return data


@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=3), CHANGES, st.lists(st.integers(0, 900), max_size=5))
@settings(deadline=None, max_examples=300)
def test_no_bytes_harm_a_server(some: list[bytes], changes: list[tuple[str, int, bytes]], cuts: list[int]) -> None:
    async def test() -> None:
        sent, _ = await served(pieces(changed(b"".join(some), changes), cuts))
        assert not sent or sent.startswith(b"HTTP/1.1 ")

    run(test)


async def answered(parts: list[bytes], *, head: bool = False) -> tuple[int, bytes, bool]:
    """(status, body, whole) of what a client makes of one connection that then ends."""
    idle: list[ClientConnection] = []
    connection = ClientConnection(idle.append)
    connection.connection_made(Transport())
    asked = asyncio.ensure_future(connection.exchange(b"GET / HTTP/1.1\r\n\r\n", b"", within_s=9, without_body=head))
    await asyncio.sleep(0)
    for part in parts:
        if not connection.closed:
            connection.data_received(part)
    if not connection.closed:
        connection.connection_lost(None)
    assert connection.state is ClientState.CLOSED
    status, body = 0, b""
    try:
        answer = await asked
        status = answer.status
        while piece := await answer.read():
            body += piece
    except UpstreamDisconnectedError:
        return status, body, False
    return status, body, True


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("data", RESPONSES, ids=lambda data: repr(data[:50]))
def test_a_response_has_one_outcome_however_it_is_cut(data: bytes, head: bool) -> None:
    async def test() -> None:
        status, body, whole = await answered([data], head=head)
        again = await answered([data[at : at + 1] for at in range(len(data))], head=head)
        assert again[0] == status or not whole
        assert (again[1:] == (body, whole)) or not whole
        assert whole is again[2]

    run(test)


@pytest.mark.slow
@given(
    st.lists(st.sampled_from(RESPONSES), min_size=1, max_size=2), CHANGES, st.lists(st.integers(0, 900), max_size=5),
    st.booleans(),
)  # fmt: skip
@settings(deadline=None, max_examples=300)
def test_no_bytes_harm_a_client(
    some: list[bytes], changes: list[tuple[str, int, bytes]], cuts: list[int], head: bool
) -> None:
    async def test() -> None:
        status, _, whole = await answered(pieces(changed(b"".join(some), changes), cuts), head=head)
        assert not whole or status >= 200

    run(test)


def test_every_state_is_reached_and_none_but_the_last_is_final() -> None:
    for states, moves, last in (
        (ServerState, SERVER_MOVES, ServerState.CLOSED),
        (ClientState, CLIENT_MOVES, ClientState.CLOSED),
    ):
        assert set(moves) == set(states)
        for state, nexts in moves.items():
            assert set(nexts.values()) <= {last} if state is last else last in _reachable(moves, state)
        assert _reachable(moves, next(iter(states))) == set(states)


def _reachable(moves: object, start: object) -> set[object]:
    found, new = set(), {start}
    while new:
        found |= new
        new = {following for state in new for following in moves[state].values()} - found  # type: ignore[index]
    return found


def test_what_no_table_has_is_a_defect() -> None:
    for event in ServerEvent:
        if event not in SERVER_MOVES[ServerState.CLOSED]:
            with pytest.raises(KeyError):
                _ = SERVER_NEXT[ServerState.CLOSED][event]
    for one in ClientEvent:
        if one not in CLIENT_MOVES[ClientState.IDLE]:
            with pytest.raises(KeyError):
                _ = CLIENT_NEXT[ClientState.IDLE][one]
