"""What the pool makes of faults and of clients that leave, and what it counts then: through the whole data plane."""

from __future__ import annotations

import asyncio
import datetime
import json
import time
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts import service
from pool_server.core.enums import Operation, Outcome, Strategy
from pool_server.core.models import Usage
from pool_server.core.settings import Choosing, Settings
from tests.fakes import FakeAccount, Gate, account, faults, key_account, plays
from tests.gateway.sockets import Client
from tests.gateway.stack import Stack, chat, messages, responses, run

COUNTED = Usage(input=7, cache_read=30, output=5, known=True)
SPENT = Usage(input=1000, cache_read=2000, output=300, known=True)
ASSIST: dict[str, Any] = {"model": "gemini-2.5-pro", "request": {}}
BY_PRIORITY: dict[str, Any] = {"choosing": Choosing(strategy=Strategy.PRIORITY, wait_s=0)}


def two(provider: str) -> list[FakeAccount]:
    more: dict[str, Any] = {"project_id": "p"} if provider == "gemini" else {}
    return [account(f"{provider}:one", priority=1, **more), account(f"{provider}:two", priority=2, **more)]


def pacific_midnight() -> float:
    zone = zoneinfo.ZoneInfo("America/Los_Angeles")
    tomorrow = datetime.datetime.now(zone).date() + datetime.timedelta(days=1)
    return datetime.datetime.combine(tomorrow, datetime.time(), zone).timestamp()


@pytest.mark.parametrize(
    ("provider", "path", "body", "play", "returns"),
    [
        ("codex", "/v1/responses", responses(), faults.codex_usage_limit(resets_in=3600), lambda: 3600.0),
        ("claude", "/v1/messages", messages(), faults.claude_limit(2_000_000_000), None),
        ("qwen", "/v1/chat/completions", chat(), faults.qwen_quota(), None),
    ],
    ids=["codex resets_in_seconds", "claude unified", "qwen 403"],
)
def test_an_account_rests_as_long_as_it_was_told(
    tmp_path: Path,
    provider: str,
    path: str,
    body: Any,
    play: plays.Play,
    returns: Callable[[], float] | None,
) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two(provider), **BY_PRIORITY) as stack:
            stack.fakes.then(f"{provider}:one", play)
            now = time.time()
            assert (await stack.post(path, body))[0] == 200
            row = stack.accounts.describe(f"{provider}:one")
            assert row.state in ("cooling", "exhausted")
            assert row.cooldown_until is not None and row.cooldown_until > now
            if returns is not None:
                assert row.cooldown_until - now == pytest.approx(returns(), abs=returns() * 0.1 + 3)
            stack.fakes.calls.clear()
            assert (await stack.post(path, body))[0] == 200
            assert [call.account for call in stack.fakes.made()] == [f"{provider}:two"]

    run(test)


@pytest.mark.parametrize(
    ("play", "back"),
    [
        (faults.gemini_reset_delay("12.345s"), lambda: time.time() + 13),
        (faults.gemini_per_day(), pacific_midnight),
    ],
    ids=["12.345s", "per day"],
)
def test_a_gemini_model_rests_as_long_as_it_was_told(
    tmp_path: Path, play: plays.Play, back: Callable[[], float]
) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two("gemini")[:1], **BY_PRIORITY) as stack:
            stack.fakes.then("gemini:one", play)
            async with stack.client.post(stack.url + "/v1internal:generateContent", json=ASSIST) as answer:
                assert answer.status == 429
                assert int(answer.headers["Retry-After"]) == pytest.approx(back() - time.time(), abs=35)
            assert len(stack.fakes.made()) == 1
            await stack.post("/v1internal:generateContent", ASSIST)
            assert len(stack.fakes.made()) == 1, "it is not asked again"
            flash = ASSIST | {"model": "gemini-2.5-flash"}
            assert (await stack.post("/v1internal:generateContent", flash))[0] == 200, "its other model serves"

    run(test)


@pytest.mark.parametrize("play", [faults.claude_overloaded(), faults.challenge()], ids=["529", "cloudflare"])
def test_what_is_nobodys_fault_costs_no_login_and_no_long_rest(tmp_path: Path, play: plays.Play) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two("claude"), **BY_PRIORITY) as stack:
            stack.fakes.then("claude:one", play)
            assert (await stack.post("/v1/messages", messages()))[0] == 200
            row = stack.accounts.describe("claude:one")
            assert row.state in ("ready", "cooling")
            assert (row.cooldown_until or 0) < time.time() + 30
            assert stack.fakes.accounts["claude:one"].generation == 0, "no refresh was tried"

    run(test)


@pytest.mark.parametrize(
    ("provider", "path", "body", "play"),
    [
        ("claude", "/v1/messages", messages(), faults.claude_suspended()),
        ("gemini", "/v1internal:generateContent", ASSIST, faults.gemini_tos()),
    ],
)
def test_a_stopped_account_is_never_asked_again(
    tmp_path: Path, provider: str, path: str, body: Any, play: plays.Play
) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two(provider), **BY_PRIORITY) as stack:
            stack.fakes.then(f"{provider}:one", play)
            for _ in range(3):
                assert (await stack.post(path, body))[0] == 200
            assert len(stack.fakes.made(f"{provider}:one")) == 1
            row = stack.accounts.describe(f"{provider}:one")
            assert row.state == "suspended"
            assert row.reason

    run(test)


