"""Compressed bodies: nothing is decoded for whoever is over a limit, and nothing that takes time on the event loop."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import random
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import zstandard

from pool_server.core.settings import Limits
from pool_server.dialects import decode_body
from pool_server.gateway.http import decoding, handler
from tests.fakes import account
from tests.gateway.stack import Stack, messages, responses, run
from tests.gateway.test_relay import PATH, PLAIN, stack_before
from tests.http1.wire import read_request

BOMB = zstandard.ZstdCompressor().compress(b" " * (200 << 20))


def packed(body: Any) -> bytes:
    return gzip.compress(body if isinstance(body, bytes) else json.dumps(body).encode())


def large(size: int = 1 << 20) -> bytes:
    """A request that is too large to be decoded at once."""
    noise = random.Random(size).randbytes(size).hex()
    return packed(responses(text=noise))


@pytest.mark.parametrize(
    ("coding", "body", "path"),
    [
        ("zstd", BOMB, "/v1/responses"),
        ("gzip", packed(b'{"model":"x"' + b" " * (80 << 20) + b"}"), "/v1/messages"),
        ("gzip, zstd", zstandard.ZstdCompressor().compress(packed(b" " * (64 << 20))), "/v1/chat/completions"),
        ("deflate", zlib.compress(b"[" * (64 << 20)), "/claude/v1/messages"),
    ],
)
def test_what_unfolds_as_no_honest_body_does_is_refused(tmp_path: Path, coding: str, body: bytes, path: str) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one"), account("claude:one")]) as stack:
            status, answer = await stack.post(path, body, content_encoding=coding)
            assert status == 413
            assert b"200 times" in answer
            assert stack.fakes.made() == []

    run(test)


def test_a_compressed_body_may_become_as_large_as_a_plain_one_and_no_more_than_64_mib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decoding.DECODED_CAP == 64 << 20

    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], max_body_mb=3) as stack:
            assert (await stack.post("/v1/responses", io.BytesIO(large(1 << 20)), content_encoding="gzip"))[0] == 200
            assert (await stack.post("/v1/responses", io.BytesIO(large(2 << 20)), content_encoding="gzip"))[0] == 413
            monkeypatch.setattr(handler, "DECODED_CAP", 1 << 20)
            assert (await stack.post("/v1/responses", io.BytesIO(large(1 << 20)), content_encoding="gzip"))[0] == 413

    run(test)


@pytest.mark.parametrize("limits", [Limits(requests_per_minute=1), Limits(concurrent=0), Limits(tokens_day=1)], ids=str)
@pytest.mark.parametrize("body", [large(), packed({"model": "x", "input": "y" * (2 << 20)})], ids=["large", "dense"])
def test_over_a_limit_nothing_is_decoded(
    tmp_path: Path, limits: Limits, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []

    def counted(raw: bytes, encoding: str, *, cap: int) -> bytes:
        if cap > decoding.AT_ONCE_DECODED:
            decoded.append(cap)
        return decode_body(raw, encoding, cap=cap)

    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="swim", limits=limits) as stack:
            key = await stack.key()
            await stack.post("/v1/responses", responses(), token=key)
            monkeypatch.setattr(decoding, "decode_body", counted)
            status, answer = await stack.post("/v1/responses", io.BytesIO(body), token=key, content_encoding="gzip")
            assert (status, decoded) == (429, [])
            assert b"limit" in answer.lower()
            assert stack.records()[-1].outcome == "denied"

    run(test)


def test_over_a_limit_nothing_large_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        limits = Limits(requests_per_minute=0)
        async with Stack(tmp_path, [account("claude:one")], friend_code="swim", limits=limits) as stack:
            key = await stack.key()
            monkeypatch.setattr("pool_server.gateway.exchange.Exchange.look", lambda *a, **k: pytest.fail("it was"))
            assert (
                await stack.post(
                    "/v1/messages", io.BytesIO(json.dumps(messages(text="x" * (2 << 20))).encode()), token=key
                )
            )[0] == 429

    run(test)


class Gate:
    """`decode_body` that waits until it is let through, and counts who is in it."""

    def __init__(self, real: Callable[..., bytes]) -> None:
        self._real = real
        self._open = threading.Event()
        self.inside = 0

    def __call__(self, raw: bytes, encoding: str, *, cap: int) -> bytes:
        if cap <= decoding.AT_ONCE_DECODED:
            return self._real(raw, encoding, cap=cap)
        self.inside += 1
        assert self._open.wait(20)
        self.inside -= 1
        return self._real(raw, encoding, cap=cap)

    def open(self) -> None:
        self._open.set()

    async def until(self, number: int) -> None:
        while self.inside < number:
            await asyncio.sleep(0.001)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    found = Gate(decode_body)
    monkeypatch.setattr(decoding, "decode_body", found)
    return found


def test_others_are_served_while_a_body_is_decoded(tmp_path: Path, gate: Gate) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="swim") as stack:
            keys = [await stack.key(name) for name in ("ada", "berta", "carl", "dora")]

            def ask(key: str) -> asyncio.Task[tuple[int, bytes]]:
                return asyncio.ensure_future(
                    stack.post("/v1/responses", io.BytesIO(large()), token=key, content_encoding="gzip")
                )

            asked = [ask(keys[0]) for _ in range(3)]
            await gate.until(1)
            small = packed(responses())
            assert (await stack.post("/v1/responses", small, token=keys[0], content_encoding="gzip"))[0] == 200
            assert (await stack.post("/v1/responses", responses(), token=keys[3]))[0] == 200
            assert gate.inside == 1, "one body of each user"
            asked += [ask(key) for key in keys[1:]]
            await gate.until(2)
            assert (await stack.post("/v1/responses", responses(), token=keys[3]))[0] == 200
            assert gate.inside == 2, "two of all"
            gate.open()
            assert [(await one)[0] for one in asked] == [200] * 6

    run(test)


def test_leaving_does_not_make_room_for_the_next_body(tmp_path: Path, gate: Gate) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="swim") as stack:
            key = await stack.key()
            big = large(9 << 20)  # in a file
            first = asyncio.ensure_future(
                stack.post("/v1/responses", io.BytesIO(big), token=key, content_encoding="gzip")
            )
            await gate.until(1)
            first.cancel()
            await asyncio.wait({first})
            second = asyncio.ensure_future(
                stack.post("/v1/responses", io.BytesIO(large()), token=key, content_encoding="gzip")
            )
            while len(stack.gateway.live) < 2:
                await asyncio.sleep(0.001)
            assert gate.inside == 1
            gate.open()
            assert (await second)[0] == 200
            await stack.idle()

    run(test)


@pytest.mark.parametrize("pieces", [1, 5, 4000])
def test_an_answer_that_comes_packed_is_read_whole(tmp_path: Path, pieces: int) -> None:
    text = random.Random(7).randbytes(600_000).hex() + "x" * 2_000_000
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    whole = json.dumps({"id": "c", "model": "m", "choices": [choice], "usage": usage}).encode()
    raw = gzip.compress(whole)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}"
        )
        writer.write(head.encode() + b"\r\n\r\n")
        size = len(raw) // pieces + 1
        for at in range(0, len(raw), size):
            writer.write(raw[at : at + size])
            await writer.drain()

    async def test() -> None:
        async with stack_before(tmp_path, talk) as stack:
            assert await stack.post(PATH, PLAIN | {"stream": False}) == (200, whole)
            (record,) = stack.records()
            assert (record.outcome, record.usage.output) == ("ok", 5)

    run(test)


def test_an_answer_that_is_a_bomb_is_cut_off(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        raw = gzip.compress(bytes(100 << 20))
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}"
        )
        writer.write(head.encode() + b"\r\n\r\n" + raw)

    async def test() -> None:
        async with stack_before(tmp_path, talk) as stack:
            with pytest.raises(aiohttp.ClientPayloadError):
                await stack.post(PATH, PLAIN | {"stream": False})
            await stack.idle()
            (record,) = stack.records()
            assert record.outcome == "cut"
            assert record.response_bytes < 64 << 20

    run(test)
