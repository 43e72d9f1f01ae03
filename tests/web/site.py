"""A real server with the pages on a loopback port, in a thread of its own, and a plain client for it."""

from __future__ import annotations

import asyncio
import http.client
import inspect
import json
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from tornado.netutil import bind_sockets

from pool_server.http1 import HttpServer, TornadoRequestHandler
from pool_server.web import WebContext, application
from tests.web.pool import close_context


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    def cookies(self) -> dict[str, str]:
        pairs = (line.partition(";")[0].partition("=") for line in self.headers.get_all("Set-Cookie") or [])
        return {name: value for name, _, value in pairs}


class Site:
    """`build` makes the context on the server's own loop."""

    def __init__(self, build: Callable[[], WebContext]) -> None:
        self._build = build
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self) -> Site:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _main(self) -> None:
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.ctx = self._build()
        pages = application(self.ctx)
        front = HttpServer(lambda request, response: TornadoRequestHandler(pages, request, response))
        sockets = bind_sockets(0, "127.0.0.1")
        await front.listen(sockets)
        self.port = sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        self.ctx.draining = True
        await front.close()
        await close_context(self.ctx)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, action: Callable[[], Any]) -> Any:
        """Call something on the server's loop, as another part of the server would."""

        async def call() -> Any:
            result = action()
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)

    def request(
        self, method: str, path: str, *, json_body: Any = None, body: bytes | None = None, **headers: Any
    ) -> Answer:
        """One call on a fresh connection; header names in keywords, `_` for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if json_body is not None:
            body = json.dumps(json_body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body=body, headers=sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: Any) -> Answer:
        return self.request("GET", path, **headers)

    def post(self, path: str, json_body: Any = None, **headers: Any) -> Answer:
        return self.request("POST", path, json_body={} if json_body is None else json_body, **headers)
