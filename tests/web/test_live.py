"""The one connection of an open page: what it tells, and when it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.web.pool import ADMIN, CODE, exchange, seen
from tests.web.site import Site

WORDS = "correct horse battery"


class Listener:
    """An open connection to `/api/live`; HTTP/1.0, so that its lines come as they are."""

    def __init__(self, site: Site, cookie: str = "") -> None:
        self._site = site
        self._reader, self._writer = site.run(lambda: asyncio.open_connection("127.0.0.1", site.port))
        sent = f"Cookie: {cookie}\r\n" if cookie else ""
        self._writer.write(f"GET /api/live HTTP/1.0\r\nHost: 127.0.0.1:{site.port}\r\n{sent}\r\n".encode())
        self.head: bytes = site.run(lambda: self._reader.readuntil(b"\r\n\r\n"))

    def line(self) -> bytes:
        found: bytes = self._site.run(self._reader.readline)
        return found

    def events(self) -> Iterator[tuple[str, object]]:
        name = ""
        while line := self.line():
            text = line.decode().rstrip("\n")
            if text.startswith("event: "):
                name = text[7:]
            elif text.startswith("data: "):
                yield name, json.loads(text[6:])

    def close(self) -> None:
        self._writer.close()
        self._site.run(self._writer.wait_closed)


def session(site: Site, name: str = "Ada") -> tuple[str, str]:
    entered = site.post("/api/friend/login", {"code": CODE, "name": name, "passphrase": WORDS})
    return entered.json()["user"]["id"], f"pool_session={entered.cookies()['pool_session']}"


@pytest.fixture
def listener(local: Site) -> Iterator[Listener]:
    opened = Listener(local)
    yield opened
    opened.close()


def test_a_new_exchange_and_a_new_state_are_told(local: Site, listener: Listener) -> None:
    assert b"\r\nContent-Type: text/event-stream" in listener.head
    assert listener.line() == b"retry: 3000\n"
    events = listener.events()
    local.run(lambda: local.ctx.ledger.record(exchange("local")))
    assert next(events) == ("request", {"id": "req-local-1"})
    seen(local.ctx, "claude:work", 77.0)
    assert next(events) == ("state", {})


def test_a_friend_hears_of_their_own_and_the_admin_of_everybodys(friends: Site) -> None:
    ada, cookie = session(friends)
    own = Listener(friends, cookie)
    admin = friends.post("/admin", {"password": ADMIN}).cookies()["pool_session"]
    every = Listener(friends, f"pool_session={admin}")
    friends.run(lambda: friends.ctx.ledger.record(exchange("u_else")))
    assert next(every.events()) == ("request", {"id": "req-u_else-1"})
    friends.run(lambda: friends.ctx.ledger.record(exchange(ada)))
    assert next(own.events()) == ("request", {"id": f"req-{ada}-1"})
    own.close()
    every.close()


def test_a_page_is_told_when_its_session_has_ended(friends: Site) -> None:
    ada, cookie = session(friends)
    listener = Listener(friends, cookie)
    friends.post(f"/admin/pool-users/{ada}/disable", Authorization=f"Bearer {ADMIN}")
    assert list(listener.events()) == [("bye", {})]
    listener.close()


def test_leaving_ends_the_connection(local: Site, listener: Listener) -> None:
    local.ctx.draining = True
    assert list(listener.events()) == []
