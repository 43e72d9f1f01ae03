"""Calls of the realtime API against a fake provider: counted beside their sound, owned, hung up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pool_server.core.enums import Operation, Outcome, Transport
from tests.gateway.live_client import pool, settled, talk, until
from tests.gateway.stack import ADMIN, Stack, run


def offer(session: dict[str, Any] | None = None) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("sdp", "v=0\r\noffer", content_type="application/sdp")
    if session is not None:
        form.add_field("session", json.dumps(session), content_type="application/json")
    form._is_multipart = True
    return form


SESSION = {"type": "realtime", "model": "gpt-realtime"}


async def begin_call(stack: Stack, key: str, form: str = "form", session: dict[str, Any] = SESSION) -> tuple[int, str]:
    headers, path = {"Authorization": f"Bearer {key}"}, "/v1/realtime/calls"
    data: Any
    if form == "form":
        data = offer(session)
    elif form == "json":
        data, headers["Content-Type"] = json.dumps({"sdp": "v=0", "session": session}).encode(), "application/json"
    else:
        data, headers["Content-Type"] = b"v=0\r\noffer", "application/sdp"
        path += f"?model={session['model']}"
    async with stack.client.post(stack.url + path, data=data, headers=headers) as answer:
        body = await answer.text()
        return answer.status, answer.headers.get("Location", "") or body


@pytest.mark.slow
@pytest.mark.parametrize("form", ["form", "json", "bare"])
def test_a_call_is_counted_beside_its_sound(tmp_path: Path, form: str) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, live):
            key = await stack.key("anna")
            assert await begin_call(stack, key, form) == (201, "/v1/realtime/calls/rtc_1")
            (beside,) = live.beside["rtc_1"]
            await live.respond(beside, "resp_1")
            await until(lambda: len(stack.records()) == 2)
            call, turn = stack.records()
            assert (call.operation, call.status, call.usage.known) == (Operation.REALTIME, 201, False)
            assert (turn.model, turn.usage.audio_out, turn.outcome) == ("gpt-realtime", 91, Outcome.OK)
            live.hung_up.append("rtc_1")
            await beside.close()
            await settled(stack)

    run(test)


def test_a_call_that_cannot_be_counted_is_hung_up(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, live):
            live.no_sideband = True
            status, _ = await begin_call(stack, await stack.key("anna"))
            assert status >= 400 and live.hung_up == ["rtc_1"]

    run(test)


def test_a_used_up_limit_hangs_up_the_call(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, live):
            made = await stack.users.people.create_user("anna", limits={"tokens_day": 2_300}, actor=ADMIN)
            assert (await begin_call(stack, str(made["key"])))[0] == 201
            live.usage = {"input_tokens": 2_000, "output_tokens": 500, "total_tokens": 2_500}
            (beside,) = live.beside["rtc_1"]
            await live.respond(beside, "resp_1")
            await live.respond(beside, "resp_2")
            await until(lambda: live.hung_up == ["rtc_1"])
            await settled(stack)
            assert [record.outcome for record in stack.records()][1:] == [Outcome.OK, Outcome.DENIED]

    run(test)


def test_a_call_belongs_to_who_began_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, live):
            anna, bert = await stack.key("anna"), await stack.key("bert")
            await begin_call(stack, anna)
            for verb in ("hangup", "refer", "accept", "reject"):
                status, body = await stack.post(f"/v1/realtime/calls/rtc_1/{verb}", {}, token=bert)
                assert status == 404 and b"rtc_1" in body
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with talk(stack, bert, "/v1/realtime?call_id=rtc_1"):
                    pass
            assert refused.value.status == 404
            async with talk(stack, anna, "/v1/realtime?call_id=rtc_1") as client:
                assert (await client.next())["type"] == "session.created"
                await client.turn()
            assert (await stack.post("/v1/realtime/calls/rtc_1/hangup", b"", token=anna))[0] == 200
            assert live.hung_up == ["rtc_1"]
            await settled(stack)
            # What the joined socket was told is counted on the socket beside the call, not twice.
            assert sum(record.transport is Transport.WEBSOCKET for record in stack.records()) == 0

    run(test)


def test_limits_by_model_hold_for_each_form_of_a_call(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, live):
            made = await stack.users.people.create_user("anna", limits={"models": ["gpt-realtime-mini"]}, actor=ADMIN)
            key = str(made["key"])
            for form in ("form", "json", "bare"):
                assert (await begin_call(stack, key, form))[0] == 403
            hearing = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}
            allowed = {"type": "realtime", "model": "gpt-realtime-mini"}
            assert (await begin_call(stack, key, "json", allowed | hearing))[0] == 403
            assert not live.asked
            assert (await begin_call(stack, key, "form", allowed))[0] == 201

    run(test)


def test_the_end_of_a_key_hangs_up_its_calls(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, live):
            key = await stack.key("anna")
            await begin_call(stack, key)
            await stack.users.people.patch_user(stack.user(key), {"disabled": True}, actor=ADMIN)
            await until(lambda: live.hung_up == ["rtc_1"])
            await settled(stack)

    run(test)


def test_a_socket_beside_a_call_that_breaks_off_is_opened_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, live):
            await begin_call(stack, await stack.key("anna"))
            (first,) = live.beside["rtc_1"]
            await first.close(code=1011)
            await until(lambda: len(live.beside["rtc_1"]) == 2)
            await live.respond(live.beside["rtc_1"][1], "resp_1")
            await until(lambda: len(stack.records()) == 2)

    run(test)
