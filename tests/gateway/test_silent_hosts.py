"""A provider's host that says nothing: nobody waits for it while another account can serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pool_server.core.enums import PassiveHealth, Strategy
from pool_server.core.settings import Choosing
from pool_server.gateway import metrics, service
from pool_server.gateway.attempts import openings
from pool_server.gateway.attempts.openings import Opening, Openings, WayWatch
from pool_server.gateway.exchange import Exchange
from pool_server.gateway.upstream import UpstreamError
from tests.fakes import Gate, key_account, plays
from tests.gateway.stack import Stack, chat, run

BY_PRIORITY: dict[str, Any] = {"choosing": Choosing(strategy=Strategy.PRIORITY, wait_s=0)}
PATH = "/v1/chat/completions"


@asynccontextmanager
async def silent_host(begins: bytes = b"") -> AsyncIterator[tuple[str, list[bytes]]]:
    """Accepts connections and never answers, or only `begins` to answer what is posted; also what it was asked."""
    asked: list[bytes] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65536):
                asked.append(chunk)
                if chunk.startswith(b"POST"):
                    writer.write(begins)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", asked
    finally:
        server.close()


def counted(event: str) -> float:
    return float(metrics.passive_health.labels("openai", event)._value.get())


@pytest.mark.slow
def test_conversations_go_to_the_other_account_and_the_host_is_set_aside(tmp_path: Path) -> None:
    async def test() -> None:
        async with silent_host() as (url, asked):
            far = key_account("openai:far", priority=1, base_url=url)
            async with Stack(tmp_path, [far, key_account("openai:near", priority=2)], **BY_PRIORITY) as stack:
                began, left, aside = time.monotonic(), counted("left"), counted("set_aside")
                answers = await asyncio.gather(
                    *(stack.post(PATH, chat(model="m", stream=n % 2 > 0, text=f"talk {n}")) for n in range(8))
                )
                assert [status for status, _ in answers] == [200] * 8
                assert time.monotonic() - began < stack.settings.upstream_first_byte_s
                posts = sum(chunk.startswith(b"POST") for chunk in asked)
                assert posts == 8
                for n in range(20):
                    assert (await stack.post(PATH, chat(model="m", text=f"later {n}")))[0] == 200
                assert sum(chunk.startswith(b"POST") for chunk in asked) - posts <= 2, "now and then one tries it"
                assert stack.accounts.describe("openai:far").state == "ready"
                assert counted("left") - left == 8 and counted("set_aside") > aside
                assert {record.status for record in stack.records()} == {200}

    run(test)


@pytest.mark.slow
def test_a_host_that_lives_may_think(tmp_path: Path) -> None:
    async def test() -> None:
        gate = Gate()
        files = [key_account("openai:one", priority=1), key_account("openai:two", priority=2)]
        async with Stack(tmp_path, files, **BY_PRIORITY) as stack:
            stack.fakes.then("openai:one", plays.slow_headers(gate))
            asked = asyncio.create_task(stack.post(PATH, chat(model="m", stream=True)))
            await gate.reached()
            checked = [c for c in stack.fakes.calls if c.method == "GET"]
            while not checked:  # the pool has asked the host for a sign of life
                await asyncio.sleep(0.01)
                checked = [c for c in stack.fakes.calls if c.method == "GET"]
            gate.open()
            assert (await asked)[0] == 200
            assert [c.account for c in stack.fakes.made()] == ["openai:one"]

    run(test)


@pytest.mark.slow
def test_without_another_account_the_request_waits_on(tmp_path: Path) -> None:
    async def test() -> None:
        async with silent_host() as (url, asked):
            far = key_account("openai:far", base_url=url)
            async with Stack(tmp_path, [far], upstream_first_byte_s=2.5, **BY_PRIORITY) as stack:
                status, body = await stack.post(PATH, chat(model="m"))
                assert status == 502 and b"could not be reached" in body
                assert sum(chunk.startswith(b"POST") for chunk in asked) == 1

    run(test)


BEGINNINGS = {
    "stream": (True, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "comment": (
        True,
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n:\n\n\r\n",
    ),
    "buffered": (False, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("stream", "begins"), BEGINNINGS.values(), ids=BEGINNINGS)
def test_an_answer_of_headers_alone_is_left_where_its_host_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool, begins: bytes
) -> None:
    monkeypatch.setattr(service, "TICK_S", 0.05)

    async def test() -> None:
        async with silent_host(begins) as (url, asked):
            far = key_account("openai:far", priority=1, base_url=url)
            async with Stack(tmp_path, [far, key_account("openai:near", priority=2)], **BY_PRIORITY) as stack:
                status, _ = await stack.post(PATH, chat(model="m", stream=stream))
                assert status == 200
                assert sum(chunk.startswith(b"POST") for chunk in asked) == 1
                assert [call.account for call in stack.fakes.made()] == ["openai:near"]
                assert (await stack.post(PATH, chat(model="m", text="next")))[0] == 200
                assert sum(chunk.startswith(b"POST") for chunk in asked) == 1, "the host is set aside"
                assert stack.accounts.describe("openai:far").state == "ready"

    run(test)


@pytest.mark.slow
def test_an_answer_of_headers_alone_may_come_where_its_host_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "TICK_S", 0.02)

    async def test() -> None:
        gate = Gate()
        files = [key_account("openai:one", priority=1), key_account("openai:two", priority=2)]
        async with Stack(tmp_path, files, **BY_PRIORITY) as stack:
            stack.fakes.then("openai:one", plays.stall(gate, at=0))
            asked = asyncio.create_task(stack.post(PATH, chat(model="m", stream=True)))
            await gate.reached()
            while not [call for call in stack.fakes.calls if call.method == "GET"]:
                await asyncio.sleep(0.01)
            gate.open()
            assert (await asked)[0] == 200
            assert [call.account for call in stack.fakes.made()] == ["openai:one"]

    run(test)


def test_an_answer_that_goes_on_while_its_host_is_looked_after_is_kept() -> None:
    """The host's own call got no answer, the request did."""

    async def test() -> None:
        watch, left = Openings(FakeAccounts(alive=False)), []  # type: ignore[arg-type]
        since = asyncio.get_running_loop().time()
        assert await watch.watched("a1", soon(), lambda: "b", hedged=True) == "soon"
        watch.look_after("a1", since, lambda: "b", lambda: left.append("a1"))
        assert not left, "the host was heard since then"
        await watch.close()

    asyncio.run(test())