def test_a_client_that_leaves_while_a_refresh_is_under_way_loses_no_token(tmp_path: Path) -> None:
    async def test() -> None:
        gate = Gate()
        one = account("codex:one")
        async with Stack(tmp_path, [one]) as stack:
            one.revoke()
            stack.fakes.then("codex:one", plays.Play(gate=gate), on="token")
            asked = asyncio.create_task(stack.post("/v1/responses", responses()))
            await gate.reached()
            asked.cancel()
            await stack.idle()
            gate.open()
            await stack.fakes.settled()
            path = tmp_path / "pool" / one.file_name
            while json.loads(path.read_text())["tokens"]["refresh_token"] != one.refresh:
                await asyncio.sleep(0.01)
            assert (await stack.post("/v1/responses", responses()))[0] == 200
            assert one.generation == 1

    run(test)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("provider", ["codex", "claude"])
def test_where_every_sign_in_is_being_refreshed_nobody_has_to_act(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str, waits: bool
) -> None:
    """It is waited for within the pool's patience; past that the client is told to come back, not to find somebody."""
    monkeypatch.setattr(service, "REFRESH_PATIENCE_S", 0.02)
    path, body = {"codex": ("/v1/responses", responses()), "claude": ("/v1/messages", messages())}[provider]

    async def test() -> None:
        gates = {one.id: Gate() for one in two(provider)}
        async with Stack(tmp_path, two(provider), choosing=Choosing(wait_s=60.0 if waits else 0.0)) as stack:
            for name, gate in gates.items():
                stack.fakes.accounts[name].revoke()
                stack.fakes.then(name, plays.Play(gate=gate), on="token")
            asked = asyncio.create_task(stack.post(path, body))
            for gate in gates.values():
                await gate.reached()
            if waits:
                while not all(stack.accounts.describe(name).refusal for name in gates):
                    await asyncio.sleep(0.01)
            else:
                status, told = await asked
                assert status == 429 and b"being refreshed" in told
            for gate in gates.values():
                gate.open()
            if waits:
                assert (await asked)[0] == 200
            while any(stack.accounts.describe(name).refusal for name in gates):
                await asyncio.sleep(0.01)
            assert (await stack.post(path, body))[0] == 200

    run(test)


@pytest.mark.parametrize("provider", ["codex", "claude"])
def test_a_token_that_was_replaced_while_the_request_was_up_is_tried_anew(tmp_path: Path, provider: str) -> None:
    """What the new token is worth says nothing of the one that was refused."""
    path, body = {"codex": ("/v1/responses", responses()), "claude": ("/v1/messages", messages())}[provider]

    async def test() -> None:
        gate = Gate()
        one = account(f"{provider}:one")
        async with Stack(tmp_path, [one]) as stack:
            stack.fakes.then(one.id, faults.unauthorized().but(gate=gate))
            asked = asyncio.create_task(stack.post(path, body))
            await gate.reached()
            await stack.accounts.refresh(one.id, one.access)
            gate.open()
            assert (await asked)[0] == 200
            assert one.generation == 1

    run(test)


def test_a_hang_up_after_the_end_was_released_is_success(tmp_path: Path) -> None:
    async def test() -> None:
        gate = Gate()
        async with Stack(tmp_path, [account("codex:one")]) as stack:
            # Like the real one, this provider keeps its stream open when all was said.
            tail = b": still open\n\n"
            good = plays.Play(usage=COUNTED)
            async with stack.client.post(stack.url + "/v1/responses", json=responses()) as whole:
                events = [part + b"\n\n" for part in (await whole.read()).split(b"\n\n") if part]
            stack.fakes.then("codex:one", good.but(events=[*events, tail], gate=gate, gate_at=len(events)))
            async with stack.client.post(stack.url + "/v1/responses", json=responses()) as answer:
                got = b""
                while b"response.completed" not in got:
                    got += await answer.content.readany()
                answer.close()
            await stack.idle()
            record = stack.records()[-1]
            assert (record.outcome, record.partial, record.status) == (Outcome.OK, False, 200)
            assert record.usage.known
            assert stack.accounts.describe("codex:one").in_flight == 0
            gate.open()

    run(test)


def test_a_client_that_leaves_within_a_second_frees_everything_and_what_was_known_is_counted(tmp_path: Path) -> None:
    async def test() -> None:
        gate = Gate()
        async with Stack(tmp_path, two("claude"), **BY_PRIORITY) as stack:
            stack.fakes.then("claude:one", plays.stall(gate, at=4).but(usage=COUNTED))
            async with stack.client.post(stack.url + "/v1/messages", json=messages()) as answer:
                await answer.content.readany()
                await gate.reached()
                answer.close()
            async with asyncio.timeout(1.0):
                await stack.fakes.settled()
                await stack.idle()
            assert [call.account for call in stack.fakes.made()] == ["claude:one"], "no further attempt"
            (record,) = stack.records()
            assert (record.outcome, record.partial) == (Outcome.CLIENT_GONE, True)
            assert (record.usage.input, record.usage.cache_read) == (COUNTED.input, COUNTED.cache_read)

    run(test)


