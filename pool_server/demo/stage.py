"""`pool-server demo`: the real server on fake accounts and providers, a made-up past, a temporary folder."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from pool_server.app.listening import listen
from pool_server.app.server import Server, open_stores
from pool_server.core.enums import FaultKind, Operation, Provider, Source
from pool_server.core.models import OF_ACCOUNT, Fault, WindowObservation
from pool_server.core.settings import LedgerSettings as LedgerSettings
from pool_server.core.settings import PoolUsers, Settings, UsagePolling, bind_address
from pool_server.demo import notice
from pool_server.demo.cast import FRIENDS, LAST_RESORT, RESTING, SIGNED_OUT, SIGNED_OUT_S, accounts
from pool_server.demo.fake_account import DAY, FakeAccount
from pool_server.demo.history import WINDOW_NAMES, SeededPerson, fillings, history
from pool_server.demo.providers import DemoProviders
from pool_server.ledger import Ledger
from pool_server.users import AuditActor, Users
from pool_server.users.last_used import LastUsed

log = logging.getLogger(__name__)

_RETENTION_DAYS = 400
_POLL_S = 60.0
_REST_S = 1500.0  # the resting account's provider asked for so long a pause
_WORDS = (
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heron",
    "iris",
    "juniper",
    "kelp",
    "lotus",
)


class Demo(NamedTuple):
    """A running demo: where it is and how to get in. `key` is a pool key of the friend named `name`."""

    url: str
    friend_code: str
    admin_password: str
    name: str
    key: str


def run_until_told(listen_addr: str) -> None:
    """See `pool_server.demo.run`."""
    address = bind_address(Settings(listen_addr=listen_addr))
    sockets = listen(address.host, address.port, friends_mode=False)
    with asyncio.Runner() as runner:
        runner.run(_until_told(sockets))


async def _until_told(sockets: list[socket.socket]) -> None:
    leave = asyncio.Event()

    def asked() -> None:
        if leave.is_set():
            os._exit(1)
        leave.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked)
    async with play(sockets) as demo:
        print(_intro(demo), flush=True)
        await leave.wait()


@contextlib.asynccontextmanager
async def play(sockets: list[socket.socket], *, pace: float = 1.0, seed: int = 7) -> AsyncIterator[Demo]:
    """Runs the demo on listening sockets for as long as the context lasts; yields a `Demo`."""
    with tempfile.TemporaryDirectory(prefix=notice.PREFIX) as name:
        folder, now = Path(name), time.time()
        fakes = DemoProviders(pace=pace)
        await fakes.start()
        try:
            cast = accounts(now, fakes.origin)
            fakes.accounts = {account.id: account for account in cast}
            settings = _settings(folder, fakes)
            people = await write_past(settings, cast, now, seed)
            server = Server(settings)
            await server.start(sockets)
            try:
                _present(server, cast, now)
                shown = _facts(settings, sockets[0], people[0])
                notice.leave(folder, shown.url, shown.admin_password)
                yield shown
            finally:
                await server.drain()
        finally:
            await fakes.close()


def _settings(folder: Path, fakes: DemoProviders) -> Settings:
    pool = folder / "pool"
    pool.mkdir(mode=0o700)
    for account in fakes.accounts.values():
        account.write(pool)
    return Settings(
        listen_addr="127.0.0.1:0",
        pool_dir=str(pool),
        data_dir=str(folder / notice.DATA),
        friend_code="-".join(secrets.choice(_WORDS) for _ in range(3)),
        friend_name="the demo",
        friend_tagline="Fake accounts, fake providers, a made-up past: look at everything, break anything.",
        pool_users=PoolUsers(admin_password=secrets.token_urlsafe(9)),
        upstreams=fakes.upstreams(),
        token_urls=fakes.token_urls(),
        usage_polling=UsagePolling(interval_s=_POLL_S),
        ledger=LedgerSettings(retention_days=_RETENTION_DAYS, friends_see="names"),
        drain_s=2.0,
        gemini_client_id="demo",
        gemini_client_secret="demo",
    )


class _Friend(NamedTuple):
    name: str
    key: str
    person: SeededPerson


async def write_past(settings: Settings, cast: list[FakeAccount], now: float, seed: int) -> list[_Friend]:
    """Writes friends, their usage and the accounts' quota history as if the server had been running all along."""
    state, durable = open_stores(Path(settings.data_dir))
    try:
        friends = []
        for friend in FRIENDS:
            joined = now - friend.since * DAY
            users = Users(settings, durable, state, clock=lambda joined=joined: joined)  # type: ignore[misc]
            made = await users.people.create_user(
                friend.name, actor=AuditActor("server"), limits=friend.limits, note="plays in the demo"
            )
            friends.append(_Friend(friend.name, made["key"], SeededPerson(friend, made["id"], made["key_id"])))
        used = await _write_usage(Ledger(durable, settings), [friend.person for friend in friends], cast, now, seed)
        owners = {friend.person.key: friend.person.user for friend in friends}
        LastUsed(state, used, {}, {}, owners.get).write()
        return friends
    finally:
        state.close()
        durable.close()


