"""A past for the tests of the dashboard, and people who look at it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pool_server.core.enums import FaultKind, Outcome
from pool_server.core.models import Attempt, Usage, UsageRecord
from pool_server.core.settings import LedgerSettings as LedgerSettings
from pool_server.core.settings import Settings
from pool_server.web import WebContext
from tests.web.pool import ADMIN, CODE, exchange, friends_settings, open_context
from tests.web.site import Answer, Site

WORDS = "correct horse battery"
DAY = 86_400.0
MODELS = {"claude": ("claude-opus-4-7", "claude-haiku-4-5"), "openai": ("glm-4.6",)}
ACCOUNTS = {"claude": ("claude:work", "claude:home"), "openai": ("openai:spare",)}
ENDINGS = (*[Outcome.OK] * 8, Outcome.CLIENT_GONE, Outcome.UPSTREAM, Outcome.EXHAUSTED)


def discreet(sees: str) -> Settings:
    """Friends mode in which friends see "own", "pool" or "names"."""
    return friends_settings(ledger=LedgerSettings(friends_see=sees))  # type: ignore[arg-type]


def past(users: Sequence[str], *, now: float, count: int = 240, days: int = 20) -> list[UsageRecord]:
    """Exchanges of all kinds over some days up to `now`, always the same ones."""
    rng = random.Random(5)
    ages = [rng.random() ** 2 * days * DAY + 5 for _ in range(count)]
    return [_one(number, rng.choice(list(users)), now - age, rng) for number, age in enumerate(ages)]


def _one(number: int, user: str, at: float, rng: random.Random) -> UsageRecord:
    provider = rng.choice(("claude", "claude", "openai"))
    account, outcome = rng.choice(ACCOUNTS[provider]), rng.choice(ENDINGS)
    bad = outcome in (Outcome.UPSTREAM, Outcome.EXHAUSTED)
    used = Usage(rng.randrange(2000), rng.randrange(60_000), rng.randrange(900), output=rng.randrange(5000), known=True)
    used.reasoning = rng.randrange(used.output + 1)
    fault = FaultKind.NETWORK.value if bad else ""
    return exchange(
        user, number, at=at, provider=provider, account=account, model=rng.choice(MODELS[provider]),
        outcome=outcome.value, status=502 if bad else 200, usage=Usage() if bad else used,
        message="could not be reached" if bad else "", first_byte_ms=None if bad else rng.uniform(200, 4000),
        total_ms=rng.uniform(4000, 60_000), attempts=[Attempt(account, 502 if bad else 200, fault)],
    )  # fmt: skip


def stopped(site: Site) -> float:
    """Stop the pages' clock at noon of the day before, and tell that time: no hour, day or month ends between two
    requests, nor within the last hours of what they are asked for."""
    noon = time.time() // DAY * DAY - DAY / 2
    site.ctx.clock = lambda: noon
    return noon


def keep(site: Site, records: Sequence[UsageRecord]) -> None:
    """Put exchanges into the site's ledger, as the data plane would."""

    async def all_of_them() -> None:
        assert all(await asyncio.gather(*(site.ctx.ledger.record(record) for record in records)))

    site.run(all_of_them)


def pool(folder: Path, settings: Settings) -> Callable[[], WebContext]:
    return lambda: open_context(folder, settings)


class Looker:
    """A signed-in browser; `user` is the friend's id."""

    def __init__(self, site: Site, entered: Answer) -> None:
        self.site = site
        self.session = entered.cookies()["pool_session"]
        self.user = str((entered.json().get("user") or {}).get("id", ""))

    def get(self, path: str, **headers: str) -> Answer:
        return self.site.get(path, Cookie=f"pool_session={self.session}", **headers)

    def page(self, path: str) -> str:
        answer = self.get(path, Accept="text/html")
        assert answer.status == 200, answer.text
        return answer.text

    def json(self, path: str) -> Any:
        answer = self.get(path)
        assert answer.status == 200, answer.text
        return answer.json()


def friend(site: Site, name: str = "Ada") -> Looker:
    return Looker(site, site.post("/api/friend/login", {"code": CODE, "name": name, "passphrase": WORDS}))


def admin(site: Site) -> Looker:
    return Looker(site, site.post("/admin", {"password": ADMIN}))
