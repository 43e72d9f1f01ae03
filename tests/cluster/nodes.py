"""Servers that are nodes of one pool, in this process, and calls to them as friends make them."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pool_server.app.listening import listen
from pool_server.app.server import Server
from pool_server.core.settings import Choosing, PoolUsers, Settings
from pool_server.users import AuditActor
from tests.cluster.conftest import Database
from tests.fakes import FakeProviders, fake_settings

ADMIN = "the operator"
OPERATOR = AuditActor("admin", "", "operator", "192.0.2.1")
SIGNED = "one secret of every machine"


class Node(NamedTuple):
    """A server of the pool, and where it listens."""

    server: Server
    url: str

    async def call(self, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any]:
        """Status and JSON of the answer; a new connection each time."""
        return await asyncio.to_thread(_call, method, self.url + path, body, key)

    async def enter(self, path: str, body: Any) -> str:
        """Signs a browser in, and returns its cookie."""
        return await asyncio.to_thread(_entered, self.url + path, body)

    async def get(self, path: str, cookie: str) -> tuple[int, bytes]:
        """A page or a part of the API, as a browser asks for it."""
        return await asyncio.to_thread(_sent, urllib.request.Request(self.url + path, headers={"Cookie": cookie}))

    async def ask(self, key: str, **changes: Any) -> tuple[int, Any]:
        """One request of a friend to a model."""
        message = {"model": "claude-sonnet-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}
        return await self.call("POST", "/v1/messages", message | changes, key)


def _call(method: str, url: str, body: Any, key: str) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    status, raw = _sent(request)
    return status, json.loads(raw) if raw else None


def _sent(request: urllib.request.Request) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def _entered(url: str, body: Any) -> str:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.headers["Set-Cookie"]).partition(";")[0]


def node_settings(folder: Path, fakes: FakeProviders, url: str, name: str, **changes: Any) -> Settings:
    """Settings of one machine, with a folder of its own. It waits for a database that is slow: beside busy neighbours
    none is taken for away, but where a test says so."""
    folder.mkdir(parents=True, exist_ok=True)
    users = PoolUsers(admin_password=ADMIN, jwt_secret=SIGNED)
    given: dict[str, Any] = {"friend_code": "swim", "pool_users": users, "choosing": Choosing(wait_s=0), "drain_s": 1.0}
    given["store_wait_s"] = 60.0
    return msgspec.structs.replace(fake_settings(folder, fakes), store_url=url, node_name=name, **(given | changes))


@asynccontextmanager
async def several(
    database: Database, fakes: FakeProviders, folder: Path, count: int = 2, **changes: Any
) -> AsyncIterator[list[Node]]:
    """So many machines for as long as the block lasts."""
    async with AsyncExitStack() as stack:
        nodes = []
        for number in range(count):
            name = f"m{number}"
            server = Server(node_settings(folder / name, fakes, database.url(), name, **changes))
            sockets = listen("127.0.0.1", 0, friends_mode=True)
            await server.start(sockets)
            stack.push_async_callback(server.drain)
            nodes.append(Node(server, f"http://127.0.0.1:{sockets[0].getsockname()[1]}"))
        yield nodes
