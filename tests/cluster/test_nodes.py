"""Servers that really run on one database: what is decided on one machine holds on all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pool_server.app.composition.ports import check_shared
from pool_server.app.server import Server
from pool_server.core.settings import ConfigError, PoolUsers, Settings
from pool_server.storage.errors import StoreError
from tests.cluster.conftest import Database
from tests.cluster.nodes import OPERATOR, several
from tests.fakes import FakeProviders, account


def test_a_person_of_one_machine_is_served_by_the_other(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        async with FakeProviders([account("claude:one")]) as fakes, several(database, fakes, tmp_path) as (a, b):
            made = await a.server.users.people.create_user("Ada", actor=OPERATOR)
            await b.server.users.follower.catch_up()
            status, answer = await b.ask(made["key"])
            assert (status, answer["type"]) == (200, "message")
            await b.server.users.people.revoke_key(made["id"], made["key_id"], actor=OPERATOR)
            assert (await b.ask(made["key"]))[0] == 401

    asyncio.run(walk())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (Settings(store_url="postgresql://h/d"), "local mode has no people to share"),
        (Settings(store_url="postgresql://h/d", friend_code="swim"), "set POOL_JWT_SECRET"),
    ],
)
def test_settings_of_no_pool_of_several_machines_are_one_line(settings: Settings, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_shared(settings)


def test_a_database_without_a_schema_is_refused(empty: Database, tmp_path: Path) -> None:
    users = PoolUsers(admin_password="a", jwt_secret="s" * 32)
    settings = Settings(store_url=empty.url(), data_dir=str(tmp_path / "data"), pool_users=users)
    with pytest.raises(StoreError, match="store migrate"):
        asyncio.run(Server(settings).start([]))
