"""One exchange from a client to a fake provider and back: bytes, retries, refresh, pins, counts."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import zstandard

from pool_server.core.enums import Outcome, Strategy
from pool_server.core.models import Usage
from pool_server.core.settings import Choosing
from tests.fakes import FakeAccount, Gate, account, faults, key_account, plays
from tests.gateway.stack import ADMIN, Stack, chat, messages, responses, run

COUNTED = Usage(input=7, cache_read=30, output=5, known=True)


def counted(usage: Usage) -> tuple[int, int, int]:
    return usage.input, usage.cache_read, usage.output


ASSIST: dict[str, Any] = {"model": "gemini-2.5-pro", "request": {}}

CALLS: list[tuple[FakeAccount, str, dict[str, Any]]] = [
    (account("codex:one"), "/v1/responses", responses()),
    (account("codex:one"), "/backend-api/codex/responses", responses()),
    (key_account("codex:key"), "/responses", responses()),
    (account("claude:one"), "/v1/messages?beta=true", messages()),
    (account("claude:one"), "/v1/messages", messages(stream=False)),
    (key_account("claude:key"), "/claude/v1/messages", messages()),
    (
        account("gemini:one"),
        "/v1internal:streamGenerateContent?alt=sse",
        ASSIST,
    ),
    (account("gemini:one"), "/v1internal:generateContent", ASSIST),
    (key_account("gemini:key"), "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", {"contents": []}),
    (key_account("gemini:key"), "/v1beta/models/gemini-2.5-pro:generateContent", {"contents": []}),
    (account("qwen:one"), "/v1/chat/completions", chat(stream=True, stream_options={"include_usage": True})),
    (key_account("qwen:key"), "/qwen/v1/chat/completions", chat()),
    (key_account("openai:key"), "/openai/v1/chat/completions", chat(model="some-model")),
]


@pytest.mark.parametrize(("one", "path", "body"), CALLS, ids=[f"{c[0].id} {c[1]}" for c in CALLS])
def test_an_answer_comes_through_and_is_counted_once(
    tmp_path: Path, one: FakeAccount, path: str, body: dict[str, Any]
) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [one]) as stack:
            stack.fakes.then(one.id, plays.ok(COUNTED))
            status, answer = await stack.post(path, body)
            assert status == 200
            assert b"Hello" in answer or b"hello" in answer or answer
            (call,) = stack.fakes.made()
            assert call.account == one.id
            (record,) = stack.records()
            assert counted(record.usage) == counted(COUNTED)
            assert (record.account, record.status, record.outcome) == (one.id, 200, Outcome.OK)
            assert record.first_byte_ms is not None
            assert record.total_ms >= record.first_byte_ms
            assert record.attempts[0].ms > 0
            assert not record.partial

    run(test)


def test_an_answer_that_came_whole_teaches_no_time_to_its_first_byte(tmp_path: Path) -> None:
    async def test() -> None:
        one = account("claude:one")
        async with Stack(tmp_path, [one]) as stack:
            for stream, known in ((False, False), (True, True)):
                for _ in range(4):
                    assert (await stack.post("/v1/messages", messages(stream=stream)))[0] == 200
                latency = stack.accounts.describe(one.id).latency_ms
                assert (latency is not None) is known, latency

    run(test)


def test_native_bytes_go_up_untouched_and_only_the_credential_changes(tmp_path: Path) -> None:
    raw = b'{ "stream":true,\n  "model":"claude-sonnet-4-5", "messages":[ ], "max_tokens" : 5,"x":"\\u00e9" }'

    async def test() -> None:
        one = account("claude:one")
        async with Stack(tmp_path, [one]) as stack:
            sent = {
                "anthropic-version": "2023-06-01",
                "anthropic-beta": "one-beta,two-beta",
                "x-api-key": "sk-ant-api-of-the-friend",
                "cookie": "a=b",
                "x-pool-session": "mine",
                "User-Agent": "claude-cli/2.1.329 (external, sdk-cli)",
            }
            status, _ = await stack.post(
                "/v1/messages?beta=true&key=abc", raw, **{k.replace("-", "_"): v for k, v in sent.items()}
            )
            assert status == 200
            (call,) = stack.fakes.made()
            assert call.body == raw
            assert call.query == "beta=true"
            assert call.header("anthropic-beta") == "one-beta,two-beta,oauth-2025-04-20"
            assert call.header("authorization") == f"Bearer {one.access}"
            assert call.header("user-agent") == sent["User-Agent"]
            assert call.header("accept-encoding") == "identity"
            gone = ("x-api-key", "cookie", "x-pool-session", "via", "forwarded", "x-forwarded-for")
            assert [name for name in gone if call.header(name) is not None] == []

    run(test)


@pytest.mark.parametrize("encoding", ["zstd", "gzip"])
def test_a_compressed_body_is_peeked_and_sent_as_it_came(tmp_path: Path, encoding: str) -> None:
    plain = json.dumps(responses()).encode()
    packer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    raw = packer.compress(plain) + packer.flush() if encoding == "zstd" else gzip.compress(plain)

    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack:
            status, _ = await stack.post("/v1/responses", raw, content_encoding=encoding)
            assert status == 200
            (call,) = stack.fakes.made()
            assert (call.body, call.header("content-encoding")) == (raw, encoding)
            (record,) = stack.records()
            assert record.model == "gpt-5-codex"

    run(test)


def test_broken_and_bombed_bodies_are_refused_here(tmp_path: Path) -> None:
    bomb = zstandard.ZstdCompressor().compress(b" " * (9 << 20))

    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], max_body_mb=2) as stack:
            assert (await stack.post("/v1/responses", b"\x00\x01nonsense", content_encoding="zstd"))[0] == 400
            assert (await stack.post("/v1/responses", b"{not json"))[0] == 400
            assert (await stack.post("/v1/responses", bomb, content_encoding="zstd"))[0] == 413
            status, answer = await stack.post("/v1/responses", io.BytesIO(b"x" * ((2 << 20) + 1)))
            assert status == 413
            assert b"max_body_mb" in answer
            assert stack.fakes.made() == []

    run(test)


def test_a_spooled_body_and_a_chunked_one_reach_the_provider_whole(tmp_path: Path) -> None:
    body = json.dumps(messages(text="word " * 2_000_000)).encode()

    async def pieces() -> Any:
        for start in range(0, len(body), 700_000):
            yield body[start : start + 700_000]

    async def test() -> None:
        two = [account("claude:one", priority=1), account("claude:two", priority=2)]
        async with Stack(tmp_path, two, choosing=Choosing(strategy=Strategy.PRIORITY)) as stack:
            stack.fakes.then("claude:one", faults.server_error(500))
            async with stack.client.post(stack.url + "/v1/messages", data=pieces()) as answer:
                await answer.read()
            first, second = stack.fakes.made()
            assert first.body == second.body == body

    run(test)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "path", "body", "provider"),
    [
        (faults.codex_usage_limit(), "/v1/responses", responses(), "codex"),
        (faults.retry_after(30), "/v1/responses", responses(), "codex"),
        (faults.server_error(500), "/v1/responses", responses(), "codex"),
        (faults.server_error(503), "/v1/responses", responses(), "codex"),
        (faults.challenge(), "/v1/responses", responses(), "codex"),
        (faults.in_stream(faults.responses_failed(), at=2), "/v1/responses", responses(), "codex"),
        (plays.closes(), "/v1/responses", responses(), "codex"),
        (plays.cut(at=1), "/v1/responses", responses(), "codex"),
        (plays.clean_end(at=2), "/v1/responses", responses(), "codex"),
        (faults.claude_overloaded(), "/v1/messages", messages(), "claude"),
        (faults.claude_limit(time.time() + 3600), "/v1/messages", messages(), "claude"),
        (faults.claude_suspended(), "/v1/messages", messages(), "claude"),
        (faults.payment(), "/v1/messages", messages(), "claude"),
        (faults.in_stream(faults.messages_error(), at=1), "/v1/messages", messages(), "claude"),
        (faults.qwen_quota(), "/v1/chat/completions", chat(stream=True), "qwen"),
        (
            faults.gemini_exhausted(),
            "/v1internal:generateContent",
            ASSIST,
            "gemini",
        ),
        (faults.gemini_tos(), "/v1internal:generateContent", ASSIST, "gemini"),
    ],
)
def test_a_fault_of_the_first_account_is_not_visible(
    tmp_path: Path, first: plays.Play, path: str, body: dict[str, Any], provider: str
) -> None:
    async def test() -> None:
        names = [f"{provider}:one", f"{provider}:two"]
        accounts = [account(names[0], priority=1), account(names[1], priority=2)]
        async with Stack(tmp_path, accounts, choosing=Choosing(strategy=Strategy.PRIORITY)) as stack:
            stack.fakes.then(names[0], first)
            status, answer = await stack.post(path, body)
            assert status == 200, answer
            assert [call.account for call in stack.fakes.made()] == names
            (record,) = stack.records()
            assert record.outcome == Outcome.OK
            assert [attempt.account for attempt in record.attempts] == names
            assert record.attempts[0].fault

    run(test)


def test_a_request_fault_comes_back_untouched_and_blames_nobody(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("claude:one"), account("claude:two")]) as stack:
            for name in ("claude:one", "claude:two"):
                stack.fakes.always(name, faults.claude_invalid("max_tokens: Field required"))
            status, answer = await stack.post("/v1/messages", messages())
            assert status == 400
            assert json.loads(answer)["error"]["message"] == "max_tokens: Field required"
            assert len(stack.fakes.made()) == 1
            assert {row.state for row in stack.accounts.describe_all()} == {"ready"}
            (record,) = stack.records()
            assert record.outcome == Outcome.REQUEST_FAULT

    run(test)


def test_a_401_is_refreshed_once_and_served_by_the_same_account(tmp_path: Path) -> None:
    async def test() -> None:
        one = account("codex:one")
        async with Stack(tmp_path, [one]) as stack:
            old = one.access
            one.revoke()
            answers = await asyncio.gather(
                *(stack.post("/v1/responses", responses(session=f"s{n}")) for n in range(10))
            )
            assert [status for status, _ in answers] == [200] * 10
            assert one.generation == 1
            on_disk = json.loads((tmp_path / "pool" / one.file_name).read_text())
            assert on_disk["tokens"]["access_token"] == one.access != old

    run(test)


def test_a_dead_refresh_token_moves_on_and_says_so(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = account("codex:one", used_5h=1), account("codex:two", used_5h=80)
        async with Stack(tmp_path, [one, two]) as stack:
            for dead in (one,):
                dead.revoke()
                dead.refresh = "spent by somebody else"
            statuses = [(await stack.post("/v1/responses", responses(session=f"s{n}")))[0] for n in range(4)]
            assert statuses == [200] * 4
            assert stack.accounts.describe("codex:one").state == "needs_login"
            assert stack.accounts.describe("codex:two").state == "ready"

    run(test)


def test_a_conversation_stays_with_its_account(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account(f"claude:{n}") for n in range(6)]) as stack:
            for _ in range(3):
                for session in ("a", "b", "c"):
                    await stack.post("/v1/messages", messages(session=session))
            served: dict[str, set[str]] = {}
            for call in stack.fakes.made():
                session = json.loads(call.json["metadata"]["user_id"])["session_id"]
                served.setdefault(session, set()).add(str(call.account))
            assert {len(accounts) for accounts in served.values()} == {1}
            assert len({next(iter(accounts)) for accounts in served.values()}) == 3

    run(test)


def test_a_client_that_leaves_ends_the_upstream_call_and_nobody_is_blamed(tmp_path: Path) -> None:
    async def test() -> None:
        gate = Gate()
        async with Stack(tmp_path, [account("claude:one"), account("claude:two")]) as stack:
            for name in ("claude:one", "claude:two"):
                stack.fakes.then(name, plays.stall(gate, at=4).but(usage=COUNTED))
            async with stack.client.post(stack.url + "/v1/messages", data=json.dumps(messages())) as answer:
                await answer.content.readany()
                await gate.reached()
            await stack.fakes.settled()
            await stack.idle()
            (call,) = stack.fakes.made()
            assert call.gone
            (record,) = stack.records()
            assert (record.outcome, record.partial) == (Outcome.CLIENT_GONE, True)
            assert {row.state for row in stack.accounts.describe_all()} == {"ready"}
            assert sum(row.in_flight for row in stack.accounts.describe_all()) == 0

    run(test)


def test_a_stream_counts_as_in_flight_to_its_last_byte(tmp_path: Path) -> None:
    async def test() -> None:
        gate = Gate()
        async with Stack(tmp_path, [account("claude:one")]) as stack:
            stack.fakes.then("claude:one", plays.stall(gate, at=5))
            call = asyncio.create_task(stack.post("/v1/messages", messages()))
            await gate.reached()
            assert stack.accounts.describe("claude:one").in_flight == 1
            gate.open()
            await call
            assert stack.accounts.describe("claude:one").in_flight == 0

    run(test)


@pytest.mark.parametrize(
    ("name", "path", "body", "event", "ends"),
    [
        # Codex drops an error event that an abort follows, and takes it for the end without one.
        ("codex:one", "/v1/responses", responses(), b"response.failed", True),
        ("claude:one", "/v1/messages", messages(), b"event: error", False),
    ],
)
def test_a_cut_after_the_first_byte_is_told_and_never_passes_for_a_good_end(
    tmp_path: Path, name: str, path: str, body: dict[str, Any], event: bytes, ends: bool
) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account(name)]) as stack:
            stack.fakes.then(name, plays.cut(at=6))
            got, ended = b"", True
            try:
                async with stack.client.post(stack.url + path, data=json.dumps(body)) as answer:
                    async for piece in answer.content.iter_any():
                        got += piece
            except aiohttp.ClientPayloadError:
                ended = False
            assert ended is ends
            assert event in got
            for whole in [part for part in got.split(b"\n\n") if part.strip()]:
                msgspec.json.decode(whole.partition(b"data: ")[2])  # no event was left half
            assert len(stack.fakes.made()) == 1
            (record,) = stack.records()
            assert (record.outcome, record.partial) == (Outcome.CUT, True)

    run(test)


def test_an_answer_sent_byte_by_byte_is_the_same_answer(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("claude:one")]) as stack:
            stack.fakes.then("claude:one", plays.byte_by_byte().but(usage=COUNTED))
            _, slow = await stack.post("/v1/messages", messages())
            stack.fakes.then("claude:one", plays.ok(COUNTED))
            _, quick = await stack.post("/v1/messages", messages())
            assert len(slow) == len(quick)
            assert [counted(record.usage) for record in stack.records()] == [counted(COUNTED)] * 2

    run(test)


def test_no_account_and_no_room_are_told_apart(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("claude:one"), account("claude:two")]) as stack:
            status, answer = await stack.post("/v1/responses", responses())
            assert status == 503
            assert b"codex" in answer
            for name in ("claude:one", "claude:two"):
                stack.fakes.always(name, faults.claude_limit(time.time() + 3600))
            async with stack.client.post(stack.url + "/v1/messages", data=json.dumps(messages())) as told:
                assert told.status == 429
                assert int(told.headers["Retry-After"]) > 60
                assert told.headers["x-should-retry"] == "false"
                assert json.loads(await told.read())["error"]["type"] == "rate_limit_error"
            assert len(stack.fakes.made()) == 2
            await stack.post("/v1/messages", messages())
            assert len(stack.fakes.made()) == 2

    run(test)


def test_code_assist_carries_the_accounts_own_project(tmp_path: Path) -> None:
    async def test() -> None:
        one = account("gemini:one", project_id="project-of-one")
        async with Stack(tmp_path, [one]) as stack:
            body = b'{"model":"gemini-2.5-pro", "project":"pool", "request":{"contents":[]}}'
            status, _ = await stack.post("/v1internal:generateContent", body)
            assert status == 200
            (call,) = stack.fakes.made()
            assert call.body == body.replace(b'"pool"', b'"project-of-one"')

    run(test)


def test_foreign_credentials_are_no_way_in(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("claude:one")], friend_code="open sesame") as stack:
            key = await stack.key()
            for foreign in ("sk-ant-oat01-x", "sk-live-1", "ya29.a", "", key[:-2] + "xx"):
                status, answer = await stack.post("/v1/messages", messages(), token=foreign)
                assert status == 401, foreign
                assert json.loads(answer)["type"] == "error"
            assert stack.fakes.made() == []
            ways: list[tuple[str, dict[str, str]]] = [
                ("/v1/messages", {"Authorization": f"Bearer {key}"}),
                ("/v1/messages", {"x_api_key": key}),
                ("/v1/messages", {"x_goog_api_key": key}),
                (f"/v1/messages?key={key}", {}),
            ]
            for path, headers in ways:
                assert (await stack.post(path, messages(), **headers))[0] == 200
            for call in stack.fakes.made():
                assert key not in repr(call.headers) + call.raw_path

    run(test)


def test_a_revoked_key_ends_its_open_stream(tmp_path: Path) -> None:
    async def test() -> None:
        gate = Gate()
        async with Stack(tmp_path, [account("claude:one")], friend_code="open sesame") as stack:
            user = await stack.users.people.create_user("ada", actor=ADMIN)
            stack.fakes.then("claude:one", plays.stall(gate, at=5))
            headers = {"Authorization": f"Bearer {user['key']}"}
            async with stack.client.post(
                stack.url + "/v1/messages", data=json.dumps(messages()), headers=headers
            ) as told:
                await told.content.readany()
                await gate.reached()
                await stack.users.people.patch_user(user["id"], {"disabled": True}, actor=ADMIN)
                rest = b""
                with pytest.raises(Exception, match=r"(?i)payload|transfer|closed"):
                    async with asyncio.timeout(1.0):
                        while piece := await told.content.readany():
                            rest += piece
                assert b"event: error" in rest
            (record,) = stack.records()
            assert record.outcome == Outcome.REVOKED
            assert (await stack.post("/v1/messages", messages(), token=user["key"]))[0] == 403

    run(test)


def test_local_mode_turns_strangers_away(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("claude:one")]) as stack:
            for headers in (
                {"Host": "evil.example"},
                {"Origin": "https://evil.example"},
                {"X_Forwarded_For": "10.0.0.1"},
            ):
                status, _ = await stack.post("/v1/messages", messages(), **headers)
                assert status == 403, headers
            assert stack.fakes.made() == []

    run(test)


def test_draining_takes_what_was_on_its_way_until_it_is_quiet(tmp_path: Path) -> None:
    async def test() -> None:
        quiet, polls = False, asyncio.Queue[None]()
        async with Stack(tmp_path, [account("claude:one")]) as stack:

            async def poll(_: float) -> None:
                await polls.get()

            drain = asyncio.create_task(stack.gateway.drain(10.0, quiet=lambda: quiet, poll=poll))
            await asyncio.sleep(0)
            assert (await stack.post("/v1/messages", messages()))[0] == 200
            quiet = True
            polls.put_nowait(None)
            await drain
            assert (await stack.post("/v1/messages", messages()))[0] == 503

    run(test)


def test_draining_lets_streams_finish_and_takes_no_new_work(tmp_path: Path) -> None:
    async def test() -> None:
        gate = Gate()
        async with Stack(tmp_path, [account("claude:one")]) as stack:
            stack.fakes.then("claude:one", plays.stall(gate, at=5))
            running = asyncio.create_task(stack.post("/v1/messages", messages()))
            await gate.reached()
            drain = asyncio.create_task(stack.gateway.drain(10.0))
            await asyncio.sleep(0)
            assert (await stack.post("/v1/messages", messages()))[0] == 503
            gate.open()
            status, answer = await running
            assert status == 200
            assert b"message_stop" in answer
            await drain

    run(test)
