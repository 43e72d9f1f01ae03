"""Usage endpoints: seldom, evenly, and long silence when they ask for it. Set-ups, once."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from pool_server.core.enums import Operation
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import UsagePolling
from tests.accounts.kit import DAY, HOUR, NOW, Line, Pool, claude, key, quota, token_answer, week

USAGE = HttpAnswer(200, {}, json.dumps({"five_hour": {"utilization": 12.5, "resets_at": None}}).encode())


def poll(pool: Pool, account: str = "claude:a") -> float | None:
    return asyncio.run(pool.accounts._background.poller.poll(account))


def test_claude_is_asked_every_quarter_of_an_hour_at_most(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"claude_a.json": claude()}, line=Line(lambda _: USAGE))
    again = poll(pool)
    assert again is not None and 0.89 * 900 < again - NOW < 1.11 * 900
    assert pool.accounts.describe("claude:a").windows[0].used_percent == 12.5


def test_a_rate_limited_endpoint_is_left_alone_for_hours_and_changes_no_state(tmp_path: Path) -> None:
    pool = Pool(
        tmp_path, {"claude_a.json": claude()}, line=Line(lambda _: HttpAnswer(429, {"retry-after": "0"}, b"{}"))
    )
    waits = []
    for _ in range(4):
        again = poll(pool)
        assert again is not None
        waits.append(again - pool.clock.now)
        pool.clock.now = again
    assert waits[0] >= HOUR and waits[-1] >= 4 * HOUR and max(waits) < 7 * HOUR
    assert waits == sorted(waits)
    assert pool.state("claude:a") == "ready"


def test_a_setup_token_may_not_ask(tmp_path: Path) -> None:
    token: dict[str, Any] = {"claudeAiOauth": {"accessToken": "sk-ant-oat01-setup", "scopes": ["user:inference"]}}
    pool = Pool(tmp_path, {"claude_a.json": token}, line=Line(lambda _: HttpAnswer(403, {}, b"{}")))
    again = poll(pool)
    assert again is None or again >= NOW + DAY
    assert pool.state("claude:a") == "ready"


def test_polling_can_be_switched_off_and_keys_are_not_polled(tmp_path: Path) -> None:
    off = Pool(tmp_path / "off", {"claude_a.json": claude()}, usage_polling=UsagePolling(0))
    keyed = Pool(tmp_path / "keyed", {"claude_a.json": key()})
    disabled = Pool(tmp_path / "disabled", {"claude_a.json": claude(disabled=True)})
    assert poll(off) is None and poll(keyed) is None and poll(disabled) is None
    assert poll(keyed, "claude:nobody") is None


def test_first_polls_are_spread(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {f"claude_{n}.json": claude(f"sk-ant-oat01-{n}") for n in range(200)})
    due = sorted((row.next_poll or 0) - NOW for row in pool.accounts.describe_all())
    assert due[0] < 5 and due[-1] > 40 and all(0 <= at <= 50 for at in due)
    gaps = [b - a for a, b in pairwise(due)]
    assert max(gaps) < 3


def test_a_refused_token_is_refreshed_once(tmp_path: Path) -> None:
    def answer(request: HttpRequest) -> HttpAnswer:
        if "token" in request.url:
            return token_answer("sk-ant-oat01-second")
        fresh = any(value.endswith("second") for _, value in request.headers)
        return USAGE if fresh else HttpAnswer(401, {}, b'{"error":{"type":"authentication_error","message":"revoked"}}')

    pool = Pool(tmp_path, {"claude_a.json": claude()}, line=Line(answer))
    poll(pool)
    assert len(pool.line.sent) == 3
    assert pool.accounts.describe("claude:a").windows[0].used_percent == 12.5


def test_a_quota_that_was_reset_ends_the_rest_at_the_next_poll(tmp_path: Path) -> None:
    body = {"five_hour": {"utilization": 3, "resets_at": None}, "seven_day": {"utilization": 5, "resets_at": None}}
    pool = Pool(
        tmp_path, {"claude_a.json": claude()}, line=Line(lambda _: HttpAnswer(200, {}, json.dumps(body).encode()))
    )
    pool.accounts.observe("claude:a", [week(99.0, 6 * DAY)])
    pool.accounts.fail("claude:a", quota(6 * DAY), "m", Operation.MESSAGES, "")
    assert pool.state("claude:a") == "exhausted"
    pool.clock.now += 900
    poll(pool)
    assert pool.state("claude:a") == "ready"


def test_a_refusal_brings_the_next_poll_forward(tmp_path: Path) -> None:
    tokens = {"access_token": "x.y.z", "refresh_token": "r", "account_id": "acc"}
    pool = Pool(tmp_path, {"a.json": {"tokens": tokens, "last_refresh": "2025-10-09T08:00:00Z"}},
                usage_polling=UsagePolling(3000))  # fmt: skip
    background = pool.accounts._background
    background.polls.set("codex:a", NOW + 2500)
    pool.accounts.fail("codex:a", quota(6 * DAY), "m", Operation.MESSAGES, "")
    due = background.polls.due("codex:a")
    assert due is not None and NOW + 60 < due < NOW + 120


def test_polls_go_on_in_the_background(tmp_path: Path) -> None:
    pool = Pool(
        tmp_path, {f"claude_{n}.json": claude(f"sk-ant-oat01-{n}") for n in range(6)}, line=Line(lambda _: USAGE)
    )

    async def run() -> None:
        pool.clock.now += 60
        await pool.accounts.start()
        while any(not row.windows for row in pool.accounts.describe_all()):
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.02)
        await pool.accounts.close()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert len(pool.line.sent) == 6
    assert all((row.next_poll or 0) > NOW + 800 for row in pool.accounts.describe_all())
