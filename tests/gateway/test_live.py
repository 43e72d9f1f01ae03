"""Live conversations through the pool against a fake provider: turns are counted, limits end them, ids are owned."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pool_server.core.enums import Operation, Outcome, Transport
from pool_server.core.settings import Alerts, Models, TranscriptSettings
from pool_server.users import SERVER
from tests.fakes import key_account
from tests.fakes.live import HEARD
from tests.gateway.live_client import GOOGLE_URL, SAY, SETUP, URL, pool, settled, talk
from tests.gateway.stack import ADMIN, run
from tests.gateway.test_transcripts import kept, person
from tests.http1.test_socks import Proxy
from tests.http1.wire import raw_server


def test_each_turn_is_counted_and_messages_pass_as_they_come(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, live):
            key = await stack.key("anna")
            async with talk(stack, key) as client:
                assert (await client.next())["type"] == "session.created"
                first, second = await client.turn(), await client.turn()
                assert [event["type"] for event in first] == [
                    "response.created",
                    "response.output_audio.delta",
                    "response.done",
                ]
                assert second[-1]["response"]["id"] == "resp_2"
            await settled(stack)
            (handshake,) = live.opened
            assert handshake[1] == {"model": "gpt-realtime"} and key not in json.dumps(handshake)
            assert handshake[2]["Authorization"].startswith("Bearer sk-") or handshake[2]["Authorization"]
            for record in stack.records():
                assert (record.model, record.operation, record.outcome, record.status) == (
                    "gpt-realtime", Operation.REALTIME, Outcome.OK, 200,
                )  # fmt: skip
                assert (record.transport, record.account) == (Transport.WEBSOCKET, "openai:one")
                usage = record.usage
                assert (usage.input, usage.cache_read, usage.output) == (68, 64, 121)
                assert (usage.audio_in, usage.audio_out) == (13, 91) and record.cost
            assert len(stack.records()) == 2

    run(test)


@pytest.mark.parametrize("path", [URL, GOOGLE_URL])
def test_an_account_behind_a_socks_proxy_has_live_conversations_too(tmp_path: Path, path: str) -> None:
    async def test() -> None:
        proxy = Proxy(0)
        ident = "openai:one" if path == URL else "gemini:one"
        async with raw_server(proxy) as port:
            behind = key_account(ident, proxy_url=f"socks5h://127.0.0.1:{port}")
            async with pool(tmp_path, behind) as (stack, live):
                proxy.to = live.port
                async with talk(stack, await stack.key("anna"), path) as client:
                    if path == URL:
                        await client.next()
                        assert (await client.turn())[-1]["type"] == "response.done"
                    else:
                        await client.say(SETUP)
                        await client.say(SAY)
                        await client.until(lambda message: "usageMetadata" in message)
                await settled(stack)
                (record,) = stack.records()
                assert (record.account, record.outcome) == (ident, Outcome.OK)
                assert (3, b"127.0.0.1", live.port) in proxy.asked or (
                    1,
                    bytes((127, 0, 0, 1)),
                    live.port,
                ) in proxy.asked

    run(test)


def test_what_a_model_hears_is_counted_beside_the_turns(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, live):
            key = await stack.key("anna")
            async with talk(stack, key) as client:
                await client.next()
                hearing = {"audio": {"input": {"transcription": {"model": "gpt-4o-mini-transcribe"}}}}
                await client.say({"type": "session.update", "session": hearing})
                assert (await client.next())["type"] == "session.updated"
                await live.hear(live.sockets[0])
                assert (await client.next())["usage"] == HEARD
            await settled(stack)
            (record,) = stack.records()
            assert (record.model, record.usage.input, record.usage.output) == ("gpt-4o-mini-transcribe", 26, 22)

    run(test)


def test_a_turn_that_the_provider_begins_by_itself_counts_and_a_cut_one_is_told(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, live):
            key = await stack.key("anna")
            async with talk(stack, key) as client:
                await client.next()
                await live.respond(live.sockets[0], "resp_vad", ends=False)
                await client.until(lambda event: event["type"] == "response.output_audio.delta")
                await live.sockets[0].close(code=1011, message=b"server had an error")
                assert await client.closed() == (1011, "server had an error")
            await settled(stack)
            (record,) = stack.records()
            assert (record.outcome, record.partial) == (Outcome.CUT, True)

    run(test)


def test_a_used_up_limit_ends_the_conversation_in_the_clients_shape(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, _live):
            made = await stack.users.people.create_user("anna", limits={"tokens_day": 250}, actor=ADMIN)
            key = str(made["key"])
            async with talk(stack, key) as client:
                await client.next()
                assert (await client.turn())[-1]["type"] == "response.done"
                error = (await client.turn())[-1]
                assert error["type"] == "error" and error["error"]["code"] == "tokens_day", error
                assert error["event_id"].startswith("event_")
                assert (await client.closed())[0] == 1008
            await settled(stack)
            assert [record.outcome for record in stack.records()] == [Outcome.OK, Outcome.DENIED]
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with talk(stack, key):
                    pass
            assert refused.value.status == 429

    run(test)


def test_models_a_friend_may_not_use_are_refused_wherever_they_are_named(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, live):
            made = await stack.users.people.create_user("anna", limits={"models": ["gpt-realtime-mini"]}, actor=ADMIN)
            key = str(made["key"])
            for path in (URL, "/v1/realtime", "/v1/realtime?intent=transcription"):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    async with talk(stack, key, path):
                        pass
                assert refused.value.status == 403
            assert not live.opened
            async with talk(stack, key, "/v1/realtime?model=gpt-realtime-mini") as client:
                await client.next()
                for session in (
                    {"model": "gpt-realtime"},
                    {"audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}},
                    {"input_audio_transcription": {"model": "whisper-1"}},
                ):
                    await client.say({"type": "session.update", "session": session})
                    assert (await client.next())["error"]["code"] == "model"
                assert (await client.turn())[-1]["type"] == "response.done"
            assert [event["type"] for event in live.heard] == ["response.create"]

    run(test)


@pytest.mark.parametrize(
    "message",
    [
        '{"type":"session.update","type":"input_audio_buffer.append"}',
        '{"type":"session.update","session":{"model":"a","model":"b"}}',
        '{"type":"session.update","session":{"audio":{"input":{"transcription":{"model":"a"},"transcription":{}}}}}',
        "[1]",
        "not json",
        '{"type":7}',
        "[" * 100_000,
    ],
)
def test_a_message_two_parsers_may_read_differently_does_not_go_up(tmp_path: Path, message: str) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, live):
            async with talk(stack, await stack.key("anna")) as client:
                await client.next()
                await client.socket.send_str(message)
                assert (await client.next())["error"]["type"] == "invalid_request_error"
                assert (await client.closed())[0] == 1007
            assert not live.heard

    run(test)


def test_objects_of_others_are_not_named_in_a_message(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, live):
            async with talk(stack, await stack.key("anna")) as client:
                await client.next()
                await client.say({"type": "session.update", "session": {"prompt": {"id": "pmpt_1"}}})
                assert "pmpt_1" in (await client.next())["error"]["message"]
                item = {"type": "message", "role": "user", "content": [{"type": "input_image", "file_id": "file-x"}]}
                await client.say({"type": "conversation.item.create", "item": item})
                assert "file-x" in (await client.next())["error"]["message"]
                assert (await client.turn())[-1]["type"] == "response.done"
            assert [event["type"] for event in live.heard] == ["response.create"]

    run(test)


@pytest.mark.parametrize("how", ["handshake", "greeting"])
def test_another_account_serves_when_the_first_does_not_take_the_conversation(tmp_path: Path, how: str) -> None:
    async def test() -> None:
        one, two = key_account("openai:one"), key_account("openai:two")
        for priority, account in enumerate((one, two)):
            account.extra["priority"] = priority
        async with pool(tmp_path, one, two) as (stack, live):
            if how == "handshake":
                live.refuses[one.access] = 429
            else:
                error = {"type": "server_error", "code": None, "message": "The server had an error"}
                live.greets[one.access] = {"type": "error", "error": error}
            async with talk(stack, await stack.key("anna")) as client:
                assert (await client.next())["type"] == "session.created"
                await client.turn()
            await settled(stack)
            assert [record.account for record in stack.records()] == ["openai:two"]

    run(test)


def test_a_provider_that_is_not_there_is_told_at_the_handshake(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, live):
            key = await stack.key("anna")
            live.refuses = {account.access: 503 for account in stack.fakes.accounts.values()}
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with talk(stack, key):
                    pass
            assert refused.value.status == 503
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with talk(stack, key, "/v1/realtime?model=claude-x"):
                    pass
            assert refused.value.status in (404, 503)

    run(test)


def test_a_browser_shows_its_key_as_a_subprotocol(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, live):
            key = await stack.key("anna")
            offered = ("realtime", f"openai-insecure-api-key.{key}", "openai-beta.realtime-v1")
            async with talk(stack, "", protocols=offered) as client:
                assert client.socket.protocol == "realtime"
                assert (await client.turn())[-1]["type"] == "response.done"
            assert key not in json.dumps(live.opened)

    run(test)


def test_a_revoked_key_ends_the_conversation(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, _):
            key = await stack.key("anna")
            async with talk(stack, key) as client:
                await client.next()
                await stack.users.people.patch_user(stack.user(key), {"disabled": True}, actor=ADMIN)
                assert (await client.closed())[0] == 1008
            await settled(stack)

    run(test)


def test_an_alias_or_chain_serves_no_live_conversation(tmp_path: Path) -> None:
    async def test() -> None:
        models = Models(aliases={"gpt-realtime": "gpt-realtime-mini"})
        async with pool(tmp_path, models=models) as (stack, live):
            async with talk(stack, await stack.key("anna")) as client:
                await client.turn()
            await settled(stack)
            assert live.opened[0][1] == {"model": "gpt-realtime"}
            assert [record.model for record in stack.records()] == ["gpt-realtime"]

    run(test)


# -- Gemini Live


def test_a_gemini_conversation_is_counted_by_its_turns(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path, key_account("gemini:one")) as (stack, live):
            key = await stack.key("anna")
            async with talk(stack, "", f"{GOOGLE_URL}?key={key}") as client:
                await client.say(SETUP)
                assert await client.next() == {"setupComplete": {}}
                for _ in range(2):
                    await client.say(SAY)
                    await client.until(lambda event: "usageMetadata" in event)
            await settled(stack)
            assert key not in json.dumps(live.opened)
            records = stack.records()
            assert [(r.model, r.usage.input, r.usage.output, r.usage.audio_in) for r in records] == [
                ("gemini-live-2.5-flash", 40, 25, 30)
            ] * 2

    run(test)


def test_a_gemini_conversation_is_resumed_at_its_account_by_its_owner_alone(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = key_account("gemini:one", extra={"priority": 1}), key_account("gemini:two", extra={"priority": 2})
        async with pool(tmp_path, one, two) as (stack, live):
            anna, bert = await stack.key("anna"), await stack.key("bert")
            live.closes[one.access] = (1011, "You exceeded your current quota")
            async with talk(stack, anna, GOOGLE_URL) as client:
                await client.say(SETUP)
                await client.next()
                handle = (await client.next())["sessionResumptionUpdate"]["newHandle"]
            live.closes.clear()
            resumed = {"setup": SETUP["setup"] | {"sessionResumption": {"handle": handle}}}
            async with talk(stack, anna, GOOGLE_URL) as client:
                await client.say(resumed)
                await client.next()
                assert live.opened[-1][2]["x-goog-api-key"] == two.access
            async with talk(stack, bert, GOOGLE_URL) as client:
                await client.say(resumed)
                code, reason = await client.closed()
                assert code == 1008 and "conversation" in reason

    run(test)


@pytest.mark.parametrize(
    "message",
    [SAY, {"setup": {}}, {"setup": {"model": ""}}, {"setup": {"model": "models/x"}, "clientContent": {}}, [1], "x"],
)
def test_a_gemini_conversation_begins_with_its_setup(tmp_path: Path, message: Any) -> None:
    async def test() -> None:
        async with pool(tmp_path, key_account("gemini:one")) as (stack, live):
            async with talk(stack, await stack.key("anna"), GOOGLE_URL) as client:
                await client.say(message)
                assert (await client.closed())[0] == 1007
            assert not live.opened

    run(test)


def test_a_gemini_client_may_not_name_what_is_not_its_own(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path, key_account("gemini:one")) as (stack, live):
            key = await stack.key("anna")
            async with talk(stack, key, GOOGLE_URL) as client:
                await client.say({"setup": SETUP["setup"] | {"cachedContent": "cachedContents/foreign"}})
                assert (await client.closed())[0] == 1008
            assert not live.opened
            limited = await stack.users.people.create_user("bert", limits={"models": ["gpt-*"]}, actor=ADMIN)
            async with talk(stack, str(limited["key"]), GOOGLE_URL) as client:
                await client.say(SETUP)
                assert (await client.closed())[0] == 1008
            async with talk(stack, key, GOOGLE_URL) as client:
                await client.say(SETUP)
                await client.next()
                uri = "https://generativelanguage.googleapis.com/v1beta/files/foreign"
                part = {"fileData": {"fileUri": uri, "mimeType": "image/png"}}
                await client.say({"clientContent": {"turns": [{"role": "user", "parts": [part]}]}})
                assert (await client.closed())[0] == 1008
            assert [next(iter(event)) for event in live.heard] == ["setup"]

    run(test)


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.mark.parametrize(
    ("path", "account", "named"), [(URL, "gemini:one", "openai"), (GOOGLE_URL, "openai:one", "gemini")]
)
def test_one_of_another_vendor_is_refused_in_one_sentence(tmp_path: Path, path: str, account: str, named: str) -> None:
    async def test() -> None:
        async with pool(tmp_path, key_account(account)) as (stack, live):
            headers = {"Authorization": f"Bearer {await stack.key('anna')}"}
            try:
                async with stack.client.ws_connect(stack.url + path, headers=headers) as socket:
                    await socket.send_json(SETUP)
                    message = await socket.receive()
                    said = str(message.extra)
            except aiohttp.WSServerHandshakeError as refused:
                assert refused.status == 503
                async with stack.client.get(stack.url + path, headers=headers | UPGRADE) as answer:
                    said = json.loads(await answer.read())["error"]["message"]
            assert said.startswith(f"Live conversations are never translated, and the pool has no {named} key;")
            assert not live.opened

    run(test)


@pytest.mark.parametrize("path", [URL, GOOGLE_URL])
def test_a_live_conversation_is_one_transcript_where_its_person_keeps_them(tmp_path: Path, path: str) -> None:
    async def test() -> None:
        ident = "openai:one" if path == URL else "gemini:one"
        keeping: dict[str, Any] = {"transcripts": TranscriptSettings(enabled=True), "alerts": Alerts(disk_free_mb=0)}
        async with pool(tmp_path, key_account(ident), **keeping) as (stack, _):
            key, user = await person(stack, "anna")
            heard: list[dict[str, Any]] = []
            async with talk(stack, key, path) as client:
                if path == URL:
                    heard += [await client.next(), *await client.turn(), *await client.turn()]
                    said: list[dict[str, Any]] = [{"type": "response.create"}] * 2
                else:
                    said = [SETUP, SAY]
                    await client.say(SETUP)
                    await client.say(SAY)
                    heard += await client.until(lambda message: "usageMetadata" in message)
            await settled(stack)
            [lines] = await kept(stack, user)
            frames = [line for line in lines if line["type"] == "frame"]
            both = {"up": said, "down": heard}
            for way, messages in both.items():
                there = [json.loads(base64.b64decode(one["data"])) for one in frames if one["direction"] == way]
                assert there[: len(messages)] == messages
            assert lines[0]["websocket"] and lines[-1]["type"] == "end" and not lines[-1]["cut"]
            assert key not in json.dumps(lines)

    run(test)


def test_consent_taken_back_ends_the_transcript_of_a_live_conversation(tmp_path: Path) -> None:
    async def test() -> None:
        keeping: dict[str, Any] = {"transcripts": TranscriptSettings(enabled=True), "alerts": Alerts(disk_free_mb=0)}
        async with pool(tmp_path, **keeping) as (stack, _):
            key, user = await person(stack, "anna")
            async with talk(stack, key) as client:
                await client.next()
                await client.turn()
                await stack.users.consents.change(user, False, actor=SERVER)
                assert (await client.turn())[-1]["type"] == "response.done"
            await settled(stack)
            assert await kept(stack, user) == []

    run(test)
