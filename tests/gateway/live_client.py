"""A client of live conversations, for tests of the whole data plane."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp

from pool_server.core.enums import Strategy
from pool_server.core.settings import Choosing
from tests.fakes import FakeAccount, key_account
from tests.fakes.live import LiveProvider
from tests.gateway.stack import Stack

FRIENDS: dict[str, Any] = {"friend_code": "let-me-in-1", "choosing": Choosing(strategy=Strategy.PRIORITY)}
URL = "/v1/realtime?model=gpt-realtime"
GOOGLE_URL = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
SETUP = {"setup": {"model": "models/gemini-live-2.5-flash"}}
SAY = {"clientContent": {"turns": [{"role": "user", "parts": [{"text": "hi"}]}], "turnComplete": True}}


@contextlib.asynccontextmanager
async def pool(folder: Path, *accounts: FakeAccount, **settings: Any) -> AsyncIterator[tuple[Stack, LiveProvider]]:
    async with LiveProvider() as live:
        found = list(accounts) or [key_account("openai:one")]
        async with Stack(folder, found, upstreams=live.upstreams, **(FRIENDS | settings)) as stack:
            yield stack, live


class Talk:
    """A client of either API."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, message: dict[str, Any]) -> None:
        await self.socket.send_str(json.dumps(message))

    async def next(self) -> dict[str, Any]:
        message = await self.socket.receive()
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), (message, self.socket.close_code)
        found: dict[str, Any] = json.loads(message.data)
        return found

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while not found or not wanted(found[-1]):
            found.append(await self.next())
        return found

    async def turn(self) -> list[dict[str, Any]]:
        await self.say({"type": "response.create"})
        return await self.until(lambda event: event["type"] in ("response.done", "error"))

    async def closed(self) -> tuple[int | None, str]:
        while True:
            message = await self.socket.receive()
            if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING):
                return self.socket.close_code, str(message.extra or "")


@contextlib.asynccontextmanager
async def talk(stack: Stack, key: str, path: str = URL, **more: Any) -> AsyncIterator[Talk]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url = stack.url.replace("http", "ws") + path
    async with stack.client.ws_connect(
        url, headers=headers | more.pop("headers", {}), max_msg_size=0, **more
    ) as socket:
        yield Talk(socket)


async def settled(stack: Stack) -> None:
    while stack.gateway.sockets:
        await asyncio.sleep(0.01)


async def until(true: Callable[[], object]) -> None:
    """The test's deadline bounds it."""
    while not true():
        await asyncio.sleep(0.01)