class FakeHosts:
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def way(self, account: str) -> str:
        return account[0]

    def reached(self, account: str) -> None:
        self.told.append(("reached", account))

    def unreached(self, account: str, *, dead: bool = False) -> None:
        self.told.append(("dead" if dead else "unreached", account))

    def note(self, account: str, what: PassiveHealth) -> None:
        self.told.append((what.value, account))


class FakeAccounts:
    def __init__(self, *, alive: bool) -> None:
        self.hosts = FakeHosts()
        self.own_calls = self
        self.alive = alive
        self.checks = 0

    async def answers(self, account: str, within_s: float) -> bool:
        self.checks += 1
        return self.alive


async def never() -> str:
    await asyncio.Event().wait()
    return ""


GIVEN_UP = [(False, "b", True), (False, "a2", False), (False, None, False), (True, "b", False)]


@pytest.mark.parametrize(("alive", "other", "given_up"), GIVEN_UP)
def test_who_is_given_up(monkeypatch: pytest.MonkeyPatch, alive: bool, other: str | None, given_up: bool) -> None:
    monkeypatch.setattr(openings, "SILENT_S", 0.0)
    monkeypatch.setattr(openings, "TICK_S", 0.001)

    async def test() -> None:
        accounts = FakeAccounts(alive=alive)
        watch = Openings(accounts)  # type: ignore[arg-type]
        waiting = [asyncio.create_task(watch.watched("a1", never(), lambda: other, hedged=True)) for _ in range(5)]
        while not accounts.checks:
            await asyncio.sleep(0.001)
        done, pending = await asyncio.wait(waiting, timeout=0.05)
        assert (len(done), len(pending)) == ((5, 0) if given_up else (0, 5))
        for task in done:
            assert isinstance(task.exception(), UpstreamError)
        assert accounts.checks == 1, "one look for all that wait"
        assert (("dead", "a1") in accounts.hosts.told) is not alive
        assert accounts.hosts.told.count(("left", "a1")) == len(done)
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
        await watch.close()

    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_stream_of_unusual_silence_is_given_up_on_a_host_that_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SILENT_S", 0.0), ("TICK_S", 0.001), ("HEDGE_LEAST_S", 0.005)):
        monkeypatch.setattr(openings, name, value)

    async def test() -> None:
        accounts = FakeAccounts(alive=True)
        watch = Openings(accounts)  # type: ignore[arg-type]
        for _ in range(openings.LEAST_SEEN):
            assert await watch.watched("a1", soon(), lambda: "b", hedged=True) == "soon"
        with pytest.raises(UpstreamError):
            await watch.watched("a1", never(), lambda: "b", hedged=True)
        assert accounts.hosts.told.count(("hedged", "a1")) == 1 and ("left", "a1") not in accounts.hosts.told
        large = asyncio.create_task(watch.watched("a1", never(), lambda: "b", hedged=False))
        assert not (await asyncio.wait({large}, timeout=0.05))[0], "what is buffered or large takes its time"
        large.cancel()
        await asyncio.wait({large})
        await watch.close()

    asyncio.run(asyncio.wait_for(test(), 60))


