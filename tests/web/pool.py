"""The real rooms on a temporary folder, with fake credentials and no provider behind them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec

from pool_server import accounts, ledger, users
from pool_server.accounts import Accounts
from pool_server.core.enums import Source
from pool_server.core.models import HttpAnswer, HttpRequest, Usage, UsageRecord, WindowObservation
from pool_server.core.settings import PoolUsers, Settings
from pool_server.dialects import UsableModel
from pool_server.gateway.emulation.answers import LocalAnswers
from pool_server.ledger import Ledger
from pool_server.storage import Store
from pool_server.transcripts import Transcripts
from pool_server.users import Users
from pool_server.web import WebContext
from pool_server.web.onboarding.steps import Usable

CODE, ADMIN = "swim", "deep end"
FAKE_TOKEN = "sk-ant-oat01-FAKE-SECRET-OF-THE-ACCOUNT"


def usable(model: UsableModel = UsableModel("house-model-1", True), **other: UsableModel) -> Usable:  # noqa: B008
    """What can be asked for in each dialect: one model in all, but for those named."""
    return Usable(*(other.get(one, model) for one in Usable._fields))


def friends_settings(**changes: Any) -> Settings:
    return Settings(
        friend_code=CODE,
        friend_name="Blue pool",
        friend_tagline="Swim at your own pace.",
        pool_users=PoolUsers(admin_password=ADMIN),
        **changes,
    )


def write_accounts(folder: Path) -> None:
    """A Claude subscription and an API key of an OpenAI-compatible endpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    later = int((time.time() + 8 * 3600) * 1000)
    oauth = {"accessToken": FAKE_TOKEN, "refreshToken": "sk-ant-ort01-FAKE", "expiresAt": later}
    files = {
        "claude_work.json": {"claudeAiOauth": {**oauth, "subscriptionType": "max"}},
        "openai_spare.json": {"api_key": "sk-FAKE-SPARE", "base_url": "http://127.0.0.1:9/v1"},
        "gemini_broken.json": {"nothing": "of use"},
    }
    for name, content in files.items():
        path = folder / name
        path.write_text(json.dumps(content))
        path.chmod(0o600)


async def no_provider(request: HttpRequest) -> HttpAnswer:
    return HttpAnswer(status=200, headers={}, body=b'{"content":[],"five_hour":{"utilization":12.0,"resets_at":null}}')


def open_context(folder: Path, settings: Settings) -> WebContext:
    """All rooms on `folder`, not yet started. The caller closes them with `close_context`."""
    write_accounts(folder / "pool")
    settings = msgspec.structs.replace(settings, pool_dir=str(folder / "pool"), data_dir=str(folder / "data"))
    (folder / "data").mkdir(exist_ok=True)
    tables = (*ledger.TABLES, *users.LEDGER_TABLES)
    durable = Store.open(folder / "data" / "ledger", tables=tables, durable=True)
    state = Store.open(folder / "data" / "state", tables=(*accounts.STATE_TABLES, *users.STATE_TABLES), durable=False)
    books = Ledger(durable, settings)
    people = Users(settings, durable, state, used=books.used_by_user, bcrypt_rounds=4)
    pool = Accounts(settings, state, send=no_provider)
    people.load()
    pool.load()

    async def reload() -> dict[str, Any]:
        return (await pool.reload()).told()

    context = WebContext(
        settings=settings,
        accounts=pool,
        users=people,
        ledger=books,
        transcripts=Transcripts(settings, people.consents),
        version="0.0.test",
        started_at=time.time() - 100,
        reload=reload,
        usable=LocalAnswers(settings, accounts=pool, users=people, ledger=books, send=no_provider).usable,
        sources={"listen_addr": "default", "friend_code": "file", "pool_users.admin_password": "file"},
    )
    context.stores = (durable, state)  # type: ignore[attr-defined]
    return context


async def close_context(context: WebContext) -> None:
    await context.transcripts.close()
    await context.accounts.close()
    await context.users.close()
    await context.ledger.close()
    for store in context.stores:  # type: ignore[attr-defined]
        store.close()


def seen(context: WebContext, account: str, percent: float, *, window: str = "5h", seconds: int = 18_000) -> None:
    """A quota observation, as an answer of the provider would bring it."""
    now = time.time()
    sight = WindowObservation(window, seconds, percent, now + seconds / 2, Source.HEADERS, now)
    context.accounts.observe(account, [sight])


def exchange(user: str, number: int = 1, **changes: Any) -> UsageRecord:
    """A finished exchange, as the data plane records it."""
    fields: dict[str, Any] = {
        "id": f"req-{user}-{number}",
        "at": time.time() - 60 + number,
        "user": user,
        "provider": "claude",
        "account": "claude:work",
        "model": "claude-sonnet-5-5",
        "dialect": "messages",
        "operation": "messages",
        "status": 200,
        "usage": Usage(input=1200, cache_read=40_000, output=800, known=True),
        "total_ms": 2400.0,
        "first_byte_ms": 400.0,
    }
    return UsageRecord(**(fields | changes))
