"""No exchange, turn or page waits for the garbage collector: what it was made of is freed when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import types
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from pool_server.app.listening import listen
from pool_server.app.server import Server
from pool_server.core.settings import PoolUsers, Settings
from pool_server.web.routes import TABLE
from tests.fakes import FakeAccount, FakeProviders, Gate, account, fake_settings, faults, key_account, plays
from tests.gateway.sockets import TERMINAL
from tests.gateway.stack import ADMIN, chat, messages, responses, run

ROUNDS = 3


class Scene:
    """A whole server in this loop, its fakes, one user's key and a client."""

    def __init__(self, server: Server, fakes: FakeProviders, client: aiohttp.ClientSession, url: str) -> None:
        self.server, self.fakes, self.client, self.url = server, fakes, client, url
        self.headers: dict[str, str] = {}

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, bytes]:
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        async with self.client.post(self.url + path, data=data, headers=self.headers | headers) as answer:
            return answer.status, await answer.read()

    async def get(self, path: str, **headers: str) -> int:
        async with self.client.get(self.url + path, headers=self.headers | headers) as answer:
            await answer.read()
            return answer.status

    async def idle(self) -> None:
        while self.server.gateway.live or self.server.gateway.sockets:
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def scene(folder: Path, accounts: list[FakeAccount], **changes: Any) -> AsyncIterator[Scene]:
    async with FakeProviders(accounts) as fakes, aiohttp.ClientSession() as client:
        settings: Settings = fake_settings(folder, fakes, friend_code="open sesame", **changes)
        server = Server(settings)
        sockets = listen("127.0.0.1", 0, friends_mode=True)
        port = sockets[0].getsockname()[1]
        await server.start(sockets)
        here = Scene(server, fakes, client, f"http://127.0.0.1:{port}")
        user = await server.users.people.create_user("ada", actor=ADMIN)
        here.headers = {"Authorization": f"Bearer {user['key']}"}
        try:
            yield here
        finally:
            await server.drain()


async def buffered(at: Scene) -> None:
    assert (await at.post("/v1/messages", messages(stream=False)))[0] == 200


async def streamed(at: Scene) -> None:
    for path, body in (("/v1/messages", messages()), ("/v1/responses", responses())):
        assert (await at.post(path, body))[0] == 200


async def spooled(at: Scene) -> None:
    assert (await at.post("/v1/messages", messages(text="x" * (9 << 20))))[0] == 200


async def rewritten(at: Scene) -> None:
    body = {"model": "gemini-2.5-pro", "project": "mine", "request": {}}
    assert (await at.post("/v1internal:generateContent", body))[0] == 200


async def failed_over(at: Scene) -> None:
    at.fakes.then("claude:one", faults.claude_overloaded())
    at.fakes.then("claude:two", faults.claude_overloaded())
    at.fakes.then("codex:one", faults.in_stream(faults.responses_failed(), at=1))
    assert (await at.post("/v1/messages", messages()))[0] >= 500
    await at.post("/v1/responses", responses())


async def unreachable(at: Scene) -> None:
    at.fakes.then("claude:one", plays.closes())
    assert (await at.post("/v1/messages", messages()))[0] == 200


async def refreshed(at: Scene) -> None:
    at.fakes.accounts["claude:one"].revoke()
    assert (await at.post("/v1/messages", messages()))[0] == 200


async def refused_by_the_provider(at: Scene) -> None:
    at.fakes.then("claude:one", faults.claude_invalid())
    assert (await at.post("/v1/messages", messages()))[0] == 400


async def cut_in_the_middle(at: Scene) -> None:
    at.fakes.then("claude:one", plays.cut())
    with contextlib.suppress(aiohttp.ClientError):
        await at.post("/v1/messages", messages())


async def client_gone(at: Scene) -> None:
    gate = Gate()
    at.fakes.then("claude:one", plays.stall(gate))
    async with at.client.post(at.url + "/v1/messages", json=messages(), headers=at.headers) as answer:
        await answer.content.readany()
        answer.close()
    await at.idle()
    gate.open()


async def revoked(at: Scene) -> None:
    gate = Gate()
    at.fakes.then("claude:one", plays.stall(gate))
    user = await at.server.users.people.create_user("eve", actor=ADMIN)
    headers = {"Authorization": f"Bearer {user['key']}"}
    with contextlib.suppress(aiohttp.ClientError):
        async with at.client.post(at.url + "/v1/messages", json=messages(), headers=headers) as answer:
            await answer.content.readany()
            await at.server.users.people.delete_user(user["id"], actor=ADMIN)
            await answer.read()
    gate.open()


