"""What a Codex socket does with frames, closes and ends that hang: both directions, and nothing without a bound."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import socket as sockets
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pool_server.core.enums import Outcome
from pool_server.core.settings import Upstreams
from pool_server.gateway import answer as answers
from pool_server.gateway import service, transports
from pool_server.gateway.websocket import links, relay
from tests.fakes import Gate, Surface, account, plays
from tests.gateway.sockets import BY_PRIORITY, create, final_id, socket, two
from tests.gateway.stack import ADMIN, Stack, run

MIB = 1 << 20


async def until(true: Callable[[], object]) -> None:
    """Waits for a condition; the test's deadline bounds it."""
    while not true():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(("code", "reason"), [(1001, "bye"), (1012, "é" * 90), (4001, "own code")])
def test_the_upstreams_close_reaches_the_client(tmp_path: Path, code: int, reason: str) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack, socket(stack) as client:
            final_id(await client.turn(create()))
            for one in list(stack.fakes.sockets):
                await one.close(code=code, message=links.reason_bytes(reason))
            told = await client.connection.receive()
            assert (told.type, told.data) == (aiohttp.WSMsgType.CLOSE, code)
            assert told.extra and reason.startswith(told.extra)

    run(test)


@pytest.mark.parametrize(
    ("code", "told"), [(4002, 4002), (1000, 1000), (3000, 3000), (999, 1001), (1004, 1001), (1006, 1001), (5000, 1001)]
)
def test_the_clients_close_reaches_the_upstream(tmp_path: Path, code: int, told: int) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack:
            async with socket(stack) as client:
                final_id(await client.turn(create()))
                (up,) = stack.fakes.sockets
                await client.connection.close(code=code, message=b"enough")
            await until(lambda: up.closed)
            assert up.close_code == told
            await until(lambda: not stack.gateway.sockets)

    run(test)


