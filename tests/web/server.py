"""The whole server on a loopback port over fake vendors, and a plain client of its JSON API."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import msgspec

from pool_server.app.server import Server
from pool_server.core.settings import PoolUsers, Settings
from pool_server.users import service
from pool_server.users.identity.passwords import Hasher
from tests.fakes import FakeAccount, FakeProviders, fake_settings
from tests.loop_thread import LoopThread
from tests.web.pool import ADMIN, CODE

T = TypeVar("T")


class Running:
    """A server in a thread of its own. `call` runs something on its loop; `ask` is an operator's program."""

    def __init__(self, settings: Settings, fakes: FakeProviders, *, workers: int = 1) -> None:
        self.settings, self.fakes = settings, fakes
        self.pool = Path(settings.pool_dir)
        self._thread = LoopThread("pool-server")
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(workers)]
        for one in self._sockets:
            one.setblocking(False)
        self.ports = [one.getsockname()[1] for one in self._sockets]
        self.servers: list[Server] = []

    @property
    def server(self) -> Server:
        return self.servers[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    def start(self) -> None:
        self._thread.start()
        self.call(self._start())

    async def _start(self) -> None:
        for number, one in enumerate(self._sockets):
            made = Server(self.settings, worker=number, leader=number == 0)
            await made.start([one])
            self.servers.append(made)

    def call(self, what: Coroutine[Any, Any, T]) -> T:
        return self._thread.call(what)

    def stop(self) -> None:
        for one in reversed(self.servers):
            self.call(one.drain())
        self._thread.stop()

    def ask(self, method: str, path: str, body: Any = None, *, worker: int = 0, **headers: str) -> tuple[int, Any]:
        """Status and JSON (or text) of one call; as the admin unless `Authorization` says otherwise."""
        sent = {"Authorization": f"Bearer {ADMIN}", "Accept": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in sent.items() if value}
        raw = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if raw is not None:
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[worker], timeout=30)
        try:
            connection.request(method, path, body=raw, headers=sent)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def row(self, account: str) -> dict[str, Any]:
        """The account as the admin API tells it."""
        status, found = self.ask("GET", "/admin/accounts")
        assert status == 200
        return next(row for row in found["accounts"] if row["id"] == account)

    def file(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.pool / name).read_text())
        return found


@contextmanager
def running(
    folder: Path,
    accounts: list[FakeAccount],
    *,
    workers: int = 1,
    presets: tuple[str, ...] = (),
    codex_tokens: str = "",
    moved: dict[str, str] | None = None,
    **changes: Any,
) -> Iterator[Running]:
    """A server in friends mode whose fakes know `accounts`; their files are not in the pool. `presets` are led to the
    fakes as well, `moved` are origins of other presets, `codex_tokens` is the origin of another token endpoint for
    that vendor."""
    with FakeProviders() as fakes:
        settings = fake_settings(folder, fakes)
        for one in accounts:
            fakes.add(one)
        upstreams = msgspec.structs.replace(
            settings.upstreams, presets=dict.fromkeys(presets, fakes.origin) | (moved or {})
        )
        if codex_tokens:
            urls = msgspec.structs.replace(settings.token_urls, codex=f"{codex_tokens}/oauth/token")
            settings = msgspec.structs.replace(settings, token_urls=urls)
        settings = msgspec.structs.replace(
            settings,
            friend_code=CODE,
            pool_users=PoolUsers(admin_password=ADMIN),
            upstreams=upstreams,
            workers=workers,
            **changes,
        )
        made = Running(settings, fakes, workers=workers)
        with mock.patch.object(service, "Hasher", lambda **_: Hasher(rounds=4)):
            made.start()
        try:
            yield made
        finally:
            made.stop()
