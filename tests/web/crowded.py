"""A pool with something on every page, and with names as long as people may make them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import zstandard

from pool_server.accounts.held_requests import HeldRequest
from pool_server.app import logs
from pool_server.core import processes
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import BookingSettings, Limits, NightShift, SingleSignOn, TranscriptSettings
from pool_server.dialects import ModelInfo
from pool_server.transcripts import archive
from pool_server.users.consents import Notice
from pool_server.users.models import AuditActor
from pool_server.web import WebContext
from pool_server.web.admin.ledger_replay import ReplayFile, ReplayState
from tests.web.pool import ADMIN, CODE, exchange, friends_settings, open_context, seen
from tests.web.site import LiveSite
from tests.web.test_what_if import STUDY

LONG = "a-name-without-an-end" * 3
PERSON = "Wolfeschlegelsteinhausenbergerdorff" + "w" * 29
ACCOUNT, PAID = "claude:" + "x" * 50, "claude:" + "paid" * 12
WORDS = "correct horse battery"
SSO = SingleSignOn(
    issuer="https://id.example.org", client_id="c", label="Rechtsschutzversicherungsgesellschaften", people=["*"]
)


def open_crowded(folder: Path) -> WebContext:
    """Not yet filled: see `fill`."""
    pool = folder / "pool"
    pool.mkdir(parents=True)
    subscription = {"accessToken": "a", "refreshToken": "r", "expiresAt": (time.time() + 9e4) * 1000}
    files = {
        ACCOUNT: {"claudeAiOauth": subscription, "label": LONG, "models": [LONG + "*"]},
        PAID: {"api_key": "sk-ant-api03-paid", "admin_key": "sk-ant-admin01-books", "label": LONG},
    }
    for name, content in files.items():
        path = pool / f"{name.replace(':', '_')}.json"
        path.write_text(json.dumps(content))
        path.chmod(0o600)
    settings = friends_settings(
        limits=Limits(tokens_day=2_000_000, cost_week=50.0, requests_per_minute=20),
        transcripts=TranscriptSettings(enabled=True),
        single_sign_on=SSO,
        night_shift=NightShift(longest_h=24.0),
        bookings=BookingSettings(most_percent=50.0),
    )
    context = open_context(folder, settings)
    context.models = models
    for account in ("claude:work", ACCOUNT):
        seen(context, account, 63.0)
        seen(context, account, 97.0, window="7d", seconds=604_800)
    return context


async def models() -> Sequence[ModelInfo]:
    return [ModelInfo("claude-sonnet-5", "claude", context=200_000, family="claude"), ModelInfo(LONG, "openai")]


async def books(_: HttpRequest) -> HttpAnswer:
    """What a vendor tells of an organisation's use: one day of seven."""
    day = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(time.time() - 86_400))
    row = {"starting_at": day, "results": [{"amount": "123456789.5", "currency": "USD"}]}
    return HttpAnswer(200, {}, json.dumps({"data": [row], "has_more": False, "next_page": None}).encode())


def fill(site: LiveSite) -> dict[str, str]:
    """Use, limits, requests that wait, transcripts, captures, invitations, tokens; the session cookies and the ids."""
    ctx = site.ctx
    boss: dict[str, Any] = {"Authorization": f"Bearer {ADMIN}"}
    entered = site.post("/api/friend/login", {"code": CODE, "name": PERSON, "passphrase": WORDS})
    user = entered.json()["user"]["id"]
    [key] = site.run(lambda: ctx.users.people.list_keys(user))
    for number in range(6):
        bad: dict[str, Any] = {"status": 429, "outcome": "exhausted", "message": LONG * 4} if number % 3 == 2 else {}
        row = exchange(user, number, session=LONG, agent=LONG, model=LONG if number % 2 else "claude-sonnet-5", **bad)
        row.key, row.account = key["id"], ACCOUNT
        site.run(partial(ctx.ledger.record, row))
    asked = {"label": LONG[:64], "limits": {"tokens_day": 1000, "cost_week": 2.5, "models": [LONG]}}
    site.request("PATCH", f"/admin/pool-users/{user}/keys/{key['id']}", json_body=asked, **boss)
    for path, body in (
        ("/admin/invitations", {"kind": "person", "label": LONG}),
        ("/admin/tokens", {"label": LONG[:64], "scopes": ["read"]}),
    ):
        site.post(path, body, **boss)
    told = site.request("PATCH", f"/admin/accounts/{ACCOUNT}", json_body={"owner": user}, **boss)
    assert told.status == 200, told.text
    ctx.accounts.held._list(HeldRequest("r1", user, LONG, LONG, time.time() - 90, 4e9, processes.name()))
    booked = site.post("/api/v1/bookings", {"person": user, "provider": "claude", "percent": 33.3, "hours": 9}, **boss)
    assert booked.status == 201, booked.text
    keep(site, user)
    signed_in = site.post("/admin/sign-ins", {"provider": "claude", "flow": "line", "name": LONG[:40]}, **boss).json()
    ctx.accounts.vendor_spend.__self__._send = books  # type: ignore[attr-defined]
    ReplayFile(Path(ctx.settings.data_dir)).write(
        ReplayState(30, [f"-user {PERSON}", f"-account {ACCOUNT}"], 1.0, 1.0, found=STUDY)
    )
    return {
        "friend": entered.cookies()["pool_session"],
        "admin": site.post("/admin", {"password": ADMIN}).cookies()["pool_session"],
        "user": user,
        "key": key["id"],
        "sign_in": signed_in.get("id", str(signed_in)),
    }


def keep(site: LiveSite, user: str) -> None:
    """A transcript, a capture, an address for alerts and lines of the log."""
    ctx, actor = site.ctx, AuditActor("user", user)
    site.run(lambda: ctx.users.consents.change(user, True, actor=actor))
    site.run(lambda: ctx.users.notices.change(user, Notice("https://ntfy.sh/" + LONG), actor=actor))
    lines = json.dumps({"type": "exchange", "agent": LONG, "session": LONG}).encode() + b'\n{"type":"end"}\n'
    for talk in ("c1", "c2"):
        path = archive.place(ctx.transcripts.folder, user, LONG, talk, "0001")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zstandard.compress(lines))
    ctx.transcripts.reports.order(user, "", 3, texts=False)
    with logs.kept(Path(ctx.settings.data_dir)):
        log = logging.getLogger("pool_server." + LONG)
        log.warning("%s is slow", LONG, extra={logs.REQUEST_ID: LONG})
        log.error("https://api.example.org/%s refused it: %s", LONG, "no reason given. " * 12)
