"""`X-Pool-Wait` over the whole data plane: held, kept alive, served when headroom returns, cancelled."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.settings import Choosing, NightShift
from pool_server.gateway import transports
from pool_server.users.models import SERVER
from tests.fakes import account, faults
from tests.gateway.stack import Stack
from tests.gateway.test_transcripts import ASKED, on_a_loop, person

ON = NightShift(longest_h=10.0)
WAIT = {"X-Pool-Wait": "for=8h"}


def stack(folder: Path, **settings: Any) -> Stack:
    chosen: dict[str, Any] = {"friend_code": "swim", "night_shift": ON, "choosing": Choosing(wait_s=0.0)}
    return Stack(folder, [account("claude:one")], **(chosen | settings))


async def used_up(pool: Stack, key: str) -> None:
    """The account's quota is over for two hours."""
    pool.fakes.then("claude:one", faults.claude_limit(time.time() + 7200))
    status, _ = await pool.post("/v1/messages", ASKED, token=key)
    assert status == 429


def asked(pool: Stack, key: str, **headers: str) -> Any:
    sent = {"Authorization": f"Bearer {key}"} | headers
    return pool.client.post(pool.url + "/v1/messages", json=ASKED | {"stream": True}, headers=sent)


async def waiting(pool: Stack, number: int = 1) -> list[str]:
    while len(found := await asyncio.to_thread(pool.accounts.held.listed)) < number:
        await asyncio.sleep(0.01)
    return [one.id for one in found]


@pytest.mark.slow
@on_a_loop
async def test_a_request_is_held_kept_alive_and_served_when_headroom_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path) as pool:
        key, user = await person(pool, allows=False)
        await used_up(pool, key)
        monkeypatch.setattr(transports, "EARLY_HEADERS_S", 0.0)
        monkeypatch.setattr(transports, "KEEPALIVE_S", 0.0)
        call = asyncio.create_task(asked(pool, key, **WAIT).__aenter__())
        await waiting(pool)
        pool.gateway._tick()
        answer = await call
        assert answer.status == 200 and b"ping" in await answer.content.readany()
        assert (await asyncio.to_thread(pool.accounts.held.listed, user))[0].model == ASKED["model"]
        pool.accounts.reset("claude:one")
        assert b"message_stop" in await answer.read()
        assert await asyncio.to_thread(pool.accounts.held.listed) == []


@on_a_loop
async def test_a_wait_that_is_cancelled_is_told_as_what_it_was(tmp_path: Path) -> None:
    async with stack(tmp_path) as pool:
        key, user = await person(pool, allows=False)
        await used_up(pool, key)
        call = asyncio.create_task(asked(pool, key, **WAIT).__aenter__())
        [identifier] = await waiting(pool)
        assert await asyncio.to_thread(pool.accounts.held.cancel, identifier, user)
        pool.gateway._tick()
        answer = await call
        assert answer.status == 429 and json.loads(await answer.read())["type"] == "error"
        assert pool.records()[-1].outcome != "client_gone"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "headers", "stream", "status"),
    [
        ({"night_shift": NightShift()}, WAIT, True, 429), ({}, {}, True, 429), ({}, WAIT, False, 429),
        ({}, {"X-Pool-Wait": "for=1min"}, True, 429), ({}, {"X-Pool-Wait": "yes"}, True, 400),
        ({"night_shift": NightShift()}, {"X-Pool-Wait": "yes"}, True, 429),
    ],
)  # fmt: skip
@on_a_loop
async def test_what_is_not_held_is_told_at_once(
    tmp_path: Path, settings: dict[str, Any], headers: dict[str, str], stream: bool, status: int
) -> None:
    async with stack(tmp_path, **settings) as pool:
        key, _ = await person(pool, allows=False)
        await used_up(pool, key)
        sent = {name.replace("-", "_"): value for name, value in headers.items()}
        assert (await pool.post("/v1/messages", ASKED | {"stream": stream}, token=key, **sent))[0] == status


@on_a_loop
async def test_a_client_that_leaves_waits_no_more(tmp_path: Path) -> None:
    async with stack(tmp_path) as pool:
        key, _ = await person(pool, allows=False)
        await used_up(pool, key)
        call = asyncio.create_task(asked(pool, key, **WAIT).__aenter__())
        await waiting(pool)
        call.cancel()
        await pool.idle()
        assert await asyncio.to_thread(pool.accounts.held.listed) == []


@on_a_loop
async def test_a_key_has_its_requests_held_without_their_asking(tmp_path: Path) -> None:
    async with stack(tmp_path) as pool:
        key, user = await person(pool, allows=False)
        await used_up(pool, key)
        [mine] = pool.users.keys(user)
        await pool.users.people.patch_key(user, mine["id"], {"wait": "for=8h"}, actor=SERVER)
        opted_out = await asked(pool, key, **{"X-Pool-Wait": "for=0s"})
        assert opted_out.status == 429
        call = asyncio.create_task(asked(pool, key).__aenter__())
        await waiting(pool)
        pool.accounts.reset("claude:one")
        assert (await call).status == 200
        await pool.users.people.patch_key(user, mine["id"], {"wait": ""}, actor=SERVER)
        await used_up(pool, key)
        assert (await asked(pool, key)).status == 429
