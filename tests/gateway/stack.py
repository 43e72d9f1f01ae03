"""The whole data plane in a test's own loop: real stores, real rooms, a real listening server, fake providers."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
from tornado.netutil import bind_sockets
from tornado.web import Application

from pool_server import accounts as accounts_room
from pool_server import ledger as ledger_room
from pool_server import users as users_room
from pool_server.accounts import Accounts
from pool_server.core.models import UsageRecord
from pool_server.core.settings import Settings
from pool_server.gateway import OBJECT_TABLES, Gateway, Upstream
from pool_server.http1 import HttpServer, Request, RequestHandler, Response
from pool_server.http1.tornado import TornadoRequestHandler
from pool_server.ledger import Ledger
from pool_server.storage import Store
from pool_server.telemetry.service import Telemetry
from pool_server.transcripts import Transcripts
from pool_server.users import AuditActor, Principal, Users
from tests.fakes import FakeAccount, FakeProviders, fake_settings

Body = dict[str, Any]
ADMIN = AuditActor("admin", "", "127.0.0.1")


class Stack:
    """`async with Stack(tmp_path, [account("claude:one")]) as stack`: everything up, everything closed after."""

    def __init__(self, folder: Path, accounts: list[FakeAccount], **settings: Any) -> None:
        self._folder = folder
        self.fakes = FakeProviders(accounts)
        self._changes = settings
        self.settings: Settings

    async def __aenter__(self) -> Stack:
        await self.fakes.start()
        self.settings = fake_settings(self._folder, self.fakes, **self._changes)
        data = Path(self.settings.data_dir)
        tables = (*users_room.LEDGER_TABLES, *ledger_room.TABLES, *OBJECT_TABLES)
        self.ledger_store = Store.open(data / "ledger", tables=tables, durable=True)
        state_tables = (*users_room.STATE_TABLES, *accounts_room.STATE_TABLES)
        self.state = Store.open(data / "state", tables=state_tables, durable=False)
        self.upstream = Upstream()
        self.accounts = Accounts(self.settings, self.state, send=self.upstream.send)
        self.users = Users(self.settings, self.ledger_store, self.state)
        self.accounts.follow_people(self.users.people.owner_id, self.users.groups.of)
        self.ledger = Ledger(self.ledger_store, self.settings)
        self.users.load()
        self.report = self.accounts.load()
        await self.ledger.start()
        await self.accounts.start()
        await self.users.start()
        self.transcripts = Transcripts(self.settings, self.users.consents)
        self.telemetry = Telemetry(self.settings.telemetry, version="1.2.3")
        await self.telemetry.start()
        self.gateway = Gateway(
            self.settings,
            accounts=self.accounts,
            users=self.users,
            ledger=self.ledger,
            upstream=self.upstream,
            transcripts=self.transcripts,
            telemetry=self.telemetry,
        )
        self.gateway.start()
        pages = Application()

        def serve(request: Request, response: Response) -> RequestHandler:
            return self.gateway.take(request, response) or TornadoRequestHandler(pages, request, response)

        self.front = HttpServer(serve)
        sockets = bind_sockets(0, "127.0.0.1")
        self.port = sockets[0].getsockname()[1]
        await self.front.listen(sockets)
        self.client = aiohttp.ClientSession(auto_decompress=False)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.client.close()
        self.front.stop()
        await self.gateway.drain(0.0)
        await self.front.close()
        await self.accounts.close()
        await self.users.close()
        await self.ledger.close()
        await self.gateway.close()
        await self.transcripts.close()
        await self.telemetry.close()
        self.ledger_store.close()
        self.state.close()
        await self.fakes.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def key(self, name: str = "ada") -> str:
        """A new user's pool key."""
        user = await self.users.people.create_user(name, actor=ADMIN)
        return str(user["key"])

    def user(self, token: str) -> str:
        """The id of a key's user."""
        principal = self.users.authenticate(token)
        assert isinstance(principal, Principal)
        return principal.user

    async def post(self, path: str, body: Any = None, *, token: str = "", **headers: str) -> tuple[int, bytes]:
        """One call; header names with _ for -."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        data = body if isinstance(body, bytes | io.BytesIO) else json.dumps(body).encode()
        async with self.client.post(self.url + path, data=data, headers=sent) as answer:
            return answer.status, await answer.read()

    async def idle(self) -> None:
        """Waits until no exchange is live; the test's deadline bounds it."""
        while self.gateway.live:
            await asyncio.sleep(0.01)

    def records(self) -> list[UsageRecord]:
        """What the ledger kept, oldest first."""
        rows, _ = self.ledger.log.page(limit=1000)
        return sorted(rows, key=lambda record: record.id)


def run(test: Callable[[], Coroutine[Any, Any, None]], *, within_s: float = 120.0) -> None:
    """Runs an async test body with a deadline that only a hang reaches."""

    async def bounded() -> None:
        async with asyncio.timeout(within_s):
            await test()

    asyncio.run(bounded())


def chat(*, model: str = "qwen3-coder-plus", stream: bool = False, text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]} | more


def messages(*, stream: bool = True, text: str = "say hi", session: str = "s-1", **more: Any) -> dict[str, Any]:
    body = {"model": "claude-sonnet-4-5", "max_tokens": 100, "stream": stream}
    body["messages"] = [{"role": "user", "content": text}]
    body["metadata"] = {"user_id": json.dumps({"device_id": "d", "account_uuid": "", "session_id": session})}
    return body | more


def responses(*, text: str = "say hi", session: str = "s-1", **more: Any) -> dict[str, Any]:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    body = {"model": "gpt-5-codex", "stream": True, "store": False, "input": [item], "prompt_cache_key": session}
    return body | more
