"""How many WebSockets a user has, what the handshake asks, and what unfinished messages may hold."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pool_server.core.budget import BudgetFullError, BudgetShare, ByteBudget
from pool_server.core.settings import Budgets, Models
from tests.fakes import Gate, Surface, account, plays
from tests.gateway.sockets import create, final_id, socket
from tests.gateway.stack import ADMIN, Stack, run

MB = 1 << 20
UPGRADE = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip


async def keyed(stack: Stack, name: str = "ada", **limits: Any) -> str:
    user = await stack.users.people.create_user(name, actor=ADMIN, limits=limits)
    return f"Bearer {user['key']}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "status"),
    [
        ({"requests_per_minute": 0}, 429),
        ({"concurrent": 0}, 429),
        ({"tokens_month": 0}, 429),
        ({"providers": ["claude"]}, 403),
        ({"providers": []}, 403),
    ],
    ids=str,
)
def test_the_handshake_asks_the_limits(tmp_path: Path, limits: dict[str, Any], status: int) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="swim") as stack:
            token = await keyed(stack, **limits)
            for _ in range(3):
                with pytest.raises(aiohttp.WSServerHandshakeError) as told:
                    async with socket(stack, Authorization=token):
                        pass
                assert told.value.status == status
            assert stack.fakes.made() == []
            assert not stack.gateway.seats

    run(test)


def test_a_user_has_so_many_sockets_and_no_more(tmp_path: Path) -> None:
    async def test() -> None:
        budgets = Budgets(sockets_per_user=3)
        async with Stack(tmp_path, [account("codex:one")], friend_code="swim", budgets=budgets) as stack:
            ada, berta = await keyed(stack), await keyed(stack, "berta")

            async def one(token: str) -> int:
                try:
                    async with socket(stack, Authorization=token) as client:
                        final_id(await client.turn(create()))
                        await leave.wait()
                        return 101
                except aiohttp.WSServerHandshakeError as refused:
                    return refused.status

            leave = asyncio.Event()
            asked = [asyncio.ensure_future(one(token)) for token in [ada] * 10 + [berta] * 2]
            while len(stack.gateway.sockets) < 5 or sum(task.done() for task in asked) < 7:
                await asyncio.sleep(0.005)
            assert sorted(stack.gateway.seats.values()) == [2, 3]
            leave.set()
            answers = [await task for task in asked]
            assert sorted(answers[:10]) == [101] * 3 + [429] * 7
            assert answers[10:] == [101, 101]
            while stack.gateway.seats:
                await asyncio.sleep(0.005)
            assert await one(ada) == 101
            assert len(stack.fakes.made(surface=Surface.SOCKET)) == 6

    run(test)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Pool-Account": "codex:one"}, 403),
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Key": ""}, 400),
        ({}, 503),
    ],
)
def test_a_seat_is_free_again_whatever_became_of_the_handshake(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    async def test() -> None:
        held = "codex:one" if "Sec-WebSocket-Key" in headers else "claude:one"
        models = Models(translate=False)
        async with Stack(tmp_path, [account(held)], friend_code="swim", models=models) as stack:
            token = await keyed(stack)
            for _ in range(3):
                assert await _handshake(stack, token, **headers) == status
                assert not stack.gateway.seats

    run(test)


async def _handshake(stack: Stack, token: str, **headers: str) -> int:
    sent = dict(line.split(": ") for line in UPGRADE) | {"Host": "x", "Authorization": token} | headers
    lines = ("GET /v1/responses HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", "")
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write("\r\n".join(lines).encode())
    status = int((await reader.readuntil(b"\r\n\r\n"))[9:12])
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return status


class Raw:
    """A socket whose frames are written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def begin(self, size: int, *, fin: bool = True, opcode: int = 1) -> None:
        """A message's head."""
        self.writer.write(struct.pack("!BBQ", 0x80 * fin | opcode, 0x80 | 127, size) + bytes(4))

    async def more(self, size: int) -> None:
        self.writer.write(b"x" * size)
        await self.writer.drain()

    async def frame(self) -> tuple[int, bytes]:
        """(opcode, payload) of the next frame that comes."""
        first, length = await self.reader.readexactly(2)
        if length == 126:
            (length,) = struct.unpack("!H", await self.reader.readexactly(2))
        return first & 15, await self.reader.readexactly(length)


