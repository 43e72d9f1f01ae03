"""The one-line command as a friend runs it, and the real CLI after it: through the pool, counted, and undone again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pool_server.app.server import open_people
from pool_server.core.settings import PoolUsers
from pool_server.dialects import UsableModel
from pool_server.texts import client_settings
from pool_server.users import AuditActor, Principal
from pool_server.web.onboarding import snippets
from tests.clients.cases import missing, path
from tests.clients.jail import Jail, Ran, why_not
from tests.clients.stage import ServerThread
from tests.fakes import FakeProviders, account, fake_settings, key_account, plays
from tests.web.pool import usable

pytestmark = pytest.mark.clis


SERVED = usable(
    chat=UsableModel("qwen3-coder-plus", True),
    **{one: UsableModel("", True, whole_range=True) for one in ("responses", "messages", "code_assist")},
)


def then(cli: str) -> str:
    """How the page says to try a client, to the letter."""
    return next(client.then for client in snippets.clients("", "", SERVED) if client.name == cli)


class Friend:
    """A friend's machine in the jail, and the pool it can reach."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        (self.home / "project").mkdir(parents=True)
        (folder / "logs").mkdir()
        self.jail = Jail(folder / "logs")

    def run(self, argv: list[str]) -> Ran:
        env = {"PATH": path(), "HOME": str(self.home), "USER": "user", "LANG": "C.UTF-8", "TERM": "xterm-256color"}
        return self.jail.run(argv, env=env, cwd=self.home / "project")

    def holding(self, secret: str) -> list[str]:
        """The files of the home folder that hold a text."""
        files = [path for path in self.home.rglob("*") if path.is_file() and not path.is_symlink()]
        return [str(path.relative_to(self.home)) for path in files if secret.encode() in path.read_bytes()]


@pytest.fixture
def cast() -> Iterator[FakeProviders]:
    accounts = [account("codex:a"), account("claude:a"), account("gemini:a"), key_account("qwen:a")]
    with FakeProviders(accounts) as fakes:
        for one in accounts:
            fakes.always(one.id, plays.ok(None, ["Hello", " from", " the fake."]))
        yield fakes


async def _friend(settings: Any) -> dict[str, Any]:
    with open_people(settings) as users:
        return await users.people.create_user("Ann", actor=AuditActor("shell"))


@pytest.mark.parametrize("cli", client_settings.CLIS)
def test_one_line_sets_the_real_cli_up(cli: str, tmp_path: Path, cast: FakeProviders) -> None:
    reason = missing(cli) or why_not()
    if reason:
        pytest.skip(reason)
    settings = fake_settings(tmp_path, cast, pool_users=PoolUsers(admin_password="admin"), drain_s=1.0)
    made = asyncio.run(_friend(settings))
    friend, thread = Friend(tmp_path), ServerThread(settings)
    try:
        thread.start(friend.jail.listening)
        ticket = thread.call(_ticket(thread, made))
        line, _ = snippets.one_line(Jail.url, ticket, cli)
        set_up = friend.run(["sh", "-c", line.text])
        assert set_up.code == 0, set_up.err
        ran = friend.run(["sh", "-c", then(cli)])
        assert ran.code == 0, (ran.out, ran.err)
        assert "Hello from the fake" in ran.out, (ran.out, ran.err)
        assert {record.user for record in thread.records} == {made["id"]}
        assert {record.outcome for record in thread.records} == {"ok"}
        assert friend.holding(made["key"])
        undone = friend.run(["sh", str(friend.home / ".local/state/pool-server" / cli / "undo.sh")])
        assert undone.code == 0, undone.err
        assert friend.holding(made["key"]) == []
        assert friend.holding(Jail.url) == []
    finally:
        thread.stop()
        friend.jail.close()


async def _ticket(thread: ServerThread, made: dict[str, Any]) -> str:
    principal = Principal(made["id"], "Ann")
    ticket = await thread.server.users.tickets.create(principal, key_id=made["key_id"])
    return str(ticket["ticket"])
