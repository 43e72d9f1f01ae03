"""The front: what is swept, what is counted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pool_server.gateway import gateway
from tests.fakes import account
from tests.gateway.stack import Stack, run


def test_a_body_that_dribbles_for_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("claude:one")]) as stack:
            reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
            writer.write(b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
            while not stack.gateway.live:
                await asyncio.sleep(0.01)
            stack.gateway.sweep()
            assert len(stack.gateway.live) == 1
            monkeypatch.setattr(gateway, "SLOW_BODY_S", 0.0)
            stack.gateway.sweep()
            assert await reader.read() == b""
            writer.close()
            await stack.idle()

    run(test)
