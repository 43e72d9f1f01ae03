"""The one connection of an open page: what it tells, and when it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from pool_server.web.base import live
from tests.web.pool import ADMIN, CODE, exchange, seen
from tests.web.site import Site

WORDS = "correct horse battery"


class Listener:
    """An open connection to `/api/live`; HTTP/1.0, so that its lines come as they are."""

    def __init__(self, site: Site, cookie: str = "") -> None:
        self._port = site.port
        sent = f"Cookie: {cookie}\r\n" if cookie else ""
        self._request = f"GET /api/live HTTP/1.0\r\nHost: 127.0.0.1:{site.port}\r\n{sent}\r\n".encode()

    async def __aenter__(self) -> Listener:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(self._request)
        self.head = await self._reader.readuntil(b"\r\n\r\n")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def line(self) -> bytes:
        return await self._reader.readline()

    async def events(self) -> AsyncIterator[tuple[str, object]]:
        name = ""
        while line := await self.line():
            text = line.decode().rstrip("\n")
            if text.startswith("event: "):
                name = text[7:]
            elif text.startswith("data: "):
                yield name, json.loads(text[6:])


async def session(site: Site, name: str = "Ada") -> tuple[str, str]:
    who = {"code": CODE, "name": name, "passphrase": WORDS}
    entered = await site.fetch("POST", "/api/friend/login", json_body=who)
    return entered.json()["user"]["id"], f"pool_session={entered.cookies()['pool_session']}"


@pytest.mark.slow
@pytest.mark.gen_test
async def test_a_new_exchange_and_a_new_state_are_told(local: Site) -> None:
    async with Listener(local) as listener:
        assert b"\r\nContent-Type: text/event-stream" in listener.head
        assert await listener.line() == b"retry: 3000\n"
        events = listener.events()
        await local.ctx.ledger.record(exchange("local"))
        assert await anext(events) == ("request", {"id": "req-local-1"})
        seen(local.ctx, "claude:work", 77.0)
        assert await anext(events) == ("state", {})


@pytest.mark.slow
@pytest.mark.gen_test
async def test_a_friend_hears_of_their_own_and_the_admin_of_everybodys(friends: Site) -> None:
    ada, cookie = await session(friends)
    admin = (await friends.fetch("POST", "/admin", json_body={"password": ADMIN})).cookies()["pool_session"]
    async with Listener(friends, cookie) as own, Listener(friends, f"pool_session={admin}") as every:
        await friends.ctx.ledger.record(exchange("u_else"))
        assert await anext(every.events()) == ("request", {"id": "req-u_else-1"})
        await friends.ctx.ledger.record(exchange(ada))
        assert await anext(own.events()) == ("request", {"id": f"req-{ada}-1"})


@pytest.mark.slow
@pytest.mark.gen_test
async def test_a_page_is_told_when_its_session_has_ended(friends: Site) -> None:
    ada, cookie = await session(friends)
    async with Listener(friends, cookie) as listener:
        bearer = f"Bearer {ADMIN}"
        await friends.fetch("POST", f"/admin/pool-users/{ada}/disable", json_body={}, Authorization=bearer)
        assert [event async for event in listener.events()] == [("bye", {})]


@pytest.mark.slow
@pytest.mark.parametrize("why", ["draining", "replaced"])
@pytest.mark.gen_test
async def test_leaving_ends_the_connection(local: Site, why: str) -> None:
    async with Listener(local) as listener:
        setattr(local.ctx, why, True)
        assert [event async for event in listener.events()] == []


@pytest.mark.gen_test
async def test_one_person_holds_so_many_live_streams_and_no_more(
    friends: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one session, and by signing in again and again."""
    monkeypatch.setattr(live, "MOST", 2)
    monkeypatch.setattr(live, "MOST_OF_ONE", 3)
    _, first = await session(friends)
    again = await friends.fetch("POST", "/api/friend/login", json_body={"name": "Ada", "passphrase": WORDS})
    second = f"pool_session={again.cookies()['pool_session']}"
    _, other = await session(friends, "Bob")
    async with AsyncExitStack() as open_pages:
        heads = [
            (await open_pages.enter_async_context(Listener(friends, cookie))).head.split(b" ")[1]
            for cookie in (first, first, first, second, second, other)
        ]
        assert heads == [b"200", b"200", b"429", b"200", b"429", b"200"]
    for _ in range(100):
        if not friends.ctx.streams:
            break
        await asyncio.sleep(0.05)
    assert not friends.ctx.streams
    async with Listener(friends, first) as page:
        assert page.head.split(b" ")[1] == b"200"
