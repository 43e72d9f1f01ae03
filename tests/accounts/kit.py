"""What the tests of accounts share: a clock they set, a pool folder they fill, a token endpoint they script."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pool_server.accounts import STATE_TABLES, Accounts, ReloadReport, SelectionRequest
from pool_server.accounts.credentials.files import Options
from pool_server.accounts.health import learning
from pool_server.accounts.health.state import AccountHealth
from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.candidates import Need
from pool_server.accounts.selection.index import SelectionIndex
from pool_server.accounts.sign_in.records import SignInRecords, SignInStore
from pool_server.core.enums import (
    CredentialKind,
    Dialect,
    FaultKind,
    Operation,
    Provider,
    Refusal,
    Source,
    Strategy,
)
from pool_server.core.models import OF_ACCOUNT, Fault, FaultScope, HttpAnswer, HttpRequest, WindowObservation
from pool_server.core.settings import Settings
from pool_server.providers import Credential
from pool_server.storage import Store

NOW = 1_760_000_000.0
HOUR = 3600.0
DAY = 86400.0
OPUS, SONNET = "claude-opus-4-1", "claude-sonnet-4-5"


class Clock:
    """Time that only the test moves."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def window(
    used: float, left: float | None = HOUR, *, name: str = "5h", seconds: float = 5 * HOUR, scope: str = "",
    source: Source = Source.HEADERS, at: float = NOW,
) -> WindowObservation:  # fmt: skip
    return WindowObservation(name, int(seconds), used, None if left is None else at + left, source, at, scope)


def week(used: float, left: float | None = 3 * DAY, **more: Any) -> WindowObservation:
    return window(used, left, name="7d", seconds=7 * DAY, **more)


def quota(after: float | None = HOUR, *, at: float = NOW, **more: Any) -> Fault:
    return Fault(FaultKind.QUOTA, OF_ACCOUNT, None if after is None else at + after, status=429, **more)


def fault(kind: FaultKind, scope: FaultScope = OF_ACCOUNT, **more: Any) -> Fault:
    return Fault(kind, scope, **more)


def blame(health: AccountHealth, what: Fault, *, now: float = NOW, model: str = "") -> None:
    """The account learns from a fault of a message."""
    learning.fail(health, what, now, model=model, operation=Operation.MESSAGES, token="", current="")


def ask(user: str = "ann", session: str | None = None, model: str = SONNET, **more: Any) -> SelectionRequest:
    providers = more.pop("providers", (Provider.CLAUDE,))
    return SelectionRequest(providers, Operation.MESSAGES, Dialect.MESSAGES, model, user, session, **more)


def claude(token: str = "sk-ant-oat01-first", *, ends: float = NOW + 8 * HOUR, **options: Any) -> dict[str, Any]:
    """The file of a Claude sign-in; `ends` is when its access token does."""
    login = {
        "accessToken": token,
        "refreshToken": f"sk-ant-ort01-{token[-5:]}",
        "expiresAt": int(ends * 1000),
        "scopes": ["user:profile", "user:inference"],
        "subscriptionType": "max",
    }
    return {"claudeAiOauth": login, **options}


def key(**options: Any) -> dict[str, Any]:
    return {"api_key": "sk-ant-api03-key", **options}


def token_answer(token: str, expires_in: int = 28800) -> HttpAnswer:
    body = {"access_token": token, "refresh_token": f"sk-ant-ort01-{token[-5:]}", "expires_in": expires_in}
    return HttpAnswer(200, {}, json.dumps(body).encode())


class Line:
    """A `send` that answers by a function and remembers what was sent."""

    def __init__(self, answer: Callable[[HttpRequest], HttpAnswer | Awaitable[HttpAnswer]] | None = None) -> None:
        self.sent: list[HttpRequest] = []
        self.answer = answer

    async def __call__(self, request: HttpRequest) -> HttpAnswer:
        self.sent.append(request)
        await asyncio.sleep(0)
        assert self.answer is not None, f"nothing was to be sent, but {request.url} was"
        answer = self.answer(request)
        return answer if isinstance(answer, HttpAnswer) else await answer


class Pool:
    """A pool folder, a state store and the `Accounts` over them; `again()` is a restart."""

    def __init__(
        self,
        folder: Path,
        files: dict[str, Any],
        *,
        line: Line | None = None,
        sign_ins: SignInStore | None = None,
        **settings: Any,
    ) -> None:
        """`sign_ins`: where those under way are kept, None = in the state store."""
        self.folder = folder / "pool"
        self.clock = Clock()
        self.line = line or Line()
        self.settings = Settings(pool_dir=str(self.folder), data_dir=str(folder), **settings)
        for name, data in files.items():
            self.write(name, data)
        self.folder.mkdir(exist_ok=True)
        self.store = Store.open(folder / "state", tables=STATE_TABLES, durable=False)
        self.sign_ins = sign_ins
        self.accounts = self.worker()

    def write(self, name: str, data: Any) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return path

    def worker(self, *, leader: bool = True) -> Accounts:
        made = Accounts(
            self.settings, self.store, send=self.line, clock=self.clock, rng=random.Random(7), leader=leader
        )
        if self.sign_ins is not None:
            made.sign_ins.records = SignInRecords(self.sign_ins, self.clock)
        made.load()
        return made

    def again(self) -> Accounts:
        self.accounts = self.worker()
        return self.accounts

    def reload(self, settings: Settings | None = None) -> ReloadReport:
        return asyncio.run(self.accounts.reload(settings))

    def trouble(self) -> dict[str, str]:
        """What is wrong with the folder, in English."""
        return {name: str(why) for name, why in self.accounts.folder_trouble().items()}

    def serve(self, asked: SelectionRequest, *, seconds: float = 1.0) -> str | None:
        """One whole exchange that goes well; returns who served it."""
        decision = self.accounts.select(asked)
        if decision.account is None:
            return None
        self.accounts.begin(decision.account, asked.model, Operation.MESSAGES)
        self.accounts.bind(asked, decision.account)
        self.accounts.succeed(decision.account, asked.model, Operation.MESSAGES, seconds)
        self.accounts.end(decision.account)
        return decision.account

    def state(self, account: str) -> str:
        return str(self.accounts.describe(account).state)


def family(_: Provider, model: str) -> str:
    return "opus" if "opus" in model else "sonnet"


def fits(account: Account, need: Need) -> Refusal | None:
    return Refusal.PLAN_UNFIT if "opus" in need.model and account.credential.plan == "pro" else None


def view_of(*accounts: Account, strategy: Strategy = Strategy.BALANCED, now: float = NOW) -> SelectionIndex:
    """A view of accounts that were made by hand."""
    made = SelectionIndex(strategy=strategy, fit=fits, family=family)
    for account in accounts:
        made.put(account)
    made.advance(now)
    return made


def entry(name: str, *windows: WindowObservation, **file: Any) -> Account:
    """An account made by hand; `file` holds fields of its credential and options."""
    provider = file.pop("provider", Provider.CLAUDE)
    refreshable = file.pop("refreshable", False)
    options = Options(**{field: file.pop(field) for field in Options.__struct_fields__ if field in file})
    credential = Credential(
        provider, f"{provider.value}:{name}", **{"kind": CredentialKind.OAUTH, "plan": "max", **file}
    )
    account = Account(credential, options)
    account.refreshable = refreshable
    account.health = AccountHealth(windows={f"{w.window}/{w.scope}" if w.scope else w.window: w for w in windows})
    return account


def of_a_dead_process() -> str:
    """The name of a worker that has ended."""
    done = subprocess.run(
        [sys.executable, "-c", "from pool_server.core import processes; print(processes.name())"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()