async def soon() -> str:
    return "soon"


@pytest.mark.parametrize("hedged", [True, False], ids=["stream", "buffered"])
@pytest.mark.parametrize("answers_before", [1, openings.LEAST_SEEN])
def test_an_answer_before_the_request_is_no_sign_of_life_for_it(
    monkeypatch: pytest.MonkeyPatch, hedged: bool, answers_before: int
) -> None:
    """The host answered a moment ago and hangs since."""
    monkeypatch.setattr(openings, "SILENT_S", 0.02)
    monkeypatch.setattr(openings, "TICK_S", 0.001)

    async def test() -> None:
        watch = Openings(FakeAccounts(alive=False))  # type: ignore[arg-type]
        for _ in range(answers_before):
            await watch.watched("a1", soon(), lambda: "b", hedged=True)
        with pytest.raises(UpstreamError):
            await watch.watched("a1", never(), lambda: "b", hedged=hedged)
        await watch.close()

    asyncio.run(asyncio.wait_for(test(), 60))


@pytest.mark.parametrize("free_at_first", [True, False])
@pytest.mark.parametrize("hedged", [True, False], ids=["stream", "buffered"])
def test_a_host_is_looked_after_again_while_it_thinks(
    monkeypatch: pytest.MonkeyPatch, hedged: bool, free_at_first: bool
) -> None:
    """It lives at first, or no other account is free at first."""
    for name, value in (("SILENT_S", 0.0), ("TICK_S", 0.001), ("ALIVE_S", 0.005)):
        monkeypatch.setattr(openings, name, value)

    async def test() -> None:
        accounts, free = FakeAccounts(alive=free_at_first), [free_at_first]
        watch = Openings(accounts)  # type: ignore[arg-type]
        another = lambda: "b" if free[0] else None  # noqa: E731
        waiting = asyncio.create_task(watch.watched("a1", never(), another, hedged=hedged))
        while accounts.checks < 2:
            await asyncio.sleep(0.001)
        assert not waiting.done()
        accounts.alive, free[0] = False, True
        with pytest.raises(UpstreamError):
            await waiting
        await watch.close()

    asyncio.run(asyncio.wait_for(test(), 60))


def test_what_is_unusual_needs_enough_to_compare_with() -> None:
    watch = WayWatch()
    for n in range(openings.LEAST_SEEN - 1):
        watch.waits.append(n / 10)
    assert watch.unusual() is None
    watch.waits.append(100.0)
    assert watch.unusual() == pytest.approx(300.0)
    for _ in range(200):
        watch.waits.append(0.1)
    assert watch.unusual() == openings.HEDGE_LEAST_S


def test_an_opening_that_is_over_cannot_be_given_up() -> None:
    async def test() -> None:
        watch = Openings(FakeAccounts(alive=False))  # type: ignore[arg-type]
        over = Opening("a1", "a", lambda: "b", True, 0.0)
        watch._give_up(over, PassiveHealth.LEFT)
        assert not over.given_up

    asyncio.run(test())


@given(st.floats(0, 1e7))
@example(0.05)
@example(0.25)
@example(1234.56)
def test_times_are_told_in_tenths_of_a_millisecond(ms: float) -> None:
    begun = SimpleNamespace(started=0.0)
    with mock.patch("time.monotonic", lambda: ms / 1000):
        told = Exchange.since_start(begun)  # type: ignore[arg-type]
    assert abs(told - ms) <= 0.05 + 1e-9 * ms
    assert told == round(told, 1), "and in no more"
