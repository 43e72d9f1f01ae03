"""The pages behind the pool's own HTTP server on a loopback port, and a client for them.

`Site` is served by pytest-tornado's loop, in the test's own thread: the server runs while a call is made, and stands
still while the test looks at it. `LiveSite` has a thread of its own, for whatever calls from outside (a browser, curl).
"""

from __future__ import annotations

import asyncio
import http.client
import inspect
import json
import threading
from collections.abc import Callable
from email.message import Message
from typing import Any, NamedTuple

from tornado.httpclient import AsyncHTTPClient
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import Application

from pool_server.http1 import HttpServer
from pool_server.http1.tornado import TornadoRequestHandler
from pool_server.web import WebContext, application
from tests.web.pool import close_context

WITHIN_S = 60.0  # what a call may take; only a hang reaches it


class Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    def cookies(self) -> dict[str, str]:
        pairs = (line.partition(";")[0].partition("=") for line in self.headers.get_all("Set-Cookie") or [])
        return {name: value for name, _, value in pairs}


def serve(pages: Application) -> HttpServer:
    """The server of the product with these pages behind it."""
    return HttpServer(lambda request, response: TornadoRequestHandler(pages, request, response))


def written(json_body: Any, body: bytes | None, headers: dict[str, Any]) -> tuple[bytes | None, dict[str, str]]:
    """Body and headers as they are sent; header names come with `_` for `-`."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if json_body is not None:
        body = json.dumps(json_body).encode()
        sent.setdefault("Content-Type", "application/json")
    return body, sent


class Site:
    def __init__(self, ctx: WebContext, io_loop: IOLoop, http_client: AsyncHTTPClient, url: str) -> None:
        self.ctx, self.url, self.port = ctx, url, int(url.rpartition(":")[2])
        self._io_loop, self._client = io_loop, http_client

    def run(self, action: Callable[[], Any]) -> Any:
        """Call something on the server's loop, as another part of the server would."""

        async def call() -> Any:
            result = action()
            return await result if inspect.isawaitable(result) else result

        return self._io_loop.run_sync(call, timeout=WITHIN_S)

    def request(
        self, method: str, path: str, *, json_body: Any = None, body: bytes | None = None, **headers: Any
    ) -> Answer:
        """One call on a fresh connection; header names in keywords, `_` for `-`."""
        return self._call(method, path, *written(json_body, body, headers))

    def _call(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        found: Answer = self.run(lambda: self._fetch(method, path, body, headers))
        return found

    async def fetch(self, method: str, path: str, *, json_body: Any = None, **headers: Any) -> Answer:
        """`request` for a test that is a coroutine on the server's loop."""
        return await self._fetch(method, path, *written(json_body, None, headers))

    async def _fetch(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        answer = await self._client.fetch(
            self.url + path, method=method, body=body, headers=headers, raise_error=False, follow_redirects=False,
            decompress_response=False, allow_nonstandard_methods=True, request_timeout=WITHIN_S,
        )  # fmt: skip
        told = Message()
        for name, value in answer.headers.get_all():
            told.add_header(name, value)
        return Answer(answer.code, told, answer.body)

    def get(self, path: str, **headers: Any) -> Answer:
        return self.request("GET", path, **headers)

    def post(self, path: str, json_body: Any = None, **headers: Any) -> Answer:
        return self.request("POST", path, json_body={} if json_body is None else json_body, **headers)


class LiveSite(Site):
    """`build` makes the context on the server's own loop."""

    def __init__(self, build: Callable[[], WebContext]) -> None:
        self._build = build
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self) -> LiveSite:
        self._thread.start()
        self._ready.wait(WITHIN_S)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WITHIN_S)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.ctx = self._build()
        front = serve(application(self.ctx))
        sockets = bind_sockets(0, "127.0.0.1")
        await front.listen(sockets)
        self.port = sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._ready.set()
        await self._stop.wait()
        self.ctx.draining = True
        await front.close()
        await close_context(self.ctx)

    def run(self, action: Callable[[], Any]) -> Any:
        async def call() -> Any:
            result = action()
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(WITHIN_S)

    def _call(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN_S)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()