def test_claude_codes_second_try_and_its_burst_of_counts_are_served_together(tmp_path: Path) -> None:
    assert Settings().upstream_first_byte_s >= 300, "its non-streaming retry may be silent so long"

    async def test() -> None:
        gate = Gate()
        async with Stack(tmp_path, [account("claude:one")]) as stack:
            stack.fakes.then("claude:one", plays.slow_headers(gate).but(usage=COUNTED))
            slow = asyncio.create_task(stack.post("/v1/messages", messages(stream=False)))
            await gate.reached()
            burst = [stack.post("/v1/messages/count_tokens", messages(session=f"s-{n}")) for n in range(30)]
            answers = await asyncio.gather(*burst)
            assert [status for status, _ in answers] == [200] * 30
            assert all("input_tokens" in json.loads(body) for _, body in answers)
            assert not slow.done()
            gate.open()
            status, body = await slow
            assert (status, json.loads(body)["type"]) == (200, "message")
            counts = [record for record in stack.records() if record.operation == Operation.COUNT_TOKENS]
            assert len(counts) == 30
            assert sum(record.usage.total for record in counts) == 0, "counting tokens uses none"

    run(test)


@pytest.mark.parametrize(
    ("provider", "path", "body", "event"),
    [
        ("claude", "/v1/messages", messages(), faults.in_stream(faults.messages_error(), at=1)),
        ("codex", "/v1/responses", responses(), faults.in_stream(faults.responses_failed(), at=1)),
        ("claude", "/v1/messages", messages(stream=False), faults.claude_overloaded()),
    ],
    ids=["messages", "responses", "buffered"],
)
def test_a_retry_is_recorded_and_billed_once(
    tmp_path: Path, provider: str, path: str, body: Any, event: plays.Play
) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two(provider), **BY_PRIORITY) as stack:
            stack.fakes.then(f"{provider}:one", event.but(usage=SPENT))
            stack.fakes.then(f"{provider}:two", plays.ok(COUNTED))
            assert (await stack.post(path, body))[0] == 200
            (record,) = stack.records()
            assert record.account == f"{provider}:two"
            usage = record.usage
            assert (usage.input, usage.cache_read, usage.output) == (7, 30, 5)
            assert [(one.account, bool(one.fault)) for one in record.attempts] == [
                (f"{provider}:one", True),
                (f"{provider}:two", False),
            ]
            total = stack.ledger.queries.summary(time.time() - 3600, time.time() + 60).total
            assert (total.requests, total.input, total.output) == (1, 7, 5)

    run(test)


def test_turns_of_a_socket_are_counted_once_each(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack:
            stack.fakes.always("codex:one", plays.ok(COUNTED))
            url = stack.url.replace("http", "ws") + "/v1/responses"
            async with stack.client.ws_connect(url, headers={"session-id": "s-1"}) as connection:
                client = Client(connection)
                for _ in range(3):
                    await client.turn({"type": "response.create"} | responses())
            await stack.idle()
            assert [record.usage.output for record in stack.records()] == [5] * 3
            total = stack.ledger.queries.summary(time.time() - 3600, time.time() + 60).total
            assert (total.requests, total.cache_read) == (3, 90)

    run(test)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["codex", "claude", "gemini", "qwen", "openai"])
def test_a_pool_without_room_asks_nobody_and_says_when(tmp_path: Path, kind: str) -> None:
    calls: dict[str, tuple[str, Any, plays.Play]] = {
        "codex": ("/v1/responses", responses(), faults.codex_usage_limit(resets_in=3600)),
        "claude": ("/v1/messages", messages(), faults.claude_limit(time.time() + 3600)),
        "gemini": ("/v1internal:generateContent", ASSIST, faults.gemini_exhausted("3600s")),
        "qwen": ("/v1/chat/completions", chat(), faults.retry_after(3600)),
        "openai": ("/openai/v1/chat/completions", chat(model="m"), faults.retry_after(3600)),
    }
    path, body, play = calls[kind]
    one = key_account("openai:one") if kind == "openai" else two(kind)[0]

    async def test() -> None:
        async with Stack(tmp_path, [one], **BY_PRIORITY) as stack:
            stack.fakes.always(one.id, play)
            for _ in range(5):
                async with stack.client.post(stack.url + path, json=body) as answer:
                    told = await answer.read()
                    assert 400 <= answer.status < 500, "no 5xx: a retry cannot help"
                    assert int(answer.headers.get("Retry-After", "3600")) > 3000 or b"retry" in told.lower()
                    assert kind.encode() in told.lower() or b"limit" in told.lower()
            assert len(stack.fakes.made()) == 1

    run(test)
