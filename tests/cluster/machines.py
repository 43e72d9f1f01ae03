"""Machines of one pool as far as their accounts go, each with its own folder, and a vendor that forgives nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pool_server.accounts import STATE_TABLES, Accounts
from pool_server.accounts.credentials.sealing import environment_keys
from pool_server.app.composition.ports import account_ports
from pool_server.cluster.credentials.sign_in_rows import DatabaseSignIns
from pool_server.cluster.node import ClusterNode
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import Settings, UsagePolling
from pool_server.storage import Store
from tests.accounts.kit import NOW, Clock, token_answer
from tests.cluster.conftest import Database


class Vendor:
    """A token endpoint that ends a sign-in whose refresh token is shown twice. `meanwhile` happens between a question
    and its answer."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.doubles: list[str] = []
        self.meanwhile: Callable[[str], Awaitable[None]] | None = None

    async def __call__(self, request: HttpRequest) -> HttpAnswer:
        token = json.loads(request.body or b"{}")["refresh_token"]
        if token in self.asked:
            self.doubles.append(token)
            return HttpAnswer(400, {}, b'{"error": "invalid_grant"}')
        self.asked.append(token)
        number = len(self.asked)
        if self.meanwhile is not None:
            await self.meanwhile(token)
        return token_answer(f"sk-ant-oat01-{number:05}")


class Machine(NamedTuple):
    """One process of the pool."""

    accounts: Accounts
    node: ClusterNode
    folder: Path

    def drop(self, name: str, data: Any) -> Path:
        """Put a file into its pool folder."""
        path = self.folder / "pool" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data))
        return path

    def secret(self, account_id: str = "claude:a") -> str:
        return self.accounts.credential(account_id).secret


@asynccontextmanager
async def machine(
    database: Database, folder: Path, send: Any, *, clock: Callable[[], float] | None = None, background: bool = False
) -> AsyncIterator[Machine]:
    """One machine for as long as the block lasts; `background`: it refreshes on timers and watches its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        pool_dir=str(folder / "pool"), data_dir=str(folder), usage_polling=UsagePolling(interval_s=0), workers=1
    )
    node = ClusterNode(database.place(), folder.name)
    await node.start()
    store = Store.open(folder / "state", tables=STATE_TABLES, durable=False)
    accounts = Accounts(
        settings,
        store,
        send=send,
        clock=clock or Clock(NOW),
        ports=account_ports(node, settings),
        leader=True,
        sign_ins=DatabaseSignIns(node.pool, environment_keys()),
    )
    node.on_feed["credentials"].append(accounts.follow_credentials)
    try:
        await accounts.prepare()
        accounts.load()
        if background:
            await accounts.start()
        yield Machine(accounts, node, folder)
    finally:
        await accounts.close()
        await node.close()
        store.close()


@asynccontextmanager
async def machines(
    database: Database, folder: Path, send: Any, count: int = 2, **more: Any
) -> AsyncIterator[list[Machine]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(machine(database, folder / f"m{number}", send, **more))
            for number in range(count)
        ]
