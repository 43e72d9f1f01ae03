"""Bookings over the whole data plane: who is turned away, and what goes to another provider."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pool_server.core.settings import BookingSettings
from pool_server.gateway.emulation.quota_windows import HeadroomGauge
from pool_server.users.models import SERVER
from tests.fakes import account, key_account
from tests.gateway.stack import Stack
from tests.gateway.test_transcripts import ASKED, on_a_loop, person

MODEL = "house-model-1"
OFFERED = BookingSettings(most_percent=50.0)


def left(monkeypatch: pytest.MonkeyPatch, **percent: float) -> None:
    monkeypatch.setattr(HeadroomGauge, "percent", lambda self, provider: percent.get(provider.value))


@on_a_loop
async def test_what_is_booked_is_kept_for_its_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Stack(tmp_path, [account("claude:one")], friend_code="swim", bookings=OFFERED) as pool:
        ada, who = await person(pool, allows=False)
        bo, _ = await person(pool, "bo", allows=False)
        now = time.time()
        made = await pool.users.bookings.make(who, "claude", 20.0, now, 3600.0, actor=SERVER)
        left(monkeypatch, claude=25.0)
        assert (await pool.post("/v1/messages", ASKED, token=bo))[0] == 200
        left(monkeypatch, claude=20.0)
        asked = pool.client.post(pool.url + "/v1/messages", json=ASKED, headers={"x-api-key": bo})
        async with asked as answer:
            assert answer.status == 429 and 3590 <= int(answer.headers["Retry-After"]) <= 3600
            told = json.loads(await answer.read())
        assert "booked" in told["error"]["message"] and "ada" not in json.dumps(told)
        assert pool.records()[-1].outcome == "denied"
        assert (await pool.post("/v1/messages", ASKED, token=ada))[0] == 200
        await pool.users.bookings.end(made.id, who, actor=SERVER)
        assert (await pool.post("/v1/messages", ASKED, token=bo))[0] == 200


@on_a_loop
async def test_a_model_that_others_serve_goes_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = [key_account(name, models=[MODEL], dialects=["chat"]) for name in ("openai:a", "qwen:b")]
    async with Stack(tmp_path, accounts, friend_code="swim", bookings=OFFERED) as pool:
        _, who = await person(pool, allows=False)
        bo, _ = await person(pool, "bo", allows=False)
        now = time.time()
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
        assert (await pool.post("/v1/chat/completions", body, token=bo))[0] == 200
        before = pool.records()[-1].account
        first, second = ("openai", "qwen") if before == "openai:a" else ("qwen", "openai")
        left(monkeypatch, **{first: 10.0, second: 90.0})
        await pool.users.bookings.make(who, first, 20.0, now, 3600.0, actor=SERVER)
        assert (await pool.post("/v1/chat/completions", body, token=bo))[0] == 200
        assert pool.records()[-1].account not in ("", before)
        left(monkeypatch, openai=10.0, qwen=10.0)
        await pool.users.bookings.make(who, second, 20.0, now, 3600.0, actor=SERVER)
        status, told = await pool.post("/v1/chat/completions", body, token=bo)
        assert status == 429 and b"booked" in told
