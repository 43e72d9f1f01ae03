"""The operator's webhook by the real client: receivers that hang, dribble, fail, redirect or answer without an end."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from pool_server.alerts import AlertEvent, AlertRule, Incident, notify
from pool_server.gateway.upstream import Upstream
from tests.http1.wire import raw_server, read_request, run

EVENT = AlertEvent(Incident(AlertRule.DISK, "data", "the disk is nearly full", 1.0), False, 1.0)


class Receiver:
    """Reads a request and sends `pieces`, the last of them again and again where it is `endless`."""

    def __init__(self, *pieces: bytes, endless: bool = False) -> None:
        self.pieces, self.endless = pieces, endless
        self.asked = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        self.asked += 1
        with suppress(ConnectionError):
            for piece in self.pieces:
                writer.write(piece)
                await writer.drain()
            while self.endless:
                writer.write(self.pieces[-1] if self.pieces else b"")
                await writer.drain()
                await asyncio.sleep(0.005)
        writer.close()


async def no_wait(seconds: float) -> None:
    await asyncio.sleep(0)


def told(receiver: Receiver) -> bool:
    found: list[bool] = []

    async def test() -> None:
        upstream = Upstream()
        try:
            async with raw_server(receiver) as port:
                url = f"http://127.0.0.1:{port}/hook"
                found.append(await notify.webhook(EVENT, url, upstream.send, sleep=no_wait))
        finally:
            await upstream.close()

    run(test)
    return found[0]


@pytest.mark.parametrize(
    "receiver",
    [
        Receiver(endless=True),
        Receiver(b"HTTP/1.1 200 OK\r\nX-A: ", b"a", endless=True),
        Receiver(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", b"a", endless=True),
        Receiver(b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n"),
        Receiver(b"not HTTP at all\r\n\r\n"),
        Receiver(),
    ],
    ids=["silent", "head without an end", "body without an end", "500", "no HTTP", "hangs up"],
)
def test_a_receiver_that_fails_is_asked_again_and_given_up(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "TIMEOUT_S", 0.3)
    assert not told(receiver)
    assert receiver.asked == len(notify.RETRY_AFTER_S) + 1


def test_a_redirect_is_not_followed() -> None:
    """It would tell whoever it names what goes on here."""
    other = Receiver(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def test() -> None:
        upstream = Upstream()
        try:
            async with raw_server(other) as elsewhere:
                head = f"HTTP/1.1 307 there\r\nLocation: http://127.0.0.1:{elsewhere}/\r\nContent-Length: 0\r\n\r\n"
                hook = Receiver(head.encode())
                async with raw_server(hook) as port:
                    url = f"http://127.0.0.1:{port}/hook"
                    assert not await notify.webhook(EVENT, url, upstream.send, sleep=no_wait)
                    assert hook.asked == len(notify.RETRY_AFTER_S) + 1
        finally:
            await upstream.close()

    run(test)
    assert other.asked == 0
