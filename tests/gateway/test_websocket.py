"""The Responses WebSocket against fake providers: turns, failover, continuity, the bridge, bad input, endings."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pool_server.core.enums import Outcome, Transport
from tests.fakes import Gate, Surface, account, faults, key_account, plays
from tests.gateway.sockets import BY_PRIORITY, COUNTED, create, final_id, socket, two
from tests.gateway.stack import ADMIN, Stack, responses, run


def test_turns_of_a_socket_share_one_account_and_are_each_recorded(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two()) as stack:
            for name in ("codex:one", "codex:two"):
                stack.fakes.always(name, plays.ok(COUNTED))
            async with socket(stack) as client:
                first = await client.turn(create())
                second = await client.turn(create(previous_response_id=final_id(first)))
                assert final_id(second)
            (call,) = stack.fakes.made(surface=Surface.SOCKET)
            assert [frame.get("previous_response_id") for frame in call.frames] == [None, final_id(first)]
            records = stack.records()
            assert [(r.usage.input, r.usage.cache_read, r.usage.output) for r in records] == [(7, 30, 5)] * 2
            assert {(r.account, r.transport, r.outcome) for r in records} == {
                (call.account, Transport.WEBSOCKET, Outcome.OK)
            }

    run(test)


def test_the_handshake_passes_turn_state_and_the_accounts_credential(tmp_path: Path) -> None:
    async def test() -> None:
        one = account("codex:one")
        async with Stack(tmp_path, [one]) as stack:
            url = stack.url.replace("http", "ws") + "/v1/responses"
            headers = {
                "Authorization": "Bearer anything",
                "chatgpt-account-id": "of-the-friend",
                "originator": "codex",
            }
            async with stack.client.ws_connect(url, headers=headers) as connection:
                assert connection._response.headers.get("X-Codex-Turn-State")
            (call,) = stack.fakes.made(surface=Surface.SOCKET)
            assert call.header("authorization") == f"Bearer {one.access}"
            assert call.header("chatgpt-account-id") == one.account_id
            assert call.header("originator") == "codex"

    run(test)


def test_a_401_at_the_handshake_is_refreshed_and_redialled(tmp_path: Path) -> None:
    async def test() -> None:
        one = account("codex:one")
        async with Stack(tmp_path, [one]) as stack:
            one.revoke()
            async with socket(stack) as client:
                assert final_id(await client.turn(create()))
            assert one.generation == 1

    run(test)


@pytest.mark.parametrize("play", [faults.codex_usage_limit(), faults.server_error(503), plays.closes()])
def test_another_account_serves_when_the_first_refuses_the_handshake(tmp_path: Path, play: plays.Play) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two(), **BY_PRIORITY) as stack:
            stack.fakes.always("codex:one", play, on="handshake")
            async with socket(stack) as client:
                assert final_id(await client.turn(create()))
            (record,) = stack.records()
            assert record.account == "codex:two"

    run(test)


@pytest.mark.parametrize(
    "play",
    [faults.codex_usage_limit(), faults.in_stream(faults.responses_failed(), at=2), plays.cut(at=1, inside=False)],
)
def test_a_fresh_turn_moves_to_another_account_unseen(tmp_path: Path, play: plays.Play) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two(), **BY_PRIORITY) as stack:
            stack.fakes.then("codex:one", play)
            async with socket(stack) as client:
                events = await client.turn(create())
                assert final_id(events)
                assert sum(event["type"] == "response.created" for event in events) == 1
            (record,) = stack.records()
            assert [attempt.account for attempt in record.attempts] == ["codex:one", "codex:two"]

    run(test)


def test_a_continued_turn_whose_account_is_gone_is_sent_again_in_full(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two(), **BY_PRIORITY) as stack:
            async with socket(stack) as client:
                first = final_id(await client.turn(create()))
                stack.fakes.always("codex:one", faults.codex_usage_limit())
                events = await client.turn(create(previous_response_id=first))
                assert events[-1]["error"]["code"] == "previous_response_not_found"
                assert await client.closed() == 1012
            lost = stack.records()[-1]
            assert (lost.outcome, len(lost.attempts)) == (Outcome.UPSTREAM, 1), "an account was asked"
            status, _ = await stack.post("/v1/responses", responses(previous_response_id=first))
            lost = stack.records()[-1]
            assert (status, lost.outcome, lost.attempts) == (400, Outcome.REQUEST_FAULT, []), "none was"
            async with socket(stack) as client:
                assert final_id(await client.turn(create()))
            assert stack.records()[-1].account == "codex:two"

    run(test)


def test_a_continuation_on_a_new_socket_must_be_sent_in_full(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two()) as stack, socket(stack) as client:
            events = await client.turn(create(previous_response_id="resp_of_another_socket"))
            assert events[-1]["error"]["code"] in ("previous_response_not_found",)
            assert await client.closed() == 1012
            (lost,) = stack.records()
            assert (lost.outcome, lost.attempts) == (Outcome.REQUEST_FAULT, []), "as over HTTP"

    run(test)


@pytest.mark.parametrize("kind", ["api key", "no upgrade"])
def test_an_account_without_sockets_is_bridged(tmp_path: Path, kind: str) -> None:
    async def test() -> None:
        one = key_account("codex:one") if kind == "api key" else account("codex:one")
        async with Stack(tmp_path, [one]) as stack:
            stack.fakes.always("codex:one", plays.status(426), on="handshake")
            stack.fakes.always("codex:one", plays.ok(COUNTED))
            async with socket(stack) as client:
                warm = final_id(await client.turn(create(generate=False)))
                first = final_id(await client.turn(create(previous_response_id=warm)))
                assert final_id(await client.turn(create(previous_response_id=first)))
            calls = stack.fakes.made(surface=Surface.RESPONSES)
            assert [len(call.json["input"]) for call in calls] == [2, 4]
            assert all("previous_response_id" not in call.json for call in calls)
            assert [record.usage.input for record in stack.records()] == [0, 7, 7]

    run(test)


def test_wrong_frames_are_told_and_harm_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        gate = Gate()
        async with Stack(tmp_path, [account("codex:one")]) as stack:
            async with socket(stack) as client:
                for early in ({"type": "response.append", "input": []}, {"type": "response.processed"}):
                    events = await client.turn(early)
                    assert (events[-1]["type"], events[-1]["status"]) == ("error", 400)
                no_model = create()
                del no_model["model"]
                events = await client.turn(no_model)
                assert "model" in events[-1]["error"]["message"]
                stack.fakes.then("codex:one", plays.stall(gate, at=3))
                await client.connection.send_json(create())
                await gate.reached()
                await client.connection.send_json(create())
                events = await client.rest()
                assert "under way" in events[-1]["error"]["message"]
                gate.open()
                assert final_id(await client.rest())
            assert len(stack.records()) == 2

    run(test)


def test_a_client_that_leaves_in_a_turn_is_recorded_and_lets_go(tmp_path: Path) -> None:
    async def test() -> None:
        gate = Gate()
        async with Stack(tmp_path, [account("codex:one")]) as stack:
            stack.fakes.then("codex:one", plays.stall(gate, at=5))
            async with socket(stack) as client:
                await client.connection.send_json(create())
                await gate.reached()
            while not stack.records():
                await asyncio.sleep(0.01)
            (record,) = stack.records()
            assert (record.outcome, record.partial) == (Outcome.CLIENT_GONE, True)
            assert stack.accounts.describe("codex:one").in_flight == 0

    run(test)


def test_a_revoked_user_is_closed_with_1008_and_a_drain_with_1012(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="open sesame") as stack:
            user = await stack.users.people.create_user("ada", actor=ADMIN)
            other = await stack.key("bob")
            async with (
                socket(stack, Authorization=f"Bearer {user['key']}") as client,
                socket(stack, Authorization=f"Bearer {other}") as idle,
            ):
                await stack.users.people.patch_user(user["id"], {"disabled": True}, actor=ADMIN)
                assert await client.closed() == 1008
                drain = asyncio.create_task(stack.gateway.drain(5.0))
                assert await idle.closed() == 1012
                await drain

    run(test)


def test_no_key_is_no_socket(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="open sesame") as stack:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with socket(stack, Authorization="Bearer sk-foreign"):
                    pass
            assert refused.value.status == 401
            assert stack.fakes.calls == []

    run(test)


def test_a_friend_of_no_access_is_told_at_a_status_codex_does_not_repeat_and_each_no_is_recorded(
    tmp_path: Path,
) -> None:
    """Codex shows a 400 at once, and asks after a 403 thirteen times; other programs get the 403 they know."""

    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="open sesame") as stack:
            made = await stack.users.people.create_user("ada", actor=ADMIN, limits={"models": ["other-*"]})
            spent = await stack.users.people.create_user("ben", actor=ADMIN, limits={"tokens_day": 1})
            key: dict[str, Any] = {"Authorization": f"Bearer {made['key']}"}
            asked = []
            programs: list[dict[str, Any]] = [{}, {"originator": "codex_exec"}]
            for program in programs:
                status, _ = await stack.post("/v1/responses", responses(), **key, **program)
                async with socket(stack, **key, **program) as client:
                    asked.append((status, (await client.turn(create()))[-1]["status"]))
            assert asked == [(403, 403), (400, 400)]
            await stack.post("/v1/responses", responses(), Authorization=f"Bearer {spent['key']}")
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with socket(stack, Authorization=f"Bearer {spent['key']}"):
                    pass
            assert refused.value.status == 429
            told = [(record.status, record.outcome) for record in stack.records()]
            *denied, served, over = told
            assert denied == [(403, Outcome.DENIED)] * 2 + [(400, Outcome.DENIED)] * 2
            assert (served, over) == ((200, Outcome.OK), (429, Outcome.DENIED))

    run(test)


def test_an_upstream_that_hangs_up_between_turns_closes_the_client(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack, socket(stack) as client:
            assert final_id(await client.turn(create()))
            await stack.fakes.close_sockets(1001)
            assert await client.closed() == 1001

    run(test)


@pytest.mark.slow
def test_a_frame_over_the_limit_is_1009(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")]) as stack, socket(stack) as client:
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                await client.connection.send_str("x" * (65 << 20))
            told = await client.connection.receive()
            assert (told.type, told.data) == (aiohttp.WSMsgType.CLOSE, 1009)

    run(test)