async def denied(at: Scene) -> None:
    assert (await at.post("/v1/messages", messages(), Authorization="Bearer sk-wrong"))[0] == 401
    assert (await at.post("/v1/messages", b"{broken"))[0] == 400
    assert (await at.post("/v1/chat/completions", chat(model="nobody-has-it")))[0] in (404, 503)


async def local_answer(at: Scene) -> None:
    assert await at.get("/v1/models") == 200
    assert (await at.post("/backend-api/codex/analytics-events/events", {}))[0] < 300


async def page(at: Scene) -> None:
    for path in ("/", "/healthz", "/status", "/nothing", "/setup/none/codex"):
        assert await at.get(path, Accept="text/html") < 500
    admin = {"Authorization": "Bearer deep end"}
    for path in ("/metrics", "/accounts", "/people", "/audit", "/settings", "/analytics", "/requests"):
        assert await at.get(path, Accept="text/html", **admin) == 200


async def turn(at: Scene) -> None:
    url = at.url.replace("http", "ws") + "/v1/responses"
    async with at.client.ws_connect(url, headers=at.headers) as socket:
        for _ in range(2):
            await socket.send_json({"type": "response.create"} | responses())
            async for message in socket:
                if json.loads(message.data)["type"] in TERMINAL:
                    break


async def turn_failed_over(at: Scene) -> None:
    at.fakes.then("codex:one", faults.codex_overloaded())
    await turn(at)


async def turn_bridged(at: Scene) -> None:
    at.fakes.then("codex:one", plays.status(426), on="handshake")
    await turn(at)


async def turn_abandoned(at: Scene) -> None:
    gate = Gate()
    at.fakes.then("codex:one", plays.stall(gate))
    url = at.url.replace("http", "ws") + "/v1/responses"
    async with at.client.ws_connect(url, headers=at.headers) as socket:
        await socket.send_json({"type": "response.create"} | responses())
        await gate.reached()
    gate.open()


async def no_socket(at: Scene) -> None:
    url = at.url.replace("http", "ws") + "/v1/responses"
    with contextlib.suppress(aiohttp.WSServerHandshakeError):
        await at.client.ws_connect(url, headers={"Authorization": "Bearer sk-wrong"})


Act = Callable[[Scene], Awaitable[None]]
ACTS: tuple[Act, ...] = (
    buffered, streamed, spooled, rewritten, failed_over, unreachable, refreshed, refused_by_the_provider,
    cut_in_the_middle, client_gone, revoked, denied, local_answer, page, turn, turn_failed_over, turn_bridged,
    turn_abandoned, no_socket,
)  # fmt: skip


def left_to_the_collector() -> Counter[str]:
    """What of the pool's own only the collector frees, by type; coroutines and frames by their code."""
    gc.garbage.clear()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return Counter(name for thing in gc.garbage if (name := _name(thing)))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def _name(thing: Any) -> str:
    if isinstance(thing, types.CoroutineType | types.AsyncGeneratorType):
        code = thing.cr_code if isinstance(thing, types.CoroutineType) else thing.ag_code
        return code.co_qualname if "pool_server" in code.co_filename else ""
    kind = type(thing)
    return kind.__qualname__ if kind.__module__.startswith("pool_server") else ""


def test_what_ends_is_freed_at_once(tmp_path: Path) -> None:
    accounts = [
        account("claude:one", priority=1),
        account("claude:two", priority=2),
        account("codex:one", priority=1),
        account("codex:two", priority=2),
        account("gemini:one"),
        key_account("openai:key", models=["some-model"]),
    ]

    async def test() -> None:
        left: dict[str, Counter[str]] = {}
        async with scene(tmp_path, accounts, pool_users=PoolUsers(admin_password="deep end")) as at:
            for act in ACTS:
                await act(at)
                await at.idle()
                gc.collect()
                gc.disable()
                try:
                    for _ in range(ROUNDS):
                        for one in at.fakes.accounts:
                            at.server.accounts.reset(one)
                        await act(at)
                    await at.idle()
                    await asyncio.sleep(0.02)  # the last connection's own callbacks
                    left[act.__name__] = left_to_the_collector()
                finally:
                    gc.enable()
        # The values of a page stay in its template's namespace, which refers to itself: that is Tornado's own.
        pages = left.pop("page")
        handlers = {kind.__name__ for _, kind in TABLE}
        assert not handlers & pages.keys()
        assert {act: names for act, names in left.items() if names} == {}

    run(test, within_s=900)
