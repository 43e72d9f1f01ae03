"""The short way of a request whose head came before against the long way: the same bytes in give the same bytes out, up
and down, and the same record."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_server.core.settings import Models
from pool_server.http1.request import HeadMemory
from tests.fakes import FakeAccount, key_account
from tests.gateway.stack import Stack, chat, messages, responses, run

ACCOUNTS = [key_account("openai:key"), key_account("claude:key"), key_account("gemini:key")]  # one for each call
TIMED = re.compile(rb"\d{8,}")  # moments, and numbers that the fakes count on
GEMINI = "/v1beta/models/gemini-2.5-pro"
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", chat(model="some-model")),
    ("/v1/chat/completions", chat(model="some-model", stream=True)),
    ("/v1/chat/completions?a=b", chat(model="other-model", stream=True, stream_options={"include_usage": True})),
    ("/v1/messages?beta=true", messages()),
    ("/v1/messages", messages(stream=False)),
    ("/v1/responses", responses()),
    (f"{GEMINI}:generateContent", {"contents": []}),
    (f"{GEMINI}:streamGenerateContent?alt=sse", {"contents": []}),
    ("/v1/chat/completions", {"model": 5}),
    ("/v1/nothing", {}),
]
HEADERS = [
    ("User-Agent", "claude-cli/2.1.329 (external, sdk-cli)"), ("X-Stainless-Lang", "js"), ("Cookie", "a=b"),
    ("anthropic-version", "2023-06-01"), ("anthropic-beta", "one,two"), ("X-Pool-Session", "mine"), ("TE", "trailers"),
    ("Connection", "keep-alive, X-Own"), ("X-Own", "1"), ("x-own", "2"), ("Accept-Encoding", "gzip"),
    ("X-Client-Request-Id", "abc"), ("x-pool-agent", "mine"), ("OpenAI-Project", "p"), ("Accept", "application/json"),
    ("X-Long", "v" * 300), ("Forwarded", "for=1.2.3.4"), ("X-Latin", "\xe4"), ("X-Empty", ""),
]  # fmt: skip


def request(chance: random.Random, path: str, body: dict[str, Any], key: str, *, chunked: bool) -> bytes:
    """A call with some of the headers that clients send, in any order."""
    data = json.dumps(body | {"note": "n" * chance.choice((0, 9, 10, 2000))}).encode()
    shown = [chance.choice([("Authorization", f"Bearer {key}"), ("x-api-key", key)])]
    lines = [("Host", "pool"), *shown, *chance.sample(HEADERS, chance.randrange(8))]
    lines.append(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(data))))
    chance.shuffle(lines)
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines) + "\r\n"
    return head.encode("latin-1") + (b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if chunked else data)


async def answer(reader: asyncio.StreamReader) -> bytes:
    """One whole answer, without what names it."""
    head = await reader.readuntil(b"\r\n\r\n")
    body, lowered = b"", head.lower()
    if b"transfer-encoding: chunked" in lowered:
        while not body.endswith(b"\r\n0\r\n\r\n") and body != b"0\r\n\r\n":
            body += await reader.readuntil(b"\r\n")
        body = joined(body)
    elif b"content-length: " in lowered:
        body = await reader.readexactly(int(lowered.partition(b"content-length: ")[2].split(b"\r\n", 1)[0]))
    lines = head.split(b"\r\n")
    told = next((line.partition(b": ")[2] for line in lines if line.startswith(b"X-Pool-Request-Id")), b"-")
    return TIMED.sub(b"N", b"\r\n".join([*lines, body]).replace(told, b"ID"))


def joined(chunks: bytes) -> bytes:
    """A body without its chunks: where they end hangs on when the account's pieces come."""
    whole = b""
    while chunks:
        size, _, chunks = chunks.partition(b"\r\n")
        whole, chunks = whole + chunks[: int(size, 16)], chunks[int(size, 16) + 2 :]
    return whole


def comparable(record: Any) -> dict[str, Any]:
    """A record without what two runs differ in: its id, times, and whom two users are called."""
    found: dict[str, Any] = msgspec.to_builtins(record)
    for name in ("id", "at", "user", "key", "session", "first_byte_ms", "total_ms"):
        found.pop(name, None)
    found.pop("decision", None)  # holds scores, which move with time
    for attempt in found.get("attempts", ()):
        attempt.pop("started_ms", None)
        attempt.pop("ms", None)
    return found


async def outcome(folder: Path, seed: int, memory: HeadMemory, accounts: Sequence[FakeAccount]) -> list[Any]:
    """What a seed's calls come to, each sent more than once over one of two connections."""
    chance = random.Random(seed)
    async with Stack(folder, list(accounts), friend_code="come in", models=Models(translate=False)) as stack:
        stack.front.heads = memory
        key = await stack.key()
        found: list[bytes] = []
        lines = [await asyncio.open_connection("127.0.0.1", stack.port) for _ in range(2)]
        for path, body in chance.choices(CALLS, k=8):
            chunked, again = chance.random() < 0.15, chance.randrange(1, 4)
            state = chance.getstate()
            for _ in range(again):
                chance.setstate(state)  # the same headers in the same order
                data = request(chance, path, body | {"more": "m" * random.Random(len(found)).randrange(40)}, key,
                               chunked=chunked)  # fmt: skip
                reader, writer = lines[len(found) % 2]
                writer.write(data)
                found.append((await answer(reader)).replace(key.encode(), b"KEY"))
        for _, writer in lines:
            writer.close()
        await stack.idle()
        asked = [
            (call.account, call.method, call.path, call.query, call.headers[1:], call.body)
            for call in stack.fakes.made()
        ]
        return [found, asked, [comparable(record) for record in stack.records()]]


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))])
def test_the_short_way_is_the_long_way(tmp_path: Path, seed: int) -> None:
    async def test() -> None:
        (tmp_path / "short").mkdir()
        (tmp_path / "long").mkdir()
        memory = HeadMemory()
        short = await outcome(tmp_path / "short", seed, memory, ACCOUNTS)
        long = await outcome(tmp_path / "long", seed, HeadMemory(0), ACCOUNTS)
        assert memory._known, "some heads came again"
        for one, other in zip(short, long, strict=True):
            assert one == other

    run(test)
