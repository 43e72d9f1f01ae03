"""Continuing over HTTP what the provider will not continue, and what a friend's Codex shows as limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pool_server.core.enums import Strategy
from pool_server.core.settings import Choosing, CodexSettings
from pool_server.gateway.emulation.quota_headers import limit_headers
from pool_server.gateway.emulation.quota_windows import QuotaWindow
from pool_server.gateway.websocket.held_conversations import HeldConversations
from tests.fakes import account, faults, plays
from tests.gateway.sockets import create, socket
from tests.gateway.stack import Stack, responses, run


def _id(answer: bytes) -> str:
    last = answer.strip().rpartition(b"data: ")[2]
    return str(json.loads(last)["response"]["id"])


def test_a_held_conversation_goes_on_over_http_even_on_another_account(tmp_path: Path) -> None:
    async def test() -> None:
        two = [account("codex:one", priority=1), account("codex:two", priority=2)]
        by_priority = Choosing(strategy=Strategy.PRIORITY)
        async with Stack(tmp_path, two, codex=CodexSettings(hold_conversations_mb=1), choosing=by_priority) as stack:
            _, first = await stack.post("/v1/responses", responses(text="one"))
            stack.fakes.always("codex:one", faults.codex_usage_limit())
            status, _ = await stack.post("/v1/responses", responses(text="two", previous_response_id=_id(first)))
            assert status == 200
            last = stack.fakes.made()[-1]
            assert last.account == "codex:two"
            assert "previous_response_id" not in last.json
            texts = [item["content"][0]["text"] for item in last.json["input"]]
            assert (texts[0], texts[-1], len(texts)) == ("one", "two", 3)

    run(test)


def test_nothing_is_held_unless_asked_for(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack:
            _, first = await stack.post("/v1/responses", responses())
            assert not stack.gateway.held.holds("local", _id(first))
            await stack.post("/v1/responses", responses(previous_response_id=_id(first)))
            assert stack.fakes.made()[-1].json["previous_response_id"] == _id(first)

    run(test)


def test_held_conversations_stay_within_their_bytes() -> None:
    held = HeldConversations(2000)
    for number in range(50):
        body = json.dumps({"model": "m", "input": [{"type": "message", "content": "x" * 300}]}).encode()
        found = held.resume("ada", None, body)
        assert found is not None
        talk, _ = found
        done = {"type": "response.completed", "response": {"id": f"resp_{number}"}}
        talk.feed(b"data: " + json.dumps(done).encode() + b"\n\n")
        held.keep("ada", talk)
    kept = [number for number in range(50) if held.holds("ada", f"resp_{number}")]
    assert kept == list(range(50 - len(kept), 50))
    assert 1 <= len(kept) <= 6
    assert not held.holds("bob", "resp_49")


def test_a_friend_sees_the_pooled_room_and_not_the_accounts(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = account("codex:one", used_5h=10, used_7d=20), account("codex:two", used_5h=50, used_7d=60)
        async with Stack(tmp_path, [one, two]) as stack:
            for name in ("codex:one", "codex:two"):
                await stack.post("/v1/responses", responses(session=name), X_Pool_Account=name)
            stack.gateway.services.view._seen.clear()
            body = json.dumps(responses(session="e"))
            async with stack.client.post(stack.url + "/v1/responses", data=body) as told:
                await told.read()
                assert told.headers["x-codex-primary-used-percent"] == "30"
                assert told.headers["x-codex-primary-window-minutes"] == "300"
                assert told.headers["x-codex-secondary-used-percent"] == "40"

    run(test)


def test_limit_headers_show_the_two_tightest_windows() -> None:
    windows = [QuotaWindow(18_000, 12.9, 5_000.0), QuotaWindow(86_400, 1.0, None), QuotaWindow(604_800, 140.0, None)]
    headers = dict(limit_headers(windows, 1_000.0))
    assert headers["x-codex-primary-used-percent"] == "12"
    assert headers["x-codex-primary-reset-at"] == "5000"
    assert headers["x-codex-secondary-used-percent"] == "100"
    assert headers["x-codex-secondary-reset-at"] == str(1_000 + 604_800)
    assert limit_headers([], 0.0) == []


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_streams_quota_event_tells_the_friends_limits(tmp_path: Path, size: int) -> None:
    """Over HTTP, however the bytes come, and over a socket."""
    play = plays.Play(insert=faults.codex_limits_event(77.0), insert_at=4, slice=size)

    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one", used_5h=10)]) as stack:
            stack.fakes.then("codex:one", plays.ok(), play, play)
            await stack.post("/v1/responses", responses())
            _, body = await stack.post("/v1/responses", responses())
            events = [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: ")]
            assert events[-1]["type"] == "response.completed"
            (told,) = [event for event in events if event["type"] == "codex.rate_limits"]
            async with socket(stack) as client:
                (framed,) = [e for e in await client.turn(create()) if e["type"] == "codex.rate_limits"]
            for event in (told, framed):
                assert event["rate_limits"]["primary"]["used_percent"] == 10
                assert event["rate_limits"]["primary"]["window_minutes"] == 300
                assert b"plus" not in json.dumps(event).encode()
            windows = stack.accounts.describe("codex:one").windows
            assert 77.0 in [window.used_percent for window in windows]

    run(test)
