"""The data plane's front: what is counted as live, and until when."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pool_server.http1.server_connection import BODY_S
from tests.fakes import account
from tests.gateway.stack import Stack, run


@pytest.mark.slow
def test_a_body_that_dribbles_for_too_long_is_ended_and_forgotten(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("claude:one")]) as stack:
            reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
            writer.write(b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
            while not stack.gateway.live:
                await asyncio.sleep(0.01)
            (connection,) = stack.front.connections
            now = asyncio.get_running_loop().time()
            connection.tidy(now + BODY_S - 1)
            assert len(stack.gateway.live) == 1
            connection.tidy(now + BODY_S + 1)
            assert await reader.read() == b""
            writer.close()
            await stack.idle()

    run(test)
