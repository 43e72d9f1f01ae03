"""A client of the Responses WebSocket as Codex is one, for tests of the whole data plane."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from pool_server.core.enums import Strategy
from pool_server.core.models import Usage
from pool_server.core.settings import Choosing
from tests.fakes import FakeAccount, account
from tests.gateway.stack import Stack, responses

COUNTED = Usage(input=7, cache_read=30, output=5, known=True)
BY_PRIORITY: dict[str, Any] = {"choosing": Choosing(strategy=Strategy.PRIORITY)}
TERMINAL = ("response.completed", "response.failed", "error")


def two() -> list[FakeAccount]:
    return [account("codex:one", priority=1), account("codex:two", priority=2)]


def create(**more: Any) -> dict[str, Any]:
    return {"type": "response.create"} | responses() | more


class Client:
    """A turn is a frame up and events down to the terminal one."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self.connection = connection

    async def turn(self, frame: dict[str, Any]) -> list[dict[str, Any]]:
        await self.connection.send_json(frame)
        return await self.rest()

    async def rest(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        async for message in self.connection:
            assert message.type is aiohttp.WSMsgType.TEXT
            events.append(json.loads(message.data))
            if events[-1]["type"] in TERMINAL:
                break
        return events

    async def closed(self) -> int:
        """The close code, once the server has closed."""
        async for _ in self.connection:
            pass
        assert self.connection.close_code is not None
        return self.connection.close_code


@contextlib.asynccontextmanager
async def socket(
    stack: Stack, path: str = "/backend-api/codex/responses", compress: int = 0, **headers: str
) -> AsyncIterator[Client]:
    sent = {"session-id": "s-1", **{name.replace("_", "-"): value for name, value in headers.items()}}
    url = stack.url.replace("http", "ws") + path
    async with stack.client.ws_connect(url, headers=sent, max_msg_size=0, compress=compress) as connection:
        yield Client(connection)


def final_id(events: list[dict[str, Any]]) -> str:
    assert events[-1]["type"] == "response.completed", events[-1]
    return str(events[-1]["response"]["id"])
