"""Every page and question of a pool of several machines: each node answers for all, and none keeps a loop waiting."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.models import Usage
from pool_server.web.base.live import PageWatch
from pool_server.web.routes import TABLE
from tests.cluster.conftest import Database
from tests.cluster.nodes import ADMIN, OPERATOR, Node, several
from tests.fakes import FakeProviders, account, plays

ENDLESS = {"/api/live"}
STRANGERS = {"/sign-in/openid", "/sign-in/openid/callback", "/static", "/setup", "/contribute"}


def paths(values: dict[str, str]) -> list[str]:
    """Every address that can be read, with what fits into it."""
    found = []
    for pattern, handler in TABLE:
        path = pattern.replace(r"\.", ".")
        for name, value in values.items():
            if path.startswith(name):
                path = path.replace("([^/]+)", value, 1)
        plain = "(" not in path and "*" not in path and path not in ENDLESS
        if plain and "get" in vars(handler) and not path.startswith(tuple(STRANGERS)):
            found.append(path)
    return found


async def used(nodes: list[Node], made: dict[str, Any]) -> str:
    """One exchange on each node; the id of the first."""
    for node in nodes:
        assert (await node.ask(made["key"]))[0] == 200
        await node.server.ledger.fresh()
    ledger = nodes[0].server.ledger
    records = await ledger.ask(ledger.log.latest, made["id"])
    return records[-1].id


def test_every_page_of_a_node_tells_what_happened_on_another(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        async with FakeProviders([account("claude:one")]) as fakes, several(database, fakes, tmp_path) as nodes:
            fakes.always("claude:one", plays.ok(Usage(input=100, output=23)))
            a, b = nodes
            made = await a.server.users.people.create_user("Ada", actor=OPERATOR, limits={"tokens_day": 100_000})
            ident = await used(nodes, made)
            operator = await b.enter("/admin", {"password": ADMIN})
            for path in paths({"/requests/": ident, "/people/": made["id"], "/admin/pool-users/": made["id"]}):
                status, body = await b.get(path, operator)
                assert status < 500, (path, status, body[-2000:])
            friend = await b.enter("/api/friend/login", {"key": made["key"]})
            for path in ("/", "/analytics", "/requests", f"/requests/{ident}", f"/keys/{made['key_id']}", "/api/me"):
                status, body = await b.get(path, friend)
                assert status == 200, (path, status, body[-2000:])
            for node in nodes:
                _, told = await node.get("/api/usage/summary", operator)
                assert re.search(rb'"requests": ?2\b', told) and re.search(rb'"output": ?46\b', told), told
            b.server.web.store = lambda: ("away", 9.0)
            assert [(await b.get(path, operator))[0] for path in ("/people", "/healthz", "/readyz")] == [503, 200, 503]

    asyncio.run(walk())


def test_an_open_page_is_told_of_a_request_on_another_node(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        async with FakeProviders([account("claude:one")]) as fakes, several(database, fakes, tmp_path) as nodes:
            made = await nodes[0].server.users.people.create_user("Ada", actor=OPERATOR)
            watches = [PageWatch(nodes[1].server.web, user) for user in ("", made["id"])]
            for watch in watches:
                await watch.begin()
            ident = await used(nodes[:1], made)
            for watch in watches:
                nodes[1].server.web.newest = (0.0, {})
                assert ("request", {"id": ident}) in await watch.changes()

    asyncio.run(walk())


@pytest.mark.parametrize("path", ["/", "/people/x", "/requests/x"])
def test_the_walk_knows_addresses(path: str) -> None:
    assert path in paths({"/people/": "x", "/requests/": "x"})