async def _write_usage(
    ledger: Ledger, people: list[SeededPerson], cast: list[FakeAccount], now: float, seed: int
) -> dict[str, float]:
    """When each key was last used."""
    ids: dict[Provider, list[str]] = defaultdict(list)
    for account in cast:
        ids[account.provider].append(account.id)
    ended = {LAST_RESORT: 0.0, SIGNED_OUT: now - SIGNED_OUT_S}
    records = list(history(people, ids, now=now, seed=seed, ended=ended))
    await asyncio.gather(*(ledger.record(one) for one in records))
    for account in cast:
        windows = {seconds: (one.used_percent, one.resets_at) for seconds, one in account.windows.items()}
        for sighting in fillings(account.id, windows, now=now):
            ledger.observe(account.id, sighting)
    await ledger.close()
    return {one.key: one.at for one in sorted(records, key=lambda record: record.at)}


def _present(server: Server, cast: list[FakeAccount], now: float) -> None:
    """The accounts as a pool would know them that has been running: windows seen, one account told to wait."""
    for account in cast:
        server.accounts.observe(
            account.id,
            [
                WindowObservation(WINDOW_NAMES[seconds], seconds, one.used_percent, one.resets_at, Source.HEADERS, now)
                for seconds, one in account.windows.items()
            ],
        )
    fault = Fault(
        FaultKind.RATE,
        OF_ACCOUNT,
        retry_at=now + _REST_S,
        code="rate_limit_error",
        message="This request would exceed your account's rate limit.",
        status=429,
    )
    server.accounts.fail(RESTING, fault, "claude-sonnet-5", Operation.MESSAGES)


def _facts(settings: Settings, bound: socket.socket, friend: _Friend) -> Demo:
    host, port = bound.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    return Demo(url, settings.friend_code, settings.pool_users.admin_password, friend.name, friend.key)


def _intro(demo: Demo) -> str:
    return f"""pool-server demo on {demo.url}: fake accounts, fake providers, a made-up past.

  the door    {demo.url}/       friend code  {demo.friend_code}   (any name, any passphrase)
  the admin   {demo.url}/admin  password     {demo.admin_password}
  a key       {demo.name}'s, for CLIs and curl:
              {demo.key}

  curl -N {demo.url}/v1/messages -H 'x-api-key: {demo.key}' -H 'content-type: application/json' \\
    -d '{{"model":"claude-sonnet-5","max_tokens":99,"stream":true,"messages":[{{"role":"user","content":"Hi"}}]}}'

  ANTHROPIC_BASE_URL={demo.url} ANTHROPIC_AUTH_TOKEN={demo.key} claude

  `pool-server status` and `pool-server top` show it in another terminal.

Ctrl-C ends it and removes everything it wrote."""
