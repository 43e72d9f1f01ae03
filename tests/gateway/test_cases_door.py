"""Who may come in, and where a request goes: through the whole data plane, in every dialect."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest

from pool_server.core.enums import Outcome, Strategy
from pool_server.core.settings import Choosing, PoolUsers
from tests.fakes import account, faults, key_account
from tests.gateway.stack import ADMIN, Stack, chat, messages, responses, run

SECRET = "a jwt secret of the settings, long enough to sign with"
FRIENDS: dict[str, Any] = {"friend_code": "open sesame", "pool_users": PoolUsers(jwt_secret=SECRET)}
ASSIST: dict[str, Any] = {"model": "gemini-2.5-pro", "request": {}}
CALLS: list[tuple[str, Any]] = [
    ("/v1/responses", responses()),
    ("/backend-api/codex/responses", responses()),
    ("/v1/messages", messages()),
    ("/v1/messages/count_tokens", messages()),
    ("/v1internal:generateContent", ASSIST),
    ("/v1beta/models/gemini-2.5-pro:generateContent", {"contents": []}),
    ("/v1/chat/completions", chat()),
    ("/openai/v1/chat/completions", chat(model="m")),
]


def everybody() -> list[Any]:
    signed_in = [account(f"{name}:one", project_id="p") for name in ("codex", "claude", "gemini", "qwen")]
    return [*signed_in, key_account("gemini:key"), key_account("openai:key")]


def places(token: str) -> list[tuple[str, dict[str, str]]]:
    """The four places a client may put a credential: what to add to the query, and headers."""
    return [
        ("", {"Authorization": f"Bearer {token}"}),
        ("", {"x_api_key": token}),
        ("", {"x_goog_api_key": token}),
        (f"?key={token}", {}),
    ]


async def statuses(stack: Stack, path: str, token: str) -> list[int]:
    return [(await stack.post(path + query, messages(), **headers))[0] for query, headers in places(token)]


def test_bad_keys_are_401_and_a_disabled_user_is_403_wherever_the_key_is(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("claude:one")], **FRIENDS) as stack:
            user = await stack.users.people.create_user("ada", actor=ADMIN)
            key = str(user["key"])
            claims = jwt.decode(key, SECRET, algorithms=["HS256"])
            head, body, signature = key.split(".")
            bad = {
                "one byte changed": f"{head}.{body[:-1]}{'A' if body[-1] != 'A' else 'B'}.{signature}",
                "other secret": jwt.encode(claims, "x" * 40, algorithm="HS256"),
                "no algorithm": jwt.encode(claims, "", algorithm="none"),
                "expired": jwt.encode(claims | {"exp": 1}, SECRET, algorithm="HS256"),
                "unknown key": jwt.encode(claims | {"jti": "nobody-made-it"}, SECRET, algorithm="HS256"),
                "unknown user": jwt.encode(claims | {"sub": "nobody"}, SECRET, algorithm="HS256"),
            }
            for what, token in bad.items():
                assert await statuses(stack, "/v1/messages", token) == [401] * 4, what
            assert await statuses(stack, "/v1/messages", key) == [200] * 4
            made = len(stack.fakes.made())
            await stack.users.people.patch_user(user["id"], {"disabled": True}, actor=ADMIN)
            assert await statuses(stack, "/v1/messages", key) == [403] * 4
            await stack.users.people.patch_user(user["id"], {"disabled": False}, actor=ADMIN)
            assert await statuses(stack, "/v1/messages", key) == [200] * 4
            await stack.users.people.rotate(user["id"], actor=ADMIN)
            assert await statuses(stack, "/v1/messages", key) == [401] * 4
            assert len(stack.fakes.made()) == made + 4

    run(test)


def test_the_pool_is_no_relay_for_foreign_credentials_in_any_dialect(tmp_path: Path) -> None:
    foreign = ("sk-proj-abc", "sk-ant-oat01-abc", "sk-ant-api03-abc", "ya29.abc", "AIzaSyA-1234567890")

    async def test() -> None:
        async with Stack(tmp_path, everybody(), **FRIENDS) as stack:
            for path, body in CALLS:
                for token in foreign:
                    for query, headers in places(token):
                        status, answer = await stack.post(path + query, body, **headers)
                        assert status == 401, (path, token)
                        assert json.loads(answer)
            assert stack.fakes.calls == []

    run(test)


@pytest.mark.slow
def test_no_trace_of_the_pools_key_goes_up(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, everybody(), **FRIENDS) as stack:
            key = await stack.key()
            for path, body in CALLS:
                for query, headers in places(key):
                    more = {
                        "Cookie": f"pool_session={key}; a=b",
                        "chatgpt_account_id": "mine",
                        "cf_ray": "1",
                        "via": "x",
                    }
                    assert (await stack.post(path + query, body, **headers, **more))[0] == 200, path
            assert len(stack.fakes.calls) >= 4 * len(CALLS)
            for call in stack.fakes.calls:
                assert key not in f"{call.raw_path} {call.headers!r}"
                assert key.encode() not in call.body
                names = {name.lower() for name, _ in call.headers}
                assert not names & {"cookie", "cf-ray", "via", "forwarded"}
                assert call.header("chatgpt-account-id") != "mine"

    run(test)


def test_all_spellings_of_a_call_are_one_upstream_path(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one"), account("claude:one")]) as stack:
            spellings = ("/backend-api/codex/responses", "/v1/responses", "/responses", "/codex/v1/responses")
            for path in (*spellings, "/api/codex/responses", "/codex/responses"):
                assert (await stack.post(path, responses()))[0] == 200
            assert {call.path for call in stack.fakes.made("codex:one")} == {"/chatgpt/backend-api/codex/responses"}
            for path in ("/v1/messages", "/claude/v1/messages"):
                assert (await stack.post(path, messages()))[0] == 200
            assert {call.path for call in stack.fakes.made("claude:one")} == {"/claude/v1/messages"}

    run(test)


def test_a_prefix_is_never_left(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account("openai:key"), account("codex:one")]) as stack:
            for path, body in (
                ("/claude/v1/messages", messages()),
                ("/qwen/v1/chat/completions", chat()),
                ("/gemini/v1beta/models/m:generateContent", {"contents": []}),
            ):
                status, answer = await stack.post(path, body)
                assert status in (404, 503), path
                assert path.split("/")[1] in answer.decode()
            assert stack.fakes.calls == []

    run(test)


def test_a_chunked_body_is_routed_pinned_retried_and_counted_like_any_other(tmp_path: Path) -> None:
    async def pieces(body: Any) -> AsyncIterator[bytes]:
        raw = json.dumps(body).encode()
        for start in range(0, len(raw), 17):
            yield raw[start : start + 17]

    async def test() -> None:
        accounts = [account("claude:one", priority=1), account("claude:two", priority=2)]
        async with Stack(tmp_path, accounts, choosing=Choosing(strategy=Strategy.PRIORITY)) as stack:
            stack.fakes.then("claude:one", faults.claude_limit(2e9))
            for _ in range(2):
                async with stack.client.post(stack.url + "/v1/messages", data=pieces(messages())) as answer:
                    assert (answer.status, b"message_stop" in await answer.read()) == (200, True)
            made = stack.fakes.made()
            assert [call.account for call in made] == ["claude:one", "claude:two", "claude:two"]
            assert {call.body for call in made} == {json.dumps(messages()).encode()}
            assert [record.outcome for record in stack.records()] == [Outcome.OK] * 2
            assert all(record.usage.known and record.request_bytes == len(made[0].body) for record in stack.records())

    run(test)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body", "open_to_all"),
    [
        ("/ps/mcp", {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}, True),
        ("/backend-api/ps/mcp", {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}, True),
        ("/backend-api/codex/analytics-events/events", {"events": [1]}, False),
        ("/api/event_logging/v2/batch", {"events": [1]}, False),
        ("/v1internal:recordCodeAssistMetrics", {"metrics": []}, False),
        ("/v1internal:loadCodeAssist", {}, False),
    ],
)
def test_side_calls_are_answered_here_and_reach_no_provider(
    tmp_path: Path, path: str, body: Any, open_to_all: bool
) -> None:
    async def test() -> None:
        async with Stack(tmp_path, everybody(), **FRIENDS) as stack:
            key = await stack.key()
            assert (await stack.post(path, body))[0] == (200 if open_to_all else 401)
            assert (await stack.post(path, body, token=key))[0] == 200
            assert all(call.method == "GET" for call in stack.fakes.calls), "at most the pool's own look at models"
            assert stack.records() == []

    run(test)


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"X-Forwarded-For": "127.0.0.1"}],
    ids=str,
)
def test_a_foreign_page_opens_no_socket_in_local_mode(tmp_path: Path, headers: dict[str, str]) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack:
            url = stack.url.replace("http", "ws") + "/v1/responses"
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await stack.client.ws_connect(url, headers=headers)
            assert refused.value.status == 403
            assert stack.fakes.calls == []

    run(test)
