"""One real server between a jailed CLI and the fake providers, and what each of them saw."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pool_server.app.server import Server, open_people
from pool_server.core.enums import Operation, Transport
from pool_server.core.models import Usage, UsageRecord
from pool_server.core.settings import PoolUsers, Settings
from pool_server.users import AuditActor
from tests.clients.cases import Case
from tests.clients.jail import Jail, Ran
from tests.clients.terminal import Terminal, terminal
from tests.fakes import FakeAccount, FakeProviders, Surface, account, fake_settings, key_account
from tests.loop_thread import LoopThread

T = TypeVar("T")


class ServerThread:
    """The pool server on a loop of its own; `records` is what its ledger was given."""

    def __init__(self, settings: Settings) -> None:
        self.records: list[UsageRecord] = []
        self._settings = settings
        self._thread = LoopThread("pool-server")

    def start(self, *listening: Any) -> None:
        self._thread.start()
        self.call(self._start(listening))

    async def _start(self, listening: Sequence[Any]) -> None:
        self.server = Server(self._settings)
        await self.server.start(list(listening))
        self.server.ledger.on_record.append(self.records.append)

    def call(self, what: Coroutine[Any, Any, T]) -> T:
        return self._thread.call(what)

    def stop(self) -> None:
        self.call(self.server.drain())
        self._thread.stop()


class Stage:
    """What a test works with: run turns of the case, look at accounts, calls and records. `page` is the server's
    address for whoever stands outside the jail."""

    page = ""

    def __init__(self, case: Case, jail: Jail, fakes: FakeProviders, thread: ServerThread, home: Path, key: str):
        self.case, self.fakes, self.key = case, fakes, key
        self.jail, self._thread, self._home = jail, thread, home

    def turn(self, argv: list[str]) -> Ran:
        """One command of the CLI; asserts that the user saw a good answer and nothing else."""
        ran = self.run(argv)
        assert ran.code == 0, self.told(ran)
        assert "Hello from the fake" in ran.out, self.told(ran)
        return ran

    def run(self, argv: list[str]) -> Ran:
        """One command of the CLI, however it ends."""
        return self.jail.run(argv, env=self._env(), cwd=self._home / "project")

    def terminal(self, argv: list[str]) -> contextlib.AbstractContextManager[Terminal]:
        """The CLI as a full-screen program, driven by keys."""
        return terminal(self.jail, argv, env=self._env(), cwd=self._home / "project")

    def _env(self) -> dict[str, str]:
        return self.case.environment(self.key, self._home)

    def told(self, ran: Ran) -> str:
        """Everything worth reading when a turn went wrong."""
        lines = [
            f"code {ran.code} after {ran.seconds:.1f} s",
            "-- out",
            ran.out[-1500:],
            "-- err",
            ran.err[-2500:],
        ]
        lines += ["-- upstream", *map(repr, self.fakes.calls[-20:])]
        lines += ["-- records", *(f"{r.operation} {r.status} {r.outcome} {r.message}" for r in self.records)]
        return "\n".join(lines)

    @property
    def records(self) -> list[UsageRecord]:
        return list(self._thread.records)

    def answers(self) -> list[UsageRecord]:
        """The records of answers a model gave: no token counting, no empty prewarm of a WebSocket."""
        return [
            one
            for one in self.records
            if one.operation != Operation.COUNT_TOKENS
            and not (one.transport == Transport.WEBSOCKET and one.usage == Usage(known=True))
        ]

    def upstream_answers(self) -> int:
        """How many answers the fake providers gave, over HTTP and over sockets."""
        calls = self.fakes.made()
        frames = sum(frame.get("generate") is not False for call in calls for frame in call.frames)
        return frames + sum(call.surface is not Surface.SOCKET for call in calls)


def cast(case: Case, count: int) -> list[FakeAccount]:
    """Accounts of the case's provider, the first ones with more room."""
    names = [f"{case.provider.value}:{'abcdefghij'[number]}" for number in range(count)]
    if case.keys_only:
        return [key_account(name, priority=number) for number, name in enumerate(names)]
    return [account(name, used_5h=10 + 5 * number, used_7d=10) for number, name in enumerate(names)]


async def _make_key(settings: Settings) -> str:
    with open_people(settings) as users:
        made = await users.people.create_user("Ann", actor=AuditActor("shell"))
        return str(made["key"])


@contextlib.contextmanager
def stage(
    case: Case,
    folder: Path,
    *,
    accounts: int = 2,
    only: Sequence[FakeAccount] = (),
    hosts: Sequence[str] = (),
    **changes: Any,
) -> Iterator[Stage]:
    """A jail with `hosts`, fake accounts (of the case's provider, or `only` these), the server in friends
    mode with a user's key and other settings as `changes` say, and a home set up for the case."""
    home = folder / "home"
    with FakeProviders(only or cast(case, accounts)) as fakes:
        settings = fake_settings(folder, fakes, pool_users=PoolUsers(admin_password="admin"), drain_s=1.0, **changes)
        key = asyncio.run(_make_key(settings))
        case.furnish(key, home)
        logs = folder / "logs"
        logs.mkdir()
        jail, thread = Jail(logs, hosts), ServerThread(settings)
        try:
            outside = socket.create_server(("127.0.0.1", 0))
            outside.setblocking(False)
            thread.start(jail.listening, outside)
            made = Stage(case, jail, fakes, thread, home, key)
            made.page = f"http://127.0.0.1:{outside.getsockname()[1]}"
            yield made
        finally:
            thread.stop()
            jail.close()
            shutil.rmtree(home, ignore_errors=True)
