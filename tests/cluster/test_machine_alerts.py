"""What is wrong is told once, whichever machine watches, and every machine's pages say it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from pool_server.accounts.health import learning
from pool_server.accounts.health.state import AccountHealth
from pool_server.accounts.health.transitions import StateActor
from pool_server.alerts import AlertRule, open_incidents
from pool_server.app.composition.ports import account_ports
from pool_server.cluster.node import ClusterNode
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import Alerts, Settings
from pool_server.storage.leases import POLL, WATCH
from tests.cluster.conftest import Database
from tests.cluster.nodes import Node, several
from tests.fakes import FakeProviders, account

PATIENCE_S = 60.0


def open_on(node: Node) -> set[AlertRule]:
    return {one.rule for one in open_incidents(node.server.ledger.notes)}


async def until_open(node: Node, is_open: bool) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (AlertRule.NEEDS_LOGIN in open_on(node)) is not is_open:
        assert time.monotonic() < deadline, "the other machine did not hear of it"
        await asyncio.sleep(0.01)


def test_an_incident_is_told_once_and_by_whoever_watches(database: Database, tmp_path: Path) -> None:
    told: list[bytes] = []

    async def hook(request: HttpRequest) -> HttpAnswer:
        told.append(request.body or b"")
        return HttpAnswer(200, {})

    async def looked(node: Node) -> list[AlertRule]:
        events = await node.server.watch.look()
        await asyncio.gather(*node.server.watch._telling)
        return [event.incident.rule for event in events if event.incident.rule is AlertRule.NEEDS_LOGIN]

    def lost(health: AccountHealth) -> bool:
        return learning.login_lost(health, time.time(), "refused", "t", StateActor.REFRESH)

    async def walk() -> None:
        alerts = Alerts(webhook_url="http://127.0.0.1/hook", disk_free_mb=0)
        async with (
            FakeProviders([account("claude:one")]) as fakes,
            several(database, fakes, tmp_path, alerts=alerts) as nodes,
        ):
            for node in nodes:
                node.server.watch._send = hook
            duties = [node.server.accounts.duties for node in nodes]
            first, second = nodes if duties[0].mine(WATCH) else nodes[::-1]
            for node in nodes[:1]:
                node.server.accounts._registry.update("claude:one", lost)
            assert await looked(second) == []
            assert await looked(first) == [AlertRule.NEEDS_LOGIN]
            assert await looked(first) == []
            await until_open(second, True)
            await first.server.accounts.duties.step_down()
            await second.server.accounts.duties.look()  # type: ignore[attr-defined]
            assert await looked(first) == await looked(second) == []
            assert sum(b"needs_login" in body for body in told) == 1

    asyncio.run(walk())


def test_only_who_can_watch_takes_that_duty(database: Database, tmp_path: Path) -> None:
    """Of the workers of one machine the first alone has what looks for incidents."""

    async def walk() -> None:
        node = ClusterNode(database.place(), "m/1")
        await node.start()
        settings = Settings(pool_dir=str(tmp_path))
        duties = [account_ports(node, settings, leader=leader).duties for leader in (False, True)]
        for one in duties:
            await one.start()
        assert [one.mine(WATCH) for one in duties] == [False, True]
        assert [one.mine(POLL) for one in duties] == [True, False]
        for one in duties:
            await one.close()
        await node.close()

    asyncio.run(walk())
