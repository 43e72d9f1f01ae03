"""For each vendor a server that tells usage as it does: buffered, streamed and cut, the ledger holds what was said."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.core.models import Usage, UsageRecord
from pool_server.core.settings import Upstreams
from tests.dialects.test_usage import answer, events, known
from tests.dialects.vendor_usage import TOLD
from tests.gateway.stack import Stack, run
from tests.http1.wire import raw_server, read_request

CALLS: dict[Dialect, tuple[str, str, str, dict[str, Any]]] = {
    Dialect.CHAT: ("openai_a.json", "/openai/v1/chat/completions", "/openai/v1/chat/completions", {"messages": []}),
    Dialect.RESPONSES: ("codex_a.json", "/codex/v1/responses", "/codex/v1/responses", {"input": "hi", "store": False}),
    Dialect.MESSAGES: ("claude_a.json", "/v1/messages", "/v1/messages", {"messages": [], "max_tokens": 9}),
    Dialect.GEMINI: (
        "gemini_a.json",
        "/v1beta/models/m:generateContent",
        "/v1beta/models/m:streamGenerateContent?alt=sse",
        {"contents": []},
    ),
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"


class Vendor:
    """Sends `body` of a type, or only `sent` bytes of it before it hangs up."""

    def __init__(self) -> None:
        self.kind, self.body, self.sent = b"", b"", -1

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            whole = HEAD % (self.kind, len(self.body)) + self.body
            writer.write(whole if self.sent < 0 else whole[: len(whole) - len(self.body) + self.sent])
            await writer.drain()
            if self.sent >= 0:
                return

    def says(self, kind: bytes, body: bytes, sent: int = -1) -> None:
        self.kind, self.body, self.sent = kind, body, sent


async def recorded(stack: Stack, path: str, body: dict[str, Any], before: int) -> UsageRecord:
    """Asks once and returns the record of it."""
    try:
        await stack.post(path, body)
    except Exception:  # an answer that is cut breaks off at the client, too
        await stack.idle()
    await stack.idle()
    rows = stack.records()
    assert len(rows) == before + 1
    return rows[-1]


@pytest.mark.slow
@pytest.mark.parametrize("dialect", list(CALLS))
def test_the_ledger_holds_what_each_vendor_said(tmp_path: Path, dialect: Dialect) -> None:
    file, path, streamed_path, asked = CALLS[dialect]
    streamed = asked | {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    vendor = Vendor()

    async def test() -> None:
        async with raw_server(vendor) as port:
            (tmp_path / "pool").mkdir()
            (tmp_path / "pool" / file).write_text(json.dumps({"api_key": "sk-raw"}))
            url = f"http://127.0.0.1:{port}"
            async with Stack(tmp_path, [], upstreams=Upstreams(openai=url, claude=url, gemini=url)) as stack:
                count = 0
                for name, _, usage, meant in (row for row in TOLD if row[1] is dialect):
                    vendor.says(b"application/json", json.dumps(answer(dialect, usage)).encode())
                    whole = await recorded(stack, path, asked | {"model": "m"}, count)
                    assert whole.usage == known(meant), f"{name}, buffered"
                    pieces = events(dialect, usage)
                    vendor.says(b"text/event-stream", b"".join(pieces))
                    stream = await recorded(stack, streamed_path, streamed, count + 1)
                    assert stream.usage == known(meant) and not stream.partial, f"{name}, streamed"
                    count += 2
                assert count

    run(test)


@pytest.mark.slow
@pytest.mark.parametrize("dialect", list(CALLS))
def test_a_stream_cut_before_its_usage_holds_what_was_said_or_an_estimate(tmp_path: Path, dialect: Dialect) -> None:
    file, _, path, asked = CALLS[dialect]
    name = {Dialect.GEMINI: "promptTokenCount", Dialect.CHAT: "prompt_tokens"}.get(dialect, "input_tokens")
    pieces = events(dialect, {name: 30})
    body = b"".join(pieces)
    shown = len(b"".join(pieces[: 1 if dialect is Dialect.RESPONSES else 2]))
    vendor = Vendor()

    async def test() -> None:
        async with raw_server(vendor) as port:
            (tmp_path / "pool").mkdir()
            (tmp_path / "pool" / file).write_text(json.dumps({"api_key": "sk-raw"}))
            url = f"http://127.0.0.1:{port}"
            async with Stack(tmp_path, [], upstreams=Upstreams(openai=url, claude=url, gemini=url)) as stack:
                vendor.says(b"text/event-stream", body, shown)
                record = await recorded(stack, path, asked | {"model": "m", "stream": True}, 0)
                assert record.partial and record.outcome == "cut"
                if dialect is Dialect.MESSAGES:
                    assert record.usage == Usage(input=1, output=1, known=True)
                elif dialect is Dialect.GEMINI:
                    assert record.usage == Usage(input=1, known=True)
                else:
                    assert record.usage.estimated and not record.usage.known and record.usage.input > 0

    run(test)
