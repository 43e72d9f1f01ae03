"""What nodes have in common beside people: the secret they sign with, what people decided for themselves, commands."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pool_server.accounts.credentials.sealing import SealError, environment_keys
from pool_server.app.composition import ports
from pool_server.app.server import Server, people_of
from pool_server.cli.user import command as user_command
from pool_server.cluster.people import shared_secret
from pool_server.core.settings import ConfigError, PoolUsers
from pool_server.users.consents import Notice
from pool_server.users.identity.tokens import KeptSecret
from tests.cluster.conftest import Database
from tests.cluster.nodes import ADMIN, OPERATOR, node_settings, several
from tests.fakes import FakeProviders, account

UNSIGNED: dict[str, Any] = {"pool_users": PoolUsers(admin_password=ADMIN)}


def key(name: str, letter: str) -> str:
    return f"{name}:{base64.b64encode(letter.encode() * 32).decode()}"


@pytest.fixture(autouse=True)
def sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOL_STORE_KEY", key("k1", "a"))


def test_keys_of_one_machine_are_known_on_all_and_outlive_a_rotation(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        async with (
            FakeProviders([account("claude:one")]) as fakes,
            several(database, fakes, tmp_path, **UNSIGNED) as (a, b),
        ):
            made = await a.server.users.people.create_user("Ada", actor=OPERATOR)
            assert (await b.ask(made["key"]))[0] == 200
            await b.server.users.rotate_secret(actor=OPERATOR)
            new = await b.server.users.people.create_user("Ben", actor=OPERATOR)
            while (await a.ask(new["key"]))[0] == 401:  # the news of the secret come within the look's pause
                await asyncio.sleep(0.05)
            for node in (a, b):
                assert (await node.ask(new["key"]))[0] == (await node.ask(made["key"]))[0] == 200
            entered = await a.enter("/admin", {"password": ADMIN})
            assert (await b.get("/people", entered))[0] == 200
        assert "k1" in database.sql("select convert_from(body, 'UTF8') from pool.secret where name = 'signing'")
        assert not list(tmp_path.rglob("jwt_secret"))

    asyncio.run(walk())


def test_a_node_with_another_secret_or_key_is_refused(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def agreed(**changes: Any) -> object:
        async with FakeProviders([]) as fakes:
            settings = node_settings(tmp_path / "m", fakes, database.url(), "m", **changes)
        async with ports.visited(settings) as node:
            return await shared_secret.agree(node.pool, environment_keys(), settings)

    def given(secret: str, before: str = "") -> dict[str, Any]:
        return {"pool_users": PoolUsers(admin_password=ADMIN, jwt_secret=secret, jwt_secret_previous=before)}

    assert asyncio.run(agreed(**UNSIGNED)) is not None
    with pytest.raises(ConfigError, match="another secret"):
        asyncio.run(agreed(**given("x" * 32)))
    monkeypatch.setenv("POOL_STORE_KEY", f"{key('k2', 'b')},{key('k1', 'a')}")  # a new key seals, the old one opens
    assert asyncio.run(agreed(**UNSIGNED)) is not None
    monkeypatch.setenv("POOL_STORE_KEY", key("k2", "b"))
    with pytest.raises(SealError, match="key k1, which POOL_STORE_KEY does not hold"):
        asyncio.run(agreed(**UNSIGNED))
    monkeypatch.delenv("POOL_STORE_KEY")
    with pytest.raises(ConfigError, match="set POOL_STORE_KEY"):
        asyncio.run(agreed(**UNSIGNED))


def test_a_secret_in_the_settings_is_changed_node_by_node(database: Database, tmp_path: Path) -> None:
    async def agreed(secret: str, before: str = "") -> None:
        users = PoolUsers(admin_password=ADMIN, jwt_secret=secret, jwt_secret_previous=before)
        async with FakeProviders([]) as fakes:
            settings = node_settings(tmp_path / "m", fakes, database.url(), "m", pool_users=users)
        async with ports.visited(settings) as node:
            assert await shared_secret.agree(node.pool, environment_keys(), settings) is None

    one, two = "1" * 32, "2" * 32
    for given in [(one,), (one,), (two, one), (two,)]:
        asyncio.run(agreed(*given))
    with pytest.raises(ConfigError, match="another secret"):
        asyncio.run(agreed(one))


def test_the_secret_of_one_machine_moves_once(database: Database) -> None:
    kept = KeptSecret("s" * 32)

    async def moved(secret: KeptSecret) -> bool:
        async with database.pool() as pool, pool.connection() as connection:
            return await shared_secret.take_over(connection, environment_keys(), secret)

    assert "s" * 32 not in repr(kept)
    assert asyncio.run(moved(kept)) and asyncio.run(moved(kept))
    assert not asyncio.run(moved(KeptSecret("t" * 32)))


def test_what_people_decide_holds_on_every_machine(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        async with FakeProviders([]) as fakes, several(database, fakes, tmp_path) as (a, b):
            here, there = a.server.users, b.server.users
            ident = (await here.people.create_user("Ada", actor=OPERATOR))["id"]
            await here.consents.change(ident, True, actor=OPERATOR)
            await here.notices.change(ident, Notice("https://ntfy.sh/ada"), actor=OPERATOR)
            await there.follower.catch_up()
            since = there.consents.given(ident)
            assert there.consents.stands(ident) and since is not None
            assert there.notices.everybody() == {ident: Notice("https://ntfy.sh/ada")}
            await there.consents.change(ident, True, actor=OPERATOR)
            assert there.consents.given(ident) == since
            await there.consents.change(ident, False, actor=OPERATOR)
            await there.notices.change(ident, None, actor=OPERATOR)
            await here.follower.catch_up()
            assert not here.consents.stands(ident) and here.notices.of(ident) is None
            told, _ = await here.audit_log(action="transcripts.")
            assert [row.action for row in told] == ["transcripts.withdraw", "transcripts.allow", "transcripts.allow"]

    asyncio.run(walk())


def test_commands_change_the_people_of_the_pool(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOL_STORE_URL", database.url())
    config = tmp_path / "config.toml"
    config.write_text(f'friend_code = "swim"\ndata_dir = "{tmp_path}/shell"\n')
    made = CliRunner().invoke(user_command, ["add", "Ada", "--json", "--config", str(config)])
    assert made.exit_code == 0, made.output
    assert database.sql("select count(*) from pool.person") == "1"
    shown = CliRunner().invoke(user_command, ["show", "Ada", "--json", "--config", str(config)])
    assert shown.exit_code == 0 and '"Ada"' in shown.output, shown.output

    async def elsewhere() -> None:
        async with FakeProviders([]) as fakes:
            settings = node_settings(tmp_path / "m", fakes, database.url(), "m", **UNSIGNED)
        async with people_of(settings) as users:
            assert users.people.named("Ada") is not None

    asyncio.run(elsewhere())


def test_a_server_without_a_secret_does_not_start(database: Database, tmp_path: Path) -> None:
    async def start() -> None:
        async with FakeProviders([]) as fakes:
            await Server(node_settings(tmp_path / "m", fakes, database.url(), "m", pool_users=PoolUsers())).start([])

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("POOL_STORE_KEY")
        with pytest.raises(ConfigError, match="set POOL_STORE_KEY"):
            asyncio.run(start())