async def connect(stack: Stack, token: str, *more: str) -> Raw:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    lines = ("GET /v1/responses HTTP/1.1", "Host: 127.0.0.1", *UPGRADE, f"Authorization: {token}", *more, "", "")
    writer.write("\r\n".join(lines).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101"), head
    return Raw(reader, writer)


@pytest.mark.parametrize("fragments", [False, True])
def test_unfinished_messages_share_one_budget(tmp_path: Path, fragments: bool) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="swim") as stack:
            frames = stack.gateway.frames
            frames.total, frames.per_owner = 3 * MB, 2 * MB
            ada, berta = await keyed(stack), await keyed(stack, "berta")

            async def unfinished(token: str, size: int) -> Raw:
                wire = await connect(stack, token)
                if fragments:
                    for number in range(0, size, 50_000):
                        await wire.begin(50_000, fin=False, opcode=0 if number else 1)
                        await wire.more(50_000)
                else:
                    await wire.begin(20 * MB)
                    await wire.more(size)
                return wire

            async def refused(wire: Raw) -> None:
                opcode, payload = await wire.frame()
                assert (opcode, json.loads(payload)["status"]) == (1, 503)
                opcode, payload = await wire.frame()
                assert (opcode, struct.unpack("!H", payload[:2])) == (8, (1013,))
                await wire.close()

            async def holds(least: int) -> None:
                while frames.used < least:
                    await asyncio.sleep(0.002)

            kept = [await unfinished(ada, MB)]
            await holds(900_000)
            await refused(await unfinished(ada, 1_400_000))  # her part
            kept.append(await unfinished(berta, 1_500_000))
            await holds(2_300_000)
            await refused(await unfinished(berta, 1_300_000))
            assert frames.used <= frames.total
            async with socket(stack, Authorization=berta) as client:
                final_id(await client.turn(create()))  # small messages are not counted
            for wire in kept:
                await wire.close()
            while frames.used:
                await asyncio.sleep(0.005)
            async with socket(stack, Authorization=berta) as client:
                final_id(await client.turn(create(input=[{"type": "message", "content": "x" * MB}])))
            assert frames.used == 0

    run(test)


def test_a_large_message_counts_as_long_as_its_turn_lasts(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="swim") as stack:
            frames, gate = stack.gateway.frames, Gate()
            frames.total = frames.per_owner = 3 * MB
            token = await keyed(stack)
            large = create(input=[{"type": "message", "content": "x" * 2 * MB}])
            stack.fakes.then("codex:one", plays.stall(gate, at=3))
            async with socket(stack, Authorization=token) as first, socket(stack, Authorization=token) as second:
                await first.connection.send_json(large)
                await gate.reached()
                assert frames.used > 2 * MB
                events = await second.turn(large)
                assert (events[-1]["type"], events[-1]["status"]) == ("error", 503)
                assert await second.closed() == 1013
                gate.open()
                final_id(await first.rest())
                assert frames.used == 0
                final_id(await first.turn(large))

    run(test)


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [b"\x01\x02\x03 no deflate", None])
def test_compressed_messages_that_are_none_or_unfold_too_far_end_the_socket(
    tmp_path: Path, compressed: bytes | None
) -> None:
    packer = zlib.compressobj(wbits=-15)
    bomb = packer.compress(b" " * (32 * MB)) + packer.flush(zlib.Z_SYNC_FLUSH)
    data = compressed or bomb[:-4]

    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack:
            wire = await connect(stack, "x", "Sec-WebSocket-Extensions: permessage-deflate")
            wire.writer.write(struct.pack("!BBQ", 0x80 | 0x40 | 1, 0x80 | 127, len(data)) + bytes(4) + data)
            opcode, payload = await wire.frame()
            assert (opcode, struct.unpack("!H", payload[:2])[0]) == (8, 1007 if compressed else 1009)
            await wire.close()

    run(test)


@pytest.mark.parametrize("text", [b"\xed\xa0\x80", b"\xff", b'{"type":"response.create","x":"\xc3"}'])
def test_text_that_is_not_utf8_closes_with_1007(tmp_path: Path, text: bytes) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="swim") as stack:
            wire = await connect(stack, await keyed(stack))
            wire.writer.write(struct.pack("!BB", 0x81, 0x80 | len(text)) + bytes(4) + text)
            opcode, payload = await wire.frame()
            assert (opcode, struct.unpack("!H", payload[:2])) == (8, (1007,))
            await wire.close()

    run(test)


def test_a_frame_without_a_mask_closes_with_1002_and_goes_nowhere(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="swim") as stack:
            for before in (b"", struct.pack("!BB", 0x89, 0x80) + bytes(4)):
                wire = await connect(stack, await keyed(stack, f"a{len(before)}"))
                text = json.dumps(create()).encode()
                wire.writer.write(before + struct.pack("!BBH", 0x81, 126, len(text)) + text)
                while (frame := await wire.frame())[0] == 10:
                    pass
                assert (frame[0], struct.unpack("!H", frame[1][:2])) == (8, (1002,))
                await wire.close()
            assert all(not call.frames for call in stack.fakes.made(surface=Surface.SOCKET))

    run(test)


def test_a_budget_gives_nobody_more_than_their_part() -> None:
    budget = ByteBudget(100, 60)
    ada, also, berta = BudgetShare(budget, "ada"), BudgetShare(budget, "ada"), BudgetShare(budget, "berta")
    ada.resize(50)
    for share, size, owners in ((also, 11, True), (berta, 51, False)):
        with pytest.raises(BudgetFullError) as full:
            share.resize(size)
        assert (full.value.owners, share.size, budget.used) == (owners, 0, 50)
    berta.resize(50)
    ada.resize(10)
    also.resize(40)
    assert budget.used == 100
    for share in (ada, also, berta):
        share.resize(0)
    assert (budget.used, vars(budget)["_of"]) == (0, {})


def test_random_bytes_on_a_socket_leave_nothing_behind(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="swim") as stack:
            token = await keyed(stack)
            for _ in range(12):
                wire = await connect(stack, token)
                wire.writer.write(os.urandom(3000))
                wire.writer.write_eof()
                await wire.reader.read()
                await wire.close()
            while stack.gateway.sockets or stack.gateway.seats:
                await asyncio.sleep(0.005)
            assert stack.gateway.frames.used == 0
            assert all(not call.frames for call in stack.fakes.made(surface=Surface.SOCKET))

    run(test)