def test_a_providers_binary_frame_stays_binary(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.WebSocketResponse:
        up = web.WebSocketResponse()
        await up.prepare(request)
        assert await up.receive_json() == create()
        await up.send_bytes(b'{"type":"response.completed","response":{"id":"resp_1"}}')
        await up.send_str('{"type":"response.completed","response":{"id":"resp_1"}}')
        return up

    async def test() -> None:
        app = web.Application()
        app.router.add_get("/responses", answer)
        async with TestServer(app) as provider:
            leads = Upstreams(codex=str(provider.make_url("")).rstrip("/"))
            async with Stack(tmp_path, [account("codex:one")], upstreams=leads) as stack, socket(stack) as client:
                await client.connection.send_json(create())
                told = await client.connection.receive()
                assert (told.type, json.loads(told.data)["type"]) == (aiohttp.WSMsgType.BINARY, "response.completed")
                final_id(await client.rest())

    run(test)


def test_compressed_frames_are_read_and_the_clients_offer_is_taken(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack, socket(stack, compress=15) as client:
            assert client.connection.compress
            for _ in range(2):
                final_id(await client.turn(create(input=[{"type": "message", "content": "x" * MIB}])))
            (call,) = stack.fakes.made(surface=Surface.SOCKET)
            assert [len(frame["input"][0]["content"]) for frame in call.frames] == [MIB, MIB]
            assert "permessage-deflate" in (call.header("sec-websocket-extensions") or "")

    run(test)


@pytest.mark.parametrize(
    ("offer", "taken"),
    [
        ("permessage-deflate; x=1", ""),
        ("permessage-deflate; server_max_window_bits=999", ""),
        ("permessage-deflate; server_max_window_bits=seven", ""),
        ("permessage-deflate; client_max_window_bits=0", ""),
        ("permessage-deflate; client_no_context_takeover=1", ""),
        ("permessage-deflate; server_max_window_bits=8", "client_no_context_takeover; server_max_window_bits=8"),
        ("permessage-deflate; client_max_window_bits", "client_no_context_takeover"),
        ("permessage-deflate; y, permessage-deflate", "client_no_context_takeover"),
        ("x-webkit-deflate-frame, =;=", ""),
    ],
)
def test_an_offer_of_compression_that_cannot_be_taken_is_declined(tmp_path: Path, offer: str, taken: str) -> None:
    async def test() -> None:
        async with (
            Stack(tmp_path, [account("codex:one")]) as stack,
            socket(stack, Sec_WebSocket_Extensions=offer) as client,
        ):
            told = client.connection._response.headers.get("Sec-WebSocket-Extensions", "")
            assert told.removeprefix("permessage-deflate; ") == taken
            final_id(await client.turn(create()))

    run(test)


def test_a_frame_of_64_mib_passes_both_ways(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack, socket(stack) as client:
            text = "x" * (63 * MIB)
            stack.fakes.then("codex:one", plays.ok(pieces=[text]))
            await client.connection.send_json(create(instructions=text))
            events = await client.rest()
            assert max(len(str(event.get("delta", ""))) for event in events) == len(text)
            (call,) = stack.fakes.made(surface=Surface.SOCKET)
            assert len(call.frames[0]["instructions"]) == len(text)

    run(test, within_s=300.0)


def test_an_upstream_frame_over_the_limit_is_1009_for_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pool_server.gateway.websocket.dialling.FRAME_CAP", MIB)

    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack, socket(stack) as client:
            stack.fakes.then("codex:one", plays.ok(pieces=["x" * (2 * MIB)]))
            await client.connection.send_json(create())
            assert await client.closed() == 1009
            (record,) = stack.records()
            assert (record.status, record.outcome) == (413, Outcome.REQUEST_FAULT)
            assert stack.accounts.describe("codex:one").state == "ready"

    run(test)


def test_an_upstream_that_refuses_a_frame_with_1009_is_mirrored(tmp_path: Path) -> None:
    async def test() -> None:
        gate = Gate()
        async with Stack(tmp_path, [account("codex:one")]) as stack, socket(stack) as client:
            stack.fakes.then("codex:one", plays.stall(gate, at=0))
            await client.connection.send_json(create())
            await gate.reached()
            (up,) = stack.fakes.sockets
            gate.open()
            await up.close(code=1009, message=b"too big")
            assert await client.closed() == 1009

    run(test)


async def _raw(stack: Stack) -> sockets.socket:
    """A client's TCP connection after the handshake, of which nobody reads another byte."""
    raw, answer = await _asking(stack), b""
    while b"\r\n\r\n" not in answer:
        answer += await asyncio.get_running_loop().sock_recv(raw, 4096)
    assert b" 101 " in answer
    return raw


async def _asking(stack: Stack) -> sockets.socket:
    """A client's TCP connection that has asked for the switch."""
    loop = asyncio.get_running_loop()
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await loop.sock_connect(raw, ("127.0.0.1", stack.port))
    head = (
        "GET /backend-api/codex/responses HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await loop.sock_sendall(raw, head.encode())
    return raw


def _frame(text: bytes) -> bytes:
    return b"\x81" + bytes([0x80 | 127]) + len(text).to_bytes(8, "big") + b"\0\0\0\0" + text


def test_a_client_that_leaves_before_the_switch_takes_the_upstream_along(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        gate = Gate()
        async with Stack(tmp_path, [account("codex:one")]) as stack:
            stack.fakes.then("codex:one", plays.slow_headers(gate), on="handshake")
            raw = await _asking(stack)
            await gate.reached()
            raw.close()
            await until(lambda: not stack.front.connections)
            gate.open()
            await until(lambda: stack.fakes.made("codex:one", Surface.SOCKET))
            await stack.fakes.settled()
            await until(lambda: not stack.fakes.sockets)
            assert not stack.gateway.sockets

    run(test)
    assert [record.getMessage() for record in caplog.records if record.name.startswith(("tornado", "asyncio"))] == []


def test_a_client_that_is_half_open_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_PING_S", 0.1)

    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack:
            raw = await _raw(stack)
            (up,) = stack.fakes.sockets
            (here,) = cast(set[Any], stack.gateway.sockets)
            await until(lambda: not stack.gateway.sockets and up.closed)
            assert here.ws_connection is None
            raw.close()

    run(test)


def test_a_client_that_never_reads_holds_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_PING_S", 1.0)

    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack:
            stack.fakes.then("codex:one", plays.ok(pieces=["x" * (MIB // 4)] * 200))
            raw = await _raw(stack)
            try:
                await asyncio.get_running_loop().sock_sendall(raw, _frame(json.dumps(create()).encode()))
                await until(lambda: stack.gateway.sockets and next(iter(stack.gateway.sockets)).busy)
                (here,) = cast(set[Any], stack.gateway.sockets)
                most = 0
                while stack.gateway.sockets:
                    stream = here.ws_connection.stream if here.ws_connection is not None else None
                    # A stream that was closed a moment ago has no buffer any more.
                    most = max(most, len(getattr(stream, "_write_buffer", None) or b""))
                    await asyncio.sleep(0.01)
                assert 0 < most < 4 * MIB
                await until(lambda: bool(stack.records()))
                (record,) = stack.records()
                assert record.outcome == Outcome.CLIENT_GONE
                assert stack.accounts.describe("codex:one").state == "ready"
            finally:
                raw.close()

    run(test)


def test_an_upstream_that_is_half_open_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing comes any more, not even a pong: the client is told to reconnect."""
    monkeypatch.setattr(links, "PING_S", 0.2)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = next(
            line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
        )
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        try:
            while await reader.read(1 << 16):
                pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def test() -> None:
        server = await asyncio.start_server(mute, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        leads = Upstreams(codex=f"http://127.0.0.1:{port}")
        async with server, Stack(tmp_path, [account("codex:one")], upstreams=leads) as stack, socket(stack) as client:
            assert await client.closed() == 1012

    run(test)


def test_an_upstream_that_only_answers_pings_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "PING_S", 0.05)

    async def answer(request: web.Request) -> web.WebSocketResponse:
        up = web.WebSocketResponse(autoping=False)
        await up.prepare(request)
        pings = 0
        while pings < 5:
            message = await up.receive()
            pings += message.type is aiohttp.WSMsgType.PING
            await up.pong(message.data)
        await up.ping(b"and you?")
        assert await up.receive() == (aiohttp.WSMsgType.PONG, bytearray(b"and you?"), "")
        await up.close(code=4000)
        return up

    async def test() -> None:
        app = web.Application()
        app.router.add_get("/responses", answer)
        async with TestServer(app) as provider:
            leads = Upstreams(codex=str(provider.make_url("")).rstrip("/"))
            async with Stack(tmp_path, [account("codex:one")], upstreams=leads) as stack, socket(stack) as client:
                assert await client.closed() == 4000

    run(test)


def test_a_key_that_ended_since_starts_no_turn(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="open sesame") as stack:
            user = await stack.users.people.create_user("ada", actor=ADMIN)
            async with socket(stack, Authorization=f"Bearer {user['key']}") as client:
                final_id(await client.turn(create()))
                stack.users.on_end.clear()  # the news is late
                await stack.users.people.patch_user(user["id"], {"disabled": True}, actor=ADMIN)
                await client.connection.send_json(create())
                assert await client.closed() == 1008
            assert len(stack.fakes.made(surface=Surface.SOCKET)[0].frames) == 1

    run(test)


def test_a_limit_is_told_on_the_open_socket_and_the_socket_stays(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="open sesame") as stack:
            user = await stack.users.people.create_user("ada", actor=ADMIN)
            async with socket(stack, Authorization=f"Bearer {user['key']}") as client:
                final_id(await client.turn(create()))
                await stack.users.people.patch_user(user["id"], {"limits": {"tokens_day": 1}}, actor=ADMIN)
                events = await client.turn(create())
                assert (events[-1]["status"], events[-1]["error"]["type"]) == (429, "usage_limit_reached")
                await stack.users.people.patch_user(user["id"], {"limits": {"tokens_day": None}}, actor=ADMIN)
                final_id(await client.turn(create()))
            assert [record.outcome for record in stack.records()] == [Outcome.OK, Outcome.DENIED, Outcome.OK]

    run(test)


def test_a_drain_lets_the_turn_finish_and_starts_no_other(tmp_path: Path) -> None:
    async def test() -> None:
        gate = Gate()
        async with Stack(tmp_path, [account("codex:one")]) as stack, socket(stack) as client:
            stack.fakes.then("codex:one", plays.stall(gate, at=5))
            await client.connection.send_json(create())
            await gate.reached()
            drain = asyncio.create_task(stack.gateway.drain(10.0))
            await until(lambda: stack.gateway.draining)
            gate.open()
            final_id(await client.rest())
            await client.connection.send_json(create())
            assert await client.closed() == 1012
            await drain
            assert [record.outcome for record in stack.records()] == [Outcome.OK]

    run(test)


def test_a_silent_turn_is_kept_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "TICK_S", 0.01)
    monkeypatch.setattr(transports, "KEEPALIVE_S", 0.05)

    async def test() -> None:
        gate = Gate()
        async with Stack(tmp_path, [account("codex:one")]) as stack, socket(stack) as client:
            stack.fakes.then("codex:one", plays.stall(gate, at=0))
            await client.connection.send_json(create())
            assert await client.connection.receive_json() == {"type": "keepalive"}
            gate.open()
            final_id(await client.rest())

    run(test)


def test_an_upstream_silent_for_too_long_is_left_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "TICK_S", 0.01)

    async def test() -> None:
        async with Stack(tmp_path, two(), **BY_PRIORITY, upstream_idle_s=0.2) as stack, socket(stack) as client:
            stack.fakes.then("codex:one", plays.never())
            final_id(await client.turn(create()))
            (record,) = stack.records()
            assert [attempt.account for attempt in record.attempts] == ["codex:one", "codex:two"]

    run(test)


def test_what_was_held_for_long_is_released_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "TICK_S", 0.01)
    monkeypatch.setattr(answers, "HOLD_S", 0.05)

    async def test() -> None:
        gate = Gate()
        async with Stack(tmp_path, [account("codex:one")]) as stack, socket(stack) as client:
            stack.fakes.then("codex:one", plays.stall(gate, at=2))
            await client.connection.send_json(create())
            held = [await client.connection.receive_json() for _ in range(2)]
            gate.open()
            numbers = [event["sequence_number"] for event in [*held, *await client.rest()]]
            assert numbers == sorted(numbers)

    run(test)
