"""A simulated week through the whole room: a provider that exhausts, resets early, lies, rotates tokens and is slow.

The provider speaks its real wire: headers, bodies, the token endpoint with single-use refresh tokens, the usage
endpoint. Only time is the test's.
"""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

from pool_server.accounts import RefreshError
from pool_server.core.enums import FaultKind, Operation, Provider
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.providers import provider_module
from tests.accounts.kit import DAY, HOUR, NOW, SONNET, Clock, Line, Pool, ask, claude

LIE = str(18 * 86400)
GRACE = 320.0  # nobody can know of a reset before the rest may be tested again
CLAUDE = provider_module(Provider.CLAUDE)


class Seat:
    """One account as the provider knows it. Windows are [used, capacity, resets at, length]."""

    def __init__(self, name: str, five: float, rng: random.Random) -> None:
        self.name = name
        self.serial = 0
        self.revoked = False  # the access token was ended early; the refresh token lives
        self.five = [0.0, five, NOW, 5 * HOUR]
        self.week = [0.0, five * 20, NOW + rng.uniform(1, 6) * DAY, 7 * DAY]

    @property
    def access(self) -> str:
        return f"sk-ant-oat01-{self.name}-{self.serial}"

    @property
    def refresh(self) -> str:
        return f"sk-ant-ort01-{self.name}-{self.serial}"

    def roll(self, now: float) -> None:
        for w in (self.five, self.week):
            if now >= w[2]:
                w[0] = 0.0
                w[2] = now + w[3] if w is self.five else w[2] + w[3] * ((now - w[2]) // w[3] + 1)

    def room(self, now: float) -> float:
        self.roll(now)
        return min(100 * (1 - w[0] / w[1]) for w in (self.five, self.week))

    def headers(self) -> dict[str, str]:
        told = {"anthropic-ratelimit-unified-status": "allowed"}
        for name, w in (("5h", self.five), ("7d", self.week)):
            told[f"anthropic-ratelimit-unified-{name}-utilization"] = f"{w[0] / w[1]:.2f}"
            told[f"anthropic-ratelimit-unified-{name}-reset"] = str(int(w[2]))
            told[f"anthropic-ratelimit-unified-{name}-status"] = "allowed" if w[0] < w[1] else "rejected"
        return told


class Vendor:
    """The provider: answers requests and the pool's own calls."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self.clock = clock
        self.seats = {
            name: Seat(name, five, rng) for name, five in (("a", 40.0), ("b", 70.0), ("c", 25.0), ("d", 50.0))
        }
        self.counts = {"rotated": 0, "lied": 0, "refused": 0, "polled": 0, "unauthorized": 0}

    def of_token(self, token: str) -> Seat | None:
        return next((seat for seat in self.seats.values() if seat.access == token and not seat.revoked), None)

    def message(self, token: str, units: float) -> tuple[int, dict[str, str], bytes]:
        seat = self.of_token(token)
        if seat is None:
            self.counts["unauthorized"] += 1
            return 401, {}, b'{"type":"error","error":{"type":"authentication_error","message":"revoked"}}'
        if seat.room(self.clock()) <= 0:
            self.counts["refused"] += 1
            body = b'{"type":"error","error":{"type":"rate_limit_error","message":"This would exceed your limit."}}'
            if seat.name == "b":
                self.counts["lied"] += 1
                return 429, {"retry-after": LIE}, body
            return 429, {**seat.headers(), "anthropic-ratelimit-unified-status": "rejected"}, body
        seat.five[0] += units
        seat.week[0] += units
        return 200, seat.headers(), b"{}"

    def own_call(self, request: HttpRequest) -> HttpAnswer:
        if "/token" in request.url:
            return self.rotate(json.loads(request.body)["refresh_token"])
        self.counts["polled"] += 1
        token = next(value for name, value in request.headers if name.lower() == "authorization").removeprefix(
            "Bearer "
        )
        seat = self.of_token(token)
        if seat is None:
            return HttpAnswer(401, {}, b'{"type":"error","error":{"type":"authentication_error","message":"x"}}')
        seat.roll(self.clock())
        told: dict[str, Any] = {
            name: {"utilization": 100 * w[0] / w[1], "resets_at": None if w[0] == 0 else w[2]}
            for name, w in (("five_hour", seat.five), ("seven_day", seat.week))
        }
        return HttpAnswer(200, {}, json.dumps(told).encode())

    def rotate(self, refresh: str) -> HttpAnswer:
        seat = next((seat for seat in self.seats.values() if seat.refresh == refresh), None)
        if seat is None:
            return HttpAnswer(400, {}, b'{"error":"invalid_grant"}')
        seat.serial += 1
        seat.revoked = False
        self.counts["rotated"] += 1
        answer = {"access_token": seat.access, "refresh_token": seat.refresh, "expires_in": 28800}
        return HttpAnswer(200, {}, json.dumps(answer).encode())


class Week:
    def __init__(self, folder: Path) -> None:
        self.rng = random.Random(11)
        clock = Clock()
        self.vendor = Vendor(clock, self.rng)
        files = {f"claude_{s.name}.json": self.file(s) for s in self.vendor.seats.values()}
        self.pool = Pool(folder, files, line=Line(self.vendor.own_call))
        self.pool.clock = clock
        self.pool.again()
        self.clock = clock
        self.served = self.refused = 0
        self.wrong: list[float] = []
        self.early = 0.0

    @staticmethod
    def file(seat: Seat) -> dict[str, Any]:
        data = claude(seat.access)
        data["claudeAiOauth"]["refreshToken"] = seat.refresh
        return data

    async def background(self) -> None:
        """What the timers would have done by now."""
        background = self.pool.accounts._background
        for timers in (background.refreshes, background.polls):
            timers.run_due()
        while background.refreshes._running or background.polls._running:
            await asyncio.sleep(0)

    async def request(self, user: str, session: str) -> None:
        accounts, tried = self.pool.accounts, frozenset[str]()
        for _ in range(3):
            asked = ask(user, session, exclude=tried)
            account = accounts.select(asked).account
            if account is None:
                break
            accounts.begin(account, SONNET, Operation.MESSAGES)
            status = await self.attempt(account)
            if status == 200:
                accounts.bind(asked, account)
                accounts.succeed(account, SONNET, Operation.MESSAGES, 40.0 if account == "claude:d" else 1.0)
            accounts.end(account)
            if status == 200:
                self.served += 1
                return
            tried |= {account}
        self.refused += 1
        if any(seat.room(self.clock()) > 2 for seat in self.vendor.seats.values()):
            self.wrong.append(self.clock())

    async def attempt(self, account: str) -> int:
        accounts, units = self.pool.accounts, self.rng.uniform(0.2, 1.2)
        for again in (True, False):
            credential = accounts.credential(account)
            status, headers, body = self.vendor.message(credential.secret, units)
            accounts.observe(account, CLAUDE.quota_headers(headers, now=self.clock(), model=SONNET))
            if status == 200:
                return 200
            fault = CLAUDE.classify(status, headers, body, now=self.clock(), model=SONNET)
            if fault.kind is FaultKind.AUTH and again:
                try:
                    await accounts.refresh(account, credential.secret)
                    continue
                except RefreshError:
                    pass
            accounts.fail(account, fault, SONNET, Operation.MESSAGES, credential.fingerprint)
            return status
        return 401

    async def run(self) -> None:
        while self.clock.now < NOW + 7 * DAY:
            busy = 8 <= (self.clock.now - NOW) / HOUR % 24 <= 20
            self.clock.now += self.rng.expovariate(1 / (55 if busy else 700))
            if self.rng.random() < 0.002:
                self.rng.choice(list(self.vendor.seats.values())).revoked = True
            if not self.early and self.clock.now > NOW + 3.55 * DAY:
                self.reset_early()
            await self.background()
            talk = f"talk-{int(self.clock.now // 1500)}"
            await self.request(self.rng.choice("uvwxyz"), talk)

    def reset_early(self) -> None:
        """The provider gives everybody's use back, without a word."""
        self.early = self.clock.now
        for seat in self.vendor.seats.values():
            seat.five[0] = seat.week[0] = 0.0


def test_a_week_without_a_wrong_refusal(tmp_path: Path) -> None:
    week = Week(tmp_path)
    asyncio.run(week.run())
    counts = week.vendor.counts
    assert week.served > 4000
    assert week.refused > 100, "the week must be hard enough to refuse rightly"
    assert counts["rotated"] > 60 and counts["lied"] > 3 and counts["refused"] > 20 and counts["polled"] > 1000
    assert counts["unauthorized"] > 3
    assert [at for at in week.wrong if not 0 <= at - week.early < GRACE] == []
    assert counts["refused"] < 0.08 * week.served, "a used-up account must not be asked over and over"
    assert {row.state for row in week.pool.accounts.describe_all()} <= {"ready", "exhausted", "draining"}
