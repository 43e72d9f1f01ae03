"""The fakes do what their scripts say: each scenario as a bare client sees it."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import zstandard

from pool_server.core.models import Usage
from tests.fakes import FakeProviders, Gate, Play, Surface, account, fake_settings, faults, key_account, plays

Body = Callable[[FakeProviders, aiohttp.ClientSession], Awaitable[None]]


def run(body: Body) -> None:
    async def main() -> None:
        cast = [
            account("codex:a", used_5h=25, used_7d=40),
            account("claude:a", used_5h=42, used_7d=10),
            account("gemini:a", used_7d=5),
            key_account("qwen:a"),
            key_account("openai:a"),
        ]
        async with FakeProviders(cast) as fakes, aiohttp.ClientSession() as session:
            await body(fakes, session)

    asyncio.run(main())


async def ask(
    fakes: FakeProviders, session: aiohttp.ClientSession, who: str, more: dict[str, Any] | None = None
) -> tuple[int, bytes]:
    """One streaming request as the account `who`, with `more` in its body; (status, whole body)."""
    paths = {
        "codex:a": "/chatgpt/backend-api/codex/responses",
        "claude:a": "/claude/v1/messages",
        "qwen:a": "/qwen/compatible-mode/v1/chat/completions",
        "gemini:a": "/codeassist/v1internal:streamGenerateContent?alt=sse",
    }
    token = fakes.accounts[who].access
    async with session.post(
        fakes.origin + paths[who],
        json={"model": "m", "stream": True, "stream_options": {"include_usage": True}, **(more or {})},
        headers={"Authorization": f"Bearer {token}"},
    ) as answer:
        return answer.status, await answer.read()


def test_each_dialect_streams_its_own_counts() -> None:
    usage = Usage(input=10, cache_read=20, cache_write=5, output=9, reasoning=2, known=True)

    async def body(fakes: FakeProviders, session: aiohttp.ClientSession) -> None:
        for who in ("codex:a", "claude:a", "qwen:a", "gemini:a"):
            fakes.then(who, plays.ok(usage, ["x", "y"]))
        codex = (await ask(fakes, session, "codex:a"))[1]
        assert b'"input_tokens":35' in codex and b'"reasoning_tokens":2' in codex
        claude = (await ask(fakes, session, "claude:a"))[1]
        assert b'"input_tokens":10' in claude and b'"cache_read_input_tokens":20' in claude
        assert b'"prompt_tokens":35' in (await ask(fakes, session, "qwen:a"))[1]
        gemini = (await ask(fakes, session, "gemini:a"))[1]
        assert b'"candidatesTokenCount":7' in gemini and gemini.startswith(b'data: {"response":')

    run(body)


def test_gemini_without_sse_is_one_json_array() -> None:
    async def body(fakes: FakeProviders, session: aiohttp.ClientSession) -> None:
        url = f"{fakes.origin}/gemini/v1beta/models/gemini-2.5-pro:streamGenerateContent"
        async with session.post(
            url, json={"contents": []}, headers={"x-goog-api-key": fakes.accounts["gemini:a"].access}
        ) as answer:
            chunks = json.loads(await answer.read())
        assert len(chunks) == 4 and chunks[-1]["candidates"][0]["finishReason"] == "STOP"
        assert fakes.calls[0].surface is Surface.GENERATE

    run(body)


def test_quota_is_told_in_headers_and_by_the_usage_endpoint() -> None:
    async def body(fakes: FakeProviders, session: aiohttp.ClientSession) -> None:
        codex, claude = fakes.accounts["codex:a"], fakes.accounts["claude:a"]
        assert codex.quota_headers()["x-codex-primary-used-percent"] == "25"
        assert codex.quota_headers()["x-codex-secondary-window-minutes"] == "10080"
        assert claude.quota_headers()["anthropic-ratelimit-unified-5h-utilization"] == "0.42"
        async with session.get(
            f"{fakes.origin}/chatgpt/backend-api/wham/usage", headers={"Authorization": f"Bearer {codex.access}"}
        ) as answer:
            limit = (await answer.json())["rate_limit"]
        assert limit["primary_window"]["used_percent"] == 25
        async with session.get(
            f"{fakes.origin}/claude/api/oauth/usage", headers={"Authorization": f"Bearer {claude.access}"}
        ) as answer:
            assert (await answer.json())["five_hour"]["utilization"] == 42

    run(body)


@pytest.mark.parametrize("name", sorted(faults.HINTS_429))
def test_each_hint_is_answered_once_and_then_the_good_answer(name: str) -> None:
    async def body(fakes: FakeProviders, session: aiohttp.ClientSession) -> None:
        play = faults.HINTS_429[name]()
        fakes.then("claude:a", play)
        status, said = await ask(fakes, session, "claude:a")
        assert status == play.status and json.loads(said) == play.body
        assert (await ask(fakes, session, "claude:a"))[0] == 200
        assert [call.status for call in fakes.made("claude:a")] == [play.status, 200]

    run(body)


def test_a_refresh_rotates_and_a_spent_token_is_refused() -> None:
    async def body(fakes: FakeProviders, session: aiohttp.ClientSession) -> None:
        one = fakes.accounts["codex:a"]
        one.revoke()
        first = one.refresh
        url = fakes.token_urls().codex
        async with session.post(url, json={"grant_type": "refresh_token", "refresh_token": first}) as answer:
            renewed = await answer.json()
        assert renewed["access_token"] == one.access and renewed["refresh_token"] == one.refresh != first
        async with session.post(url, data={"grant_type": "refresh_token", "refresh_token": first}) as answer:
            assert answer.status == 401 and (await answer.json())["error"]["code"] == "refresh_token_reused"
        assert (await ask(fakes, session, "codex:a"))[0] == 200
        assert [call.account for call in fakes.calls] == ["codex:a"] * 3

    run(body)


def test_unknown_tokens_get_the_vendors_401() -> None:
    async def body(fakes: FakeProviders, session: aiohttp.ClientSession) -> None:
        async with session.post(
            f"{fakes.origin}/claude/v1/messages", json={}, headers={"x-api-key": "sk-ant-nobody"}
        ) as answer:
            assert answer.status == 401 and (await answer.json())["error"]["type"] == "authentication_error"

    run(body)


@pytest.mark.parametrize("play", [plays.cut(5), plays.cut(3, inside=False), plays.closes()])
def test_broken_connections(play: Play) -> None:
    async def body(fakes: FakeProviders, session: aiohttp.ClientSession) -> None:
        fakes.then("codex:a", play)
        with pytest.raises(aiohttp.ClientError):
            await ask(fakes, session, "codex:a")
        assert fakes.calls[0].gone and not fakes.calls[0].done

    run(body)


def test_a_clean_end_lacks_the_terminal_event() -> None:
    async def body(fakes: FakeProviders, session: aiohttp.ClientSession) -> None:
        fakes.then("codex:a", plays.clean_end(5), faults.in_stream(faults.responses_failed(), at=2))
        ended = (await ask(fakes, session, "codex:a"))[1]
        assert ended.endswith(b"\n\n") and b"response.completed" not in ended
        failed = (await ask(fakes, session, "codex:a"))[1]
        assert b"response.in_progress" in failed and b"response.output_item" not in failed
        assert b"server_is_overloaded" in failed

    run(body)


def test_a_stall_lasts_until_the_gate_opens() -> None:
    async def body(fakes: FakeProviders, session: aiohttp.ClientSession) -> None:
        gate = Gate()
        fakes.then("claude:a", plays.stall(gate, 4))
        asking = asyncio.create_task(ask(fakes, session, "claude:a"))
        await gate.reached()
        assert not asking.done() and fakes.calls[0].status == 200
        gate.open()
        assert b"message_stop" in (await asking)[1]

    run(body)


def test_a_caller_that_leaves_is_noticed() -> None:
    async def body(fakes: FakeProviders, session: aiohttp.ClientSession) -> None:
        gate = Gate()
        fakes.then("claude:a", plays.slow_headers(gate))
        asking = asyncio.create_task(ask(fakes, session, "claude:a"))
        await gate.reached()
        asking.cancel()
        await fakes.settled()
        assert fakes.calls[0].gone

    run(body)


def test_bytes_may_come_one_by_one_and_events_may_be_huge() -> None:
    async def body(fakes: FakeProviders, session: aiohttp.ClientSession) -> None:
        fakes.then("claude:a", plays.byte_by_byte(), plays.huge_event(1 << 20, 4))
        assert b"message_stop" in (await ask(fakes, session, "claude:a"))[1]
        assert len((await ask(fakes, session, "claude:a"))[1]) > 1 << 20

    run(body)


def test_requests_are_recorded_as_they_came() -> None:
    async def body(fakes: FakeProviders, session: aiohttp.ClientSession) -> None:
        raw = zstandard.compress(b'{"model":"m","stream":true}')
        headers = {
            "X-First": "1",
            "Content-Encoding": "zstd",
            "aUtHoRiZaTiOn": f"Bearer {_token(fakes)}",
            "X-Z": "2",
        }
        url = f"{fakes.origin}/chatgpt/backend-api/codex/responses?a=1&b=2"
        async with session.post(url, data=raw, headers=headers) as answer:
            await answer.read()
        call = fakes.calls[0]
        assert (call.body, call.json["model"], call.query) == (raw, "m", "a=1&b=2")
        names = [name for name, _ in call.headers]
        assert names.index("X-First") < names.index("aUtHoRiZaTiOn") < names.index("X-Z")

    run(body)


def _token(fakes: FakeProviders) -> str:
    return fakes.accounts["codex:a"].access


def test_websocket_turns_follow_the_script() -> None:
    async def body(fakes: FakeProviders, session: aiohttp.ClientSession) -> None:
        fakes.then("codex:a", faults.codex_usage_limit(resets_in=60), plays.cut(4))
        url = f"{fakes.origin}/chatgpt/backend-api/codex/responses"
        headers = {"Authorization": f"Bearer {_token(fakes)}"}
        async with session.ws_connect(url, headers=headers) as socket:
            await socket.send_json({"type": "response.create", "model": "m", "generate": False})
            assert [(await socket.receive_json())["type"] for _ in range(2)][-1] == "response.completed"
            await socket.send_json({"type": "response.create", "model": "m"})
            assert (await socket.receive_json())["error"]["type"] == "usage_limit_reached"
            await socket.send_json({"type": "response.create", "model": "m"})
            kinds = [(await socket.receive()).type for _ in range(6)]
        assert kinds[0] is aiohttp.WSMsgType.TEXT and kinds[-1] is not aiohttp.WSMsgType.TEXT
        assert len(fakes.calls[0].frames) == 3

    run(body)


def test_they_also_run_in_a_thread(tmp_path: Path) -> None:
    one = account("claude:work", life_s=60)
    with FakeProviders([one]) as fakes:
        settings = fake_settings(tmp_path, fakes, max_attempts=2)
        saved = json.loads((tmp_path / "pool" / "claude_work.json").read_text())
        assert saved["claudeAiOauth"]["accessToken"] == one.access
        assert settings.max_attempts == 2 and settings.upstreams.claude.startswith(fakes.origin)
        request = urllib.request.Request(
            f"{settings.upstreams.claude}/v1/messages",
            data=b'{"model":"m"}',
            headers={"x-api-key": one.access},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer)["content"][0]["text"] == "Hello from claude:work."


REQUESTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "codex:a": (
        {"tools": [{"type": "function", "name": "look"}], "input": [{"type": "message"}]},
        {"input": [{"type": "function_call_output"}]},
    ),
    "claude:a": (
        {"tools": [{"name": "look"}], "messages": [{"role": "user", "content": "hi"}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
    ),
    "qwen:a": (
        {"tools": [{"function": {"name": "look"}}], "messages": [{"role": "user"}]},
        {"messages": [{"role": "tool"}]},
    ),
    "gemini:a": (
        {"request": {"tools": [{"functionDeclarations": [{"name": "look"}]}], "contents": [{"parts": [{"text": ""}]}]}},
        {"request": {"contents": [{"parts": [{"functionResponse": {}}]}]}},
    ),
}


@pytest.mark.parametrize("who", sorted(REQUESTS))
def test_a_model_may_ask_for_a_tool_it_was_offered_once_a_turn(who: str) -> None:
    async def body(fakes: FakeProviders, session: aiohttp.ClientSession) -> None:
        asked: list[str] = []
        play = Play(tools={"look": {"at": "it"}}, asked=lambda account, call: asked.append(account.id))
        fakes.always(who, play)
        offer, result = REQUESTS[who]
        without = {name: value for name, value in offer.items() if name not in ("tools", "request")}
        assert b"Hello" in (await ask(fakes, session, who, more=without))[1] and asked == []
        said = (await ask(fakes, session, who, more=offer))[1]
        assert b"look" in said and b"Hello" not in said and asked == [who]
        assert b"Hello" in (await ask(fakes, session, who, more={**offer, **result}))[1] and asked == [who]

    run(body)


def test_a_director_goes_before_the_scripts() -> None:
    async def body(fakes: FakeProviders, session: aiohttp.ClientSession) -> None:
        fakes.then("claude:a", faults.claude_overloaded())
        fakes.director = lambda account, call: faults.server_error() if account.id == "codex:a" else None
        assert (await ask(fakes, session, "codex:a"))[0] == 500
        assert (await ask(fakes, session, "claude:a"))[0] == 529
        fakes.director = None
        assert (await ask(fakes, session, "codex:a"))[0] == 200

    run(body)
