"""Clients and upstreams that are wrong, huge, slow or cut off: one clear answer, the others unaffected."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any, cast

import pytest

from pool_server.core.enums import Outcome, Strategy
from pool_server.core.models import Usage
from pool_server.core.settings import Choosing
from pool_server.gateway import service, transports
from tests.fakes import Gate, account, faults, plays
from tests.gateway.stack import Stack, chat, messages, responses, run

COUNTED = Usage(input=7, cache_read=30, output=5, known=True)


async def _raw(stack: Stack, data: bytes) -> bytes:
    """What comes back for bytes that are no proper request, until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write(data)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    return answer


def test_garbage_is_refused_and_the_next_client_served(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("claude:one")]) as stack:
            assert await _raw(stack, b"\x16\x03\x01nonsense\r\n\r\n") == b"", "a TLS hello on a plain port"
            assert b"400" in (await _raw(stack, b"\x15\x03\x01nonsense\r\n\r\n")).split(b"\r\n")[0]
            assert b"400" in (await _raw(stack, b"POST /v1/messages\r\n\r\n")).split(b"\r\n")[0]
            with contextlib.suppress(ConnectionResetError):
                assert b"431" in await _raw(stack, b"GET / HTTP/1.1\r\nX: " + b"y" * (200 << 10) + b"\r\n\r\n")
            status, _ = await stack.post("/v1/messages", messages())
            assert status == 200

    run(test)


def test_a_header_block_of_100_kib_is_no_trouble(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack:
            block = {f"x_client_{number}": "w" * 8000 for number in range(12)}
            status, _ = await stack.post("/v1/responses", responses(), **block)
            assert status == 200

    run(test)


def test_a_dribbling_client_holds_up_nobody(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("claude:one")]) as stack:
            body = json.dumps(messages(stream=False)).encode()
            reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
            head = f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            for piece in (head[:20], head[20:], body[:1], body[1:2]):
                writer.write(piece)
                await writer.drain()
                assert (await stack.post("/v1/messages", messages()))[0] == 200
            writer.write(body[2:])
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()

    run(test)


def test_a_body_that_never_ends_as_promised_leaves_nothing_behind(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("claude:one")]) as stack:
            _, writer = await asyncio.open_connection("127.0.0.1", stack.port)
            writer.write(b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
            await writer.drain()
            writer.close()
            await stack.idle()
            assert stack.records() == []

    run(test)


def test_an_upstream_that_never_answers_is_given_up_for_another(tmp_path: Path) -> None:
    async def test() -> None:
        two = [account("claude:one", priority=1), account("claude:two", priority=2)]
        by_priority = Choosing(strategy=Strategy.PRIORITY)
        async with Stack(tmp_path, two, choosing=by_priority, upstream_first_byte_s=0.2) as stack:
            stack.fakes.then("claude:one", plays.never())
            status, _ = await stack.post("/v1/messages", messages())
            assert status == 200
            (record,) = stack.records()
            assert [attempt.fault for attempt in record.attempts] == ["network", ""]

    run(test)


def test_an_upstream_silent_within_its_answer_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "TICK_S", 0.02)

    async def test() -> None:
        gate = Gate()
        async with Stack(tmp_path, [account("claude:one")], upstream_idle_s=0.3) as stack:
            stack.fakes.then("claude:one", plays.stall(gate, at=5))
            got = b""
            with pytest.raises(Exception, match=r"(?i)payload|transfer|closed"):
                async with stack.client.post(stack.url + "/v1/messages", data=json.dumps(messages())) as answer:
                    async for piece in answer.content.iter_any():
                        got += piece
            assert b"event: error" in got
            (record,) = stack.records()
            assert (record.outcome, record.partial) == (Outcome.CUT, True)

    run(test)


@pytest.mark.slow
def test_silence_is_bridged_with_what_each_client_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "TICK_S", 0.01)
    monkeypatch.setattr(transports, "KEEPALIVE_S", 0.05)
    monkeypatch.setattr(transports, "EARLY_HEADERS_S", 0.05)
    gemini = {"model": "gemini-2.5-pro", "request": {}}
    calls = [
        ("codex:one", "/v1/responses", responses(), b"keepalive"),
        ("claude:one", "/v1/messages", messages(), b"event: ping"),
        ("qwen:one", "/v1/chat/completions", chat(stream=True), b": keepalive"),
        (
            "gemini:one",
            "/v1internal:streamGenerateContent?alt=sse",
            gemini,
            b"\n",
        ),
    ]

    async def test() -> None:
        async with Stack(tmp_path, [account(name, project_id="p") for name, *_ in calls]) as stack:
            for name, path, body, alive in calls:
                for where in (-1, 3):  # before the headers, and within the answer
                    gate = Gate()
                    stack.fakes.then(name, plays.stall(gate, at=where).but(usage=COUNTED))
                    async with stack.client.post(stack.url + path, data=json.dumps(body)) as answer:
                        got = b""
                        while alive not in got:
                            got += await answer.content.readany()
                        assert answer.status == 200
                        gate.open()
                        rest = await answer.content.read()
                        assert rest
            assert {record.outcome for record in stack.records()} == {Outcome.OK}

    run(test)


def test_a_fault_after_early_headers_still_moves_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "TICK_S", 0.01)
    monkeypatch.setattr(transports, "EARLY_HEADERS_S", 0.03)

    async def test() -> None:
        two = [account("claude:one", priority=1), account("claude:two", priority=2)]
        async with Stack(tmp_path, two, choosing=Choosing(strategy=Strategy.PRIORITY)) as stack:
            gate = Gate()
            stack.fakes.then("claude:one", faults.claude_overloaded().but(gate=gate, gate_at=-1))
            async with stack.client.post(stack.url + "/v1/messages", data=json.dumps(messages())) as answer:
                assert answer.status == 200  # the headers are here although no account has answered
                gate.open()
                assert b"message_stop" in await answer.content.read()
            assert [call.account for call in stack.fakes.made()] == ["claude:one", "claude:two"]

    run(test)


@pytest.mark.slow
def test_a_64_mib_event_passes_through_in_little_memory(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack:
            stack.fakes.then("codex:one", plays.huge_event(64 << 20, at=5).but(usage=COUNTED))
            total = 0
            async with stack.client.post(stack.url + "/v1/responses", data=json.dumps(responses())) as answer:
                async for piece in answer.content.iter_any():
                    total += len(piece)
            assert total > 64 << 20
            (record,) = stack.records()
            assert (record.outcome, record.usage.output) == (Outcome.OK, 5)

    run(test)


@pytest.mark.slow
def test_a_client_that_does_not_read_holds_the_upstream_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack:
            stack.fakes.then("codex:one", plays.huge_event(64 << 20, at=5))
            body = json.dumps(responses()).encode()
            reader, writer = await asyncio.open_connection("127.0.0.1", stack.port, limit=1 << 10)
            writer.write(b"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            assert (await stack.post("/v1/responses", responses(session="other")))[0] == 200
            (exchange,) = stack.gateway.live
            assert cast(Any, exchange)._reply.bytes < 16 << 20
            writer.close()
            await stack.idle()

    run(test)


def test_whoever_is_turned_away_is_not_invited_to_send_a_body_first(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("claude:one")], friend_code="swim") as stack:
            head = b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n"
            refused = await _raw(stack, head + b"Authorization: Bearer nobody\r\n\r\n")
            assert refused.startswith(b"HTTP/1.1 401 ")
            reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
            writer.write(head + f"Authorization: Bearer {await stack.key()}\r\n\r\n".encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            writer.close()

    run(test)
